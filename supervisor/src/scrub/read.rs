//! Reading one layer file, piece by piece, from the flash and not from memory.
//! `open(2)`, `posix_fadvise(2)`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use sha2::{Digest as _, Sha256};
use wherry_bundle::Digest;
use wherry_bundle::limits::CHUNK_BYTES_MAX;
use wherry_bundle::model::Layer;

use super::Damage;
use crate::layers::{ChunkLists, Layers};

/// A layer that is being checked.
#[derive(Debug)]
pub(super) struct Check {
    layer: Layer,
    file: File,
    offset: u64,
    /// The length is another one.
    is_cut: bool,
    how: How,
    buffer: Vec<u8>,
}

/// How far a piece came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    More { bytes: u64 },
    Sound { bytes: u64 },
    Damaged(Damage),
}

#[derive(Debug)]
enum How {
    Chunks {
        lists: Box<ChunkLists>,
        index: usize,
        bad: u32,
    },
    /// Nobody knows its chunks: by its own digest.
    Whole {
        hasher: Box<Sha256>,
        is_unreadable: bool,
    },
}

impl Check {
    /// # Errors
    /// The file cannot be opened.
    pub fn begin(layers: &Layers, layer: Layer) -> io::Result<Self> {
        let file = open(&layers.path(&layer.digest))?;
        let is_cut = file.metadata()?.len() != layer.size_bytes;
        let how = match layers.lists(&layer.digest) {
            Ok(lists) if lists.size_bytes() == layer.size_bytes => {
                How::Chunks { lists: Box::new(lists), index: 0, bad: 0 }
            }
            Ok(_) => How::by_digest(),
            Err(error) => {
                log::info!("layer {} is checked as a whole: {error}", layer.digest.short());
                How::by_digest()
            }
        };
        let buffer = vec![0; CHUNK_BYTES_MAX];
        Ok(Self { layer, file, offset: 0, is_cut, how, buffer })
    }

    pub fn layer(&self) -> Layer {
        self.layer
    }

    /// Reads on by about `bytes`. What cannot be read is damaged.
    pub fn read(&mut self, bytes: u64) -> Checked {
        let begin = self.offset;
        // What is in memory may be right where the flash is not.
        self.drop_cache(begin, bytes.saturating_add(CHUNK_BYTES_MAX as u64));
        let mut is_open = true;
        while is_open && self.offset - begin < bytes {
            is_open = self.read_next();
        }
        let read = self.offset - begin;
        self.drop_cache(begin, read);
        if is_open {
            return Checked::More { bytes: read };
        }
        match self.damage() {
            Some(damage) => Checked::Damaged(damage),
            None => Checked::Sound { bytes: read },
        }
    }

    /// False at the end.
    fn read_next(&mut self) -> bool {
        let left = self.layer.size_bytes - self.offset;
        if left == 0 {
            return false;
        }
        match &mut self.how {
            How::Chunks { lists, index, bad } => {
                let chunk = match lists.chunk(*index) {
                    Ok(Some(chunk)) => chunk,
                    // The lists were damaged while they were in use.
                    Ok(None) | Err(_) => {
                        self.how = How::by_digest();
                        self.offset = 0;
                        return true;
                    }
                };
                let buffer = &mut self.buffer[..chunk.size_bytes as usize];
                let is_read = self.file.read_exact_at(buffer, self.offset).is_ok();
                if !is_read || Digest::of(buffer) != chunk.digest {
                    *bad = bad.saturating_add(1);
                }
                *index += 1;
                self.offset += u64::from(chunk.size_bytes);
            }
            How::Whole { hasher, is_unreadable } => {
                let length =
                    usize::try_from(left).map_or(CHUNK_BYTES_MAX, |n| n.min(CHUNK_BYTES_MAX));
                let buffer = &mut self.buffer[..length];
                if self.file.read_exact_at(buffer, self.offset).is_err() {
                    *is_unreadable = true;
                    return false;
                }
                hasher.update(&*buffer);
                self.offset += length as u64;
            }
        }
        true
    }

    fn damage(&self) -> Option<Damage> {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let damage = match &self.how {
            How::Chunks { lists, bad, .. } => {
                Damage { chunks_bad: *bad, chunks: count(lists.len()) }
            }
            How::Whole { hasher, is_unreadable } => {
                let found = Digest(Sha256::clone(hasher).finalize().into());
                let is_bad = *is_unreadable || found != self.layer.digest;
                Damage { chunks_bad: u32::from(is_bad), chunks: 0 }
            }
        };
        (self.is_cut || damage.chunks_bad > 0).then_some(damage)
    }

    /// Only ever advice: without it more is read from memory, or kept there.
    fn drop_cache(&self, offset: u64, bytes: u64) {
        let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        if let (Ok(offset), Ok(bytes)) = (offset.try_into(), bytes.try_into()) {
            let _ = posix_fadvise(self.file.as_raw_fd(), offset, bytes, advice);
        }
    }
}

impl How {
    fn by_digest() -> Self {
        Self::Whole { hasher: Box::new(Sha256::new()), is_unreadable: false }
    }
}

/// Without a time of access, which would be a write to the flash.
fn open(path: &std::path::Path) -> io::Result<File> {
    let quiet = OpenOptions::new().read(true).custom_flags(libc::O_NOATIME).open(path);
    quiet.or_else(|error| match error.raw_os_error() {
        // Not the file's owner.
        Some(libc::EPERM) => File::open(path),
        _ => Err(error),
    })
}
