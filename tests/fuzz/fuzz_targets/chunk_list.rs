//! Chunk lists: as they come, and all those of a layer.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wherry_bundle::chunk::ChunkList;
use wherry_bundle::limits::{CHUNK_BYTES_MAX, CHUNKS_PER_LIST_MAX};

fuzz_target!(|bytes: &[u8]| {
    let Ok(list) = ChunkList::read(bytes) else { return };
    assert!((1..=CHUNKS_PER_LIST_MAX).contains(&list.0.len()));
    let sizes = list.0.iter().map(|chunk| chunk.size_bytes as usize);
    assert!(sizes.clone().all(|size| (1..=CHUNK_BYTES_MAX).contains(&size)));
    let size_bytes = sizes.sum::<usize>() as u64;
    assert_eq!(ChunkList::join([bytes], size_bytes).as_ref(), Ok(&list.0));
    assert!(ChunkList::join([bytes], size_bytes + 1).is_err());
});
