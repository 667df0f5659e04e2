//! Probes: a prober for each ([`crate::prober`]), ended at its deadline, so
//! that what hangs delays nobody; and commands that people run, which have none.

use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;

use nix::unistd::Pid;
use wherry_bundle::Name;
use wherry_bundle::limits::TEXT_BYTES_MAX;

use super::Launcher;
use super::state::State;
use crate::clock::boot_millis;
use crate::packet::DESCRIPTORS_MAX;
use crate::prober::{self, ENDED, Job, Task};
use crate::process::exit_of;
use crate::proto::{ContainerSpec, Notice, ProbeCheck, Text, Words};
use crate::{check, record, sys};

/// At once: each is a process of some hundred kilobytes. A node whose programs
/// do not answer has one for each of its probes until their timeouts.
const PROBES_MAX: usize = 64;
/// Of them, commands that people run.
const COMMANDS_MAX: usize = 8;
/// As long as a pod's own grace can be, which is what `preStop` may take.
const TIMEOUT_MILLIS_MAX: u32 = 600_000;

/// A prober at work.
#[derive(Debug)]
pub struct Probing {
    prober: Pid,
    pod: Name,
    /// The request; `None` once it was answered.
    seq: Option<u32>,
    /// What the prober says of a failure.
    says: PipeReader,
    /// `None`: a person's command.
    limit: Option<Limit>,
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    deadline_millis: u64,
    timeout_millis: u32,
}

impl Probing {
    /// Until when it has to be looked at; one that was answered waits for its
    /// end only.
    #[must_use]
    pub fn deadline_millis(&self) -> Option<u64> {
        self.seq.and(self.limit).map(|limit| limit.deadline_millis)
    }

    fn kill(&self) {
        // Harmless if it has ended: until it is reaped its number is its own.
        // First the group, which is not there yet if it has only just begun.
        let group = Pid::from_raw(-self.prober.as_raw());
        for target in [group, self.prober] {
            if let Err(error) = sys::kill_child(target, libc::SIGKILL) {
                log::debug!("prober {target}: {error}");
            }
        }
    }
}

impl Launcher {
    /// Begins a probe; its answer comes when the prober has ended.
    pub(super) fn probe(
        &mut self,
        seq: u32,
        pod: &Name,
        container: &Name,
        check: &ProbeCheck,
        timeout_millis: u32,
    ) {
        let timeout_millis = timeout_millis.min(TIMEOUT_MILLIS_MAX);
        let deadline_millis = boot_millis() + u64::from(timeout_millis);
        let limit = Some(Limit { deadline_millis, timeout_millis });
        let begun = check::probe(check)
            .map_err(|refused| refused.to_string())
            .and_then(|()| self.begin(seq, pod, container, Task::Check(check), limit));
        match begun {
            Ok(probing) => self.probes.push(probing),
            Err(text) => {
                log::debug!("{pod}/{container} is not probed: {text}");
                self.link.send(&Notice::NotTried { seq, error: bounded(&text) });
            }
        }
    }

    /// Begins a person's command; its answer comes when it has ended.
    pub(super) fn exec(
        &mut self,
        seq: u32,
        pod: &Name,
        container: &Name,
        args: &Words,
        streams: &[OwnedFd],
        terminal: bool,
    ) -> Result<(), String> {
        check::command(args, || "command".to_owned()).map_err(|refused| refused.to_string())?;
        if streams.len() != if terminal { 1 } else { DESCRIPTORS_MAX } {
            return Err("its standard streams did not come with it".into());
        }
        if self.probes.iter().filter(|probing| probing.limit.is_none()).count() >= COMMANDS_MAX {
            return Err(format!("{COMMANDS_MAX} commands are under way"));
        }
        let task = Task::Command { args, streams, terminal };
        let probing = self.begin(seq, pod, container, task, None)?;
        self.probes.push(probing);
        Ok(())
    }

    /// Kills a person's command; its answer comes with its end.
    pub(super) fn end_exec(&self, of: u32) {
        let meant = |probing: &&Probing| probing.seq == Some(of) && probing.limit.is_none();
        self.probes.iter().filter(meant).for_each(Probing::kill);
    }

    fn begin(
        &self,
        seq: u32,
        pod: &Name,
        container: &Name,
        task: Task<'_>,
        limit: Option<Limit>,
    ) -> Result<Probing, String> {
        if self.probes.len() >= PROBES_MAX {
            return Err(format!("{PROBES_MAX} probes are under way"));
        }
        let known = self.pods.get(pod).ok_or("there is no such pod")?;
        if known.removal.is_some() {
            return Err("the pod is being removed".into());
        }
        let entry = known.containers.get(container).ok_or("there is no such container")?;
        let State::Running(running) = &entry.state else { return Err("it does not run".into()) };
        let spec: ContainerSpec = record::read(&entry.folder.spec())
            .map_err(|error| error.to_string())?
            .ok_or("its spec is gone from the run folder")?;
        let job = Job {
            task,
            pod: &known.folder,
            address: known.spec.address,
            init: running.identity,
            spec: &spec,
            tree: &self.tree,
            cgroup: &entry.cgroup,
        };
        let text = |error: io::Error| format!("forking a prober: {error}");
        let (says, pipe) = io::pipe().map_err(text)?;
        let launcher = Pid::this();
        let prober = sys::fork_child(|| prober::run(&job, &pipe, launcher)).map_err(text)?;
        Ok(Probing { prober, pod: pod.clone(), seq: Some(seq), says, limit })
    }

    /// Whether it was a prober; then its probe is answered.
    pub(super) fn prober_ended(&mut self, pid: Pid, status: i32) -> bool {
        let Some(at) = self.probes.iter().position(|probing| probing.prober == pid) else {
            return false;
        };
        let probing = self.probes.swap_remove(at);
        let Some(seq) = probing.seq else { return true };
        if probing.limit.is_none() {
            let said = said(&probing.says);
            let ended = said.as_deref().and_then(|text| text.strip_prefix(ENDED)?.parse().ok());
            self.link.send(&match (ended, said) {
                (Some(status), _) => Notice::Ended { seq, exit: exit_of(status) },
                (None, Some(error)) => Notice::Failed { seq, error: bounded(&error) },
                // It was killed.
                (None, None) => Notice::Ended { seq, exit: exit_of(status) },
            });
            return true;
        }
        let result = match status {
            0 => Ok(()),
            _ => Err(said(&probing.says).unwrap_or_else(|| exit_of(status).to_string())),
        };
        self.answer_probe(seq, result);
        true
    }

    /// Ends what has taken too long.
    pub(super) fn advance_probes(&mut self, now: u64) {
        let mut late = Vec::new();
        for probing in &mut self.probes {
            if let Some(limit) = probing.limit
                && now >= limit.deadline_millis
                && let Some(seq) = probing.seq.take()
            {
                probing.kill();
                late.push((seq, limit.timeout_millis));
            }
        }
        for (seq, timeout_millis) in late {
            self.answer_probe(seq, Err(format!("no answer within {timeout_millis} ms")));
        }
    }

    /// Nobody waits for them any more.
    pub(super) fn end_probes(&self, pod: &Name) {
        self.probes.iter().filter(|probing| probing.pod == *pod).for_each(Probing::kill);
    }

    /// The supervisor that asked is gone.
    pub(super) fn forget_probes(&mut self) {
        for probing in &mut self.probes {
            probing.seq = None;
            probing.kill();
        }
    }

    /// That a program is not well is no failure of the launcher's.
    fn answer_probe(&mut self, seq: u32, result: Result<(), String>) {
        let notice = match result {
            Ok(()) => Notice::Done { seq },
            Err(text) => Notice::Failed { seq, error: bounded(&text) },
        };
        self.link.send(&notice);
    }
}

fn bounded(text: &str) -> Text {
    Text::try_from(wherry_bundle::limits::bounded_text(text).as_str()).unwrap_or_default()
}

/// The first line that a prober wrote: it has ended, so that all is there.
fn said(mut says: &PipeReader) -> Option<String> {
    let mut text = Vec::new();
    says.by_ref().take(TEXT_BYTES_MAX as u64).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().next().map(str::to_owned)
}
