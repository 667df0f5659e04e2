//! Commands that people run in containers: which container is meant, and what
//! is told of it. The streams are theirs; nothing of them passes here.

use std::os::fd::OwnedFd;
use std::sync::mpsc::SyncSender;

use wherry_bundle::Name;
use wherry_bundle::message::{EventKind, Exit};
use wherry_bundle::model::Role;
use wherry_core::{Millis, Observed, ObservedPod};
use wherry_runtime::proto::{Request, join_words};

use super::Node;
use crate::clock;
use crate::control::{Exec, Response};
use crate::supervisor::executor::LauncherLost;

/// One that was begun.
#[derive(Debug)]
pub(super) struct Running {
    pod: Name,
    /// For people.
    text: String,
    answer: SyncSender<Response>,
}

impl Node {
    pub(super) fn exec(
        &mut self,
        exec: Exec,
        streams: &[OwnedFd],
        answer: SyncSender<Response>,
        now: Millis,
    ) -> Result<(), LauncherLost> {
        // Whoever asked may be gone: that is seen by the connection.
        let request = target(&exec, &self.observed).and_then(|(pod, container)| {
            let args = join_words(exec.args.iter().map(String::as_str));
            let args = Box::new(args.ok_or("the command line is too long")?);
            let terminal = exec.terminal;
            Ok((pod.clone(), Request::Exec { pod, container, args, terminal }))
        });
        let (pod, request) = match request {
            Ok(request) => request,
            Err(text) => {
                let _ = answer.try_send(Response::Error(text));
                return Ok(());
            }
        };
        let text = format!("`{}`", exec.args.join(" "));
        let number = self.executor.exec(request, streams)?;
        self.tell(EventKind::CommandRun, pod.as_str(), &format!("a person runs {text}"), now);
        let _ = answer.try_send(Response::Executing { number });
        self.commands.insert(number, Running { pod, text, answer });
        Ok(())
    }

    pub(super) fn executed(&mut self, number: u32, result: Result<Exit, String>) {
        let Some(Running { pod, text, answer }) = self.commands.remove(&number) else { return };
        let (end, response) = match result {
            Ok(exit) => (exit.to_string(), Response::Exited(exit)),
            Err(error) => (error.clone(), Response::Error(error)),
        };
        let text = format!("{text} ended: {end}");
        self.tell(EventKind::CommandRun, pod.as_str(), &text, clock::boot_now());
        let _ = answer.try_send(response);
    }
}

/// The pod and the container that are meant.
fn target(exec: &Exec, observed: &Observed) -> Result<(Name, Name), String> {
    let of_deployment =
        || observed.pods.iter().find(|(_, pod)| pod.deployment == exec.pod && pod.complete);
    let (name, pod) =
        observed.pods.get_key_value(&exec.pod).or_else(of_deployment).ok_or_else(|| {
            let name = &exec.pod;
            format!("there is no pod or deployment `{name}` (`wherry ps` lists them)")
        })?;
    let container = match &exec.container {
        Some(container) if pod.containers.contains_key(container) => container,
        Some(container) => {
            let known: Vec<&str> = pod.order.iter().map(|(name, _)| name.as_str()).collect();
            let known = known.join(", ");
            return Err(format!("pod {name} has no container `{container}`, only: {known}"));
        }
        None => first_main(pod).ok_or_else(|| format!("pod {name} has no container yet"))?,
    };
    Ok((name.clone(), container.clone()))
}

fn first_main(pod: &ObservedPod) -> Option<&Name> {
    pod.order.iter().find(|(_, role)| *role == Role::Main).map(|(name, _)| name)
}
