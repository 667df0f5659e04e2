//! The namespaces of pods and containers, the kernel's file systems inside of
//! them, and pinning one without a process. `namespaces(7)`.

use std::fs::File;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::trial::{Obstacle, Trial, in_child, private_folder};

/// What each pod or container gets one of.
const KINDS: [(&str, CloneFlags); 6] = [
    ("mount", CloneFlags::CLONE_NEWNS),
    ("pid", CloneFlags::CLONE_NEWPID),
    ("network", CloneFlags::CLONE_NEWNET),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
];
/// What is mounted in each container, with the options that not every kernel
/// takes.
const MOUNTS: [(&str, Option<&str>); 5] = [
    ("tmpfs", Some("mode=755,size=64k")),
    ("devpts", Some("newinstance,ptmxmode=0666,mode=0620")),
    ("mqueue", None),
    ("sysfs", None),
    ("proc", None),
];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Each kind with what came of making one.
    pub kinds: Vec<(String, Trial<()>)>,
    /// Keeping one alive by a mount of its file.
    pub pin: Trial<()>,
    /// Each file system with what came of mounting it inside.
    pub mounts: Vec<(String, Trial<()>)>,
}

pub(super) fn attempt() -> Trial<Namespaces> {
    in_child(|| {
        let folder = private_folder()?;
        let kinds = KINDS.map(|(name, flag)| {
            (name.to_owned(), unshare(flag).map_err(Obstacle::refused(&format!("new {name}"))))
        });
        Ok(Namespaces { pin: pin(folder), mounts: mounts(folder)?, kinds: kinds.to_vec() })
    })
}

fn pin(folder: &Path) -> Trial<()> {
    let path = folder.join("pin");
    File::create(&path).map_err(Obstacle::io("making a file"))?;
    mount(Some("/proc/self/ns/uts"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(Obstacle::refused("binding a namespace's file"))
}

/// In a child of the new pid namespace: only there `proc` can be mounted.
fn mounts(folder: &Path) -> Trial<Vec<(String, Trial<()>)>> {
    in_child(|| {
        Ok(MOUNTS
            .map(|(kind, options)| {
                let path = folder.join(kind);
                let tried = std::fs::create_dir(&path)
                    .map_err(Obstacle::io("making a folder"))
                    .and_then(|()| {
                        mount(Some(kind), &path, Some(kind), MsFlags::MS_NOSUID, options)
                            .map_err(Obstacle::refused(&format!("mounting {kind}")))
                    });
                (kind.to_owned(), tried)
            })
            .to_vec())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_can_make_all_of_them_and_nothing_stays() {
        let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let found = attempt().unwrap();
        for (name, trial) in found.kinds.iter().chain(&found.mounts) {
            assert_eq!(*trial, Ok(()), "{name}");
        }
        assert_eq!(found.pin, Ok(()));
        assert_eq!(found.mounts.len(), MOUNTS.len());
        assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    }
}
