//! Which layers the node needs, and which of them it has to get, most urgent
//! first. How they are got, and how often that is tried, is the agent's.

use wherry_bundle::Name;
use wherry_bundle::model::Layer;

use crate::draft::Draft;
use crate::model::{Action, Desired};

/// The layers of all deployments.
pub(crate) fn needed(desired: &Desired) -> impl Iterator<Item = &Layer> {
    desired.workloads.values().flat_map(|workload| &workload.layers)
}

/// Tells the agent what to fetch, by the start `order` and each layer once, if
/// that is not what it is fetching.
pub(crate) fn fetch(order: &[&Name], desired: &Desired, draft: &mut Draft<'_>) {
    let observed = draft.observed;
    let is_missing = |layer: &Layer| !observed.layers.contains(&layer.digest);
    let workloads = order.iter().filter_map(|name| desired.workloads.get(*name));
    let mut missing: Vec<Layer> = Vec::new();
    for layer in workloads.flat_map(|workload| &workload.layers).filter(|l| is_missing(l)) {
        if missing.iter().all(|other| other.digest != layer.digest) {
            missing.push(*layer);
        }
    }
    let under_way: Vec<Layer> = observed.fetching.iter().copied().filter(is_missing).collect();
    if missing != under_way {
        draft.act(Action::Fetch { layers: missing });
    }
}
