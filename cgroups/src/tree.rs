//! [`Tree`]: makes cgroups, limits them, moves processes in, reads them.
//!
//! Stopping and removing are in `control.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::mounts::unified_controllers;
use crate::path::{check_prefix, of_folder};
use crate::{
    CgroupPath, Controller, Devices, Error, Layout, Limits, Mounts, Usage, cpu, devices, file,
    memory, pids, pressure,
};

/// The cgroups below one prefix, in every hierarchy that Wherry uses. Holds
/// no state but where these are; clones and other processes may use the same.
#[derive(Clone, Debug)]
pub struct Tree {
    layout: Layout,
    /// The first one decides who is killed and frozen, so it is joined first.
    pub(crate) hierarchies: Vec<Hierarchy>,
}

#[derive(Clone, Debug)]
pub(crate) struct Hierarchy {
    pub version: Version,
    mount: PathBuf,
    pub prefix: PathBuf,
    /// Those that are enabled for the prefix's children.
    controllers: Vec<Controller>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// A cgroup's folder in the hierarchy that has the wanted controller.
#[derive(Debug)]
pub(crate) struct Place {
    pub version: Version,
    pub folder: PathBuf,
}

impl Tree {
    /// Finds the machine's hierarchies and makes `prefix` in them. Warns of
    /// each controller that is missing. Idempotent.
    ///
    /// # Errors
    /// [`Error::Prefix`]; [`Error::NotMounted`]; [`Error::Io`] if the prefix
    /// can be made in no hierarchy.
    pub fn detect(prefix: &str) -> Result<Self, Error> {
        Self::over(&Mounts::detect()?, prefix)
    }

    /// [`Tree::detect`] with hierarchies that the caller knows.
    ///
    /// # Errors
    /// As there.
    pub fn over(mounts: &Mounts, prefix: &str) -> Result<Self, Error> {
        check_prefix(prefix)?;
        let layout = mounts.layout().ok_or(Error::NotMounted)?;
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        let mut refused = None;
        let unified = mounts.unified.iter().map(|mount| (mount, None));
        let v1 = mounts.v1.iter().map(|(mount, list)| (mount, Some(list.as_slice())));
        for (mount, controllers) in unified.chain(v1) {
            if controllers.is_some_and(|list| is_redundant(list, &hierarchies)) {
                continue;
            }
            match Hierarchy::open(mount, prefix, controllers) {
                Ok(hierarchy) => hierarchies.push(hierarchy),
                Err(error) => {
                    log::warn!("going on without a cgroup hierarchy: {error}");
                    refused = Some(error);
                }
            }
        }
        if hierarchies.is_empty() {
            return Err(refused.unwrap_or(Error::NotMounted));
        }
        // Without v2, freezing first and then killing is what is sure.
        hierarchies.sort_by_key(|one| match one.version {
            Version::V2 => 0,
            Version::V1 if one.has(Controller::Freezer) => 1,
            Version::V1 => 2,
        });
        let tree = Self { layout, hierarchies };
        for (controller, lost) in [
            (Controller::Cpu, "cpu limits have no effect"),
            (Controller::Memory, "memory limits are refused"),
            (Controller::Pids, "limits of processes have no effect"),
        ] {
            if !tree.hierarchies.iter().any(|one| one.has(controller)) {
                log::warn!("no cgroup controller `{}`: {lost}", controller.v2());
            }
        }
        Ok(tree)
    }

    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Makes the cgroup, its parents too, and sets its limits. Idempotent: an
    /// existing cgroup gets the new limits, and `None` lifts one.
    ///
    /// # Errors
    /// [`Error::NoMemoryController`]; [`Error::Io`], such as EBUSY for a
    /// memory limit below what cannot be reclaimed (v1), or EINVAL for a cpu
    /// limit above the parent's (v1).
    pub fn create(&self, path: &CgroupPath, limits: &Limits) -> Result<(), Error> {
        let memory = self.place(Controller::Memory, path);
        if limits.memory_bytes.is_some() && memory.is_none() {
            return Err(Error::NoMemoryController);
        }
        for hierarchy in &self.hierarchies {
            hierarchy.make(path)?;
        }
        if let Some(place) = &memory {
            memory::limit(place, limits.memory_bytes, path.is_container())?;
        }
        if let Some(place) = self.place(Controller::Cpu, path) {
            cpu::limit(&place, limits.cpu_millis)?;
        }
        if let Some(place) = self.place(Controller::Pids, path) {
            pids::limit(&place, limits.pids)?;
        }
        match limits.devices {
            Devices::Inherited => Ok(()),
            Devices::Container => match self.place(Controller::Devices, path) {
                Some(place) => devices::restrict(&place),
                None => Ok(()),
            },
        }
    }

    /// Lets a container open a character device besides those of
    /// [`Devices::Container`]. Nothing to be done on v2.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn allow_device(&self, path: &CgroupPath, major: u64, minor: u64) -> Result<(), Error> {
        match self.place(Controller::Devices, path) {
            Some(place) => devices::allow(&place, major, minor),
            None => Ok(()),
        }
    }

    /// Moves the calling process, which must be single-threaded, into a
    /// container's cgroup (v2 lets no process into a pod's own).
    ///
    /// On v1 it writes `0` to `tasks`, not to `cgroup.procs`: moving the
    /// calling thread takes no global lock, whereas the other waits several
    /// milliseconds for an RCU grace period. v2 has only the slow way; who
    /// starts in [`Tree::unified_folder`] by `CLONE_INTO_CGROUP` is spared
    /// it, as this is skipped where the caller is already.
    ///
    /// # Errors
    /// [`Error::Io`]. The process may then be in some hierarchies only;
    /// [`Tree::kill`] reaches it.
    pub fn join_self(&self, path: &CgroupPath) -> Result<(), Error> {
        for hierarchy in &self.hierarchies {
            let folder = path.below(&hierarchy.prefix);
            match hierarchy.version {
                Version::V1 => file::write(&folder.join("tasks"), "0")?,
                Version::V2 => {
                    let procs = folder.join("cgroup.procs");
                    let own = i32::try_from(std::process::id());
                    if !own.is_ok_and(|own| file::pids(&procs).is_ok_and(|l| l.contains(&own))) {
                        file::write(&procs, "0")?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The cgroup's folder on v2 and hybrid, to be opened for
    /// `CLONE_INTO_CGROUP` (clone3(2)).
    #[must_use]
    pub fn unified_folder(&self, path: &CgroupPath) -> Option<PathBuf> {
        let unified = self.hierarchies.iter().find(|one| one.version == Version::V2)?;
        Some(path.below(&unified.prefix))
    }

    /// Takes the cgroup away on v2 and hybrid if no process is in it, so that
    /// [`Tree::create`] makes it anew, with its counts at zero. True if there
    /// is none now.
    #[must_use]
    pub fn discard_unified(&self, path: &CgroupPath) -> bool {
        let Some(folder) = self.unified_folder(path) else { return true };
        match fs::remove_dir(&folder) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// How many processes in the cgroup and below were killed for want of
    /// memory.
    ///
    /// # Errors
    /// As [`Tree::usage`].
    pub fn oom_kills(&self, path: &CgroupPath) -> Result<u64, Error> {
        match self.place(Controller::Memory, path) {
            Some(place) => memory::oom_kills(&place),
            None => Ok(0),
        }
    }

    /// What the cgroup and all below it use.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::is_missing`] tells that there is no such
    /// cgroup.
    pub fn usage(&self, path: &CgroupPath) -> Result<Usage, Error> {
        let mut usage = Usage::default();
        if let Some(place) = self.place(Controller::Cpuacct, path) {
            usage.cpu_micros = cpu::used_micros(&place)?;
        }
        if let Some(place) = self.place(Controller::Memory, path) {
            (usage.memory_bytes, usage.memory_bytes_peak) = memory::used_bytes(&place)?;
        }
        usage.oom_kills = self.oom_kills(path)?;
        usage.pids = match self.place(Controller::Pids, path) {
            Some(place) => pids::count(&place)?,
            None => self.pids(path)?.len() as u64,
        };
        let v2 = self.hierarchies.iter().find(|one| one.version == Version::V2);
        if let Some(hierarchy) = v2 {
            usage.pressure = pressure::of(&path.below(&hierarchy.prefix))?;
        }
        Ok(usage)
    }

    /// The processes in the cgroup and below, ordered, zombies left out. None
    /// if there is no such cgroup.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn pids(&self, path: &CgroupPath) -> Result<Vec<i32>, Error> {
        self.pids_below(|hierarchy| path.below(&hierarchy.prefix))
    }

    /// The names of pods that have a cgroup in any hierarchy, ordered.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn pods(&self) -> Result<Vec<String>, Error> {
        self.names(|hierarchy| hierarchy.prefix.clone())
    }

    /// The names of the cgroups right below `path`, ordered; none if there is
    /// no such cgroup.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn children(&self, path: &CgroupPath) -> Result<Vec<String>, Error> {
        self.names(|hierarchy| path.below(&hierarchy.prefix))
    }

    pub(crate) fn pids_below(
        &self,
        folder: impl Fn(&Hierarchy) -> PathBuf,
    ) -> Result<Vec<i32>, Error> {
        let mut found = BTreeSet::new();
        for hierarchy in &self.hierarchies {
            // What is only half moved in, by a joiner that died, counts too.
            collect_pids(&folder(hierarchy), &mut found)?;
        }
        Ok(found.into_iter().collect())
    }

    pub(crate) fn place(&self, controller: Controller, path: &CgroupPath) -> Option<Place> {
        let hierarchy = self.hierarchies.iter().find(|one| one.has(controller))?;
        let folder = path.below(&hierarchy.prefix);
        Some(Place { version: hierarchy.version, folder })
    }

    fn names(&self, folder: impl Fn(&Hierarchy) -> PathBuf) -> Result<Vec<String>, Error> {
        let mut names = BTreeSet::new();
        for hierarchy in &self.hierarchies {
            for child in file::folders(&folder(hierarchy))? {
                let name = child.file_name().unwrap_or_default().to_string_lossy();
                names.insert(of_folder(&name).to_owned());
            }
        }
        Ok(names.into_iter().collect())
    }
}

impl Hierarchy {
    /// `controllers`: those of a v1 hierarchy.
    fn open(mount: &Path, prefix: &str, controllers: Option<&[Controller]>) -> Result<Self, Error> {
        let (version, controllers) = match controllers {
            Some(list) => (Version::V1, list.to_vec()),
            None => (Version::V2, unified_controllers(mount)?),
        };
        let prefix = mount.join(prefix);
        let mut opened = Self { version, mount: mount.to_owned(), prefix, controllers };
        opened.controllers = opened.make_prefix()?;
        match version {
            Version::V1 => {}
            // These two need no enabling, but a kernel that is new enough
            // (4.15 and 5.2).
            Version::V2 => {
                for (controller, file) in
                    [(Controller::Cpuacct, "cpu.stat"), (Controller::Freezer, "cgroup.freeze")]
                {
                    if opened.prefix.join(file).exists() {
                        opened.controllers.push(controller);
                    }
                }
            }
        }
        Ok(opened)
    }

    pub(crate) fn has(&self, controller: Controller) -> bool {
        self.controllers.contains(&controller)
    }

    /// Makes the prefix, and gives back the controllers that its children
    /// will have.
    fn make_prefix(&self) -> Result<Vec<Controller>, Error> {
        let mut usable = self.controllers.clone();
        let mut chain: Vec<&Path> =
            self.prefix.ancestors().take_while(|path| *path != self.mount).collect();
        chain.push(&self.mount);
        chain.reverse();
        for folder in chain {
            self.make_folder(folder)?;
            if self.version == Version::V2 {
                usable.retain(|controller| enable(folder, *controller));
            }
        }
        usable.retain(|controller| has_files(&self.prefix, self.version, *controller));
        Ok(usable)
    }

    fn make(&self, path: &CgroupPath) -> Result<(), Error> {
        let pod = path.to_pod().below(&self.prefix);
        match self.make_folder(&pod) {
            // Somebody took the whole prefix away.
            Err(error) if error.is_missing() => {
                self.make_prefix()?;
                self.make_folder(&pod)?;
            }
            other => other?,
        }
        if self.version == Version::V2 {
            for &controller in &self.controllers {
                enable(&pod, controller);
            }
        }
        if path.is_container() { self.make_folder(&path.below(&self.prefix)) } else { Ok(()) }
    }

    fn make_folder(&self, folder: &Path) -> Result<(), Error> {
        match fs::create_dir(folder) {
            Ok(()) => {}
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) if folder.is_dir() => {
                log::debug!("{} is there: {source}", folder.display())
            }
            Err(source) => {
                return Err(Error::Io { verb: "create", path: folder.to_owned(), source });
            }
        }
        if self.version == Version::V1 && self.has(Controller::Cpuset) && folder != self.mount {
            inherit_cpuset(folder)?;
        }
        Ok(())
    }
}

/// cgroup-v2.rst, "Enabling and Disabling": `+NAME` in `cgroup.subtree_control`
/// gives children the controller, if the folder itself has it. Refused where
/// processes are, but in the root.
fn enable(folder: &Path, controller: Controller) -> bool {
    match controller {
        Controller::Cpu | Controller::Memory | Controller::Pids => {}
        // Not to be enabled: always there on v2, or v1 only.
        Controller::Cpuacct
        | Controller::Cpuset
        | Controller::Devices
        | Controller::Freezer
        | Controller::Systemd => return true,
    }
    let file = folder.join("cgroup.subtree_control");
    match file::write(&file, &format!("+{}", controller.v2())) {
        Ok(()) => true,
        Err(error) => {
            log::warn!("cgroup controller `{}` is not to be had: {error}", controller.v2());
            false
        }
    }
}

/// A kernel may have a controller without its limits, such as cpu without
/// `CONFIG_CFS_BANDWIDTH`.
fn has_files(folder: &Path, version: Version, controller: Controller) -> bool {
    let file = match (controller, version) {
        (Controller::Cpu, Version::V1) => cpu::LIMIT_V1,
        (Controller::Cpu, Version::V2) => cpu::LIMIT_V2,
        (Controller::Memory, Version::V1) => memory::LIMIT_V1,
        (Controller::Memory, Version::V2) => memory::LIMIT_V2,
        (Controller::Pids, Version::V1 | Version::V2) => pids::LIMIT,
        (
            Controller::Cpuacct
            | Controller::Cpuset
            | Controller::Devices
            | Controller::Freezer
            | Controller::Systemd,
            _,
        ) => return true,
    };
    folder.join(file).exists()
}

/// A v1 hierarchy that adds nothing: each one costs a container a folder and
/// a move.
fn is_redundant(controllers: &[Controller], opened: &[Hierarchy]) -> bool {
    controllers.iter().all(|controller| match controller {
        Controller::Cpuset => true,
        Controller::Cpuacct | Controller::Freezer => {
            opened.iter().any(|other| other.has(*controller))
        }
        Controller::Cpu
        | Controller::Devices
        | Controller::Memory
        | Controller::Pids
        | Controller::Systemd => false,
    })
}

/// cgroup-v1/cpusets.rst: a new cpuset has no processors and no memory nodes,
/// and no process may join it before it has both.
fn inherit_cpuset(folder: &Path) -> Result<(), Error> {
    let Some(parent) = folder.parent() else { return Ok(()) };
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let own = folder.join(name);
        if file::read(&own)?.trim().is_empty() {
            file::write(&own, file::read(&parent.join(name))?.trim())?;
        }
    }
    Ok(())
}

fn collect_pids(folder: &Path, found: &mut BTreeSet<i32>) -> Result<(), Error> {
    if let Some(pids) = file::optional(file::pids(&folder.join("cgroup.procs")))? {
        found.extend(pids);
    }
    for child in file::folders(folder)? {
        collect_pids(&child, found)?;
    }
    Ok(())
}
