//! Where chunks are that this node holds already: in whole layers, in those
//! on their way, and in damaged ones.
//!
//! What is said here is a hint: a chunk counts only once its digest was
//! checked, for files change and keys are short.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use wherry_bundle::Digest;
use wherry_bundle::chunk::Chunk;
use wherry_bundle::model::Layer;

use super::{LayerError, Layers};

/// Chunks that are looked for: 2 MiB of memory, about 4 GiB of layers. Others
/// are fetched.
const CHUNKS_MAX: usize = 128 * 1024;

/// Places where one chunk is looked for.
const PLACES_MAX: usize = 16;

/// Made for one layer; the files may change meanwhile.
#[derive(Debug)]
pub(super) struct Sources {
    files: Vec<PathBuf>,
    /// Ordered by key.
    entries: Vec<Entry>,
    /// The one that was read last.
    open: Option<(u16, File)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// The start of a chunk's digest.
    key: u64,
    file: u16,
    offset: Offset,
}

/// 48 bits, so that an entry has 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Offset([u8; 6]);

/// The layer's own part: what is in front of a chunk can be copied to it.
const OWN: u16 = 0;

impl Sources {
    /// All that can serve `own`, which is about to be built.
    ///
    /// # Errors
    /// The folder cannot be read. A layer whose chunk lists are damaged is
    /// left out.
    pub fn of(layers: &Layers, own: &Layer) -> Result<Self, LayerError> {
        let part = layers.part_path(&own.digest);
        let mut sources = Self { files: vec![part.clone()], entries: Vec::new(), open: None };
        sources.collect(layers, &own.digest, OWN, own.size_bytes)?;
        for (digest, path) in layers.contents()? {
            if path != part
                && let Err(error) = sources.add(layers, &digest, path)
            {
                log::warn!("nothing is copied from layer {}: {error}", digest.short());
            }
        }
        sources.entries.sort_unstable();
        sources.entries.shrink_to_fit();
        Ok(sources)
    }

    /// True if `chunk`, which is at `offset` of the layer, should be found.
    pub fn has(&self, chunk: &Chunk, offset: u64) -> bool {
        self.places(chunk, offset).next().is_some()
    }

    /// Reads `chunk`, which is at `offset` of the layer, into `buffer`, and
    /// checks it. False if no file has it.
    pub fn read(&mut self, chunk: &Chunk, offset: u64, buffer: &mut Vec<u8>) -> bool {
        let places: Vec<Entry> = self.places(chunk, offset).copied().collect();
        places.iter().any(|entry| {
            buffer.resize(chunk.size_bytes as usize, 0);
            self.read_at(entry, buffer).is_ok() && Digest::of(buffer) == chunk.digest
        })
    }

    fn places(&self, chunk: &Chunk, offset: u64) -> impl Iterator<Item = &Entry> {
        let key = key(&chunk.digest);
        let start = self.entries.partition_point(|entry| entry.key < key);
        let same = self.entries[start..].iter().take_while(move |entry| entry.key == key);
        // The layer's own part is there up to this chunk. What is there very
        // often (a run of zeros) need not be looked for everywhere.
        same.take(PLACES_MAX)
            .filter(move |entry| entry.file != OWN || u64::from(entry.offset) < offset)
    }

    fn read_at(&mut self, entry: &Entry, buffer: &mut [u8]) -> std::io::Result<()> {
        let file = match self.open.take() {
            Some((number, file)) if number == entry.file => file,
            Some(_) | None => File::open(&self.files[usize::from(entry.file)])?,
        };
        let result = file.read_exact_at(buffer, entry.offset.into());
        self.open = Some((entry.file, file));
        result
    }

    fn add(&mut self, layers: &Layers, digest: &Digest, path: PathBuf) -> Result<(), LayerError> {
        let Ok(file) = u16::try_from(self.files.len()) else { return Ok(()) };
        // A part is shorter than its layer, so its lists say how long that is.
        let present = fs::metadata(&path).map_or(0, |found| found.len());
        self.files.push(path);
        self.collect(layers, digest, file, present)
    }

    fn collect(
        &mut self,
        layers: &Layers,
        digest: &Digest,
        file: u16,
        bytes: u64,
    ) -> Result<(), LayerError> {
        for located in layers.lists(digest)?.iter() {
            let located = located?;
            let end = located.offset + u64::from(located.chunk.size_bytes);
            if self.entries.len() == CHUNKS_MAX || end > bytes {
                break;
            }
            if let Some(offset) = Offset::new(located.offset) {
                self.entries.push(Entry { key: key(&located.chunk.digest), file, offset });
            }
        }
        Ok(())
    }
}

impl Offset {
    fn new(offset: u64) -> Option<Self> {
        let [a, b, c, d, e, f, 0, 0] = offset.to_le_bytes() else { return None };
        Some(Self([a, b, c, d, e, f]))
    }
}

impl From<Offset> for u64 {
    fn from(Offset([a, b, c, d, e, f]): Offset) -> Self {
        Self::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }
}

fn key(digest: &Digest) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = digest.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
