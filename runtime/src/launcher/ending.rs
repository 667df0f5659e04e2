//! The end of the launcher: leaving the containers, or leaving nothing.

use std::collections::BTreeSet;

use super::Launcher;
use super::config::Ended;
use crate::clock::boot_millis;
use crate::sys;

/// From SIGTERM to SIGKILL for the supervisor: it has to close its store.
const STOP_MILLIS_MAX: u64 = 5_000;
/// To kill and remove all pods.
const PURGE_MILLIS_MAX: u64 = 60_000;

#[derive(Debug)]
pub enum Ending {
    /// The supervisor was told to end.
    Stopping { ended: Ended, deadline_millis: u64 },
    /// Pods are being removed.
    Purging { seq: u32, deadline_millis: u64 },
}

impl Ending {
    #[must_use]
    pub fn deadline_millis(&self) -> u64 {
        match self {
            Self::Stopping { deadline_millis, .. } | Self::Purging { deadline_millis, .. } => {
                *deadline_millis
            }
        }
    }
}

impl Launcher {
    /// Begins to end and to leave the containers. Idempotent; what was begun
    /// before goes on.
    pub(super) fn stop(&mut self) {
        if self.ending.is_none() {
            self.notifier.stopping();
            self.end_supervisor(Ended::Stopped);
        }
    }

    /// Begins to remove everything.
    pub(super) fn purge(&mut self, seq: u32) {
        if self.ending.is_some() {
            return self.answer(seq, Err("the node is ending already".into()));
        }
        self.notifier.stopping();
        let deadline_millis = boot_millis() + PURGE_MILLIS_MAX;
        self.ending = Some(Ending::Purging { seq, deadline_millis });
        let pods: Vec<_> = self.pods.keys().cloned().collect();
        for pod in pods {
            self.begin_removal(&pod, None);
        }
    }

    fn end_supervisor(&mut self, ended: Ended) {
        self.link.end();
        let deadline_millis = boot_millis() + STOP_MILLIS_MAX;
        self.ending = Some(Ending::Stopping { ended, deadline_millis });
    }

    /// `Some` when there is nothing more to wait for.
    pub(super) fn advance_ending(&mut self, now: u64) -> Option<Ended> {
        match self.ending {
            None => None,
            Some(Ending::Stopping { ended, deadline_millis }) => {
                let over = now >= deadline_millis;
                if over && let Some(process) = self.link.process() {
                    log::warn!("the supervisor did not end in time: it is killed");
                    self.link.kill();
                    if let Err(error) = sys::wait_for(process) {
                        log::debug!("supervisor {process}: {error}");
                    }
                }
                let done = self.link.process().is_none() && self.starts.is_empty();
                (done || over).then_some(ended)
            }
            Some(Ending::Purging { seq, deadline_millis }) => {
                if self.pods.is_empty() && self.starts.is_empty() {
                    self.ending = None;
                    match self.remove_the_rest() {
                        Ok(()) => {
                            self.answer(seq, Ok(()));
                            self.end_supervisor(Ended::Purged);
                            return self.advance_ending(now);
                        }
                        Err(text) => self.answer(seq, Err(text)),
                    }
                } else if now >= deadline_millis {
                    self.ending = None;
                    let left: Vec<&str> = self.pods.keys().map(|name| name.as_str()).collect();
                    let text = format!("pods that could not be removed: {}", left.join(", "));
                    self.answer(seq, Err(text));
                }
                None
            }
        }
    }

    fn remove_the_rest(&mut self) -> Result<(), String> {
        self.network.remove_host().map_err(|error| error.to_string())?;
        self.layers.release_all_but(&BTreeSet::new(), false);
        self.tree.remove_all().map_err(|error| error.to_string())
    }
}
