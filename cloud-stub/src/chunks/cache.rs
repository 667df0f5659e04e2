//! Chunks that were sent lately: several nodes ask for the same ones, mostly
//! soon after each other.

use bytes::Bytes;
use lru::LruCache;
use wherry_bundle::Digest;

/// Bytes of all chunks together: a thousand of them, the part of a layer that
/// nodes which began within the same minutes are apart.
pub const CACHE_BYTES_MAX: usize = 32 << 20;

/// The latest chunks by their digests.
#[derive(Debug)]
pub struct Cache {
    chunks: LruCache<Digest, Bytes>,
    bytes: usize,
    bytes_max: usize,
}

impl Default for Cache {
    fn default() -> Self {
        Self { chunks: LruCache::unbounded(), bytes: 0, bytes_max: CACHE_BYTES_MAX }
    }
}

impl Cache {
    pub fn get(&mut self, digest: &Digest) -> Option<Bytes> {
        self.chunks.get(digest).cloned()
    }

    /// Those that were not asked for the longest make room.
    pub fn put(&mut self, digest: Digest, bytes: Bytes) {
        self.bytes += bytes.len();
        if let Some(before) = self.chunks.put(digest, bytes) {
            self.bytes -= before.len();
        }
        while self.bytes > self.bytes_max
            && let Some((_, oldest)) = self.chunks.pop_lru()
        {
            self.bytes -= oldest.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_bytes_are_bounded() {
        let mut cache = Cache { bytes_max: 1000, ..Cache::default() };
        let name = |number: u8| Digest::of(&[number]);
        for number in 0..50 {
            cache.put(name(number), vec![number; 100].into());
            assert!(cache.get(&name(0)).is_some(), "asked for each time");
        }
        let kept: Vec<u8> = (0..50).filter(|number| cache.get(&name(*number)).is_some()).collect();
        assert_eq!(kept, [0, 41, 42, 43, 44, 45, 46, 47, 48, 49]);
        cache.put(name(0), vec![0; 50].into());
        assert_eq!(cache.bytes, 950);
        cache.put(name(99), vec![0; 1001].into());
        assert_eq!((cache.bytes, cache.chunks.len()), (0, 0), "too large by itself");
    }
}
