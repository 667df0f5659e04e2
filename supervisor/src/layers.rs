//! Layer files: `DIR/HEX.squashfs`, and `DIR/HEX.part` while one is on its
//! way.
//!
//! A layer is one file, written in sequence. Only a file whose SHA-256 was
//! checked gets its final name, so a finished name means a whole layer.
//! Never here: the network, mounts, and decisions about what to keep.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use sha2::{Digest as _, Sha256};
use wherry_bundle::Digest;
use wherry_bundle::model::Layer;

/// A part is flushed to the disk each time this many bytes are complete, and
/// no byte behind such a boundary is written before. So the length of a part
/// alone says how much of it a power cut cannot have harmed, and at most this
/// much is fetched twice.
pub const SYNC_BYTES: u64 = 1024 * 1024;
/// Buffer for hashing what a part already holds: one page of squashfs's
/// largest block, small beside everything else.
const READ_BYTES: usize = 64 * 1024;
const WHOLE: &str = "squashfs";
const PART: &str = "part";

/// The folder of layer files. Cheap to clone: it holds no descriptor.
#[derive(Clone, Debug)]
pub struct Layers {
    dir: PathBuf,
}

/// A layer that is being written.
#[derive(Debug)]
pub struct Partial {
    layer: Layer,
    dir: PathBuf,
    file: File,
    offset: u64,
    hasher: Sha256,
}

#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{layer}: the bytes that arrived have digest {found}; they are thrown away")]
    Digest { layer: Digest, found: Digest },
    #[error("{layer}: more bytes than the {size_bytes} that the bundle names")]
    TooLong { layer: Digest, size_bytes: u64 },
    #[error("{layer}: finished at {offset} of {size_bytes} bytes")]
    TooShort { layer: Digest, offset: u64, size_bytes: u64 },
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
        Ok(Self { dir: dir.to_owned() })
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

    /// Where the whole layer is, or will be.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{}.{WHOLE}", digest.hex()))
    }

    /// Starts a layer, or goes on with it at the last synced boundary
    /// ([`Partial::offset`]). Reads what is there already, to hash it.
    ///
    /// # Errors
    /// The part cannot be opened, read or cut.
    pub fn begin(&self, layer: Layer) -> Result<Partial, LayerError> {
        let path = self.part_path(&layer.digest);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error("open", &path))?;
        let length = file.metadata().map_err(io_error("examine", &path))?.len();
        let offset = synced_bytes(length.min(layer.size_bytes));
        file.set_len(offset).map_err(io_error("cut", &path))?;
        let mut hasher = Sha256::new();
        hash_file(&mut file, &mut hasher).map_err(io_error("read", &path))?;
        Ok(Partial { layer, dir: self.dir.clone(), file, offset, hasher })
    }

    /// Removes a whole layer; one that is not there is fine.
    ///
    /// # Errors
    /// It is there and cannot be removed.
    pub fn remove(&self, digest: &Digest) -> Result<(), LayerError> {
        remove_file(&self.path(digest))
    }

    /// Removes all files, whole or not, that are not in `keep`, and says
    /// which whole layers went.
    ///
    /// # Errors
    /// The first file that cannot be removed.
    pub fn prune(&self, keep: &BTreeSet<Digest>) -> Result<Vec<Digest>, LayerError> {
        let mut gone = Vec::new();
        for (digest, extension, path) in self.files()? {
            if !keep.contains(&digest) {
                remove_file(&path)?;
                if extension == WHOLE {
                    gone.push(digest);
                }
            }
        }
        Ok(gone)
    }

    fn part_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{}.{PART}", digest.hex()))
    }

    /// Our own files in the folder; others are left alone.
    fn files(&self) -> Result<Vec<(Digest, &'static str, PathBuf)>, LayerError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io_error("list", &self.dir))? {
            let path = entry.map_err(io_error("list", &self.dir))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).and_then(Digest::parse);
            let extension = path.extension().and_then(|extension| extension.to_str());
            match (stem, extension) {
                (Some(digest), Some(WHOLE)) => files.push((digest, WHOLE, path)),
                (Some(digest), Some(PART)) => files.push((digest, PART, path)),
                _ => {}
            }
        }
        Ok(files)
    }
}

impl Partial {
    #[must_use]
    pub fn layer(&self) -> Layer {
        self.layer
    }

    /// Bytes that are there: the next [`Self::write`] goes on from here.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends `bytes`, and syncs at each boundary of [`SYNC_BYTES`].
    ///
    /// # Errors
    /// More bytes than the layer has, or the disk. After an error the part
    /// must be dropped and begun anew.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), LayerError> {
        let size_bytes = self.layer.size_bytes;
        if bytes.len() as u64 > size_bytes - self.offset {
            return Err(LayerError::TooLong { layer: self.layer.digest, size_bytes });
        }
        while !bytes.is_empty() {
            let room = SYNC_BYTES - self.offset % SYNC_BYTES;
            let length = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
            let (now, later) = bytes.split_at(length);
            self.file.write_all(now).map_err(io_error("write", &self.part_path()))?;
            self.hasher.update(now);
            self.offset += now.len() as u64;
            if self.offset.is_multiple_of(SYNC_BYTES) {
                self.file.sync_data().map_err(io_error("sync", &self.part_path()))?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// Checks the digest and gives the file its final name, durably.
    ///
    /// # Errors
    /// A wrong digest: the part is removed, so that it is fetched anew. Or
    /// the disk.
    pub fn finish(self) -> Result<(), LayerError> {
        let Layer { digest, size_bytes } = self.layer;
        let part = self.part_path();
        if self.offset != size_bytes {
            return Err(LayerError::TooShort { layer: digest, offset: self.offset, size_bytes });
        }
        let found = Digest(self.hasher.finalize().into());
        if found != digest {
            remove_file(&part)?;
            return Err(LayerError::Digest { layer: digest, found });
        }
        self.file.sync_all().map_err(io_error("sync", &part))?;
        let whole = part.with_extension(WHOLE);
        fs::rename(&part, &whole).map_err(io_error("rename", &part))?;
        sync_dir(&self.dir)
    }

    fn part_path(&self) -> PathBuf {
        self.dir.join(format!("{}.{PART}", self.layer.digest.hex()))
    }
}

/// How much of a part of `length` bytes is certainly on the disk: a byte
/// behind a boundary was only written after that boundary was synced.
fn synced_bytes(length: u64) -> u64 {
    length.saturating_sub(1) / SYNC_BYTES * SYNC_BYTES
}

fn sync_dir(path: &Path) -> Result<(), LayerError> {
    let dir = File::open(path).map_err(io_error("open", path))?;
    dir.sync_all().map_err(io_error("sync", path))
}

fn hash_file(file: &mut File, hasher: &mut Sha256) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            length => hasher.update(&buffer[..length]),
        }
    }
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
mod tests {
    use super::*;

    /// Bytes that differ everywhere, so that a shifted write shows.
    fn contents(length: usize) -> Vec<u8> {
        (0..length).map(|i| u8::try_from((i * 7 + i / 251) % 256).unwrap()).collect()
    }

    fn layer_of(bytes: &[u8]) -> Layer {
        Layer { digest: Digest::of(bytes), size_bytes: bytes.len() as u64 }
    }

    #[test]
    fn a_layer_gets_its_name_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let layers = Layers::open(&dir.path().join("layers")).unwrap();
        let bytes = contents(3 * 1024 * 1024 + 17);
        let layer = layer_of(&bytes);
        let mut partial = layers.begin(layer).unwrap();
        for chunk in bytes.chunks(100_000) {
            assert!(!layers.is_whole(&layer));
            partial.write(chunk).unwrap();
        }
        partial.finish().unwrap();
        assert!(layers.is_whole(&layer));
        assert_eq!(fs::read(layers.path(&layer.digest)).unwrap(), bytes);
        assert_eq!(layers.present().unwrap(), [(layer.digest, layer.size_bytes)].into());
    }

    #[test]
    fn a_part_goes_on_at_the_last_synced_boundary() {
        let dir = tempfile::tempdir().unwrap();
        let layers = Layers::open(dir.path()).unwrap();
        let bytes = contents(3 * 1024 * 1024);
        let layer = layer_of(&bytes);
        let mut partial = layers.begin(layer).unwrap();
        partial.write(&bytes[..2 * 1024 * 1024 + 5]).unwrap();
        drop(partial);
        let mut partial = layers.begin(layer).unwrap();
        assert_eq!(partial.offset(), 2 * SYNC_BYTES);
        let rest = usize::try_from(partial.offset()).unwrap();
        partial.write(&bytes[rest..]).unwrap();
        partial.finish().unwrap();
        assert!(layers.is_whole(&layer));
    }

    #[test]
    fn a_length_on_a_boundary_was_not_synced_yet() {
        for (length, synced) in [
            (0, 0),
            (1, 0),
            (SYNC_BYTES, 0),
            (SYNC_BYTES + 1, SYNC_BYTES),
            (2 * SYNC_BYTES, SYNC_BYTES),
        ] {
            assert_eq!(synced_bytes(length), synced, "{length}");
        }
    }

    #[test]
    fn wrong_bytes_are_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let layers = Layers::open(dir.path()).unwrap();
        let mut bytes = contents(2 * 1024 * 1024);
        let layer = layer_of(&bytes);
        bytes[1_500_000] ^= 1;
        let mut partial = layers.begin(layer).unwrap();
        partial.write(&bytes).unwrap();
        assert!(matches!(partial.finish(), Err(LayerError::Digest { .. })));
        assert_eq!(layers.begin(layer).unwrap().offset(), 0);
        assert!(!layers.is_whole(&layer));
    }

    #[test]
    fn a_damaged_part_shows_after_a_resume_too() {
        let dir = tempfile::tempdir().unwrap();
        let layers = Layers::open(dir.path()).unwrap();
        let bytes = contents(2 * 1024 * 1024);
        let layer = layer_of(&bytes);
        layers.begin(layer).unwrap().write(&bytes).unwrap();
        let part = layers.part_path(&layer.digest);
        let mut damaged = fs::read(&part).unwrap();
        damaged[77] ^= 1;
        fs::write(&part, damaged).unwrap();
        let mut partial = layers.begin(layer).unwrap();
        let rest = usize::try_from(partial.offset()).unwrap();
        partial.write(&bytes[rest..]).unwrap();
        assert!(matches!(partial.finish(), Err(LayerError::Digest { .. })));
    }

    #[test]
    fn too_many_or_too_few_bytes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layers = Layers::open(dir.path()).unwrap();
        let layer = layer_of(&contents(10));
        let mut partial = layers.begin(layer).unwrap();
        assert!(matches!(partial.write(&contents(11)), Err(LayerError::TooLong { .. })));
        partial.write(&contents(9)).unwrap();
        assert!(matches!(partial.finish(), Err(LayerError::TooShort { .. })));
    }

    #[test]
    fn pruning_keeps_what_is_named_and_what_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let layers = Layers::open(dir.path()).unwrap();
        let keep = layer_of(&contents(10));
        let drop = layer_of(&contents(20));
        for (layer, length) in [(keep, 10), (drop, 20)] {
            let mut partial = layers.begin(layer).unwrap();
            partial.write(&contents(length)).unwrap();
            partial.finish().unwrap();
        }
        layers.begin(layer_of(&contents(30))).unwrap();
        fs::write(dir.path().join("README"), "mine").unwrap();
        assert_eq!(layers.prune(&[keep.digest].into()).unwrap(), [drop.digest]);
        let names: BTreeSet<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        let whole = format!("{}.squashfs", keep.digest.hex());
        assert_eq!(names, ["README".into(), whole.into()].into());
        layers.remove(&keep.digest).unwrap();
        layers.remove(&keep.digest).unwrap();
    }
}
