//! Deliberate bugs, one an invariant: what the simulator must find. Each
//! changes what goes into the reconciler or comes out of it; no other code
//! has a switch for them.

use crate::promise::Promise;
use wherry_bundle::Name;
use wherry_bundle::model::Role;
use wherry_core::ledger::{Attempts, PodLedger, Stopping};
use wherry_core::{Action, Desired, Ledger, Millis, Observed, Plan, reconcile};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Stops available pods that nothing replaces.
    StopsAvailablePods,
    /// Makes a pod more than there may be.
    SurgesTooFar,
    /// Does not ask whether there is memory.
    IgnoresMemory,
    IgnoresDependencies,
    /// Starts all containers of a pod at once.
    IgnoresRoles,
    IgnoresBackOff,
    /// Waits for an hour longer.
    BacksOffTooLong,
    /// Asks again for what is under way.
    RepeatsActions,
    KillsWithoutGrace,
    /// Forgets pods whose deployment is gone.
    LeavesPodsBehind,
    /// Takes changes of a config map for no change.
    IgnoresNewForms,
    /// Restarts the supervisor and forgets what the kernel publishes.
    NeverPublishes,
    /// Goes back to a generation that was never good.
    GoesBackTooFar,
    /// Takes up a generation once more that failed.
    TriesAgain,
    /// Judges each generation as good at once.
    BelievesAnything,
    /// Does not ask which jobs are done.
    ForgetsJobs,
    /// Tells all containers of a pod to stop at once.
    StopsAllAtOnce,
}

impl Bug {
    pub const ALL: [Self; 17] = [
        Self::StopsAvailablePods,
        Self::SurgesTooFar,
        Self::IgnoresMemory,
        Self::IgnoresDependencies,
        Self::IgnoresRoles,
        Self::IgnoresBackOff,
        Self::BacksOffTooLong,
        Self::RepeatsActions,
        Self::KillsWithoutGrace,
        Self::LeavesPodsBehind,
        Self::IgnoresNewForms,
        Self::NeverPublishes,
        Self::GoesBackTooFar,
        Self::TriesAgain,
        Self::BelievesAnything,
        Self::ForgetsJobs,
        Self::StopsAllAtOnce,
    ];
}

impl Bug {
    /// The promise that it breaks.
    pub fn breaks(self) -> Promise {
        match self {
            Self::StopsAvailablePods => Promise::Available,
            Self::SurgesTooFar => Promise::Places,
            Self::IgnoresMemory => Promise::Memory,
            Self::IgnoresDependencies => Promise::Dependencies,
            Self::IgnoresRoles => Promise::Order,
            Self::IgnoresBackOff => Promise::BackOff,
            Self::BacksOffTooLong => Promise::BackOffBound,
            Self::RepeatsActions => Promise::Once,
            Self::KillsWithoutGrace => Promise::Grace,
            Self::LeavesPodsBehind => Promise::NothingLeft,
            Self::IgnoresNewForms => Promise::AtRest,
            Self::NeverPublishes => Promise::AtRest,
            Self::GoesBackTooFar => Promise::WayBack,
            Self::TriesAgain => Promise::NotAgain,
            Self::BelievesAnything => Promise::Judged,
            Self::ForgetsJobs => Promise::Jobs,
            Self::StopsAllAtOnce => Promise::Order,
        }
    }
}

/// [`reconcile`], with a bug.
pub fn decide(
    bug: Option<Bug>,
    desired: &Desired,
    observed: &Observed,
    ledger: &Ledger,
    now: Millis,
) -> Plan {
    let Some(bug) = bug else { return reconcile(desired, observed, ledger, now) };
    let (mut desired, mut observed, mut ledger) =
        (desired.clone(), observed.clone(), ledger.clone());
    match bug {
        Bug::StopsAvailablePods => {
            let mut pods = ledger.pods.values_mut();
            let up = |pod: &&mut PodLedger| {
                pod.available_since.is_some() && pod.published && pod.stopping.is_none()
            };
            if let Some(pod) = pods.find(up) {
                pod.replace = true;
                pod.stopping = None;
                desired.workloads.values_mut().for_each(|workload| {
                    workload.strategy = wherry_bundle::model::Strategy::Recreate;
                });
            }
        }
        Bug::SurgesTooFar => desired.workloads.values_mut().for_each(|w| w.replicas += 2),
        Bug::IgnoresMemory => observed.memory_available_bytes = None,
        Bug::IgnoresDependencies => {
            desired.workloads.values_mut().for_each(|workload| workload.after.clear());
        }
        Bug::IgnoresRoles => {
            let orders = observed.pods.values_mut().flat_map(|pod| &mut pod.order);
            orders.for_each(|(_, role)| *role = Role::Main);
        }
        Bug::IgnoresBackOff => {
            let pods = ledger.pods.values_mut();
            let containers = pods.flat_map(|pod| pod.containers.values_mut());
            containers.for_each(|container| container.attempts = Attempts::default());
        }
        Bug::RepeatsActions => observed.in_flight.clear(),
        Bug::LeavesPodsBehind => {
            observed.pods.retain(|_, pod| desired.workloads.contains_key(&pod.deployment));
        }
        Bug::IgnoresNewForms => desired.workloads.values_mut().for_each(|workload| {
            if let Some(pod) =
                observed.pods.values().find(|pod| pod.restart_policy == workload.restart_policy)
            {
                workload.hash = pod.hash;
            }
        }),
        Bug::ForgetsJobs => observed.succeeded.clear(),
        Bug::StopsAllAtOnce
        | Bug::BacksOffTooLong
        | Bug::KillsWithoutGrace
        | Bug::NeverPublishes
        | Bug::GoesBackTooFar
        | Bug::TriesAgain
        | Bug::BelievesAnything => {}
    }
    let mut plan = reconcile(&desired, &observed, &ledger, now);
    match bug {
        Bug::KillsWithoutGrace => {
            for action in &mut plan.actions {
                if let Action::TerminatePod { pod } = action {
                    let pod: Name = pod.clone();
                    if let Some(entry) = plan.ledger.pods.get_mut(&pod) {
                        entry.stopping = Some(Stopping::Killing);
                    }
                    *action = Action::KillPod { pod };
                }
            }
        }
        Bug::StopsAllAtOnce => {
            for action in &mut plan.actions {
                if let Action::TerminateContainer { pod, .. } = action
                    && plan.ledger.pods[&*pod].stopping.is_some()
                {
                    *action = Action::TerminatePod { pod: pod.clone() };
                }
            }
            plan.actions.dedup();
        }
        Bug::BacksOffTooLong => {
            for (name, pod) in &mut plan.ledger.pods {
                let before = ledger.pods.get(name);
                for (container, entry) in &mut pod.containers {
                    let before = before.and_then(|pod| pod.containers.get(container));
                    let tries = &mut entry.attempts;
                    if tries.count > 1 && before.is_none_or(|known| known.attempts != *tries) {
                        tries.not_before = tries.not_before.saturating_add(Millis(3_600_000));
                    }
                }
            }
        }
        Bug::NeverPublishes => {
            plan.actions.retain(|action| !matches!(action, Action::Publish { .. }));
        }
        Bug::StopsAvailablePods
        | Bug::SurgesTooFar
        | Bug::IgnoresMemory
        | Bug::IgnoresDependencies
        | Bug::IgnoresRoles
        | Bug::IgnoresBackOff
        | Bug::RepeatsActions
        | Bug::LeavesPodsBehind
        | Bug::IgnoresNewForms
        | Bug::GoesBackTooFar
        | Bug::TriesAgain
        | Bug::BelievesAnything
        | Bug::ForgetsJobs => {}
    }
    plan
}
