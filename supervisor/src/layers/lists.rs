//! `HEX.chunks`: how a layer on this node is cut, its chunk lists in order,
//! one a frame. It stays as long as the layer does: the next layer is copied
//! from it, and damage is found by it.

use std::fs::File;
use std::io::{self, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use wherry_bundle::chunk::{Chunk, ChunkList};
use wherry_bundle::limits::{CHUNK_BYTES_MAX, CHUNK_LISTS_MAX, CHUNKS_PER_LIST_MAX};
use wherry_bundle::{Digest, frame};

use super::{LayerError, io_error, sync_dir};
use crate::io::Io;

/// The chunk lists of one layer. Holds one list in memory (72 KiB at most),
/// whatever the layer's size.
#[derive(Debug)]
pub struct ChunkLists {
    path: PathBuf,
    file: File,
    lists: Vec<Place>,
    cached: (usize, Vec<Chunk>),
    chunks: usize,
    size_bytes: u64,
}

/// Where a list is in the file, and what it was named by.
#[derive(Debug)]
struct Place {
    at: u64,
    digest: Digest,
}

/// A chunk and where it is in its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    pub index: usize,
    pub offset: u64,
    pub chunk: Chunk,
}

impl ChunkLists {
    /// Reads the file once and checks it.
    ///
    /// # Errors
    /// It is not there or damaged.
    pub fn open(path: &Path) -> Result<Self, LayerError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let mut lists = Self {
            path: path.to_owned(),
            file,
            lists: Vec::new(),
            cached: (usize::MAX, Vec::new()),
            chunks: 0,
            size_bytes: 0,
        };
        lists.scan()?;
        Ok(lists)
    }

    /// What the chunks make together.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Their digests, as a bundle names them.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.lists.iter().map(|place| place.digest)
    }

    /// How many chunks the layer has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunks
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks == 0
    }

    /// Chunk number `index`, if the layer has so many.
    ///
    /// # Errors
    /// The file cannot be read any more.
    pub fn chunk(&mut self, index: usize) -> Result<Option<Chunk>, LayerError> {
        let (number, at) = (index / CHUNKS_PER_LIST_MAX, index % CHUNKS_PER_LIST_MAX);
        if self.cached.0 != number {
            let Some(place) = self.lists.get(number) else { return Ok(None) };
            let at = SeekFrom::Start(place.at);
            self.file.seek(at).map_err(io_error("read", &self.path))?;
            let list = self.read(&mut Io(&self.file))?;
            let bytes = list.ok_or_else(|| self.damaged("it has become shorter".into()))?;
            let list = ChunkList::read(&bytes).map_err(|error| self.damaged(error.to_string()))?;
            self.cached = (number, list.0);
        }
        Ok(self.cached.1.get(at).copied())
    }

    /// All chunks in order.
    ///
    /// # Errors
    /// In place of a chunk: the file cannot be read any more.
    pub fn iter(&mut self) -> impl Iterator<Item = Result<Located, LayerError>> {
        let (mut index, mut offset) = (0, 0);
        std::iter::from_fn(move || {
            let chunk = self.chunk(index).transpose()?;
            Some(chunk.map(|chunk| {
                let located = Located { index, offset, chunk };
                index += 1;
                offset += u64::from(chunk.size_bytes);
                located
            }))
        })
    }

    /// Notes where each list is.
    fn scan(&mut self) -> Result<(), LayerError> {
        let mut reader = Io(BufReader::new(&self.file));
        let mut lists = Vec::new();
        let (mut at, mut chunks, mut size_bytes) = (0, 0, 0);
        while let Some(bytes) = self.read(&mut reader)? {
            let list = ChunkList::read(&bytes).map_err(|error| self.damaged(error.to_string()))?;
            // Only the last one may be short: a chunk is found by its number.
            if lists.len() == CHUNK_LISTS_MAX || chunks != lists.len() * CHUNKS_PER_LIST_MAX {
                return Err(self.damaged("its lists are too many or too short".into()));
            }
            lists.push(Place { at, digest: Digest::of(&bytes) });
            at += (frame::HEADER_BYTES + bytes.len()) as u64;
            chunks += list.0.len();
            size_bytes += list.0.iter().map(|chunk| u64::from(chunk.size_bytes)).sum::<u64>();
        }
        (self.lists, self.chunks, self.size_bytes) = (lists, chunks, size_bytes);
        Ok(())
    }

    fn read<R: embedded_io::Read>(&self, reader: &mut R) -> Result<Option<Vec<u8>>, LayerError> {
        frame::read(reader, CHUNK_BYTES_MAX).map_err(|error| self.damaged(error.to_string()))
    }

    fn damaged(&self, what: String) -> LayerError {
        LayerError::Lists { path: self.path.clone(), what }
    }
}

/// Writes the encoded `lists` to `path`, whole or not at all; how many bytes.
pub(super) fn write(path: &Path, lists: &[Vec<u8>]) -> Result<u64, LayerError> {
    let new = path.with_extension("chunks-new");
    let mut file = Io(File::create(&new).map_err(io_error("create", &new))?);
    let mut bytes = 0;
    for list in lists {
        let written = frame::write(&mut file, list);
        written.map_err(|error| io_error("write", &new)(io::Error::other(error.to_string())))?;
        bytes += (frame::HEADER_BYTES + list.len()) as u64;
    }
    file.0.sync_all().map_err(io_error("sync", &new))?;
    std::fs::rename(&new, path).map_err(io_error("rename", &new))?;
    path.parent().map_or(Ok(()), sync_dir)?;
    Ok(bytes)
}
