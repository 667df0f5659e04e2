//! Image layers: one read-only squashfs mount a layer and node, shared by
//! all containers that use it. `loop(4)`, `mount(2)`.
//!
//! Never here: fetching or verifying a layer's file; a file with its name is
//! whole.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
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
    mounted: BTreeSet<Digest>,
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
        let points: BTreeSet<PathBuf> = mounts::table()?.into_iter().collect();
        let mounted = points
            .iter()
            .filter(|point| point.parent() == Some(top.as_path()))
            .filter_map(|point| Digest::parse(&format!("sha256:{}", point.file_name()?.to_str()?)))
            .collect();
        Ok(Self { files, folders, mounted })
    }

    /// Makes sure that `layer` is mounted at [`Folders::layer`].
    ///
    /// # Errors
    /// [`LayerError::Missing`], or what the kernel lacks. Nothing is left
    /// behind.
    pub fn ensure(&mut self, layer: &Digest) -> Result<(), LayerError> {
        if self.mounted.contains(layer) {
            return Ok(());
        }
        let path = self.files.join(format!("{}.squashfs", layer.hex()));
        let file = open_layer(layer, &path)?;
        let point = self.folders.layer(layer);
        match fs::create_dir(&point) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(LayerError::File { path: point, source: error });
            }
            _ => {}
        }
        let (device_path, _device) =
            loop_device(&file).map_err(|source| LayerError::Loop { path: path.clone(), source })?;
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
        mount(Some(&device_path), &point, Some("squashfs"), flags, None::<&str>)
            .map_err(|source| LayerError::Mount { path, source })?;
        self.mounted.insert(*layer);
        Ok(())
    }

    /// Unmounts every layer that is not in `used`. One that cannot be is
    /// logged and kept for the next time.
    pub fn release_all_but(&mut self, used: &BTreeSet<Digest>) {
        self.mounted.retain(|layer| {
            if used.contains(layer) {
                return true;
            }
            let point = self.folders.layer(layer);
            if let Err(error) = mounts::unmount(&point) {
                log::warn!("layer {}: {error}", layer.short());
                return true;
            }
            // An empty folder that stays does no harm.
            let _ = fs::remove_dir(&point);
            false
        });
    }
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
