//! A folder's file system: which, how much is free, whether it can be
//! written. In a child, since a broken disk never answers.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};
use wherry_runtime::probe::{Obstacle, Trial, in_child};

/// Made and removed where the file system knows no files without a name.
const PROBE_FILE: &str = ".wherry-check";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// As configured; it may not exist yet.
    pub folder: PathBuf,
    pub state: Trial<DiskState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskState {
    /// `ext4`, `tmpfs`…; empty when the mount table does not tell.
    pub kind: String,
    pub free_bytes: u64,
    pub write: Trial<()>,
}

impl Disk {
    /// Looks at `folder`, or at where it would be made.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        let state = in_child(|| look(folder));
        Self { folder: folder.to_owned(), state }
    }
}

fn look(folder: &Path) -> Trial<DiskState> {
    let there = folder.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let real = fs::canonicalize(there).map_err(io("looking up the folder"))?;
    let space = statvfs(&real).map_err(|errno| io("statvfs")(errno.into()))?;
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // Their widths differ between architectures.
    #[allow(clippy::useless_conversion)]
    let free_bytes =
        u64::from(space.blocks_available()).saturating_mul(u64::from(space.fragment_size()));
    Ok(DiskState { kind: kind_of(&real, &table), free_bytes, write: write(&real) })
}

/// One page into a file that nobody else sees (`open(2)`, `O_TMPFILE`), or
/// that is removed at once.
fn write(folder: &Path) -> Trial<()> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    let unnamed = options.clone().custom_flags(libc::O_TMPFILE).open(folder);
    let path = folder.join(PROBE_FILE);
    let (opened, is_named) = match unnamed {
        Err(error) if error.kind() != ErrorKind::ReadOnlyFilesystem => {
            (options.create(true).truncate(true).custom_flags(libc::O_NOFOLLOW).open(&path), true)
        }
        unnamed => (unnamed, false),
    };
    let mut file = opened.map_err(io("making a file"))?;
    let written = file.write_all(&[0; 4096]).and_then(|()| file.sync_all());
    if is_named {
        fs::remove_file(&path).map_err(io("removing a file"))?;
    }
    written.map_err(io("writing a file"))
}

/// The type of the mount that `path` is on: the longest mount point above
/// it, of equals the last. proc_pid_mountinfo(5).
fn kind_of(path: &Path, mountinfo: &str) -> String {
    let mut found = (0, String::new());
    for line in mountinfo.lines() {
        let Some((place, kind)) = line.split_once(" - ") else { continue };
        let point = place.split(' ').nth(4).unwrap_or_default().replace("\\040", " ");
        if path.starts_with(&point) && point.len() >= found.0 {
            found = (point.len(), kind.split(' ').next().unwrap_or_default().to_owned());
        }
    }
    found.1
}

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Obstacle {
    move |error| match error.raw_os_error() {
        Some(errno) => Obstacle::Refused { what: what.into(), errno },
        None => Obstacle::Wrong(format!("{what}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_to_be_made_is_on_its_parents_disk() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::at(&folder.path().join("not/there"));
        let state = disk.state.unwrap();
        assert_eq!(state.write, Ok(()));
        assert!(state.free_bytes > 0 && !state.kind.is_empty(), "{state:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_written_is_seen() {
        let state = Disk::at(Path::new("/proc/sys")).state.unwrap();
        assert!(state.write.is_err(), "{state:?}");
        assert_eq!(state.kind, "proc");
    }

    #[test]
    fn the_nearest_and_latest_mount_counts() {
        let table = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            23 22 0:5 / /data rw - ext4 /dev/sda2 rw\n24 22 0:6 / /data rw - f2fs /dev/sdb rw\n\
            25 22 0:7 / /data2 rw - tmpfs t rw\n26 22 0:8 / /a\\040b rw - btrfs b rw\n";
        for (path, kind) in [("/data/x", "f2fs"), ("/var", "ext4"), ("/a b/c", "btrfs")] {
            assert_eq!(kind_of(Path::new(path), table), kind, "{path}");
        }
        assert_eq!(kind_of(Path::new("/x"), ""), "");
    }
}
