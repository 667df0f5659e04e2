//! A disk's contents, held sparsely.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{ReplayError, io_error};

/// An image is held in pieces of this size; pieces of zeros are not held.
const BLOCK_BYTES: usize = 4096;

/// A disk's contents, in memory.
#[derive(Clone, Debug)]
pub struct Image {
    bytes: u64,
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl Image {
    /// # Errors
    /// The file cannot be read.
    pub fn read(path: &Path) -> Result<Self, ReplayError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let bytes = file.metadata().map_err(io_error("examine", path))?.len();
        let mut image = Self { bytes, blocks: BTreeMap::new() };
        let mut block = vec![0; BLOCK_BYTES];
        let mut offset = 0;
        while offset < bytes {
            let length =
                usize::try_from(bytes - offset).map_or(BLOCK_BYTES, |n| n.min(BLOCK_BYTES));
            let part = &mut block[..length];
            file.read_exact_at(part, offset).map_err(io_error("read", path))?;
            if part.iter().any(|byte| *byte != 0) {
                image.write(offset, part);
            }
            offset += BLOCK_BYTES as u64;
        }
        Ok(image)
    }

    /// Where the first difference is, in bytes; `None` if there is none.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<u64> {
        let zeros = [0; BLOCK_BYTES];
        let mut indexes: Vec<u64> =
            self.blocks.keys().chain(other.blocks.keys()).copied().collect();
        indexes.sort_unstable();
        let differs = indexes.into_iter().find(|index| {
            let [ours, theirs] = [self, other].map(|image| image.blocks.get(index));
            ours.map_or(&zeros[..], |block| &**block) != theirs.map_or(&zeros[..], |block| &**block)
        });
        differs.map(|index| index * BLOCK_BYTES as u64)
    }

    /// What lies behind the end of the disk is not written.
    pub(super) fn write(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() && offset < self.bytes {
            let within = usize::try_from(offset % BLOCK_BYTES as u64).unwrap_or(0);
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - within));
            let empty = || vec![0; BLOCK_BYTES].into_boxed_slice();
            let block = self.blocks.entry(offset / BLOCK_BYTES as u64).or_insert_with(empty);
            block[within..within + now.len()].copy_from_slice(now);
            offset += now.len() as u64;
            bytes = later;
        }
    }

    /// Makes `file` this disk, whatever it held before; sparse.
    pub(super) fn write_to(&self, file: &File) -> io::Result<()> {
        file.set_len(0)?;
        file.set_len(self.bytes)?;
        for (index, block) in &self.blocks {
            let offset = index * BLOCK_BYTES as u64;
            let length =
                usize::try_from(self.bytes - offset).map_or(BLOCK_BYTES, |n| n.min(BLOCK_BYTES));
            file.write_all_at(&block[..length], offset)?;
        }
        Ok(())
    }
}
