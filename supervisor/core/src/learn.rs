//! Brings the ledger up to what is observed: pods that came and went, starts
//! and ends of containers, failed requests, availability.
//!
//! Tells people what is new, each thing once. Decides nothing.

use wherry_bundle::Name;
use wherry_bundle::limits::bounded_text;
use wherry_bundle::message::{EventKind, Exit};

use crate::draft::Draft;
use crate::ledger::{Attempts, ContainerLedger, JobRun, Ledger, Planned, PodLedger, Stopping};
use crate::model::{Action, Desired, Millis, ObservedContainer, ObservedPod, Workload};
use crate::{pods, publish};

/// To be called once a plan, before anything is decided. Afterwards the
/// ledger has every observed pod and every planned one, and no other.
pub(crate) fn learn(desired: &Desired, ledger: &mut Ledger, draft: &mut Draft<'_>) {
    let observed = draft.observed;
    forget_gone(ledger, draft);
    for (name, pod) in &observed.pods {
        // A pod that nobody remembers is adopted: what it is doing is no news.
        let adopted = !ledger.pods.contains_key(name);
        let entry = ledger.pods.entry(name.clone()).or_default();
        let workload = desired.workloads.get(&pod.deployment);
        let is_form = |workload: &&Workload| adopted || workload.hash == pod.hash;
        if workload.filter(is_form).is_some_and(|workload| workload.job.is_some()) {
            entry.job.get_or_insert(JobRun::Tried);
        }
        // Another one in its place would do once more what is done.
        let is_done = entry.job == Some(JobRun::Tried) && pods::has_succeeded(pod);
        entry.replace |= desired.replace.contains(name) && !is_done;
        let stopping = entry.stopping.is_some();
        let (is_job, ends) = (entry.job.is_some(), stopping || entry.wind_down_until.is_some());
        let subject = Subject { name, pod, adopted, stopping, is_job, ends };
        subject.learn_completeness(entry, draft);
        for (container, state) in &pod.containers {
            let known = entry.containers.entry(container.clone()).or_default();
            if let Some(error) = subject.learn_container(container, *state, known, draft) {
                entry.last_error = Some(error);
            }
        }
        let min_ready = workload.map(|w| w.min_ready).unwrap_or_default();
        subject.learn_availability(min_ready, entry, draft);
        subject.learn_published(entry, draft);
    }
    learn_failures(ledger, draft);
}

fn forget_gone(ledger: &mut Ledger, draft: &mut Draft<'_>) {
    let observed = draft.observed;
    ledger.pods.retain(|name, entry| {
        let was_there = entry.planned.is_none();
        let remove = Action::RemovePod { pod: name.clone() };
        // What was never seen may be there in part, until removing it was
        // asked for and has succeeded.
        let is_removed = entry.stopping == Some(Stopping::Removing)
            && entry.attempts.count > 0
            && !entry.attempts.failed
            && !draft.is_in_flight(&remove)
            && !observed.failures.contains_key(&remove);
        let gone = !observed.pods.contains_key(name)
            && !pods::is_creating(name, observed)
            && (was_there || is_removed);
        if gone && was_there {
            let text = match entry.stopping {
                Some(_) => "removed",
                None => "vanished without having been stopped",
            };
            draft.notice(EventKind::PodRemoved, name.as_str(), text);
        }
        !gone
    });
}

/// An observed pod.
struct Subject<'a> {
    name: &'a Name,
    pod: &'a ObservedPod,
    adopted: bool,
    stopping: bool,
    is_job: bool,
    /// What of it ends, ends because it was told to.
    ends: bool,
}

impl Subject<'_> {
    fn learn_completeness(&self, entry: &mut PodLedger, draft: &mut Draft<'_>) {
        if !self.pod.complete {
            let ObservedPod { deployment, generation, hash, address, .. } = self.pod.clone();
            entry.planned.get_or_insert(Planned { deployment, generation, hash, address });
        } else if entry.planned.take().is_some() {
            if !self.stopping {
                entry.attempts = Attempts::default();
            }
            draft.notice(EventKind::PodCreated, self.name.as_str(), "created");
        }
    }

    /// Reckons with a start and an end that were not seen before; returns
    /// what went wrong.
    fn learn_container(
        &self,
        container: &Name,
        state: ObservedContainer,
        known: &mut ContainerLedger,
        draft: &mut Draft<'_>,
    ) -> Option<String> {
        match state {
            ObservedContainer::Defined => None,
            ObservedContainer::Running { since } => {
                self.learn_start(container, since, known, draft);
                None
            }
            ObservedContainer::Exited { exit, started, at } => {
                self.learn_start(container, started, known, draft);
                if known.ended == Some(at) {
                    return None;
                }
                known.ended = Some(at);
                known.last_exit = Some(exit);
                known.attempts.ended(at.saturating_sub(started), at);
                let error = format!("container {container} ended: {exit}");
                if exit != Exit::Code(0) && !self.ends {
                    known.failures = known.failures.saturating_add(1);
                }
                // A job may have failed for good by this.
                let restarts = pods::restarts(self.pod, container, exit) && !self.ends;
                let text = if restarts && !self.is_job {
                    let wait = known.attempts.not_before.saturating_sub(at);
                    format!("{error}; starts again after {} s", wait.0 / 1_000)
                } else {
                    error.clone()
                };
                draft.notice(EventKind::ContainerExited, self.name.as_str(), &text);
                let expected = self.ends || exit == Exit::Code(0);
                (!expected).then_some(error)
            }
        }
    }

    fn learn_start(
        &self,
        container: &Name,
        started: Millis,
        known: &mut ContainerLedger,
        draft: &mut Draft<'_>,
    ) {
        if known.started == Some(started) {
            return;
        }
        if known.started.replace(started).is_some() {
            known.restarts = known.restarts.saturating_add(1);
        }
        if !self.adopted {
            let text = format!("container {container} started");
            draft.notice(EventKind::ContainerStarted, self.name.as_str(), &text);
        }
    }

    /// A pod that is available stays so while nothing in it restarts, even if
    /// a newer bundle asks for a longer trial.
    fn learn_availability(&self, min_ready: Millis, entry: &mut PodLedger, draft: &mut Draft<'_>) {
        let Some(since) = pods::standing(self.pod, entry, self.adopted) else {
            entry.available_since = None;
            return;
        };
        if entry.available_since == Some(since) || self.stopping {
            return;
        }
        let due = since.saturating_add(min_ready);
        if draft.now < due {
            entry.available_since = None;
            draft.wake(due);
            return;
        }
        entry.available_since = Some(since);
        if !self.adopted {
            let text = if self.is_job { "succeeded" } else { "available" };
            draft.notice(EventKind::PodAvailable, self.name.as_str(), text);
        }
    }

    /// A pod may lose its place in the service just before it is to stop; it
    /// is drained all the same.
    fn learn_published(&self, entry: &mut PodLedger, draft: &Draft<'_>) {
        let observed = draft.observed;
        let may_be =
            |address| observed.publication.is_none() || publish::leads_to(address, observed);
        let published = self.pod.address.is_some_and(may_be);
        if entry.published && !published {
            entry.unpublished_at = Some(draft.now);
        }
        entry.published = published;
    }
}

/// A failure sets the time of the next try; people are told once for each
/// different text.
fn learn_failures(ledger: &mut Ledger, draft: &mut Draft<'_>) {
    for (action, error) in &draft.observed.failures {
        let now = draft.now;
        match action {
            Action::Publish { .. } => {
                ledger.publish.failed(now);
                ledger.publish_error = Some(bounded_text(error));
            }
            // The agent tries again by itself, and says so.
            Action::Fetch { .. } => {}
            Action::StartContainer { pod, container } => {
                let Some(entry) = ledger.pods.get_mut(pod) else { continue };
                entry.containers.entry(container.clone()).or_default().attempts.failed(now);
                let text = format!("container {container} cannot be started: {error}");
                fail(pod, entry, &text, Some(EventKind::ContainerFailed), draft);
            }
            Action::CreatePod { pod, .. } => {
                let Some(entry) = ledger.pods.get_mut(pod) else { continue };
                if entry.planned.is_some() && entry.stopping.is_none() {
                    entry.attempts.failed(now);
                }
                let text = format!("cannot be created: {error}");
                fail(pod, entry, &text, Some(EventKind::ContainerFailed), draft);
            }
            Action::TerminateContainer { pod, container }
            | Action::KillContainer { pod, container } => {
                let Some(entry) = ledger.pods.get_mut(pod) else { continue };
                let known = entry.containers.entry(container.clone()).or_default();
                // One that was asked for an earlier run does not count.
                if let Some(ending) = known.ending.as_mut().filter(|e| e.attempts.count > 0) {
                    ending.attempts.failed(now);
                }
                let text = format!("container {container} cannot be stopped: {error}");
                fail(pod, entry, &text, None, draft);
            }
            Action::PreStop { pod } => {
                let Some(entry) = ledger.pods.get_mut(pod) else { continue };
                let text = format!("preStop: {error}");
                fail(pod, entry, &text, Some(EventKind::ContainerUnhealthy), draft);
            }
            Action::TerminatePod { pod } | Action::KillPod { pod } | Action::RemovePod { pod } => {
                let Some(entry) = ledger.pods.get_mut(pod) else { continue };
                if entry.stopping.is_some_and(|stage| verb_of(stage, pod).as_ref() == Some(action))
                {
                    entry.attempts.failed(now);
                }
                fail(pod, entry, &format!("cannot be stopped: {error}"), None, draft);
            }
        }
    }
}

/// What a stage asks for; an answer that comes after its stage ended does not
/// delay the next one.
fn verb_of(stage: Stopping, pod: &Name) -> Option<Action> {
    match stage {
        Stopping::Unpublishing { .. }
        | Stopping::Draining { .. }
        | Stopping::PreStopping { .. } => None,
        Stopping::Terminating { .. } => Some(Action::TerminatePod { pod: pod.clone() }),
        Stopping::Killing => Some(Action::KillPod { pod: pod.clone() }),
        Stopping::Removing => Some(Action::RemovePod { pod: pod.clone() }),
    }
}

fn fail(
    pod: &Name,
    entry: &mut PodLedger,
    text: &str,
    kind: Option<EventKind>,
    draft: &mut Draft<'_>,
) {
    let error = bounded_text(text);
    if entry.last_error.as_ref() != Some(&error)
        && let Some(kind) = kind
    {
        draft.notice(kind, pod.as_str(), &error);
    }
    entry.last_error = Some(error);
}
