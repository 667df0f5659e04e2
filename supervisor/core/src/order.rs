//! Start order: in which order deployments come, and whether a new pod of one
//! may be made now.
//!
//! - A deployment has *reached* its form once all its replicas of the desired
//!   hash were available together.
//! - Until a deployment has reached its form (first start, or an upgrade of
//!   it), its new pods wait until every dependency has reached its own and has
//!   a pod available. So where both change, the dependency rolls first.
//! - Afterwards a new pod (a replacement, a larger scale) waits only while a
//!   dependency has no available pod of any form: an upgrade that is stuck
//!   below does not keep what worked from being mended.
//! - What runs is never stopped, and a container in a pod never kept from
//!   being started again, because of a dependency. A layer that is missing, as
//!   it was damaged, stops nothing either; but what has to be started waits for
//!   it.

use std::collections::{BTreeMap, BTreeSet};

use wherry_bundle::Name;
use wherry_bundle::message::JobFailure;
use wherry_bundle::model::Layer;

use crate::jobs;
use crate::ledger::Ledger;
use crate::model::{Desired, Observed, Workload};
use crate::pods::Pod;

/// What keeps a deployment's new pods from being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// So many of its layers are not here yet.
    Layers(usize),
    /// Not available, or not available in its new form yet.
    Dependency(Name),
    /// It is a job that has failed for good.
    Failed(JobFailure),
}

/// All deployments, each after those that it depends on. Those in a circle,
/// which no valid bundle has, come last.
pub(crate) fn start_order(workloads: &BTreeMap<Name, Workload>) -> Vec<&Name> {
    let mut order: Vec<&Name> = Vec::with_capacity(workloads.len());
    let mut placed: BTreeSet<&Name> = BTreeSet::new();
    loop {
        let is_placed = |name: &Name| placed.contains(name) || !workloads.contains_key(name);
        let next: Vec<&Name> = workloads
            .iter()
            .filter(|(name, w)| !placed.contains(name) && w.after.iter().all(is_placed))
            .map(|(name, _)| name)
            .collect();
        if next.is_empty() {
            break;
        }
        placed.extend(next.iter().copied());
        order.extend(next);
    }
    order.extend(workloads.keys().filter(|name| !placed.contains(name)));
    order
}

/// Notes which deployments have reached their form.
pub(crate) fn learn_reached(desired: &Desired, pods: &BTreeMap<Name, Pod>, ledger: &mut Ledger) {
    for (name, workload) in &desired.workloads {
        let current = pods.values().filter(|pod| {
            pod.deployment == *name && pod.is_current(workload) && pod.counts_as_available()
        });
        if current.count() >= usize::from(workload.replicas)
            && let Some(entry) = ledger.deployments.get_mut(name)
        {
            entry.reached = Some(workload.hash);
            entry.stop_first = None;
        }
    }
}

/// Whether a pod of the deployment `name` may be made now.
pub(crate) fn gate(
    name: &Name,
    workload: &Workload,
    desired: &Desired,
    observed: &Observed,
    ledger: &Ledger,
    pods: &BTreeMap<Name, Pod>,
) -> Gate {
    let has_reached = |name: &Name, workload: &Workload| {
        ledger.deployments.get(name).and_then(|entry| entry.reached) == Some(workload.hash)
    };
    let may_mend = has_reached(name, workload);
    if let Some(failed) = jobs::known(name, workload, ledger).and_then(|job| job.failed.as_ref()) {
        return Gate::Failed(failed.why);
    }
    for dependency in &workload.after {
        let Some(other) = desired.workloads.get(dependency) else { continue };
        let serves = other.replicas == 0
            || pods.values().any(|pod| pod.deployment == *dependency && pod.counts_as_available());
        if !serves || !(may_mend || has_reached(dependency, other)) {
            return Gate::Dependency(dependency.clone());
        }
    }
    match missing(workload, observed).count() {
        0 => Gate::Open,
        missing => Gate::Layers(missing),
    }
}

/// The layers without which nothing of `workload` can be started.
pub(crate) fn missing<'a>(
    workload: &'a Workload,
    observed: &'a Observed,
) -> impl Iterator<Item = &'a Layer> {
    workload.layers.iter().filter(|layer| !observed.layers.contains(&layer.digest))
}
