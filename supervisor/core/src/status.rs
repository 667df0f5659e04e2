//! What people are told: how far the node is, and how each pod does.
//!
//! Pure reading of the same inputs as the reconciler's, with the ledger of
//! the last plan. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use wherry_bundle::message::{Exit, Phase, PodPhase};
use wherry_bundle::model::Layer;
use wherry_bundle::{Generation, Name};

use crate::ledger::{JobRun, Ledger, PodLedger};
use crate::model::{Desired, Observed, ObservedContainer, ObservedPod, Publication, Workload};
use crate::order::{self, Gate};
use crate::pods::{self, Pod};
use crate::{fetch, jobs, publish};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// `Fetching` counts whole layers; what the agent has of a layer under
    /// way is not known here.
    pub phase: Phase,
    /// Pods that are there and pods that are to be made.
    pub pods: BTreeMap<Name, PodView>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    pub deployment: Name,
    /// The generation whose bundle it was made from.
    pub generation: Generation,
    /// Host number in the pods' subnet.
    pub address: Option<u16>,
    pub phase: PodPhase,
    /// What it waits for, or what went wrong with it last.
    pub last_error: Option<String>,
    /// Those that the kernel has.
    pub containers: BTreeMap<Name, ContainerView>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerView {
    pub restarts: u32,
    pub last_exit: Option<Exit>,
}

/// The state of the node after the plan that made `ledger`.
#[must_use]
pub fn status(desired: &Desired, observed: &Observed, ledger: &Ledger) -> NodeView {
    let pods = pods::all(observed, ledger);
    let desired = &*jobs::outstanding(desired, observed, ledger);
    let wanted = publish::wanted(desired, ledger, &pods);
    let views = pods.iter().filter_map(|(name, pod)| {
        let entry = ledger.pods.get(name)?;
        let seen = observed.pods.get(name);
        let generation = seen.map(|p| p.generation);
        let planned = entry.planned.as_ref().map(|p| p.generation);
        let phase = pod_phase(pod, entry, observed);
        let last_error = if phase == PodPhase::Waiting {
            waits_for(pod, desired, observed, ledger, &pods)
        } else {
            waits_for_repair(pod, desired, observed)
                .or_else(|| unpublished(pod, &wanted, observed, ledger))
                .or_else(|| entry.last_error.clone())
                .or_else(|| seen.and_then(waits_for_another))
        };
        let containers = seen.into_iter().flat_map(|pod| pod.containers.keys());
        let containers = containers.map(|container| {
            let known = entry.containers.get(container);
            let restarts = known.map_or(0, |k| k.restarts);
            let last_exit = known.and_then(|k| k.last_exit);
            (container.clone(), ContainerView { restarts, last_exit })
        });
        let view = PodView {
            deployment: pod.deployment.clone(),
            generation: generation.or(planned)?,
            address: pod.address,
            phase,
            last_error,
            containers: containers.collect(),
        };
        Some((name.clone(), view))
    });
    let views = views.collect();
    NodeView { phase: node_phase(desired, observed, &pods, &wanted), pods: views }
}

/// How far the node is with its generation.
pub(crate) fn node_phase(
    desired: &Desired,
    observed: &Observed,
    pods: &BTreeMap<Name, Pod>,
    wanted: &Publication,
) -> Phase {
    if desired.generation == Generation(0) {
        return Phase::Empty;
    }
    let is_here = |layer: &&Layer| observed.layers.contains(&layer.digest);
    if !fetch::needed(desired).all(|layer| is_here(&layer)) {
        let layers: BTreeSet<&Layer> = fetch::needed(desired).collect();
        let size = |sum: u64, layer: &Layer| sum.saturating_add(layer.size_bytes);
        let bytes_total = layers.iter().copied().fold(0, size);
        let bytes_done = layers.iter().copied().filter(is_here).fold(0, size);
        return Phase::Fetching { bytes_done, bytes_total };
    }
    let (mut done, mut total) = (0_usize, 0_usize);
    for (name, workload) in &desired.workloads {
        let up = pods.values().filter(|pod| {
            pod.deployment == *name && pod.is_current(workload) && pod.counts_as_available()
        });
        let replicas = usize::from(workload.replicas);
        done = done.saturating_add(up.count().min(replicas));
        total = total.saturating_add(replicas);
    }
    let published = observed.publication.as_ref() == Some(wanted);
    if done == total && pods.len() == total && published {
        return Phase::Stabilising;
    }
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Phase::Rolling { pods_done: count(done), pods_total: count(total) }
}

fn pod_phase(pod: &Pod, entry: &PodLedger, observed: &Observed) -> PodPhase {
    if pod.stopping.is_some() {
        return PodPhase::Terminating;
    }
    let seen = observed.pods.get(&pod.name).filter(|_| entry.planned.is_none());
    let Some(seen) = seen else {
        return match (entry.attempts.count, entry.attempts.failed) {
            (0, _) => PodPhase::Waiting,
            (_, true) => PodPhase::BackOff,
            (_, false) => PodPhase::Starting,
        };
    };
    if pod.running {
        return if pod.available { PodPhase::Available } else { PodPhase::Running };
    }
    let waits = |(name, state): (&Name, &ObservedContainer)| {
        let tried = entry.containers.get(name).is_some_and(|known| known.attempts.count > 0);
        tried && pods::wants_start(seen, name, *state)
    };
    let has_failed = entry.job == Some(JobRun::Failed);
    if has_failed || pods::is_over(seen) {
        match (pod.alive, !has_failed && pods::has_succeeded(seen)) {
            (true, _) => PodPhase::Terminating,
            (false, true) => PodPhase::Succeeded,
            (false, false) => PodPhase::Failed,
        }
    } else if !pod.starting && seen.containers.iter().any(waits) {
        PodPhase::BackOff
    } else if pod.available {
        PodPhase::Available
    } else {
        PodPhase::Starting
    }
}

fn waits_for(
    pod: &Pod,
    desired: &Desired,
    observed: &Observed,
    ledger: &Ledger,
    pods: &BTreeMap<Name, Pod>,
) -> Option<String> {
    let workload = desired.workloads.get(&pod.deployment)?;
    match order::gate(&pod.deployment, workload, desired, observed, ledger, pods) {
        Gate::Open => None,
        Gate::Layers(missing) => damage(workload, observed)
            .or_else(|| Some(format!("waits for {missing} of {} layers", workload.layers.len()))),
        Gate::Failed(why) => Some(jobs::failure_text(why)),
        Gate::Dependency(name) => Some(format!("waits for deployment {name}")),
    }
}

/// A pod whose containers cannot be started again before a layer is mended.
fn waits_for_repair(pod: &Pod, desired: &Desired, observed: &Observed) -> Option<String> {
    let workload = desired.workloads.get(&pod.deployment).filter(|w| pod.is_current(w))?;
    let seen = observed.pods.get(&pod.name)?;
    let wants = |(name, state): (&Name, &ObservedContainer)| pods::wants_start(seen, name, *state);
    damage(workload, observed).filter(|_| seen.containers.iter().any(wants))
}

/// One of its containers waits for another that goes before it.
fn waits_for_another(pod: &ObservedPod) -> Option<String> {
    let waiting = pod.order.iter().find_map(|(name, _)| {
        let is_defined = pod.containers.get(name) == Some(&ObservedContainer::Defined);
        Some((name, pods::held_by(pod, name).filter(|_| is_defined)?))
    });
    waiting.map(|(name, other)| format!("container {name} waits for {other}"))
}

fn damage(workload: &Workload, observed: &Observed) -> Option<String> {
    order::missing(workload, observed)
        .find_map(|layer| observed.damaged.get(&layer.digest))
        .cloned()
}

/// The pod should be reachable, and is not.
fn unpublished(
    pod: &Pod,
    wanted: &Publication,
    observed: &Observed,
    ledger: &Ledger,
) -> Option<String> {
    let error = ledger.publish_error.as_ref()?;
    let address = pod.address?;
    let leads = |publication: &Publication| {
        let service = publication.services.get(&pod.deployment);
        service.is_some_and(|service| service.pods.contains(&address))
    };
    let missing = leads(wanted) && !observed.publication.as_ref().is_some_and(leads);
    missing.then(|| format!("cannot be published: {error}"))
}
