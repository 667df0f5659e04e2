//! Building one layer from its chunks, in sequence: what an earlier run left,
//! what other layers on this node have, and what comes from outside.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;

use sha2::{Digest as _, Sha256};
use wherry_bundle::Digest;
use wherry_bundle::limits::CHUNK_BYTES_MAX;
use wherry_bundle::model::Layer;

use super::lists::{ChunkLists, Located};
use super::sources::Sources;
use super::{DAMAGED, LayerError, Layers, WHOLE, io_error, remove_file, sync_dir};

/// A part is flushed to the disk each time this much was added: what a power
/// cut can cost.
const SYNC_BYTES: u64 = 1024 * 1024;
/// Work between two looks at the network: some ten milliseconds on a slow
/// processor.
const STEP_BYTES: u64 = 512 * 1024;

/// A layer on its way. One at a time for each layer.
#[derive(Debug)]
pub struct Assembly {
    layer: Layer,
    layers: Layers,
    lists: ChunkLists,
    sources: Sources,
    file: File,
    hasher: Sha256,
    /// The next chunk, and where it goes.
    next: Place,
    /// An earlier run wrote up to here; it is not checked yet.
    left_bytes: u64,
    /// The last chunk that an earlier run left was not right.
    left_bad: bool,
    copied_bytes: u64,
    supplied_bytes: u64,
    buffer: Vec<u8>,
    _claim: Claim,
}

/// A place between two chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    index: usize,
    offset: u64,
}

/// How far [`Assembly::advance`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to do: call it again.
    More,
    /// This chunk is next, and nowhere on this node: [`Assembly::supply`].
    Needs(Located),
    /// All chunks are there: [`Assembly::finish`].
    Whole,
}

/// Finds the chunks that have to come from outside, ahead of
/// [`Assembly::advance`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Ahead(Place);

/// The right to build a layer, given back when dropped.
#[derive(Debug)]
struct Claim {
    layers: Layers,
    digest: Digest,
}

impl Assembly {
    /// Begins with a layer whose lists are there, or goes on with it.
    ///
    /// # Errors
    /// Somebody else builds it, or the disk.
    pub fn begin(layers: &Layers, layer: Layer) -> Result<Self, LayerError> {
        let claim = Claim::new(layers, layer.digest)?;
        let lists = layers.lists(&layer.digest)?;
        let sources = Sources::of(layers, &layer)?;
        let path = layers.part_path(&layer.digest);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error("open", &path))?;
        let left_bytes = file.metadata().map_err(io_error("examine", &path))?.len();
        Ok(Self {
            layer,
            layers: layers.clone(),
            lists,
            sources,
            file,
            hasher: Sha256::new(),
            next: Place::default(),
            left_bytes,
            left_bad: false,
            copied_bytes: 0,
            supplied_bytes: 0,
            buffer: Vec::with_capacity(CHUNK_BYTES_MAX),
            _claim: claim,
        })
    }

    #[must_use]
    pub fn layer(&self) -> Layer {
        self.layer
    }

    /// Bytes of the layer that are there.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.next.offset
    }

    /// Of these, copied on this node.
    #[must_use]
    pub fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }

    /// Of these, supplied from outside since it was begun.
    #[must_use]
    pub fn supplied_bytes(&self) -> u64 {
        self.supplied_bytes
    }

    /// Adds chunks as long as they are on this node; a part of them, so that
    /// the caller can look elsewhere between.
    ///
    /// # Errors
    /// The disk. After an error it must be dropped and begun anew.
    pub fn advance(&mut self) -> Result<Step, LayerError> {
        let end = self.next.offset + STEP_BYTES;
        while self.next.offset < end {
            let Some(chunk) = self.lists.chunk(self.next.index)? else { return Ok(Step::Whole) };
            let located = Located { index: self.next.index, offset: self.next.offset, chunk };
            if !self.keep(&located)? && !self.copy(&located)? {
                return Ok(Step::Needs(located));
            }
        }
        Ok(Step::More)
    }

    /// Adds the chunk that [`Step::Needs`] named; its digest was checked.
    ///
    /// # Errors
    /// As [`Self::advance`].
    pub fn supply(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.append(bytes)?;
        self.supplied_bytes += bytes.len() as u64;
        Ok(())
    }

    /// The next chunk behind `ahead` that is not expected on this node.
    ///
    /// # Errors
    /// The lists cannot be read any more.
    pub fn missing(&mut self, ahead: &mut Ahead) -> Result<Option<Located>, LayerError> {
        if ahead.0.offset < self.next.offset {
            ahead.0 = self.next;
        }
        while let Some(chunk) = self.lists.chunk(ahead.0.index)? {
            let located = Located { index: ahead.0.index, offset: ahead.0.offset, chunk };
            ahead.0 = ahead.0.after(chunk.size_bytes);
            if ahead.0.offset > self.left_bytes && !self.sources.has(&chunk, located.offset) {
                return Ok(Some(located));
            }
        }
        Ok(None)
    }

    /// Checks the digest of the whole and gives the file its name, durably.
    ///
    /// # Errors
    /// Another digest: the lists are not of this layer, and nothing of it is
    /// kept. Or the disk.
    pub fn finish(self) -> Result<(), LayerError> {
        let digest = self.layer.digest;
        let part = self.layers.part_path(&digest);
        let found = Digest(self.hasher.finalize().into());
        if found != digest || self.next.offset != self.layer.size_bytes {
            self.layers.remove(&digest)?;
            return Err(LayerError::Digest { layer: digest, found });
        }
        // An earlier run may have left more than the layer has.
        self.file.set_len(self.next.offset).map_err(io_error("cut", &part))?;
        self.file.sync_all().map_err(io_error("sync", &part))?;
        fs::rename(&part, part.with_extension(WHOLE)).map_err(io_error("rename", &part))?;
        remove_file(&part.with_extension(DAMAGED))?;
        sync_dir(&self.layers.dir)
    }

    /// Takes what an earlier run wrote, if it is right. One chunk that is not
    /// has rotted; two in a row are what a power cut leaves of the end.
    fn keep(&mut self, located: &Located) -> Result<bool, LayerError> {
        let size = located.chunk.size_bytes as usize;
        if located.offset + size as u64 > self.left_bytes {
            return Ok(false);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(size, 0);
        let read = self.file.read_exact_at(&mut buffer, located.offset);
        let is_right = read.is_ok() && Digest::of(&buffer) == located.chunk.digest;
        if is_right {
            self.hasher.update(&buffer);
            self.next = self.next.after(located.chunk.size_bytes);
        } else if self.left_bad {
            self.left_bytes = located.offset;
        }
        self.left_bad = !is_right;
        self.buffer = buffer;
        Ok(is_right)
    }

    fn copy(&mut self, located: &Located) -> Result<bool, LayerError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let found = self.sources.read(&located.chunk, located.offset, &mut buffer);
        if found {
            self.append(&buffer)?;
            self.copied_bytes += buffer.len() as u64;
        }
        self.buffer = buffer;
        Ok(found)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        let part = || self.layers.part_path(&self.layer.digest);
        let before = self.next.offset;
        self.file.write_all_at(bytes, before).map_err(|e| io_error("write", &part())(e))?;
        self.hasher.update(bytes);
        self.layers.count(bytes.len() as u64);
        let next = Place { index: self.next.index + 1, offset: before + bytes.len() as u64 };
        if next.offset / SYNC_BYTES > before / SYNC_BYTES {
            self.file.sync_data().map_err(|e| io_error("sync", &part())(e))?;
        }
        self.next = next;
        Ok(())
    }
}

impl Place {
    fn after(self, bytes: u32) -> Self {
        Self { index: self.index + 1, offset: self.offset + u64::from(bytes) }
    }
}

impl Claim {
    fn new(layers: &Layers, digest: Digest) -> Result<Self, LayerError> {
        if !layers.building().insert(digest) {
            return Err(LayerError::Busy { layer: digest });
        }
        Ok(Self { layers: layers.clone(), digest })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.layers.building().remove(&self.digest);
    }
}
