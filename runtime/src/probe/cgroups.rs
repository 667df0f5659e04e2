//! The cgroups that a container gets, made and taken away: by
//! [`wherry_cgroups`], with every limit, and with a child forked into one.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use wherry_cgroups::{CgroupPath, Controller, Devices, Error, Layout, Limits, Mounts, Tree};

use super::trial::{Obstacle, Trial, in_child};
use crate::seal::SELF_EXE;
use crate::sys;

/// Joined to the node's own prefix.
const SUFFIX: &str = "-check";
/// What is kept of the node's prefix: with the suffix it fits a name.
const PREFIX_BYTES_MAX: usize = 50;
/// Two checks at once would use the same cgroup: the second one waits.
const TURN_SECONDS_MAX: u64 = 10;
const TURN_LOOK_MILLIS: u64 = 20;
/// Limits that nothing is held to: the child ends at once.
const LIMITS: Limits = Limits {
    cpu_millis: Some(100),
    memory_bytes: None,
    pids: Some(16),
    devices: Devices::Container,
};
const MEMORY_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroups {
    /// `None`: no hierarchy is mounted.
    pub layout: Option<Kind>,
    pub mounts: Vec<PathBuf>,
    /// A container's cgroup in every hierarchy.
    pub create: Trial<()>,
    /// Which of cpu, memory and pids a container can be limited by.
    pub limits: Vec<String>,
    /// Forking into a v2 cgroup: Linux 5.7.
    pub fork_into: Trial<()>,
    /// `cgroup.kill` of v2: Linux 5.14.
    pub kill: bool,
}

/// [`Layout`], to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    V1,
    V2,
    Hybrid,
}

/// Tries all of it, in cgroups beside those of `prefix`.
///
/// # Errors
/// The trial could not be made.
pub fn attempt(prefix: &str) -> Trial<Cgroups> {
    let found = match Mounts::detect() {
        Ok(found) => found,
        Err(Error::NotMounted) => return Ok(nothing(Err(Obstacle::NotTried("a mount".into())))),
        Err(error) => return Err(Obstacle::Failed(error.to_string())),
    };
    let _turn = turn()?;
    let kept: String = prefix.chars().take(PREFIX_BYTES_MAX).collect();
    let prefix = format!("{kept}{SUFFIX}");
    let before = enabled(&found);
    let outcome = in_child(|| Ok(make(&found, &prefix)));
    // Here, since the child may have been killed.
    let removed = remove(&found, &prefix);
    restore(&found, &before);
    removed.and(outcome)
}

fn nothing(create: Trial<()>) -> Cgroups {
    Cgroups {
        layout: None,
        mounts: Vec::new(),
        fork_into: create.clone(),
        create,
        limits: Vec::new(),
        kill: false,
    }
}

/// Waits until no other check is at it.
fn turn() -> Trial<Flock<File>> {
    let mut file = File::open(SELF_EXE).map_err(Obstacle::io(SELF_EXE))?;
    let deadline = Instant::now() + Duration::from_secs(TURN_SECONDS_MAX);
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file = back,
            Err((_, errno)) => return Err(Obstacle::refused("waiting for another check")(errno)),
        }
        std::thread::sleep(Duration::from_millis(TURN_LOOK_MILLIS));
    }
}

fn make(found: &Mounts, prefix: &str) -> Cgroups {
    let mut cgroups = nothing(Ok(()));
    cgroups.layout = found.layout().map(|layout| match layout {
        Layout::V1 => Kind::V1,
        Layout::V2 => Kind::V2,
        Layout::Hybrid => Kind::Hybrid,
    });
    cgroups.mounts =
        found.unified.iter().chain(found.v1.iter().map(|(path, _)| path)).cloned().collect();
    let made = Tree::over(found, prefix).and_then(|tree| {
        let path = CgroupPath::container("check", "check")?;
        tree.create(&path, &LIMITS)?;
        Ok((tree, path))
    });
    let (tree, path) = match made {
        Ok(made) => made,
        Err(error) => {
            cgroups.create = Err(obstacle(&error));
            cgroups.fork_into = Err(Obstacle::NotTried("a cgroup".into()));
            return cgroups;
        }
    };
    let memory = tree.create(&path, &Limits { memory_bytes: Some(MEMORY_BYTES), ..LIMITS });
    let folder = tree.unified_folder(&path);
    cgroups.limits = limits(found, folder.as_deref(), memory.is_ok());
    match memory {
        Ok(()) | Err(Error::NoMemoryController) => {}
        Err(error) => cgroups.create = Err(obstacle(&error)),
    }
    cgroups.kill = folder.as_ref().is_some_and(|folder| folder.join("cgroup.kill").exists());
    cgroups.fork_into = match folder {
        Some(folder) => fork_into(&folder),
        None => Err(Obstacle::NotTried("cgroup v2".into())),
    };
    cgroups
}

/// What has taken effect: on v1 each mounted controller, on v2 those whose
/// files the cgroup got.
fn limits(found: &Mounts, unified: Option<&Path>, memory: bool) -> Vec<String> {
    let has = |controller, file: &str| {
        found.v1.iter().any(|(_, list)| list.contains(&controller))
            || unified.is_some_and(|folder| folder.join(file).exists())
    };
    [
        ("cpu", has(Controller::Cpu, "cpu.max")),
        ("memory", memory && has(Controller::Memory, "memory.max")),
        ("pids", has(Controller::Pids, "pids.max")),
    ]
    .into_iter()
    .filter(|(_, works)| *works)
    .map(|(name, _)| name.to_owned())
    .collect()
}

fn fork_into(folder: &Path) -> Trial<()> {
    let open = File::open(folder).map_err(Obstacle::io("opening a cgroup"))?;
    let child = sys::fork_child_into(open.as_fd(), || 0).map_err(Obstacle::io("clone3"))?;
    sys::wait_for(child).map(drop).map_err(Obstacle::io("waitpid"))
}

fn remove(found: &Mounts, prefix: &str) -> Trial<()> {
    let removed = Tree::over(found, prefix).and_then(|tree| tree.remove_all());
    match removed {
        // It could not even be made: then making it said why.
        Ok(()) | Err(Error::Io { .. } | Error::NotMounted | Error::Prefix(_)) => Ok(()),
        Err(error) => Err(Obstacle::Failed(error.to_string())),
    }
}

/// The controllers that the v2 root gives to its children.
fn enabled(found: &Mounts) -> Vec<String> {
    let Some(root) = &found.unified else { return Vec::new() };
    let text = fs::read_to_string(root.join("cgroup.subtree_control")).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Takes back what making the prefix has enabled there.
fn restore(found: &Mounts, before: &[String]) {
    for name in enabled(found).iter().filter(|name| !before.contains(name)) {
        if let Some(root) = &found.unified {
            // Somebody else may use it by now, and the kernel refuses.
            let _ = fs::write(root.join("cgroup.subtree_control"), format!("-{name}"));
        }
    }
}

fn obstacle(error: &Error) -> Obstacle {
    match error {
        Error::Io { verb, path, source } => {
            let what = format!("cannot {verb} {}", path.display());
            match source.raw_os_error() {
                Some(errno) => Obstacle::Refused { what, errno },
                None => Obstacle::Wrong(error.to_string()),
            }
        }
        other => Obstacle::Wrong(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "wherry-test-probe";

    #[test]
    fn a_cgroup_is_made_limited_and_gone() {
        let found = Mounts::detect().unwrap();
        let before = enabled(&found);
        let cgroups = attempt(PREFIX).unwrap();
        assert_eq!(cgroups.create, Ok(()));
        assert_eq!(cgroups.limits, ["cpu", "memory", "pids"]);
        assert!(cgroups.layout.is_some());
        if found.unified.is_some() {
            assert_eq!(cgroups.fork_into, Ok(()));
        }
        for mount in &cgroups.mounts {
            let left = mount.join(format!("{PREFIX}{SUFFIX}"));
            assert!(!left.exists(), "{}", left.display());
        }
        assert_eq!(enabled(&found), before);
    }

    #[test]
    fn what_a_killed_check_left_is_taken_away() {
        let found = Mounts::detect().unwrap();
        let prefix = "wherry-test-left";
        let tree = Tree::over(&found, &format!("{prefix}{SUFFIX}")).unwrap();
        tree.create(&CgroupPath::container("check", "check").unwrap(), &LIMITS).unwrap();
        assert_eq!(attempt(prefix).unwrap().create, Ok(()));
        for (mount, _) in &found.v1 {
            assert!(!mount.join(format!("{prefix}{SUFFIX}")).exists());
        }
    }
}
