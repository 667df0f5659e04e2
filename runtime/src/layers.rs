//! Image layers: one read-only squashfs mount a layer and node, shared by
//! all containers that use it. `loop(4)`, `mount(2)`.
//!
//! A layer file that was damaged is replaced by a new one of its name. Then
//! containers that start get a mount of that; those that run keep what they
//! have, for an overlay holds its layers by itself. The kernel lets go of the
//! old file with the last of them.
//! Never here: fetching or verifying a layer's file; a file with its name is
//! whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use wherry_bundle::Digest;

use crate::folders::Folders;
use crate::mounts::{self, MountError};
use crate::sys;

/// How often a free loop device may be taken by somebody else before we can.
const LOOP_ATTEMPTS_MAX: u32 = 16;

/// Why a layer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("layer {layer} is not here: {path} does not exist (it has to be fetched first)")]
    Missing { layer: String, path: PathBuf },
    #[error("layer file {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("loop device for {path}: {source} (the kernel needs the loop driver)")]
    Loop { path: PathBuf, source: io::Error },
    #[error("mounting layer file {path}: {source} (is it a squashfs, with zstd in the kernel?)")]
    Mount { path: PathBuf, source: Errno },
    #[error(transparent)]
    Table(#[from] MountError),
}

/// The layers mounted below the run folder.
#[derive(Debug)]
pub struct Layers {
    files: PathBuf,
    folders: Folders,
    /// The inodes of their files, that of the newest mount last. A file keeps
    /// its number to itself as long as a loop device is over it.
    mounted: BTreeMap<Digest, Vec<u64>>,
}

impl Layers {
    /// Takes over what an earlier launcher mounted.
    ///
    /// # Errors
    /// The mount table or the folder cannot be read.
    pub fn take_over(files: PathBuf, folders: Folders) -> Result<Self, LayerError> {
        let top = folders.layers();
        let folder = |source| LayerError::File { path: top.clone(), source };
        fs::create_dir_all(&top).map_err(folder)?;
        let mut mounted: BTreeMap<Digest, Vec<u64>> = BTreeMap::new();
        for point in mounts::table()?.iter().filter(|point| point.parent() == Some(&top)) {
            if let Some((layer, inode)) = Folders::layer_of(point) {
                mounted.entry(layer).or_default().push(inode);
            }
        }
        Ok(Self { files, folders, mounted })
    }

    /// Makes sure that the file of `layer` that is there now is mounted, and
    /// gives the folder's name below [`Folders::layers`].
    ///
    /// # Errors
    /// [`LayerError::Missing`], or what the kernel lacks. Nothing is left
    /// behind.
    pub fn ensure(&mut self, layer: &Digest) -> Result<String, LayerError> {
        let path = self.files.join(format!("{}.squashfs", layer.hex()));
        let file = open_layer(layer, &path)?;
        let found =
            file.metadata().map_err(|source| LayerError::File { path: path.clone(), source });
        let inode = found?.ino();
        let point = self.folders.layer(layer, inode);
        let mounted = self.mounted.entry(*layer).or_default();
        if let Some(at) = mounted.iter().position(|known| *known == inode) {
            mounted.remove(at);
        } else {
            mount_file(&file, path, &point)?;
        }
        mounted.push(inode);
        Ok(Folders::layer_name(layer, inode))
    }

    /// Unmounts every layer that is not in `used`, and, unless a container
    /// `is_starting`, what new ones no longer get. What cannot be unmounted is
    /// logged and kept for the next time.
    pub fn release_all_but(&mut self, used: &BTreeSet<Digest>, is_starting: bool) {
        let folders = &self.folders;
        self.mounted.retain(|layer, inodes| {
            let newest = inodes.last().copied();
            inodes.retain(|inode| {
                let is_current = is_starting || Some(*inode) == newest;
                (used.contains(layer) && is_current) || !unmount(&folders.layer(layer, *inode))
            });
            !inodes.is_empty()
        });
    }

    /// Some layer has a mount that no container gets any more.
    #[must_use]
    pub fn has_replaced(&self) -> bool {
        self.mounted.values().any(|inodes| inodes.len() > 1)
    }
}

fn mount_file(file: &File, path: PathBuf, point: &Path) -> Result<(), LayerError> {
    match fs::create_dir(point) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(LayerError::File { path: point.to_owned(), source: error });
        }
        _ => {}
    }
    let (device_path, _device) =
        loop_device(file).map_err(|source| LayerError::Loop { path: path.clone(), source })?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    mount(Some(&device_path), point, Some("squashfs"), flags, None::<&str>)
        .map_err(|source| LayerError::Mount { path, source })
}

/// Whether it is gone.
fn unmount(point: &Path) -> bool {
    if let Err(error) = mounts::unmount(point) {
        log::warn!("a layer: {error}");
        return false;
    }
    // An empty folder that stays does no harm.
    let _ = fs::remove_dir(point);
    true
}

fn open_layer(layer: &Digest, path: &Path) -> Result<File, LayerError> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path);
    file.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => {
            LayerError::Missing { layer: layer.short(), path: path.to_owned() }
        }
        _ => LayerError::File { path: path.to_owned(), source },
    })
}

/// A loop device over `file`: its path, and the descriptor that keeps it
/// until it is mounted.
pub(crate) fn loop_device(file: &File) -> io::Result<(PathBuf, File)> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    for _ in 0..LOOP_ATTEMPTS_MAX {
        let number = sys::loop_free_number(control.as_fd())?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = File::open(&path)?;
        match sys::loop_configure(device.as_fd(), file.as_fd()) {
            Ok(()) => return Ok((path, device)),
            // Somebody else was faster.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}
