//! Containers whose startup or liveness probe has failed: told to stop, killed
//! when their grace is over, and started again like any that ended, by the
//! pod's restart policy and with its back-off.
//!
//! Once begun, a container's end is gone through with, even if a probe should
//! succeed meanwhile: it was told to stop. Decides nothing about the pod.

use wherry_bundle::Name;

use crate::draft::Draft;
use crate::ledger::{Attempts, Ending, PodLedger};
use crate::model::{ObservedContainer, ObservedPod};

/// Ends what is not healthy in a pod that is to stay.
pub(crate) fn restart(
    name: &Name,
    pod: &ObservedPod,
    entry: &mut PodLedger,
    draft: &mut Draft<'_>,
) {
    for (container, state) in &pod.containers {
        let known = entry.containers.entry(container.clone()).or_default();
        let ObservedContainer::Running { since } = *state else {
            known.ending = None;
            continue;
        };
        let under_way = known.ending.filter(|ending| ending.started == since);
        if under_way.is_none() && !pod.unhealthy.contains(container) {
            known.ending = None;
            continue;
        }
        let mut ending = under_way.unwrap_or_else(|| Ending {
            started: since,
            kill_at: draft.now.saturating_add(pod.grace),
            killing: false,
            attempts: Attempts::default(),
        });
        if ending.killing || draft.now >= ending.kill_at {
            draft.kill_container(name, container, &mut ending);
        } else {
            let is_first = ending.attempts.count == 0;
            draft.terminate_container(name, container, &mut ending);
            if is_first {
                // Not before: one for an earlier run may be unanswered still.
                ending.kill_at = draft.now.saturating_add(pod.grace);
            }
            draft.wake(ending.kill_at);
        }
        known.ending = Some(ending);
    }
}
