//! In which order the containers of a pod end: sidecars serve the others, and
//! so they are stopped last, in the reverse order of their start.
//!
//! Each sidecar is told when whatever came after it has ended; all of that
//! together has the pod's grace, and then SIGKILL comes for what is left. Does
//! not decide which pods end.

use wherry_bundle::Name;
use wherry_bundle::model::Role;

use crate::draft::Draft;
use crate::ledger::{Attempts, Ending, PodLedger};
use crate::model::{Action, Millis, ObservedContainer, ObservedPod};
use crate::pods;

pub(crate) fn has_some(pod: &ObservedPod) -> bool {
    pod.order.iter().any(|(_, role)| *role == Role::Sidecar)
}

/// Ends what still runs of a pod that stays although it is over, for its
/// output.
pub(crate) fn wind_down(
    name: &Name,
    pod: &ObservedPod,
    entry: &mut PodLedger,
    draft: &mut Draft<'_>,
) {
    let running = pod.containers.iter().filter(|(_, state)| is_running(state));
    let running: Vec<&Name> = running.map(|(container, _)| container).collect();
    if running.is_empty() {
        return;
    }
    let from_now = draft.now.saturating_add(pod.grace);
    let kill_at = *entry.wind_down_until.get_or_insert(from_now);
    if draft.now < kill_at {
        draft.wake(kill_at);
        terminate(name, pod, kill_at, entry, draft);
        return;
    }
    for container in running {
        let Some(mut ending) = ending_of(pod, container, kill_at, entry) else { continue };
        draft.kill_container(name, container, &mut ending);
        entry.containers.entry(container.clone()).or_default().ending = Some(ending);
    }
}

/// Tells those containers to stop whose turn it is, each once.
pub(crate) fn terminate(
    name: &Name,
    pod: &ObservedPod,
    kill_at: Millis,
    entry: &mut PodLedger,
    draft: &mut Draft<'_>,
) {
    for container in due(name, pod, draft) {
        let Some(mut ending) = ending_of(pod, container, kill_at, entry) else { continue };
        draft.terminate_container(name, container, &mut ending);
        entry.containers.entry(container.clone()).or_default().ending = Some(ending);
    }
}

/// Those whose turn it is: the ordinary ones as long as there are any, and then
/// one sidecar after the other, beginning with the last.
fn due<'a>(name: &Name, pod: &'a ObservedPod, draft: &Draft<'_>) -> Vec<&'a Name> {
    let starts = |container: &Name| {
        let (pod, container) = (name.clone(), container.clone());
        draft.is_in_flight(&Action::StartContainer { pod, container })
    };
    let alive = pod.containers.iter().filter(|(name, state)| is_running(state) || starts(name));
    let alive: Vec<&Name> = alive.map(|(container, _)| container).collect();
    let is_ordinary = |container: &&&Name| pods::role(pod, container) != Role::Sidecar;
    let ordinary: Vec<&Name> = alive.iter().filter(is_ordinary).copied().collect();
    if !ordinary.is_empty() {
        return ordinary;
    }
    let place = |container: &Name| pod.order.iter().position(|(other, _)| other == container);
    alive.into_iter().max_by_key(|container| place(container)).into_iter().collect()
}

/// The end of the run that `container` is in; `None` if it does not run.
fn ending_of(
    pod: &ObservedPod,
    container: &Name,
    kill_at: Millis,
    entry: &PodLedger,
) -> Option<Ending> {
    let ObservedContainer::Running { since } = *pod.containers.get(container)? else {
        return None;
    };
    let known = entry.containers.get(container).and_then(|known| known.ending);
    let attempts = Attempts::default();
    let fresh = Ending { started: since, kill_at, killing: false, attempts };
    Some(known.filter(|ending| ending.started == since).unwrap_or(fresh))
}

fn is_running(state: &ObservedContainer) -> bool {
    matches!(state, ObservedContainer::Running { .. })
}
