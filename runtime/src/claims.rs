//! Folders that outlive pods: `VOLUMES/NAME`, one a claim, made here and mounted
//! from here, never removed here.
//!
//! What a claim may hold is a limit of the file system where that has project
//! quotas (ext4, xfs or f2fs, mounted with `prjquota`; quotactl_fd(2), so Linux
//! 5.14): each folder is a project of its own, whose id lies on the folder itself.
//! Elsewhere the supervisor watches.
//! Never here: how much is used, whether a claim is still wanted.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{Gid, fchown};

use crate::proto::ClaimSpec;
use crate::sys;

/// Folders of claims on one node, those of former versions and those that are
/// being removed among them.
pub const FOLDERS_MAX: usize = 256;
/// Ids of projects that are ours, away from those that people count from 1:
/// from here, one a folder.
const PROJECT_FIRST: u32 = 0x5745_0000;
/// Only root gets to the folders but by a mount: their modes are for the
/// containers that see them.
const ROOT_MODE: u32 = 0o700;
const FOLDER_MODE: u32 = 0o755;
/// What is made there shares the folder's group, whose members may write.
const GROUP_MODE: u32 = 0o2070;
/// A folder that is not whole yet: no claim is named so.
const UNFINISHED: &str = ".new";

#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", path.display())]
pub struct ClaimError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Makes the folder of a claim below `root`, if it is not there, and limits what
/// it may hold. One that is there stays whose it is, but for its group.
///
/// # Errors
/// The disk takes no folder, or there are [`FOLDERS_MAX`].
pub fn provide(root: &Path, claim: &ClaimSpec) -> Result<(), ClaimError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(ROOT_MODE).create(root).map_err(error("make", root))?;
    let volumes = File::open(root).map_err(error("open", root))?;
    let name = Path::new(claim.name.as_str());
    let path = root.join(name);
    // Whatever is there, it is a folder, and there.
    let open = || open_folder(volumes.as_fd(), name);
    let folder = match open() {
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            make(root, claim)?;
            open()
        }
        opened => opened,
    };
    let folder = folder.map_err(error("open", &path))?;
    if let Some(gid) = claim.gid {
        share(folder.as_fd(), gid).map_err(error("give to a group", &path))?;
    }
    let project = sys::project(folder.as_fd()).unwrap_or_default();
    if is_ours(project) {
        // Quotas may be off this time: then it is watched.
        let limited = sys::limit_project(folder.as_fd(), project, claim.bytes_max);
        if let Err(source) = limited {
            log::warn!("volume {}: its size is not limited: {source}", claim.name);
        }
    }
    Ok(())
}

/// Opens a claim's folder below theirs, or one in it, which is whatever pods made
/// of it: no symlink is followed.
///
/// # Errors
/// What openat2(2) says.
pub fn open_folder(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    sys::open_beneath(root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

/// It gets its name once it is whole.
fn make(root: &Path, claim: &ClaimSpec) -> Result<(), ClaimError> {
    let new = root.join(UNFINISHED);
    match fs::remove_dir(&new) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(error("remove", &new)(source));
        }
        Ok(()) | Err(_) => {}
    }
    let taken = projects(root)?;
    DirBuilder::new().mode(ROOT_MODE).create(&new).map_err(error("make", &new))?;
    let (uid, gid) = claim.owner;
    chown(&new, Some(uid), Some(gid))
        .and_then(|()| fs::set_permissions(&new, Permissions::from_mode(FOLDER_MODE)))
        .map_err(error("give away", &new))?;
    let folder = File::open(&new).map_err(error("open", &new))?;
    if sys::has_project_quotas(folder.as_fd()) {
        // Of as many numbers one is free.
        let free = (PROJECT_FIRST..).find(|id| !taken.contains(id)).unwrap_or(PROJECT_FIRST);
        sys::set_project(folder.as_fd(), free).map_err(error("make a project of", &new))?;
    }
    let path = root.join(claim.name.as_str());
    fs::rename(&new, &path).map_err(error("name", &path))
}

/// Ids that folders have.
fn projects(root: &Path) -> Result<BTreeSet<u32>, ClaimError> {
    let entries = fs::read_dir(root).map_err(error("list", root))?;
    let paths: Result<Vec<PathBuf>, _> =
        entries.take(FOLDERS_MAX).map(|entry| entry.map(|entry| entry.path())).collect();
    let paths = paths.map_err(error("list", root))?;
    if paths.len() == FOLDERS_MAX {
        let full = io::Error::other("there are too many, see `wherry volume rm`");
        return Err(error("add a folder to", root)(full));
    }
    let project = |path: &PathBuf| sys::project(File::open(path).ok()?.as_fd()).ok();
    Ok(paths.iter().filter_map(project).collect())
}

/// As a cluster does with `fsGroup`, but for what is in the folder.
fn share(folder: BorrowedFd<'_>, gid: u32) -> io::Result<()> {
    let found = fstat(folder.as_raw_fd())?;
    if found.st_gid != gid {
        fchown(folder.as_raw_fd(), None, Some(Gid::from_raw(gid)))?;
    }
    if found.st_mode & GROUP_MODE != GROUP_MODE || found.st_gid != gid {
        let mode = Mode::from_bits_truncate(found.st_mode & 0o7777 | GROUP_MODE);
        fchmod(folder.as_raw_fd(), mode)?;
    }
    Ok(())
}

fn is_ours(project: u32) -> bool {
    (PROJECT_FIRST..PROJECT_FIRST + u32::try_from(FOLDERS_MAX).unwrap_or(0)).contains(&project)
}

fn error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClaimError {
    let path = path.to_owned();
    move |source| ClaimError { what, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use wherry_bundle::Name;

    use super::*;

    fn claim(name: &str) -> ClaimSpec {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        ClaimSpec {
            name: Name::new(name).unwrap(),
            bytes_max: 1 << 20,
            owner: (uid, gid),
            gid: None,
        }
    }

    #[test]
    fn a_folder_is_made_once_and_keeps_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("volumes");
        provide(&root, &claim("data")).unwrap();
        fs::write(root.join("data/kept"), "").unwrap();
        fs::create_dir(root.join(UNFINISHED)).unwrap();
        fs::set_permissions(root.join("data"), Permissions::from_mode(0o700)).unwrap();
        let shared = ClaimSpec { gid: Some(claim("data").owner.1), ..claim("data") };
        for (claim, mode) in [(claim("data"), 0o700), (shared, 0o2770)] {
            provide(&root, &claim).unwrap();
            let found = fs::metadata(root.join("data")).unwrap();
            assert_eq!(found.mode() & 0o7777, mode);
            assert!(root.join("data/kept").exists());
        }
        provide(&root, &claim("other")).unwrap();
        assert_eq!(fs::metadata(root.join("other")).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o700);
        assert!(!root.join(UNFINISHED).exists());
    }

    #[test]
    fn nothing_but_a_folder_is_taken_for_one() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(outside.path(), dir.path().join("link")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        for name in ["link", "file"] {
            let error = provide(dir.path(), &claim(name)).unwrap_err().to_string();
            assert!(error.starts_with("cannot open "), "{error}");
        }
    }

    #[test]
    fn there_are_only_so_many() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..FOLDERS_MAX {
            fs::create_dir(dir.path().join(number.to_string())).unwrap();
        }
        provide(dir.path(), &claim("7")).unwrap();
        let error = provide(dir.path(), &claim("one-more")).unwrap_err().to_string();
        assert!(error.contains("wherry volume rm"), "{error}");
    }
}
