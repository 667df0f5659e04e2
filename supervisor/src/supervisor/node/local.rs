//! What the command line asks, and the end of the node by `wherry stop`.

use std::sync::mpsc::SyncSender;

use wherry_core::Millis;

use super::{Node, Removal};
use crate::control::{LocalStatus, Request, Response};
use crate::supervisor::describe::describe;
use crate::supervisor::executor::LauncherLost;

/// Beyond the longest grace, for draining and removing.
const REMOVAL_MARGIN: Millis = Millis(15_000);

impl Node {
    pub(super) fn asked(
        &mut self,
        request: Request,
        answer: SyncSender<Response>,
        now: Millis,
    ) -> Result<(), LauncherLost> {
        let view = wherry_core::status(&self.desired, &self.observed, &self.ledger);
        let response = match request {
            Request::Status => {
                let (node, cloud) = (self.status(&view, now), self.cloud.clone());
                Response::Status(Box::new(LocalStatus { node, cloud, volumes: self.volumes() }))
            }
            Request::Describe { pod } => {
                let status = self.status(&view, now);
                let described = describe(
                    pod.as_ref(),
                    &status,
                    &self.observed,
                    &self.recent,
                    self.bundle.as_ref(),
                    &self.volumes(),
                );
                let mut asked = Vec::new();
                for known in described.iter().filter(|known| known.restart_policy.is_some()) {
                    asked.push(self.executor.usage(&known.status.name)?);
                }
                self.descriptions.begin(pod.as_ref(), described, asked, answer);
                return Ok(());
            }
            Request::Volumes => Response::Volumes(self.volumes()),
            Request::RemoveVolume { name } => {
                self.remove_volume(name, answer);
                return Ok(());
            }
            Request::Events { tail } => {
                Response::Events(self.recent.tail(usize::try_from(tail).unwrap_or(usize::MAX)))
            }
            Request::Hold { hold } => match self.set_hold(hold) {
                Ok(()) => Response::Done,
                Err(error) => Response::Error(error),
            },
            Request::Outbox { after } => match self.durable.events_after(after) {
                Ok(events) => Response::Events(events),
                Err(error) => Response::Error(error.to_string()),
            },
            Request::Logs(_) | Request::Apply | Request::Exec(_) => {
                Response::Error("that is done by the connection".into())
            }
            Request::Stop { all } => {
                log::info!("told to stop{}", if all { " and to remove every pod" } else { "" });
                if all {
                    self.begin_removal(now);
                } else {
                    self.executor.end(false)?;
                }
                Response::Ending { pid: std::os::unix::process::parent_id() }
            }
        };
        // Whoever asked may be gone.
        let _ = answer.try_send(response);
        Ok(())
    }

    /// Nothing is desired any more: the reconciler stops each pod with its
    /// grace.
    pub(super) fn begin_removal(&mut self, now: Millis) {
        let grace = self.observed.pods.values().map(|pod| pod.grace).max().unwrap_or_default();
        let until = now.saturating_add(grace).saturating_add(REMOVAL_MARGIN);
        self.removal = Removal::Begun { until };
        self.desired.workloads.clear();
    }

    /// Has the launcher sweep up and end, once all pods are gone or their
    /// time is over; when to look again.
    pub(super) fn purge_when_empty(&mut self, now: Millis) -> Result<Option<Millis>, LauncherLost> {
        let Removal::Begun { until } = self.removal else { return Ok(None) };
        // Without a bundle the reconciler touches nothing.
        if self.observed.pods.is_empty() || self.bundle.is_none() || now >= until {
            self.removal = Removal::Purging;
            self.executor.end(true)?;
            return Ok(None);
        }
        Ok(Some(until))
    }
}
