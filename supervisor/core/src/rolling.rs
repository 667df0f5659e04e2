//! How many pods of one deployment come and go now.
//!
//! Pure counting: names in, names out. Kubernetes' rules for `RollingUpdate`
//! and `Recreate`, made for one small machine:
//!
//! - Never fewer than replicas − `maxUnavailable` pods available by our doing;
//!   old pods that are not available go first.
//! - Never more than replicas + `maxSurge` pods. Unlike in Kubernetes, a pod
//!   that is being stopped keeps its place until it is killed or gone: memory
//!   is what a gateway has least of. One that even SIGKILL does not end keeps
//!   nothing up.
//! - Pods on the host's network that have ports exclude each other, and so do
//!   all where memory is short ([`crate::surge`]): stop first (surge 0, at
//!   least one unavailable), and the next comes when the one before is gone
//!   altogether. The same with `Recreate`.
//! - While no new pod could be made (layers, dependencies), no old one is
//!   stopped for its sake.
//! - A pod whose hash is the desired one is stopped only to scale down.

use std::cmp::Reverse;

use wherry_bundle::model::Strategy;
use wherry_bundle::{Generation, Name};

use crate::ledger::Stopping;
use crate::model::Workload;
use crate::pods::Pod;
use crate::surge::Surge;

/// What is to happen to the pods of one deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Mere plans, to be forgotten.
    pub drop: Vec<Name>,
    pub stop: Vec<Name>,
    /// So many new pods are to be planned.
    pub create: usize,
}

impl Decision {
    /// Gives up pods in which nothing ever ran.
    fn discard(&mut self, pods: &[&Pod]) {
        for pod in pods {
            let list = if pod.is_mere_plan() { &mut self.drop } else { &mut self.stop };
            list.push(pod.name.clone());
        }
    }
}

/// Decides for `pods`, which are all those of the deployment.
pub(crate) fn decide(
    workload: &Workload,
    generation: Generation,
    pods: &[&Pod],
    can_create: bool,
    surge: Surge,
) -> Decision {
    let mut decision = Decision::default();
    let (pending, made): (Vec<&Pod>, Vec<&Pod>) =
        pods.iter().copied().partition(|pod| pod.is_pending());
    // What was begun from one bundle cannot be completed from another.
    let (mut pending, stale): (Vec<&Pod>, Vec<&Pod>) = pending
        .into_iter()
        .partition(|pod| pod.is_current(workload) && pod.generation == generation);
    decision.discard(&stale);
    let (stopping, staying): (Vec<&Pod>, Vec<&Pod>) =
        made.into_iter().partition(|pod| pod.stopping.is_some());
    let (current, mut old): (Vec<&Pod>, Vec<&Pod>) =
        staying.into_iter().partition(|pod| pod.is_current(workload));
    let current = scale_down(workload, current, &mut decision);

    let bounds = Bounds::of(workload, surge);
    let leaving = stopping.iter().chain(stale.iter().filter(|pod| pod.present));
    let placed = leaving.filter(|pod| bounds.exclusive || keeps_its_place(pod)).count();
    let present = current.len() + old.len() + placed;
    let missing = usize::from(workload.replicas).saturating_sub(current.len());
    let may_come = if bounds.recreate && (!old.is_empty() || placed > 0) {
        0
    } else {
        missing.min(bounds.pods_max.saturating_sub(present))
    };
    pending.sort_by_key(|pod| (!pod.present, pod.name.pod_serial()));
    decision.discard(pending.get(may_come..).unwrap_or_default());
    decision.create = may_come.saturating_sub(pending.len());

    // How many old pods may go. Those that are not available go first: what is
    // left of this number is what the available ones can spare.
    let current_up = current.iter().filter(|pod| pod.available).count();
    let spare = (old.len() + current_up).saturating_sub(bounds.available_min);
    let surplus = (old.len() + current_up).saturating_sub(usize::from(workload.replicas));
    let limit = if can_create { spare } else { spare.min(surplus) };
    old.sort_by_key(|pod| (pod.available, pod.name.pod_serial()));
    let goes = old.iter().take(limit);
    decision.stop.extend(goes.map(|pod| pod.name.clone()));
    decision
}

struct Bounds {
    available_min: usize,
    pods_max: usize,
    /// No new pod beside an old one.
    recreate: bool,
    /// A pod keeps its place until it is gone.
    exclusive: bool,
}

impl Bounds {
    fn of(workload: &Workload, surge: Surge) -> Self {
        let replicas = usize::from(workload.replicas);
        match workload.strategy {
            Strategy::Recreate => {
                Self { available_min: 0, pods_max: replicas, recreate: true, exclusive: true }
            }
            Strategy::RollingUpdate { max_unavailable, max_surge } => {
                let (exclusive, surge) = match surge {
                    Surge::StopFirst => (true, 0),
                    Surge::Pods(count) => (false, count),
                };
                // Something has to give; a valid bundle says what.
                let floor = usize::from(exclusive || max_surge == 0);
                let unavailable = usize::from(max_unavailable).max(floor);
                Self {
                    available_min: replicas.saturating_sub(unavailable),
                    pods_max: replicas.saturating_add(surge),
                    recreate: false,
                    exclusive,
                }
            }
        }
    }
}

/// Takes what is too many out of `current`: first what is not available, then
/// the youngest.
fn scale_down<'a>(
    workload: &Workload,
    mut current: Vec<&'a Pod>,
    decision: &mut Decision,
) -> Vec<&'a Pod> {
    current
        .sort_by_key(|pod| (pod.available, pod.alive, pod.present, Reverse(pod.name.pod_serial())));
    let excess = current.len().saturating_sub(usize::from(workload.replicas));
    let kept = current.split_off(excess);
    decision.stop.extend(current.iter().map(|pod| pod.name.clone()));
    kept
}

pub(crate) fn keeps_its_place(pod: &Pod) -> bool {
    match pod.stopping {
        Some(
            Stopping::Unpublishing { .. }
            | Stopping::Draining { .. }
            | Stopping::PreStopping { .. }
            | Stopping::Terminating { .. },
        ) => true,
        Some(Stopping::Killing | Stopping::Removing) | None => false,
    }
}
