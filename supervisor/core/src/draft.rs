//! A plan while it is being made.
//!
//! The one place that appends actions: nothing that is in flight is asked for
//! again, and nothing is repeated before its time. Decides nothing else.

use std::collections::BTreeMap;

use wherry_bundle::Name;
use wherry_bundle::limits::bounded_text;
use wherry_bundle::message::EventKind;

use crate::ledger::{Attempts, Ending, Ledger};
use crate::model::{Action, CoreNotice, Millis, Observed, Plan};

#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub observed: &'a Observed,
    pub now: Millis,
    /// Of the memory that is free, what pods on their way will take.
    pub set_aside_bytes: u64,
    actions: Vec<Action>,
    notices: Vec<CoreNotice>,
    wake_at: Option<Millis>,
}

impl<'a> Draft<'a> {
    pub fn new(observed: &'a Observed, now: Millis) -> Self {
        let (actions, notices) = (Vec::new(), Vec::new());
        Self { observed, now, set_aside_bytes: 0, actions, notices, wake_at: None }
    }

    /// Asks for `action` if it is due, and else sees to it that somebody
    /// looks again when it is.
    pub fn attempt(&mut self, attempts: &mut Attempts, action: Action) -> bool {
        if self.is_in_flight(&action) {
            return false;
        }
        if self.now < attempts.not_before {
            self.wake(attempts.not_before);
            return false;
        }
        attempts.begin(self.now);
        // Should the answer be lost, this is when it is asked for again; an
        // answer comes before that and is an observation.
        self.wake(attempts.not_before);
        self.actions.push(action);
        true
    }

    /// Tells a container to stop, once: a second signal may mean something else
    /// to a program. It is sent again only if sending it failed.
    pub fn terminate_container(&mut self, pod: &Name, container: &Name, ending: &mut Ending) {
        if ending.attempts.count == 0 || ending.attempts.failed {
            let (pod, container) = (pod.clone(), container.clone());
            self.attempt(&mut ending.attempts, Action::TerminateContainer { pod, container });
        }
    }

    /// After that, or instead of it.
    pub fn kill_container(&mut self, pod: &Name, container: &Name, ending: &mut Ending) {
        if !ending.killing {
            ending.killing = true;
            ending.attempts = Attempts::default();
        }
        let (pod, container) = (pod.clone(), container.clone());
        self.attempt(&mut ending.attempts, Action::KillContainer { pod, container });
    }

    /// Asks for `action` without keeping count.
    pub fn act(&mut self, action: Action) {
        if !self.is_in_flight(&action) {
            self.actions.push(action);
        }
    }

    pub fn wake(&mut self, at: Millis) {
        let at = at.max(self.now.saturating_add(Millis(1)));
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    pub fn notice(&mut self, kind: EventKind, subject: &str, text: &str) {
        let (subject, text) = (subject.to_owned(), bounded_text(text));
        self.notices.push(CoreNotice { kind, subject, text });
    }

    pub fn is_in_flight(&self, action: &Action) -> bool {
        self.observed.in_flight.contains(action)
    }

    /// What serves comes first, what only tidies up comes last: the executor
    /// takes actions in order.
    pub fn finish(mut self, ledger: Ledger) -> Plan {
        self.actions.sort_by_key(urgency);
        let Self { actions, notices, wake_at, .. } = self;
        Plan { actions, ledger, wake_at, notices, succeeded: BTreeMap::new() }
    }
}

fn urgency(action: &Action) -> u8 {
    match action {
        Action::Publish { .. } => 0,
        Action::StartContainer { .. } => 1,
        Action::TerminatePod { .. }
        | Action::KillPod { .. }
        | Action::TerminateContainer { .. }
        | Action::KillContainer { .. }
        | Action::PreStop { .. } => 2,
        Action::CreatePod { .. } => 3,
        Action::RemovePod { .. } => 4,
        Action::Fetch { .. } => 5,
    }
}
