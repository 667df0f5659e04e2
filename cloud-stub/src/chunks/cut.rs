//! A layer file into chunks: FastCDC (Xia et al., 2020) over its bytes.
//!
//! The lists of a layer follow from its bytes and from the constants here. With
//! other ones a new layer would share no chunk with those that nodes hold;
//! what is cut already stays as it is.

use std::io::{self, Read};

use fastcdc::v2020::{Normalization, StreamCDC};
use sha2::{Digest as _, Sha256};
use wherry_bundle::Digest;
use wherry_bundle::chunk::{Chunk, ChunkListError};
use wherry_bundle::limits::{CHUNK_BYTES_MAX, CHUNK_LISTS_MAX, CHUNKS_PER_LIST_MAX};

/// No cut is made before: a smaller chunk would be worth less than the
/// message that it costs.
const MIN_BYTES: usize = 8 * 1024;
/// What chunks come to: small enough that a changed file costs little more
/// than itself, large enough that the lists are a thousandth of the layer.
const AVERAGE_BYTES: usize = 32 * 1024;
/// A cut is forced here: one message carries no more.
const MAX_BYTES: usize = CHUNK_BYTES_MAX;
/// How much rarer cuts are before the average than after it. Measured on one
/// changed line in a large tree: a quarter less to fetch than at the first level.
const NORMALIZATION: Normalization = Normalization::Level3;
/// The lists have no room for more.
const CHUNKS_MAX: usize = CHUNK_LISTS_MAX * CHUNKS_PER_LIST_MAX;

/// Why `input` is not cut.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    #[error(transparent)]
    Read(#[from] io::Error),
    /// There are too many chunks.
    #[error(transparent)]
    Lists(ChunkListError),
}

/// The chunks of `input`, in order, and its digest. Holds one chunk in memory.
///
/// # Errors
/// [`Stop`].
pub(super) fn cut(input: impl Read) -> Result<(Vec<Chunk>, Digest), Stop> {
    cut_at_most(input, CHUNKS_MAX)
}

fn cut_at_most(input: impl Read, chunks_max: usize) -> Result<(Vec<Chunk>, Digest), Stop> {
    let mut whole = Sha256::new();
    let mut chunks = Vec::new();
    for piece in StreamCDC::with_level(input, MIN_BYTES, AVERAGE_BYTES, MAX_BYTES, NORMALIZATION) {
        let data = piece.map_err(io::Error::from)?.data;
        if chunks.len() == chunks_max {
            return Err(Stop::Lists(ChunkListError::Lists { found: CHUNK_LISTS_MAX + 1 }));
        }
        whole.update(&data);
        let size_bytes = u32::try_from(data.len()).map_err(io::Error::other)?;
        chunks.push(Chunk { digest: Digest::of(&data), size_bytes });
    }
    Ok((chunks, Digest(whole.finalize().into())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::chunks::tests::noise;

    #[test]
    fn cuts_follow_from_the_bytes_alone() {
        let bytes = noise(1, 4 << 20);
        let (chunks, digest) = cut(&*bytes).unwrap();
        assert_eq!(digest, Digest::of(&bytes));
        assert_eq!(cut(Slow(&bytes)).unwrap().0, chunks, "however they are read");
        let mut at = 0;
        for (index, chunk) in chunks.iter().enumerate() {
            let size = chunk.size_bytes as usize;
            assert_eq!(Digest::of(&bytes[at..at + size]), chunk.digest);
            assert!(size <= MAX_BYTES && (size >= MIN_BYTES || index + 1 == chunks.len()));
            at += size;
        }
        assert_eq!(at, bytes.len());
        let average = bytes.len() / chunks.len();
        assert!((AVERAGE_BYTES * 3 / 4..AVERAGE_BYTES * 3 / 2).contains(&average), "{average}");
        // Nodes hold layers that were cut so: this may not change unnoticed.
        let sizes: Vec<u32> = chunks[..4].iter().map(|chunk| chunk.size_bytes).collect();
        assert_eq!(sizes, [33_480, 46_656, 34_234, 35_888]);
    }

    #[test]
    fn a_byte_more_changes_the_chunks_around_it() {
        let bytes = noise(2, 4 << 20);
        let mut longer = bytes.clone();
        longer.insert(2 << 20, 7);
        let digests = |bytes: &[u8]| -> BTreeSet<Digest> {
            cut(bytes).unwrap().0.iter().map(|chunk| chunk.digest).collect()
        };
        let (before, after) = (digests(&bytes), digests(&longer));
        assert!(after.difference(&before).count() <= 3);
        assert_ne!(before, after);
    }

    #[test]
    fn bytes_that_never_cut_are_cut_at_the_most() {
        let (chunks, _) = cut(&*vec![0; 3 * MAX_BYTES + 1]).unwrap();
        let sizes: Vec<usize> = chunks.iter().map(|chunk| chunk.size_bytes as usize).collect();
        assert_eq!(sizes, [MAX_BYTES, MAX_BYTES, MAX_BYTES, 1]);
    }

    #[test]
    fn a_layer_that_its_lists_cannot_hold_is_refused() {
        let zeros = vec![0; 3 * MAX_BYTES];
        assert_eq!(cut_at_most(&*zeros, 3).unwrap().0.len(), 3);
        let error = cut_at_most(&*zeros, 2).unwrap_err().to_string();
        assert!(error.contains("65 chunk lists"), "{error}");
    }

    /// Gives little at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let few = buffer.len().min(1000);
            self.0.read(&mut buffer[..few])
        }
    }
}
