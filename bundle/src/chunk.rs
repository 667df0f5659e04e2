//! How a layer file is cut into chunks.
//!
//! Layers are cut by content (about 32 KiB a chunk), so that a changed byte
//! changes the chunks around it and no others; a chunk is named by its
//! SHA-256. A layer's *chunk lists* name its chunks in order, each list
//! [`CHUNKS_PER_LIST_MAX`] of them. A list travels as a chunk does, and a
//! bundle names it by its digest.

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::limits::{CHUNK_BYTES_MAX, CHUNK_LISTS_MAX, CHUNKS_PER_LIST_MAX};
use crate::message::Message;
use crate::wire::WireError;

/// A piece of a layer file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Chunk {
    pub digest: Digest,
    pub size_bytes: u32,
}

/// Chunks that follow each other in a layer file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkList(pub Vec<Chunk>);

impl Message for ChunkList {
    const BYTES_MAX: usize = CHUNK_BYTES_MAX;
}

/// Why bytes are not the chunk list that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkListError {
    #[error("chunk list {0}")]
    Contents(#[from] WireError),
    #[error("the chunk list has {found} chunks, where 1 to {CHUNKS_PER_LIST_MAX} are allowed")]
    Length { found: usize },
    #[error(
        "the chunk list has a chunk of {found} bytes, where 1 to {CHUNK_BYTES_MAX} are allowed"
    )]
    ChunkSize { found: u32 },
    #[error("the layer has {found} chunk lists, where 1 to {CHUNK_LISTS_MAX} are allowed")]
    Lists { found: usize },
    #[error("the chunk lists make {found} bytes, and the layer has {size_bytes}")]
    LayerSize { found: u64, size_bytes: u64 },
}

impl ChunkList {
    /// Reads a list and checks its limits.
    ///
    /// # Errors
    /// [`ChunkListError`].
    pub fn read(bytes: &[u8]) -> Result<Self, ChunkListError> {
        let list = Self::from_bytes(bytes)?;
        if !(1..=CHUNKS_PER_LIST_MAX).contains(&list.0.len()) {
            return Err(ChunkListError::Length { found: list.0.len() });
        }
        let fits = |chunk: &&Chunk| (1..=CHUNK_BYTES_MAX).contains(&(chunk.size_bytes as usize));
        match list.0.iter().find(|chunk| !fits(chunk)) {
            Some(chunk) => Err(ChunkListError::ChunkSize { found: chunk.size_bytes }),
            None => Ok(list),
        }
    }

    /// All lists of one layer, read and joined.
    ///
    /// # Errors
    /// [`ChunkListError`]: also if together they are not as long as the layer.
    pub fn join<'a>(
        lists: impl IntoIterator<Item = &'a [u8]>,
        size_bytes: u64,
    ) -> Result<Vec<Chunk>, ChunkListError> {
        let mut chunks = Vec::new();
        let mut found = 0;
        for list in lists {
            found += 1;
            if found > CHUNK_LISTS_MAX {
                return Err(ChunkListError::Lists { found });
            }
            chunks.append(&mut Self::read(list)?.0);
        }
        if found == 0 {
            return Err(ChunkListError::Lists { found });
        }
        let bytes: u64 = chunks.iter().map(|chunk| u64::from(chunk.size_bytes)).sum();
        if bytes != size_bytes {
            return Err(ChunkListError::LayerSize { found: bytes, size_bytes });
        }
        Ok(chunks)
    }

    /// The lists of a layer that is cut into `chunks`, encoded.
    ///
    /// # Errors
    /// More than [`CHUNK_LISTS_MAX`] lists; or none.
    pub fn encode(chunks: &[Chunk]) -> Result<Vec<Vec<u8>>, ChunkListError> {
        let lists = chunks.chunks(CHUNKS_PER_LIST_MAX);
        if !(1..=CHUNK_LISTS_MAX).contains(&lists.len()) {
            return Err(ChunkListError::Lists { found: lists.len() });
        }
        lists.map(|list| Ok(Self(list.to_vec()).to_bytes()?)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(count: usize) -> Vec<Chunk> {
        let max = u32::try_from(CHUNK_BYTES_MAX).unwrap();
        let chunk = |i: usize| Chunk { digest: Digest::of(&i.to_le_bytes()), size_bytes: max };
        (0..count).map(chunk).collect()
    }

    fn slices(lists: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> {
        lists.iter().map(Vec::as_slice)
    }

    #[test]
    fn lists_of_any_layer_read_back() {
        for count in [1, CHUNKS_PER_LIST_MAX, CHUNKS_PER_LIST_MAX + 1] {
            let cut = chunks(count);
            let lists = ChunkList::encode(&cut).unwrap();
            assert!(lists.iter().all(|list| list.len() <= CHUNK_BYTES_MAX));
            let size = (count * CHUNK_BYTES_MAX) as u64;
            assert_eq!(ChunkList::join(slices(&lists), size).unwrap(), cut);
            assert_eq!(
                ChunkList::join(slices(&lists), size + 1),
                Err(ChunkListError::LayerSize { found: size, size_bytes: size + 1 })
            );
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        assert_eq!(ChunkList::encode(&[]), Err(ChunkListError::Lists { found: 0 }));
        let many = chunks(CHUNKS_PER_LIST_MAX * CHUNK_LISTS_MAX + 1);
        assert!(matches!(ChunkList::encode(&many), Err(ChunkListError::Lists { found: 65 })));
        assert_eq!(ChunkList::join([], 0), Err(ChunkListError::Lists { found: 0 }));
        let read =
            |chunks: &[Chunk]| ChunkList::read(&ChunkList(chunks.to_vec()).to_bytes().unwrap());
        assert_eq!(read(&[]), Err(ChunkListError::Length { found: 0 }));
        let long = &many[..=CHUNKS_PER_LIST_MAX];
        assert_eq!(read(long), Err(ChunkListError::Length { found: CHUNKS_PER_LIST_MAX + 1 }));
        for found in [0, u32::try_from(CHUNK_BYTES_MAX).unwrap() + 1] {
            let chunk = Chunk { digest: Digest::of(b"x"), size_bytes: found };
            assert_eq!(read(&[chunk]), Err(ChunkListError::ChunkSize { found }));
        }
    }
}
