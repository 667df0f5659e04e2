//! Stopping cgroups and taking them away.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::is_gone;
use crate::tree::{Hierarchy, Place, Tree, Version};
use crate::{CgroupPath, Controller, Error, file, freezer};

/// Rounds of SIGKILL where the kernel cannot kill a cgroup itself. With a
/// freezer one is enough: nothing forks meanwhile.
const KILL_ROUNDS_MAX: u32 = 20;
/// Between two rounds.
const KILL_ROUND_MILLIS: u64 = 5;
/// How long removal waits for killed processes to leave: first, at most, and
/// in all. Dying takes long where much memory is to be freed.
const REMOVE_WAIT_MILLIS_FIRST: u64 = 1;
const REMOVE_WAIT_MILLIS_MAX: u64 = 32;
const REMOVE_MILLIS_MAX: u64 = 500;

impl Tree {
    /// Sends SIGKILL to every process in the cgroup and below, also to those
    /// that are being forked. They die soon after, not before it returns.
    /// Idempotent; nothing to do if there is no such cgroup.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::NotKilled`] where the kernel has neither
    /// `cgroup.kill` (5.14) nor a freezer, and forking was faster.
    pub fn kill(&self, path: &CgroupPath) -> Result<(), Error> {
        self.kill_below(|hierarchy| path.below(&hierarchy.prefix))
    }

    /// Stops all processes in the cgroup and below until [`Tree::thaw`].
    /// Returns when they stand still. Idempotent.
    ///
    /// # Errors
    /// [`Error::NotFrozen`] when that takes too long: it stays freezing.
    /// [`Error::NoFreezer`]; [`Error::Io`].
    pub fn freeze(&self, path: &CgroupPath) -> Result<(), Error> {
        freezer::freeze(&self.freezer(|hierarchy| path.below(&hierarchy.prefix))?)
    }

    /// Ends [`Tree::freeze`]. Idempotent.
    ///
    /// # Errors
    /// [`Error::NoFreezer`]; [`Error::Io`].
    pub fn thaw(&self, path: &CgroupPath) -> Result<(), Error> {
        freezer::thaw(&self.freezer(|hierarchy| path.below(&hierarchy.prefix))?)
    }

    /// Removes the cgroup and all below it. Waits up to half a second for
    /// processes that were killed; kills none. Idempotent.
    ///
    /// # Errors
    /// [`Error::Busy`] while it has processes: what had none is gone.
    /// [`Error::Io`].
    pub fn remove(&self, path: &CgroupPath) -> Result<(), Error> {
        self.remove_below(|hierarchy| path.below(&hierarchy.prefix))
    }

    /// Kills everything below the prefix and removes it, prefix included.
    /// [`Tree::create`] makes it anew. Idempotent.
    ///
    /// # Errors
    /// As [`Tree::kill`] and [`Tree::remove`].
    pub fn remove_all(&self) -> Result<(), Error> {
        self.kill_below(|hierarchy| hierarchy.prefix.clone())?;
        self.remove_below(|hierarchy| hierarchy.prefix.clone())
    }

    fn kill_below(&self, folder: impl Fn(&Hierarchy) -> PathBuf) -> Result<(), Error> {
        if self.kill_by_kernel(&folder)? {
            return Ok(());
        }
        for _ in 0..KILL_ROUNDS_MAX {
            if self.pids_below(&folder)?.is_empty() {
                return Ok(());
            }
            let frozen = self.freezer(&folder).and_then(|place| {
                freezer::freeze(&place)?;
                Ok(place)
            });
            if let Err(error) = &frozen {
                log::debug!("killing without a freezer: {error}");
            }
            let signalled = self.pids_below(&folder).and_then(|pids| send_kill(&pids));
            // On v1 the frozen die only once they may run.
            if let Ok(place) = self.freezer(&folder) {
                file::optional(freezer::thaw(&place))?;
            }
            signalled?;
            sleep(Duration::from_millis(KILL_ROUND_MILLIS));
        }
        if self.pids_below(&folder)?.is_empty() {
            return Ok(());
        }
        let path = self.hierarchies.first().map(folder).unwrap_or_default();
        Err(Error::NotKilled { path, rounds: KILL_ROUNDS_MAX })
    }

    /// cgroup-v2.rst, `cgroup.kill`: 1 kills the cgroup and its descendants,
    /// concurrent forks included. False where the kernel cannot.
    fn kill_by_kernel(&self, folder: impl Fn(&Hierarchy) -> PathBuf) -> Result<bool, Error> {
        let unified = self.hierarchies.iter().find(|one| one.version == Version::V2);
        let Some(unified) = unified.map(folder) else { return Ok(false) };
        // The file is missing on an old kernel, or with the whole cgroup: then
        // perhaps it is left in other hierarchies only.
        Ok(file::optional(file::write(&unified.join("cgroup.kill"), "1"))?.is_some())
    }

    fn freezer(&self, folder: impl Fn(&Hierarchy) -> PathBuf) -> Result<Place, Error> {
        match self.hierarchies.iter().find(|one| one.has(Controller::Freezer)) {
            Some(hierarchy) => Ok(Place { version: hierarchy.version, folder: folder(hierarchy) }),
            None => Err(Error::NoFreezer),
        }
    }

    fn remove_below(&self, folder: impl Fn(&Hierarchy) -> PathBuf) -> Result<(), Error> {
        let mut waited = 0;
        let mut wait = REMOVE_WAIT_MILLIS_FIRST;
        loop {
            let mut busy = None;
            for hierarchy in &self.hierarchies {
                busy = busy.or(remove_folder(&folder(hierarchy))?);
            }
            let Some(path) = busy else { return Ok(()) };
            if waited >= REMOVE_MILLIS_MAX {
                return Err(Error::Busy { path, millis: waited });
            }
            sleep(Duration::from_millis(wait));
            waited += wait;
            wait = (2 * wait).min(REMOVE_WAIT_MILLIS_MAX);
        }
    }
}

/// Deepest first; the first folder that still has processes, if any.
fn remove_folder(folder: &Path) -> Result<Option<PathBuf>, Error> {
    let mut busy = None;
    for child in file::folders(folder)? {
        busy = busy.or(remove_folder(&child)?);
    }
    if busy.is_some() {
        return Ok(busy);
    }
    match fs::remove_dir(folder) {
        Ok(()) => Ok(None),
        Err(source) if is_gone(&source) => Ok(None),
        Err(source) if source.kind() == io::ErrorKind::ResourceBusy => Ok(Some(folder.to_owned())),
        Err(source) => Err(Error::Io { verb: "remove", path: folder.to_owned(), source }),
    }
}

fn send_kill(pids: &[i32]) -> Result<(), Error> {
    for &pid in pids {
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => {
                let path = PathBuf::from(format!("/proc/{pid}"));
                return Err(Error::Io { verb: "kill", path, source: errno.into() });
            }
        }
    }
    Ok(())
}
