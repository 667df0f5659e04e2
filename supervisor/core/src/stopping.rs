//! The stages of a pod on its way out: unpublish, drain, what its containers
//! want to do before they stop, terminate, kill, remove.
//!
//! Each stage is bounded in time, so that no peer, no program and no failing
//! request keeps a pod for ever. A pod of which nothing runs is removed at
//! once. Does not decide which pods stop.

use crate::draft::Draft;
use crate::ledger::{Attempts, PodLedger, Stopping};
use crate::model::{Action, Millis, ObservedPod, Preparation};
use crate::pods::Pod;
use crate::sidecars;

/// After new connections stopped coming: time for those under way to be
/// accepted and answered.
pub const DRAIN: Millis = Millis(1_000);
/// How long a pod waits for the kernel to stop leading connections to it.
/// Publishing takes milliseconds; this long, it is broken, and waiting longer
/// would block every upgrade.
pub const UNPUBLISH_MAX: Millis = Millis(30_000);

/// What is left for the stop signal if a container's own preparations took
/// all of its grace, as in Kubernetes.
pub const LAST_GRACE: Millis = Millis(2_000);

/// What a pod asked for when it was made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct How<'a> {
    /// Between the first stop signal and SIGKILL, preparations included.
    grace: Millis,
    preparation: Preparation,
    /// Its sidecars are stopped after the others.
    in_order: Option<&'a ObservedPod>,
}

impl<'a> How<'a> {
    pub fn of(pod: &'a ObservedPod) -> Self {
        let in_order = sidecars::has_some(pod).then_some(pod);
        Self { grace: pod.grace, preparation: pod.preparation, in_order }
    }
}

/// Puts a pod on its way out; nothing happens if it is already.
pub(crate) fn begin(entry: &mut PodLedger, now: Millis) {
    if entry.stopping.is_none() {
        entry.stopping = Some(first_stage(entry, now));
        entry.attempts = Attempts::default();
    }
}

/// Goes through as many stages as it can, and asks for what the last one
/// needs.
pub(crate) fn advance(pod: &Pod, how: How<'_>, entry: &mut PodLedger, draft: &mut Draft<'_>) {
    // Each turn goes on to a later stage: there are six.
    while let Some(stage) = entry.stopping {
        let Some(next) = next_stage(stage, pod, how, entry, draft) else {
            ask(stage, pod, how, entry, draft);
            return;
        };
        entry.stopping = Some(next);
        entry.attempts = Attempts::default();
    }
}

fn first_stage(entry: &PodLedger, now: Millis) -> Stopping {
    if entry.published {
        return Stopping::Unpublishing { give_up_at: now.saturating_add(UNPUBLISH_MAX) };
    }
    let drained = entry.unpublished_at.map(|at| at.saturating_add(DRAIN));
    Stopping::Draining { until: drained.unwrap_or(now) }
}

fn next_stage(
    stage: Stopping,
    pod: &Pod,
    how: How<'_>,
    entry: &PodLedger,
    draft: &Draft<'_>,
) -> Option<Stopping> {
    let now = draft.now;
    if !pod.alive {
        return (stage != Stopping::Removing).then_some(Stopping::Removing);
    }
    match stage {
        Stopping::Unpublishing { give_up_at } => {
            if entry.published {
                (now >= give_up_at).then_some(Stopping::Draining { until: now })
            } else {
                Some(Stopping::Draining { until: now.saturating_add(DRAIN) })
            }
        }
        Stopping::Draining { until } => {
            let kill_at = now.saturating_add(how.grace);
            let next = if how.preparation == Preparation::default() {
                Stopping::Terminating { kill_at }
            } else {
                let until = now.saturating_add(how.preparation.sleep);
                Stopping::PreStopping { until, kill_at }
            };
            (now >= until).then_some(next)
        }
        Stopping::PreStopping { until, kill_at } => {
            let action = Action::PreStop { pod: pod.name.clone() };
            // Once is enough: whether it failed, or its answer got lost.
            let has_run = entry.attempts.count > 0 && !draft.is_in_flight(&action);
            let is_done = now >= until && (has_run || !how.preparation.runs);
            let next =
                Stopping::Terminating { kill_at: kill_at.max(now.saturating_add(LAST_GRACE)) };
            (is_done || now >= kill_at).then_some(next)
        }
        Stopping::Terminating { kill_at } => (now >= kill_at).then_some(Stopping::Killing),
        // A start that was under way when the pod seemed dead: removing it
        // kills what runs.
        Stopping::Killing | Stopping::Removing => None,
    }
}

fn ask(stage: Stopping, of: &Pod, how: How<'_>, entry: &mut PodLedger, draft: &mut Draft<'_>) {
    let pod = of.name.clone();
    match stage {
        Stopping::Unpublishing { give_up_at: at } | Stopping::Draining { until: at } => {
            draft.wake(at);
        }
        Stopping::PreStopping { until, kill_at } => {
            draft.wake(if draft.now < until { until } else { kill_at });
            if how.preparation.runs && entry.attempts.count == 0 {
                draft.attempt(&mut entry.attempts, Action::PreStop { pod });
            }
        }
        Stopping::Terminating { kill_at } => {
            draft.wake(kill_at);
            if let Some(seen) = how.in_order {
                sidecars::terminate(&pod, seen, kill_at, entry, draft);
                return;
            }
            // A second signal may mean something else to a program: it is sent
            // again only if sending it failed.
            if entry.attempts.count == 0 || entry.attempts.failed {
                draft.attempt(&mut entry.attempts, Action::TerminatePod { pod });
            }
        }
        Stopping::Killing => {
            draft.attempt(&mut entry.attempts, Action::KillPod { pod });
        }
        // Once that was answered.
        Stopping::Removing if of.creating => {}
        Stopping::Removing => {
            draft.attempt(&mut entry.attempts, Action::RemovePod { pod });
        }
    }
}
