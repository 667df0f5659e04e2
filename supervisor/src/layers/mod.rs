//! Layer files: `DIR/HEX.squashfs`, and beside each how it is cut,
//! `DIR/HEX.chunks`; `DIR/HEX.part` while one is on its way, `DIR/HEX.damaged`
//! for one that is not what it was.
//!
//! Only a file whose SHA-256 was checked gets its final name, so a finished
//! name means a whole layer. Never here: the network, mounts, and decisions
//! about what to keep.

mod assembly;
mod import;
mod lists;
mod room;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::statvfs::statvfs;
use wherry_bundle::Digest;
use wherry_bundle::chunk::{ChunkList, ChunkListError};
use wherry_bundle::model::Layer;

pub use assembly::{Ahead, Assembly, Step};
pub use import::{Import, ImportError, Imported};
pub use lists::{ChunkLists, Located};
pub use room::Removed;

const WHOLE: &str = "squashfs";
const PART: &str = "part";
const DAMAGED: &str = "damaged";
const LISTS: &str = "chunks";

/// The folder of layer files. Cheap to clone: it holds no descriptor.
#[derive(Clone, Debug)]
pub struct Layers {
    dir: PathBuf,
    shared: Arc<Shared>,
}

/// A layer that a node needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedLayer {
    pub layer: Layer,
    /// The digests of its chunk lists; those that the node has are taken if it
    /// names none.
    pub lists: Vec<Digest>,
}

#[derive(Debug, Default)]
struct Shared {
    written_bytes: AtomicU64,
    /// Each layer is built by one at a time.
    building: Mutex<BTreeSet<Digest>>,
}

#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("layer {layer}: its chunks make a file with digest {found}; they are thrown away")]
    Digest { layer: Digest, found: Digest },
    #[error("layer {layer}: {source}")]
    Cut { layer: Digest, source: ChunkListError },
    #[error("layer {layer} is being built already")]
    Busy { layer: Digest },
    #[error("{}: damaged: {what}", path.display())]
    Lists { path: PathBuf, what: String },
}

impl LayerError {
    /// The disk is full.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.raw_os_error() == Some(Errno::ENOSPC as i32),
            Self::Digest { .. } | Self::Cut { .. } | Self::Busy { .. } | Self::Lists { .. } => {
                false
            }
        }
    }
}

impl Layers {
    /// Makes the folder if need be. The names in it are durable, those too
    /// that a process gave which was killed before it could see to that.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(dir: &Path) -> Result<Self, LayerError> {
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        for folder in [Some(dir), dir.parent()].into_iter().flatten() {
            if let Err(error) = sync_dir(folder) {
                // Pods have to start from a disk that cannot be written too.
                log::error!("a power cut may take layers away that are there: {error}");
            }
        }
        Ok(Self { dir: dir.to_owned(), shared: Arc::default() })
    }

    /// All whole layers and their sizes in bytes.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn present(&self) -> Result<BTreeMap<Digest, u64>, LayerError> {
        let mut found = BTreeMap::new();
        for (digest, extension, path) in self.files()? {
            if extension == WHOLE {
                let size = fs::metadata(&path).map_err(io_error("examine", &path))?.len();
                found.insert(digest, size);
            }
        }
        Ok(found)
    }

    /// True if this layer is there with the right size; its digest was
    /// checked before it got its name.
    #[must_use]
    pub fn is_whole(&self, layer: &Layer) -> bool {
        fs::metadata(self.path(&layer.digest)).is_ok_and(|m| m.len() == layer.size_bytes)
    }

    /// Bytes that more files can take on this disk.
    ///
    /// # Errors
    /// `statvfs(3)`'s.
    pub fn free_bytes(&self) -> Result<u64, LayerError> {
        let space = statvfs(&self.dir)
            .map_err(|errno| io_error("look at the space of", &self.dir)(errno.into()))?;
        // Their types differ between architectures.
        #[allow(clippy::useless_conversion)]
        let (blocks, size) =
            (u64::from(space.blocks_available()), u64::from(space.fragment_size()));
        Ok(blocks.saturating_mul(size))
    }

    /// Bytes that were written into this folder since it was opened.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.shared.written_bytes.load(Ordering::Relaxed)
    }

    /// Where the whole layer is, or will be.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.file(digest, WHOLE)
    }

    /// How a layer is cut.
    ///
    /// # Errors
    /// Nobody told yet, or the file that says so is damaged.
    pub fn lists(&self, layer: &Digest) -> Result<ChunkLists, LayerError> {
        ChunkLists::open(&self.file(layer, LISTS))
    }

    /// True if this layer's lists are there, and are those that `digests`
    /// name; any that fit the layer if it names none.
    #[must_use]
    pub fn has_lists(&self, layer: &Layer, digests: &[Digest]) -> bool {
        self.lists(&layer.digest).is_ok_and(|lists| {
            lists.size_bytes() == layer.size_bytes
                && (digests.is_empty() || lists.digests().eq(digests.iter().copied()))
        })
    }

    /// Keeps the encoded lists of a layer, durably.
    ///
    /// # Errors
    /// They do not fit the layer, or the disk.
    pub fn put_lists(&self, layer: &Layer, lists: &[Vec<u8>]) -> Result<(), LayerError> {
        ChunkList::join(lists.iter().map(Vec::as_slice), layer.size_bytes)
            .map_err(|source| LayerError::Cut { layer: layer.digest, source })?;
        let bytes = lists::write(&self.file(&layer.digest, LISTS), lists)?;
        self.count(bytes);
        Ok(())
    }

    /// A whole layer is not what it was: it is put aside, and its good chunks
    /// serve to build it again. What has it mounted keeps it.
    ///
    /// # Errors
    /// The disk.
    pub fn quarantine(&self, digest: &Digest) -> Result<(), LayerError> {
        let whole = self.path(digest);
        fs::rename(&whole, self.file(digest, DAMAGED)).map_err(io_error("rename", &whole))?;
        sync_dir(&self.dir)
    }

    /// Removes a layer, whole or not; one that is not there is fine.
    ///
    /// # Errors
    /// It is there and cannot be removed.
    pub fn remove(&self, digest: &Digest) -> Result<(), LayerError> {
        // Without its lists a file is of no use.
        let extensions = [WHOLE, PART, DAMAGED, LISTS];
        extensions.iter().try_for_each(|extension| remove_file(&self.file(digest, extension)))
    }

    /// Files that have chunks of layers in them.
    fn contents(&self) -> Result<Vec<(Digest, PathBuf)>, LayerError> {
        let mut files = self.files()?;
        files.retain(|(_, extension, _)| *extension != LISTS);
        // What is whole has all its chunks.
        files.sort_by_key(|(_, extension, _)| *extension != WHOLE);
        Ok(files.into_iter().map(|(digest, _, path)| (digest, path)).collect())
    }

    fn part_path(&self, digest: &Digest) -> PathBuf {
        self.file(digest, PART)
    }

    fn file(&self, digest: &Digest, extension: &str) -> PathBuf {
        self.dir.join(format!("{}.{extension}", digest.hex()))
    }

    fn count(&self, bytes: u64) {
        self.shared.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn building(&self) -> MutexGuard<'_, BTreeSet<Digest>> {
        // A set is a set, whoever panicked.
        self.shared.building.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Our own files in the folder; others are left alone.
    fn files(&self) -> Result<Vec<(Digest, &'static str, PathBuf)>, LayerError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io_error("list", &self.dir))? {
            let path = entry.map_err(io_error("list", &self.dir))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).and_then(Digest::parse);
            let extension = path.extension().and_then(|extension| extension.to_str());
            let known = [WHOLE, PART, DAMAGED, LISTS].into_iter().find(|e| Some(*e) == extension);
            if let (Some(digest), Some(extension)) = (stem, known) {
                files.push((digest, extension, path));
            }
        }
        Ok(files)
    }
}

fn sync_dir(path: &Path) -> Result<(), LayerError> {
    let dir = File::open(path).map_err(io_error("open", path))?;
    dir.sync_all().map_err(io_error("sync", path))
}

fn remove_file(path: &Path) -> Result<(), LayerError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayerError {
    let path = path.to_owned();
    move |source| LayerError::Io { what, path, source }
}

#[cfg(test)]
mod tests;
