//! Which layers the node needs, and which of them it has to get, most urgent
//! first. How they are got, and how often that is tried, is the agent's.

use std::collections::BTreeSet;

use wherry_bundle::model::Layer;

use crate::draft::Draft;
use crate::model::{Action, Desired};
use crate::order;

/// The layers of all deployments, in start order, each once.
pub(crate) fn needed(desired: &Desired) -> Vec<Layer> {
    let mut seen = BTreeSet::new();
    let order = order::start_order(&desired.workloads);
    let workloads = order.into_iter().filter_map(|name| desired.workloads.get(name));
    let layers = workloads.flat_map(|workload| workload.layers.iter().copied());
    layers.filter(|layer| seen.insert(layer.digest)).collect()
}

/// Tells the agent what to fetch if that is not what it is fetching.
pub(crate) fn fetch(desired: &Desired, draft: &mut Draft<'_>) {
    let observed = draft.observed;
    let is_missing = |layer: &Layer| !observed.layers.contains(&layer.digest);
    let missing: Vec<Layer> = needed(desired).into_iter().filter(is_missing).collect();
    let under_way: Vec<Layer> = observed.fetching.iter().copied().filter(is_missing).collect();
    if missing != under_way {
        draft.act(Action::Fetch { layers: missing });
    }
}
