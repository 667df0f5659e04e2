//! Pods: made, filled with containers, and taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::Mode;
use wherry_bundle::limits::PODS_MAX;
use wherry_bundle::{Digest, Name};
use wherry_cgroups::{CgroupPath, Limits};

use super::Launcher;
use super::starts::kill_creator;
use super::state::{Container, Pod, Removal};
use crate::clock::boot_millis;
use crate::network::HostEntry;
use crate::proto::{ContainerSpec, PodSpec};
use crate::record;
use crate::sandbox::{self, Attachment};

/// From SIGKILL to the last process's end: processes that wait for a device
/// die when it answers.
const REMOVE_MILLIS_MAX: u64 = 10_000;
/// Requests that wait for one removal.
const SEQS_MAX: usize = 8;

impl Launcher {
    /// Idempotent for the same spec.
    pub(super) fn create_pod(&mut self, spec: PodSpec) -> Result<(), String> {
        if let Some(pod) = self.pods.get(&spec.name) {
            return match (&pod.removal, pod.spec == spec) {
                (None, true) => Ok(()),
                (None, false) => Err("there is another pod of this name".into()),
                (Some(_), _) => Err("a pod of this name is being removed".into()),
            };
        }
        if self.pods.len() >= PODS_MAX {
            return Err(format!("there are {PODS_MAX} pods already"));
        }
        let cgroup = CgroupPath::pod(spec.name.as_str()).map_err(|error| error.to_string())?;
        let folder = self.folders.pod(&spec.name);
        let made = self.make_pod(&spec, &cgroup);
        if let Err(text) = made {
            // As if it had never been asked for.
            if let Err(error) = sandbox::remove(&folder) {
                log::warn!("after a failure: {error}");
            }
            if let Err(error) = self.tree.remove(&cgroup) {
                log::warn!("after a failure: {error}");
            }
            return Err(text);
        }
        let name = spec.name.clone();
        let pod = Pod { spec, folder, cgroup, containers: BTreeMap::new(), removal: None };
        self.pods.insert(name, pod);
        Ok(())
    }

    fn make_pod(&mut self, spec: &PodSpec, cgroup: &CgroupPath) -> Result<(), String> {
        let folder = self.folders.pod(&spec.name);
        // Left by an attempt that a crash cut short.
        sandbox::remove(&folder).map_err(|error| error.to_string())?;
        let number = match spec.address {
            Some(address) => {
                let number = self.network.number_of(address).map_err(|error| error.to_string())?;
                if let Some(other) = self.pods.values().find(|p| p.spec.address == spec.address) {
                    return Err(format!("its address is pod {}'s", other.spec.name));
                }
                self.network.ensure_host().map_err(|error| error.to_string())?;
                Some((address, number))
            }
            None => None,
        };
        self.tree.create(cgroup, &Limits::default()).map_err(|error| error.to_string())?;
        let network = self.network.network();
        let attachment = number.map(|(address, number)| Attachment { network, number, address });
        sandbox::create(spec, &folder, attachment).map_err(|error| error.to_string())?;
        self.network
            .write_files(spec, &folder, &self.host_entries())
            .map_err(|error| error.to_string())?;
        record::write(&folder.record(), spec).map_err(|error| error.to_string())
    }

    /// Idempotent for the same spec.
    pub(super) fn define_container(
        &mut self,
        pod: &Name,
        spec: &ContainerSpec,
    ) -> Result<(), String> {
        let pod = self.pods.get_mut(pod).ok_or("there is no such pod")?;
        if pod.removal.is_some() {
            return Err("the pod is being removed".into());
        }
        if !pod.spec.containers.iter().any(|(name, _)| *name == spec.name) {
            return Err("the pod's spec does not name this container".into());
        }
        let folder = pod.folder.container(&spec.name);
        if pod.containers.contains_key(&spec.name) {
            let held: Option<ContainerSpec> =
                record::read(&folder.spec()).map_err(|error| error.to_string())?;
            return match held {
                Some(held) if held == *spec => Ok(()),
                _ => Err("there is another container of this name in the pod".into()),
            };
        }
        let cgroup = CgroupPath::container(pod.spec.name.as_str(), spec.name.as_str())
            .map_err(|error| error.to_string())?;
        make_container_folder(folder.path())?;
        for path in [folder.stdout(), folder.stderr()] {
            make_output(&path, spec.uid, spec.gid)?;
        }
        record::write(&folder.spec(), spec).map_err(|error| error.to_string())?;
        pod.containers.insert(spec.name.clone(), Container::new(spec, folder, cgroup));
        Ok(())
    }

    /// Kills what runs; the rest goes when it has ended. A pod that does not
    /// exist is removed.
    pub(super) fn begin_removal(&mut self, name: &Name, seq: Option<u32>) {
        let Some(pod) = self.pods.get_mut(name) else {
            if let Some(seq) = seq {
                self.answer(seq, Ok(()));
            }
            return;
        };
        let deadline_millis = boot_millis() + REMOVE_MILLIS_MAX;
        let removal = pod.removal.get_or_insert(Removal { seqs: Vec::new(), deadline_millis });
        if removal.seqs.len() < SEQS_MAX {
            removal.seqs.extend(seq);
        }
        for start in self.starts.iter().filter(|start| start.pod == *name) {
            kill_creator(start);
        }
        if let Err(error) = self.tree.kill(&pod.cgroup) {
            log::warn!("removing pod {name}: {error}");
        }
        self.end_probes(name);
    }

    /// Takes away the pods whose processes have ended.
    pub(super) fn advance_removals(&mut self, now: u64) {
        let ready: Vec<Name> = self
            .pods
            .iter()
            .filter(|(_, pod)| {
                pod.removal
                    .as_ref()
                    .is_some_and(|removal| !pod.runs() || now >= removal.deadline_millis)
            })
            .map(|(name, _)| name.clone())
            .filter(|name| self.starts.iter().all(|start| start.pod != *name))
            .collect();
        if ready.is_empty() {
            return;
        }
        for name in ready {
            let result = self.take_away(&name);
            let result = result.map_err(|text| format!("removing pod {name}: {text}"));
            let removal = match &result {
                Ok(()) => self.pods.remove(&name).and_then(|pod| pod.removal),
                // To be asked for again.
                Err(_) => self.pods.get_mut(&name).and_then(|pod| pod.removal.take()),
            };
            self.answer_all(&removal.map(|removal| removal.seqs).unwrap_or_default(), &result);
        }
        self.release_layers();
    }

    fn take_away(&mut self, name: &Name) -> Result<(), String> {
        let Some(pod) = self.pods.get(name) else { return Ok(()) };
        if pod.runs() {
            return Err(format!("processes outlive SIGKILL by {} s", REMOVE_MILLIS_MAX / 1000));
        }
        // Strays of a start that was cut short.
        self.tree.kill(&pod.cgroup).map_err(|error| error.to_string())?;
        self.tree.remove(&pod.cgroup).map_err(|error| error.to_string())?;
        sandbox::remove(&pod.folder).map_err(|error| error.to_string())?;
        if let Some(address) = pod.spec.address {
            self.network.forget(address);
        }
        Ok(())
    }

    /// Unmounts layers that no container has, and files that were replaced.
    pub(super) fn release_layers(&mut self) {
        let containers = self.pods.values().flat_map(|pod| pod.containers.values());
        let used: BTreeSet<Digest> =
            containers.flat_map(|container| container.layers.iter().copied()).collect();
        self.layers.release_all_but(&used, !self.starts.is_empty());
    }

    /// All pods with an address, for hosts files.
    pub(super) fn host_entries(&self) -> Vec<HostEntry<'_>> {
        let pods = self.pods.iter().filter(|(_, pod)| pod.removal.is_none());
        pods.filter_map(|(name, pod)| Some((name.as_str(), pod.spec.address?))).collect()
    }
}

fn make_container_folder(path: &Path) -> Result<(), String> {
    let at = |error: std::io::Error| format!("{}: {error}", path.display());
    fs::create_dir_all(path).map_err(at)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(at)
}

/// A FIFO for the container's output. It belongs to the container's user,
/// for programs that open `/dev/stdout`.
fn make_output(path: &Path, uid: u32, gid: u32) -> Result<(), String> {
    match nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(format!("{}: {errno}", path.display())),
    }
    chown(path, Some(uid), Some(gid)).map_err(|error| format!("{}: {error}", path.display()))
}
