//! Commands that are run in containers, for people at the gateway and for the
//! cloud: which container is meant, when one is ended, and what is told of it.
//! A person's streams are theirs, nothing of them passes here; what a command
//! of the cloud's writes is [`remote`]'s.

use std::os::fd::OwnedFd;
use std::sync::mpsc::SyncSender;

use wherry_bundle::Name;
use wherry_bundle::exec::SignedExec;
use wherry_bundle::limits::cut;
use wherry_bundle::message::{EventKind, Exit, Outcome};
use wherry_bundle::model::Role;
use wherry_core::{Millis, Observed, ObservedPod};
use wherry_runtime::proto::{Request, Words, join_words};

use super::Node;
use crate::agent::AgentUplink;
use crate::clock;
use crate::control::{Exec, Response};
use crate::supervisor::executor::LauncherLost;
use crate::supervisor::remote::{self, Collecting, End};

/// Commands of the cloud's at a time: the launcher takes eight, and whoever
/// stands at the gateway gets one.
const REMOTE_MAX: usize = 3;
/// Names that a message lists: it stays readable, and within its bound.
const LISTED_BYTES_MAX: usize = 400;
const FORBIDDEN: &str = "it takes no commands from the cloud: its configuration has \
                         `from_cloud = false` in `[exec]`";

/// One that was begun.
#[derive(Debug)]
pub(super) struct Running {
    pod: Name,
    /// For people.
    text: String,
    asker: Asker,
}

#[derive(Debug)]
enum Asker {
    Person(SyncSender<Response>),
    Cloud {
        /// Of the order.
        id: u64,
        end: SyncSender<End>,
        /// `None`: it was told to end.
        deadline: Option<Millis>,
        timed_out: bool,
    },
}

/// An order of the cloud's that nothing is to be said against.
struct Checked {
    exec: wherry_bundle::exec::Exec,
    pod: Name,
    container: Name,
    args: Box<Words>,
    collecting: Collecting,
}

impl Node {
    pub(super) fn exec(
        &mut self,
        exec: Exec,
        streams: &[OwnedFd],
        answer: SyncSender<Response>,
        now: Millis,
    ) -> Result<(), LauncherLost> {
        let Exec { pod, container, args, terminal } = exec;
        let found = target(&pod, container.as_ref(), &self.observed)
            .and_then(|target| Ok((target, joined(&args)?)));
        let ((pod, container), args) = match found {
            Ok(found) => found,
            Err(text) => {
                // Whoever asked may be gone: that is seen by the connection.
                let _ = answer.try_send(Response::Error(text));
                return Ok(());
            }
        };
        let text = quoted(&args);
        let request = Request::Exec { pod: pod.clone(), container, args, terminal };
        let number = self.executor.exec(request, streams)?;
        self.tell(EventKind::CommandRun, pod.as_str(), &format!("a person runs {text}"), now);
        let _ = answer.try_send(Response::Executing { number });
        self.commands.insert(number, Running { pod, text, asker: Asker::Person(answer) });
        Ok(())
    }

    /// What the cloud's next order has to hold.
    pub(super) fn prepare_exec(&mut self, now: Millis) -> Result<Outcome, String> {
        if !self.config.exec_from_cloud {
            return Err(FORBIDDEN.into());
        }
        let nonce = self.nonces.give(now).map_err(|error| format!("no random numbers: {error}"))?;
        Ok(Outcome::Prepared(nonce))
    }

    /// Begins the command of order `id`, whose reply comes at its end; or says
    /// at once why not.
    pub(super) fn exec_for_cloud(
        &mut self,
        id: u64,
        signed: &SignedExec,
        uplink: AgentUplink,
        now: Millis,
    ) -> Result<Result<(), String>, LauncherLost> {
        let checked = match self.check_remote(id, signed, uplink, now) {
            Ok(checked) => checked,
            Err(text) => {
                log::warn!("a command of the cloud is not run: {text}");
                return Ok(Err(text));
            }
        };
        let Checked { exec, pod, container, args, collecting } = checked;
        let text = quoted(&args);
        let request = Request::Exec { pod: pod.clone(), container, args, terminal: false };
        let Collecting { streams, end } = collecting;
        let number = self.executor.exec(request, &streams)?;
        let told = format!("{} runs from the cloud {text}", exec.asked_by);
        self.tell(EventKind::CommandRun, pod.as_str(), &told, now);
        let deadline = Some(now.saturating_add(Millis(u64::from(exec.seconds_max) * 1000)));
        let asker = Asker::Cloud { id, end, deadline, timed_out: false };
        self.commands.insert(number, Running { pod, text, asker });
        Ok(Ok(()))
    }

    fn check_remote(
        &mut self,
        id: u64,
        signed: &SignedExec,
        uplink: AgentUplink,
        now: Millis,
    ) -> Result<Checked, String> {
        if !self.config.exec_from_cloud {
            return Err(FORBIDDEN.into());
        }
        let exec = signed
            .open(&self.config.trusted_keys, &self.config.node)
            .map_err(|error| error.to_string())?;
        if !self.nonces.take(exec.nonce, now) {
            return Err("the order came too late, or twice: ask again".into());
        }
        let remote = self.commands.values().filter(|running| running.is_remote()).count();
        if remote >= REMOTE_MAX {
            return Err(format!("{REMOTE_MAX} commands of the cloud's are under way: ask later"));
        }
        let (pod, container) = target(&exec.pod, exec.container.as_ref(), &self.observed)?;
        let args = joined(&exec.args)?;
        let collecting = remote::begin(id, uplink)
            .map_err(|error| format!("no room to take what it writes: {error}"))?;
        Ok(Checked { exec, pod, container, args, collecting })
    }

    /// Ends the command of order `id`; one that is not there is fine.
    pub(super) fn end_for_cloud(&mut self, id: u64) -> Result<(), LauncherLost> {
        let meant =
            |running: &Running| matches!(running.asker, Asker::Cloud { id: of, .. } if of == id);
        let number = self.commands.iter().find(|(_, running)| meant(running)).map(|(n, _)| *n);
        number.map_or(Ok(()), |number| self.executor.end_exec(number))
    }

    /// Ends what has taken its time; when to look again.
    pub(super) fn end_late_commands(
        &mut self,
        now: Millis,
    ) -> Result<Option<Millis>, LauncherLost> {
        let mut next: Option<Millis> = None;
        for (number, running) in &mut self.commands {
            let Asker::Cloud { deadline, timed_out, .. } = &mut running.asker else { continue };
            if deadline.take_if(|deadline| *deadline <= now).is_some() {
                *timed_out = true;
                self.executor.end_exec(*number)?;
            }
            next = [next, *deadline].into_iter().flatten().min();
        }
        Ok(next)
    }

    pub(super) fn executed(&mut self, number: u32, result: Result<Exit, String>) {
        let Some(Running { pod, text, asker }) = self.commands.remove(&number) else { return };
        let mut how = match &result {
            Ok(exit) => exit.to_string(),
            Err(error) => error.clone(),
        };
        match asker {
            Asker::Person(answer) => {
                let _ = answer.try_send(match result {
                    Ok(exit) => Response::Exited(exit),
                    Err(error) => Response::Error(error),
                });
            }
            Asker::Cloud { end, timed_out, .. } => {
                if timed_out {
                    how = format!("its time was over ({how})");
                }
                // Its thread takes it, unless it could not go on.
                let _ = end.try_send(End { result, timed_out });
            }
        }
        let text = format!("{text} ended: {how}");
        self.tell(EventKind::CommandRun, pod.as_str(), &text, clock::boot_now());
    }
}

impl Running {
    fn is_remote(&self) -> bool {
        matches!(self.asker, Asker::Cloud { .. })
    }
}

fn joined(args: &[String]) -> Result<Box<Words>, String> {
    let args = join_words(args.iter().map(String::as_str));
    Ok(Box::new(args.ok_or("the command line is too long")?))
}

/// For people, of a length that leaves room for how it ended.
fn quoted(args: &Words) -> String {
    let text = args.trim_end_matches('\0').replace('\0', " ");
    let cut = cut(&text, LISTED_BYTES_MAX);
    if cut.len() < text.len() { format!("`{cut}…`") } else { format!("`{text}`") }
}

/// The pod and the container that are meant.
fn target(
    asked: &Name,
    container: Option<&Name>,
    observed: &Observed,
) -> Result<(Name, Name), String> {
    let of_deployment =
        || observed.pods.iter().find(|(_, pod)| pod.deployment == *asked && pod.complete);
    let (name, pod) =
        observed.pods.get_key_value(asked).or_else(of_deployment).ok_or_else(|| {
            let known = listed(observed.pods.keys());
            format!("there is no pod or deployment `{asked}`, only the pods: {known}")
        })?;
    let container = match container {
        Some(container) if pod.containers.contains_key(container) => container,
        Some(container) => {
            let known = listed(pod.order.iter().map(|(name, _)| name));
            return Err(format!("pod {name} has no container `{container}`, only: {known}"));
        }
        None => first_main(pod).ok_or_else(|| format!("pod {name} has no container yet"))?,
    };
    Ok((name.clone(), container.clone()))
}

fn listed<'a>(names: impl Iterator<Item = &'a Name>) -> String {
    let names: Vec<&str> = names.map(Name::as_str).collect();
    let text = if names.is_empty() { "none".into() } else { names.join(", ") };
    let cut = cut(&text, LISTED_BYTES_MAX);
    if cut.len() < text.len() { format!("{cut}…") } else { text }
}

fn first_main(pod: &ObservedPod) -> Option<&Name> {
    pod.order.iter().find(|(_, role)| *role == Role::Main).map(|(name, _)| name)
}
