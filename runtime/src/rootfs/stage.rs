//! The stage: made beside the host's mounts, then entered, whereupon the
//! host's mounts are gone. `pivot_root(2)`, `mount_namespaces(7)`.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, pivot_root};

use super::RootFsError;
use crate::folders::Folders;
use crate::mounts::{self, MountError};

/// The overlay, once the stage was entered.
pub const ROOTFS: &str = "/rootfs";
/// Where the OCI bundle goes then.
pub const BUNDLE: &str = "/";
/// The OCI bundle and libcontainer's state lie on the stage too.
const OWN_BYTES: u64 = 64 * 1024;
/// Of `/tmp`, in bits: everybody may, and nobody what is another's.
const TMP_MODE: u32 = 0o1777;
const FOLDERS: [&str; 9] =
    ["upper", "work", "rootfs", TMP, VOLUMES, "proc", "sys", "sys/fs", "sys/fs/cgroup"];
/// On the stage: a container's `/tmp`, and what it writes to volumes of its
/// image.
pub const TMP: &str = "tmp";
pub const VOLUMES: &str = "volumes";

/// A stage that was not entered yet.
#[derive(Debug)]
pub struct Stage {
    root: PathBuf,
}

impl Stage {
    /// A mount namespace of our own, and in it an empty stage at `root`, on
    /// which so many bytes can be written: all that the container may write
    /// outside its volumes. They lie in RAM, and count for the container's
    /// memory limit, which is the real bound where there is one.
    ///
    /// # Errors
    /// What `unshare(2)`, `mount(2)` or `mkdir(2)` says.
    pub fn raise(root: PathBuf, bytes_max: u64) -> Result<Self, RootFsError> {
        unshare(CloneFlags::CLONE_NEWNS).map_err(|source| RootFsError::Step {
            what: "unsharing the mount namespace",
            source,
        })?;
        mounts::make_private(Path::new("/"))?;
        make_folder(&root)?;
        mounts::tmpfs(&root, bytes_max.saturating_add(OWN_BYTES), 0o755, MsFlags::empty())?;
        for folder in FOLDERS {
            make_folder(&root.join(folder))?;
        }
        let tmp = root.join(TMP);
        // Not when it is made: the umask would take bits away.
        std::fs::set_permissions(&tmp, Permissions::from_mode(TMP_MODE))
            .map_err(|source| RootFsError::Io { what: "setting the mode of", path: tmp, source })?;
        Ok(Self { root })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The root file system, as long as the stage was not entered.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.root.join("rootfs")
    }

    /// Mounts the container's layers, folders below [`Folders::layers`] with
    /// the bottom one first, under what it writes.
    /// `overlayfs` in the kernel's documentation of file systems.
    ///
    /// # Errors
    /// What `mount(2)` says.
    pub fn overlay(&self, folders: &Folders, layers: &[String]) -> Result<(), RootFsError> {
        // Relative names keep the options of 32 layers within one page, which
        // is all that mount(2) takes.
        enter(&folders.layers())?;
        let lower: Vec<&str> = layers.iter().rev().map(String::as_str).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.join(":"),
            self.root.join("upper").display(),
            self.root.join("work").display()
        );
        let path = self.rootfs();
        let (kind, flags) = ("overlay", MsFlags::MS_NODEV);
        nix::mount::mount(Some(kind), &path, Some(kind), flags, Some(options.as_str()))
            .map_err(|source| MountError::Mount { kind, path, source })?;
        Ok(())
    }

    /// Makes the stage this process's root, and leaves the host's mounts.
    ///
    /// # Errors
    /// What `mount(2)`, `pivot_root(2)` or `umount2(2)` says.
    pub fn enter(self) -> Result<(), RootFsError> {
        let step = |what| move |source| RootFsError::Step { what, source };
        let (kind, path) = ("proc", self.root.join("proc"));
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        nix::mount::mount(Some(kind), &path, Some(kind), flags, None::<&str>)
            .map_err(|source| MountError::Mount { kind, path, source })?;
        enter(&self.root)?;
        // The old root ends up on top of the new one, and is taken off.
        pivot_root(".", ".").map_err(step("changing the root to the stage"))?;
        umount2(".", MntFlags::MNT_DETACH).map_err(step("leaving the host's mounts"))?;
        enter(Path::new("/"))
    }
}

fn enter(path: &Path) -> Result<(), RootFsError> {
    chdir(path).map_err(|errno| RootFsError::Io {
        what: "entering",
        path: path.to_owned(),
        source: errno.into(),
    })
}

/// An earlier start has made the stage's own.
fn make_folder(path: &Path) -> Result<(), RootFsError> {
    match std::fs::create_dir(path) {
        Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(RootFsError::Io { what: "making folder", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}
