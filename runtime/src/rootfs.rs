//! A container's root file system: an overlay of its image's layers under a
//! tmpfs, in a mount namespace that only the creator and the container have.
//!
//! To be called in the creator; nothing here has to be undone.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, mkdirat};
use wherry_bundle::Digest;

use crate::folders::{ContainerFolder, Folders};
use crate::mounts::{self, MountError};
use crate::sys;

/// What a container may write outside its volumes. It lies in RAM and counts
/// for the container's memory limit, which is the real bound where there is
/// one.
const WRITABLE_BYTES_MAX: u64 = 64 * 1024 * 1024;
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Why there is no root file system.
#[derive(Debug, thiserror::Error)]
pub enum RootFsError {
    #[error("{what}: {source}")]
    Step { what: &'static str, source: Errno },
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("folder {path} of the container: {source}")]
    Folder { path: String, source: io::Error },
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// A mount namespace of our own, without any cgroup file system:
/// libcontainer, finding none, leaves alone what `wherry-cgroups` has done.
///
/// # Errors
/// What `unshare(2)`, `mount(2)` or `umount2(2)` says.
pub fn private_mounts(cgroup_mounts: &[PathBuf]) -> Result<(), RootFsError> {
    let step = |what| move |source| RootFsError::Step { what, source };
    unshare(CloneFlags::CLONE_NEWNS).map_err(step("unsharing the mount namespace"))?;
    mounts::make_private(Path::new("/"))?;
    // The usual place first: with it goes all that is mounted below.
    let others = cgroup_mounts.iter().map(PathBuf::as_path);
    for path in [Path::new(CGROUP_ROOT)].into_iter().chain(others) {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(source) => return Err(step("hiding the cgroup file system")(source)),
        }
    }
    Ok(mounts::tmpfs(Path::new(CGROUP_ROOT), 0, 0o755, MsFlags::MS_RDONLY)?)
}

/// Mounts the overlay at the container's `rootfs`. `overlayfs` in the
/// kernel's documentation of file systems.
///
/// # Errors
/// What `mount(2)` says.
pub fn mount(
    folders: &Folders,
    container: &ContainerFolder,
    layers: &[Digest],
) -> Result<(), RootFsError> {
    let io = |what, path: &Path| {
        let path = path.to_owned();
        move |source| RootFsError::Io { what, path, source }
    };
    let writable = container.writable();
    mounts::tmpfs(&writable, WRITABLE_BYTES_MAX, 0o755, MsFlags::empty())?;
    let (upper, work) = (writable.join("upper"), writable.join("work"));
    for path in [&upper, &work] {
        std::fs::create_dir(path).map_err(io("making folder", path))?;
    }
    // Relative names keep the options of 32 layers within one page, which is
    // all that mount(2) takes.
    let top = folders.layers();
    std::env::set_current_dir(&top).map_err(io("entering", &top))?;
    let lower: Vec<String> = layers.iter().rev().map(Digest::hex).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        upper.display(),
        work.display()
    );
    let path = container.rootfs();
    let (kind, flags) = ("overlay", MsFlags::MS_NODEV);
    nix::mount::mount(Some(kind), &path, Some(kind), flags, Some(options.as_str()))
        .map_err(|source| MountError::Mount { kind, path, source })?;
    std::env::set_current_dir("/").map_err(io("entering", Path::new("/")))
}

/// Makes the folder `path` of the container, with its parents, if it is not
/// there. Symlinks lead where they lead inside the container.
///
/// # Errors
/// Something that is no folder is in the way.
pub fn ensure_folder(rootfs: &Path, path: &str) -> Result<(), RootFsError> {
    let root = File::open(rootfs).map_err(|source| RootFsError::Io {
        what: "opening",
        path: rootfs.to_owned(),
        source,
    })?;
    let folder = |source| RootFsError::Folder { path: path.to_owned(), source };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let mut parent = sys::open_in_root(root.as_fd(), Path::new("/"), flags).map_err(folder)?;
    let mut reached = PathBuf::from("/");
    for part in Path::new(path).iter().skip(1) {
        reached.push(part);
        let opened = match sys::open_in_root(root.as_fd(), &reached, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mode = Mode::from_bits_truncate(0o755);
                mkdirat(Some(parent.as_raw_fd()), part, mode)
                    .map_err(io::Error::from)
                    .and_then(|()| sys::open_in_root(root.as_fd(), &reached, flags))
            }
            opened => opened,
        };
        parent = opened.map_err(folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn folders_are_made_inside_the_container_only() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("data")).unwrap();
        symlink("/data", root.path().join("absolute")).unwrap();
        symlink(outside.path(), root.path().join("escape")).unwrap();
        symlink("../../..", root.path().join("up")).unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        for path in ["/", "/a/b", "/a/b", "/absolute/c", "/up/d"] {
            ensure_folder(root.path(), path).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        for made in ["a/b", "data/c", "d"] {
            assert!(root.path().join(made).is_dir(), "{made}");
        }
        // A symlink that leads nowhere, and a file in the way.
        assert!(ensure_folder(root.path(), "/escape/e").is_err());
        assert!(ensure_folder(root.path(), "/file/e").is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
