//! The stages of a pod on its way out: unpublish, drain, terminate, kill,
//! remove.
//!
//! Each stage is bounded in time, so that no peer, no program and no failing
//! request keeps a pod for ever. A pod of which nothing runs is removed at
//! once. Does not decide which pods stop.

use wherry_bundle::Name;

use crate::draft::Draft;
use crate::ledger::{Attempts, PodLedger, Stopping};
use crate::model::{Action, Millis};
use crate::pods::Pod;

/// After new connections stopped coming: time for those under way to be
/// accepted and answered.
pub const DRAIN: Millis = Millis(1_000);
/// How long a pod waits for the kernel to stop leading connections to it.
/// Publishing takes milliseconds; this long, it is broken, and waiting longer
/// would block every upgrade.
pub const UNPUBLISH_MAX: Millis = Millis(30_000);

/// Puts a pod on its way out; nothing happens if it is already.
pub(crate) fn begin(entry: &mut PodLedger, now: Millis) {
    if entry.stopping.is_none() {
        entry.stopping = Some(first_stage(entry, now));
        entry.attempts = Attempts::default();
    }
}

/// Goes through as many stages as it can, and asks for what the last one
/// needs. `grace` is the time between the stop signal and SIGKILL.
pub(crate) fn advance(pod: &Pod, grace: Millis, entry: &mut PodLedger, draft: &mut Draft<'_>) {
    // Each turn goes on to a later stage: there are five.
    while let Some(stage) = entry.stopping {
        let Some(next) = next_stage(stage, pod, grace, entry, draft.now) else {
            ask(stage, &pod.name, pod.creating, entry, draft);
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
    grace: Millis,
    entry: &PodLedger,
    now: Millis,
) -> Option<Stopping> {
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
            let kill_at = now.saturating_add(grace);
            (now >= until).then_some(Stopping::Terminating { kill_at })
        }
        Stopping::Terminating { kill_at } => (now >= kill_at).then_some(Stopping::Killing),
        // A start that was under way when the pod seemed dead: removing it
        // kills what runs.
        Stopping::Killing | Stopping::Removing => None,
    }
}

fn ask(stage: Stopping, name: &Name, creating: bool, entry: &mut PodLedger, draft: &mut Draft<'_>) {
    let pod = name.clone();
    match stage {
        Stopping::Unpublishing { give_up_at: at } | Stopping::Draining { until: at } => {
            draft.wake(at);
        }
        Stopping::Terminating { kill_at } => {
            draft.wake(kill_at);
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
        Stopping::Removing if creating => {}
        Stopping::Removing => {
            draft.attempt(&mut entry.attempts, Action::RemovePod { pod });
        }
    }
}
