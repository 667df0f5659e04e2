//! Taking over what an earlier launcher left: pods from the run folder,
//! their containers from the kernel. What cannot be taken over whole is taken
//! away; the supervisor makes it anew.

use std::fs;
use std::path::Path;

use nix::unistd::Pid;
use wherry_bundle::Name;
use wherry_bundle::message::Exit;
use wherry_cgroups::CgroupPath;

use super::starts::save_state;
use super::state::{Container, Pod, Running, State};
use super::{Launcher, LauncherError};
use crate::clock::boot_millis;
use crate::folders::PodFolder;
use crate::process::{Identity, Stat};
use crate::proto::{ContainerSpec, PodSpec};
use crate::record::{self, StateRecord};
use crate::{sandbox, sys};

impl Launcher {
    pub(super) fn adopt(&mut self) -> Result<(), LauncherError> {
        for name in self.pod_folders()? {
            let folder = self.folders.pod(&name);
            match read_pod(&name, &folder) {
                Ok(pod) => {
                    self.end_strays(&pod);
                    self.pods.insert(name, pod);
                }
                Err(text) => {
                    log::error!("pod {name} cannot be taken over, and is removed: {text}");
                    self.discard(&name, &folder);
                }
            }
        }
        self.end_unknown_cgroups();
        self.release_layers();
        if self.pods.values().any(|pod| pod.spec.address.is_some()) {
            self.network.ensure_host()?;
        }
        let running = self.adopted_pidfds().count();
        if !self.pods.is_empty() {
            log::info!("took over {} pods, {running} running containers", self.pods.len());
        }
        Ok(())
    }

    fn pod_folders(&self) -> Result<Vec<Name>, LauncherError> {
        let path = self.folders.pods();
        let io = |source| LauncherError::Io { what: "listing", path: path.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(io)? {
            let entry = entry.map_err(io)?;
            if let Some(name) = entry.file_name().to_str().and_then(|text| Name::new(text).ok()) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Processes of containers that do not count as running: of a start that
    /// died with the earlier launcher.
    fn end_strays(&self, pod: &Pod) {
        let idle = pod
            .containers
            .values()
            .filter(|container| !matches!(container.state, State::Running(_)));
        for container in idle {
            if let Err(error) = self.tree.kill(&container.cgroup) {
                log::warn!("{}: {error}", container.cgroup);
            }
        }
    }

    fn end_unknown_cgroups(&self) {
        let names = self.tree.pods().unwrap_or_else(|error| {
            log::warn!("{error}");
            Vec::new()
        });
        for name in names {
            let Ok(name) = Name::new(&name) else { continue };
            if !self.pods.contains_key(&name) {
                log::warn!("pod {name} has a cgroup but no record: its processes are killed");
                self.discard(&name, &self.folders.pod(&name));
            }
        }
    }

    fn discard(&self, name: &Name, folder: &PodFolder) {
        let gone = CgroupPath::pod(name.as_str()).and_then(|cgroup| {
            self.tree.kill(&cgroup)?;
            self.tree.remove(&cgroup)
        });
        if let Err(error) = gone {
            log::error!("pod {name}: {error}");
        }
        if let Err(error) = sandbox::remove(folder) {
            log::error!("pod {name}: {error}");
        }
    }
}

fn read_pod(name: &Name, folder: &PodFolder) -> Result<Pod, String> {
    let text = |error: record::RecordError| error.to_string();
    let spec: PodSpec =
        record::read(&folder.record()).map_err(text)?.ok_or("it was never whole")?;
    if spec.name != *name {
        return Err(format!("its record is of pod {}", spec.name));
    }
    let cgroup = CgroupPath::pod(name.as_str()).map_err(|error| error.to_string())?;
    let mut pod = Pod {
        spec,
        folder: folder.clone(),
        cgroup,
        containers: std::collections::BTreeMap::new(),
        removal: None,
    };
    for (container, _) in pod.spec.containers.clone() {
        let place = folder.container(&container);
        let spec: Option<ContainerSpec> = record::read(&place.spec()).map_err(text)?;
        // Not defined yet: the supervisor goes on where it was.
        let Some(spec) = spec else { continue };
        let cgroup = CgroupPath::container(name.as_str(), container.as_str())
            .map_err(|error| error.to_string())?;
        let mut entry = Container::new(&spec, place, cgroup);
        entry.state = read_state(&entry.folder.state())?;
        pod.containers.insert(container, entry);
    }
    Ok(pod)
}

fn read_state(path: &Path) -> Result<State, String> {
    let state = match record::read(path).map_err(|error| error.to_string())? {
        None => State::Defined,
        Some(StateRecord::Exited { exit, started_millis, at_millis }) => {
            State::Exited { exit, started_millis, at_millis }
        }
        Some(StateRecord::Running { pid, start_ticks, since_millis, oom_kills }) => {
            let pid = Pid::from_raw(i32::try_from(pid).map_err(|_| format!("pid {pid}"))?);
            let identity = Identity { pid, start_ticks };
            let Some(pidfd) = open_if_same(identity) else {
                let at_millis = boot_millis();
                let state =
                    State::Exited { exit: Exit::Unknown, started_millis: since_millis, at_millis };
                save_state(path, &state);
                return Ok(state);
            };
            State::Running(Running { identity, since_millis, oom_kills, pidfd: Some(pidfd) })
        }
    };
    Ok(state)
}

/// The pidfd first, the look at the process after: what was looked at is what
/// the descriptor stands for, or it has ended.
fn open_if_same(identity: Identity) -> Option<std::os::fd::OwnedFd> {
    let pidfd = sys::pidfd_open(identity.pid).ok()?;
    let stat = Stat::read(identity.pid).ok()?;
    (stat.start_ticks == identity.start_ticks).then_some(pidfd)
}
