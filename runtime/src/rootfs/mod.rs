//! A container's root file system, made by its creator on a *stage*: a small
//! root of its own, in a mount namespace that only the creator and the
//! container have.
//!
//! ```text
//! /                 tmpfs: what the container may write
//! /upper /work      of the overlay
//! /tmp /volumes     what it may write if that is read-only
//! /rootfs           the overlay, with /dev, /sys and the pod's files in it
//! /proc             the host's
//! /sys/fs/cgroup    empty
//! ```
//!
//! Nothing of the host is in sight from there, so that what libcontainer
//! looks up costs the same whatever is mounted on the host: it reads the
//! mount table a dozen times. And finding no cgroup file system, it leaves
//! alone what `wherry-cgroups` has done.
//!
//! To be called in the creator; nothing here has to be undone.

mod fill;
mod stage;
mod table;

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::mounts::MountError;

pub use fill::{device, ensure_folder, fill};
pub use stage::{BUNDLE, ROOTFS, Stage};
pub use table::{Below, Mount, Source, table};

/// Why there is no root file system.
#[derive(Debug, thiserror::Error)]
pub enum RootFsError {
    #[error("{what}: {source}")]
    Step { what: &'static str, source: Errno },
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("`{path}` in the container: {source}")]
    Inside { path: String, source: io::Error },
    #[error("volume {path}: {source} (it has to be below the volumes' folder, without symlinks)")]
    Volume { path: String, source: io::Error },
    #[error(
        "volume at {path}: {source} (a host path has to be there unless its type is \
         DirectoryOrCreate, and no part of it may be a symlink)"
    )]
    Below { path: PathBuf, source: io::Error },
    #[error(
        "device {path}: {source} (it has to be there when the container starts: is it plugged in, \
         and its driver loaded?)"
    )]
    Device { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Mount(#[from] MountError),
}
