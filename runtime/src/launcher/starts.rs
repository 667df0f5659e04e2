//! Starting containers: a creator for each, watched until it has said how
//! it went.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::stat;
use nix::unistd::Pid;
use wherry_bundle::Name;
use wherry_bundle::limits::CONTAINER_PIDS_MAX;
use wherry_bundle::model::HostPathKind;
use wherry_cgroups::{CgroupPath, Devices, Limits};

use super::Launcher;
use super::state::{Running, Start, State};
use crate::clock::boot_millis;
use crate::creator::{self, Job, Report};
use crate::packet::{self, Received, Wait};
use crate::process::Identity;
use crate::proto::{ContainerSpec, MountSource, Notice};
use crate::{record, rootfs, sys};

/// From the request to the program's execution: an image may lie on slow
/// flash, and the gateway be busy.
const START_MILLIS_MAX: u64 = 60_000;
/// Requests that wait for one start.
const SEQS_MAX: usize = 8;
const SILENT_END: &str = "its creator ended without a word";

impl Launcher {
    /// Begins a start; its answer comes when the creator has reported.
    pub(super) fn start_container(&mut self, seq: u32, pod: &Name, container: &Name) {
        match self.begin_start(seq, pod, container) {
            Ok(Begun::UnderWay) => {}
            Ok(Begun::RunsAlready) => self.answer(seq, Ok(())),
            Err(text) => {
                self.answer(seq, Err(format!("starting {pod}/{container}: {text}")));
            }
        }
    }

    fn begin_start(&mut self, seq: u32, pod: &Name, container: &Name) -> Result<Begun, String> {
        let known = self.pods.get(pod).ok_or("there is no such pod")?;
        if known.removal.is_some() {
            return Err("the pod is being removed".into());
        }
        let entry = known.containers.get(container).ok_or("there is no such container")?;
        if matches!(entry.state, State::Running(_)) {
            return Ok(Begun::RunsAlready);
        }
        let under_way = |start: &&mut Start| start.pod == *pod && start.container == *container;
        if let Some(start) = self.starts.iter_mut().find(under_way) {
            if start.seqs.len() >= SEQS_MAX {
                return Err("too many requests for the same start".into());
            }
            start.seqs.push(seq);
            return Ok(Begun::UnderWay);
        }
        let start = self.launch(seq, pod, container)?;
        self.starts.push(start);
        Ok(Begun::UnderWay)
    }

    /// Layers, cgroup, and the creator's process.
    fn launch(&mut self, seq: u32, pod: &Name, container: &Name) -> Result<Start, String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let known = self.pods.get(pod).ok_or("there is no such pod")?;
        let entry = known.containers.get(container).ok_or("there is no such container")?;
        let spec: ContainerSpec = record::read(&entry.folder.spec())
            .map_err(|error| text(&error))?
            .ok_or("its spec is gone from the run folder")?;
        let layers: Result<Vec<String>, _> =
            entry.layers.iter().map(|layer| self.layers.ensure(layer)).collect();
        let layers = layers.map_err(|error| text(&error))?;
        // See `Launcher::fork_into_cgroups` for why only into a new one.
        let fresh = self.fork_into_cgroups && self.tree.discard_unified(&entry.cgroup);
        let into = self.tree.unified_folder(&entry.cgroup).filter(|_| fresh);
        self.tree.create(&entry.cgroup, &limits(&spec)).map_err(|error| text(&error))?;
        for path in devices(&spec) {
            let (_, number) = rootfs::device(Path::new(path)).map_err(|error| text(&error))?;
            let (major, minor) = (stat::major(number), stat::minor(number));
            let allowed = self.tree.allow_device(&entry.cgroup, major, minor);
            allowed.map_err(|error| text(&error))?;
        }
        let oom_kills = self.tree.oom_kills(&entry.cgroup).map_err(|error| text(&error))?;
        let job = Job {
            folders: &self.folders,
            claims: &self.claims_dir,
            pod: &known.folder,
            networked: known.spec.address.is_some(),
            container: &entry.folder,
            spec: &spec,
            layers: &layers,
            tree: &self.tree,
            cgroup: &entry.cgroup,
            open_files_max: self.open_files_max,
        };
        let (own, its) = packet::pair().map_err(|error| text(&error))?;
        let launcher = Pid::this();
        let child = || creator::run(&job, &its, launcher);
        let (creator, forked_into_cgroup) = fork_creator(into.as_deref(), child)
            .map_err(|error| format!("forking a creator: {error}"))?;
        Ok(Start {
            creator: Some(creator),
            pod: pod.clone(),
            container: container.clone(),
            seqs: vec![seq],
            socket: own,
            deadline_millis: boot_millis() + START_MILLIS_MAX,
            oom_kills,
            forked_into_cgroup,
            init: None,
            ended: None,
            outcome: None,
        })
    }

    /// Reads what creators have reported, and ends those that take too long.
    pub(super) fn advance_starts(&mut self, now: u64) {
        self.read_reports();
        for start in &mut self.starts {
            if start.outcome.is_none() && now >= start.deadline_millis {
                let text = format!("not done within {} s", START_MILLIS_MAX / 1000);
                start.outcome = Some(Report::Failed { text });
            }
        }
        while let Some(at) = self.starts.iter().position(|start| start.outcome.is_some()) {
            let start = self.starts.swap_remove(at);
            self.finish_start(start);
        }
        if self.starts.is_empty() && self.layers.has_replaced() {
            self.release_layers();
        }
    }

    /// Moves reports from the sockets into [`Launcher::starts`].
    pub(super) fn read_reports(&mut self) {
        let mut buffer = Vec::new();
        for start in self.starts.iter_mut().filter(|start| start.outcome.is_none()) {
            loop {
                match packet::receive(start.socket.as_fd(), &mut buffer, Wait::No) {
                    Ok(Received::Packet(Report::Created { pid, start_ticks })) => {
                        start.init = Some(Identity { pid: Pid::from_raw(pid), start_ticks });
                    }
                    Ok(Received::Packet(outcome @ (Report::Started | Report::Failed { .. }))) => {
                        start.outcome = Some(outcome);
                    }
                    Ok(Received::Nothing) => break,
                    Ok(Received::End) => {
                        let text = SILENT_END.into();
                        start.outcome = Some(Report::Failed { text });
                        break;
                    }
                    Err(error) => {
                        start.outcome = Some(Report::Failed { text: error.to_string() });
                        break;
                    }
                }
                if start.outcome.is_some() {
                    break;
                }
            }
        }
    }

    fn finish_start(&mut self, start: Start) {
        let Some(start) = self.without_fork_into(start) else { return };
        let at = format!("starting {}/{}", start.pod, start.container);
        let result = match (&start.outcome, start.init) {
            (Some(Report::Started), Some(identity)) => self.now_running(&start, identity),
            (Some(Report::Failed { text }), _) => Err(self.failed_start(&start, text)),
            // Reports come in order: a start has an init, and an end.
            (Some(Report::Started | Report::Created { .. }) | None, _) => {
                Err(self.failed_start(&start, "its creator reports nonsense"))
            }
        };
        let result = result.map_err(|text| format!("{at}: {text}"));
        self.answer_all(&start.seqs, &result);
        if let (Ok(()), Some(status), Some(identity)) = (&result, start.ended, start.init) {
            self.container_ended(identity.pid, Some(status));
        }
    }

    /// Begins a start once more if the kernel has killed its creator at
    /// birth; see [`Launcher::fork_into_cgroups`].
    fn without_fork_into(&mut self, mut start: Start) -> Option<Start> {
        let silent = Report::Failed { text: SILENT_END.into() };
        if !start.forked_into_cgroup || start.init.is_some() || start.outcome != Some(silent) {
            return Some(start);
        }
        let going = self.pods.get(&start.pod).is_some_and(|pod| pod.removal.is_none());
        let oom_kills = CgroupPath::container(start.pod.as_str(), start.container.as_str())
            .and_then(|cgroup| self.tree.oom_kills(&cgroup));
        if !going || oom_kills.is_ok_and(|kills| kills > start.oom_kills) {
            return Some(start);
        }
        log::info!("this kernel kills what is forked into a cgroup: going on without");
        self.fork_into_cgroups = false;
        let seqs = std::mem::take(&mut start.seqs);
        match self.launch(0, &start.pod, &start.container) {
            Ok(again) => self.starts.push(Start { seqs, ..again }),
            Err(text) => {
                let at = format!("starting {}/{}", start.pod, start.container);
                self.answer_all(&seqs, &Err(format!("{at}: {text}")));
            }
        }
        None
    }

    fn now_running(&mut self, start: &Start, identity: Identity) -> Result<(), String> {
        let since_millis = boot_millis();
        let pod = self.pods.get_mut(&start.pod).ok_or("its pod is gone")?;
        let container = pod.containers.get_mut(&start.container).ok_or("it is gone")?;
        let running = Running { identity, since_millis, oom_kills: start.oom_kills, pidfd: None };
        container.state = State::Running(running);
        save_state(&container.folder.state(), &container.state);
        self.link.send(&Notice::Started {
            pod: start.pod.clone(),
            container: start.container.clone(),
            pid: identity.pid.as_raw().unsigned_abs(),
            since_millis,
        });
        Ok(())
    }

    /// Nothing of a start that failed may stay. Gives the reason.
    fn failed_start(&self, start: &Start, text: &str) -> String {
        kill_creator(start);
        let Ok(cgroup) = CgroupPath::container(start.pod.as_str(), start.container.as_str()) else {
            return text.to_owned();
        };
        if let Err(error) = self.tree.kill(&cgroup) {
            log::warn!("after a failed start: {error}");
        }
        let oom_kills = self.tree.oom_kills(&cgroup).unwrap_or_default();
        if oom_kills > start.oom_kills {
            return format!("its memory limit is too low to start it ({text})");
        }
        text.to_owned()
    }
}

/// A child that begins in the cgroup of folder `into`, where the kernel can
/// do that; else it joins by itself. Whether it could.
fn fork_creator(into: Option<&Path>, child: impl Fn() -> i32) -> io::Result<(Pid, bool)> {
    if let Some(folder) = into {
        match File::open(folder).and_then(|fd| sys::fork_child_into(fd.as_fd(), &child)) {
            Ok(pid) => return Ok((pid, true)),
            Err(error) => log::debug!("{}: {error}", folder.display()),
        }
    }
    Ok((sys::fork_child(child)?, false))
}

/// Harmless if it has ended: until it is reaped its number is its own.
pub fn kill_creator(start: &Start) {
    if let Some(creator) = start.creator
        && let Err(error) = sys::kill_child(creator, libc::SIGKILL)
    {
        log::debug!("creator {creator}: {error}");
    }
}

enum Begun {
    UnderWay,
    RunsAlready,
}

/// Writes down a container's state. If that fails, the next launcher knows
/// less; this one goes on.
pub fn save_state(path: &Path, state: &State) {
    if let Some(Err(error)) = state.record().map(|state| record::write(path, &state)) {
        log::error!("{error}");
    }
}

/// Of the host, that are mounted into the container.
fn devices(spec: &ContainerSpec) -> impl Iterator<Item = &str> {
    spec.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Host { path, kind: HostPathKind::CharDevice } => Some(&**path),
        MountSource::Host { .. }
        | MountSource::Files(_)
        | MountSource::Empty { .. }
        | MountSource::Claim { .. } => None,
    })
}

fn limits(spec: &ContainerSpec) -> Limits {
    Limits {
        cpu_millis: spec.cpu_millis,
        memory_bytes: spec.memory_bytes,
        pids: Some(spec.pids.unwrap_or(CONTAINER_PIDS_MAX)),
        devices: Devices::Container,
    }
}
