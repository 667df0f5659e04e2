//! What a disk with a volatile cache may hold after a power cut, made from a
//! record of every write and flush that went to it ([`Log`]).
//!
//! After a cut, all that was written before the last completed flush is
//! there. Of what was written later, each write may be there, may be absent,
//! and may be there in part: a disk promises whole sectors only.
//! Never here: file systems, and what their contents mean.

mod image;
mod log;
mod random;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub use image::Image;
use log::Entry;
pub use log::{LOG_BYTES_MAX, Log};
pub use random::Random;

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// Whether the disk does what a flush asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncs {
    Honoured,
    /// It only says so. Its cache holds this many writes; older ones had to
    /// make room.
    Dropped {
        cached_writes: usize,
    },
}

/// A disk on its way through a record.
#[derive(Debug)]
pub struct Replay<'a> {
    log: &'a Log,
    syncs: Syncs,
    /// What no cut can take away.
    durable: Image,
    /// Entries that are applied or in the cache.
    count: usize,
    /// Those in the cache, and among them those that were made at once.
    cached: Vec<Entry>,
    whole: Range<u64>,
}

impl<'a> Replay<'a> {
    /// A disk that held `base` before the first write.
    #[must_use]
    pub fn new(log: &'a Log, base: Image, syncs: Syncs) -> Self {
        Self { log, syncs, durable: base, count: 0, cached: Vec::new(), whole: 0..0 }
    }

    /// Writes that begin in this range of the disk, in bytes, are never torn.
    #[must_use]
    pub fn never_torn(mut self, range: Range<u64>) -> Self {
        self.whole = range;
        self
    }

    /// Goes on until the first `count` entries have reached the disk; never
    /// back.
    pub fn advance(&mut self, count: usize) {
        while self.count < count
            && let Some(entry) = self.log.entry(self.count)
        {
            self.count += 1;
            self.take(entry);
        }
    }

    /// Makes `file` a disk as it may be found if the power went away now:
    /// which of the cached writes it holds is drawn from `random`.
    ///
    /// # Errors
    /// What writing says.
    pub fn cut(&self, file: &File, random: &mut Random) -> io::Result<()> {
        self.durable.write_to(file)?;
        // All, most, half, few or none: each brings out other mistakes.
        let kept = [0, 10, 50, 90, 100][random.below(5)];
        let torn = [0, 0, 20][random.below(3)];
        for &entry in &self.cached {
            let data = self.log.data(entry);
            if self.is_forced(entry) {
                file.write_all_at(data, entry.offset)?;
            } else if random.below(100) < torn && !self.whole.contains(&entry.offset) {
                for (index, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                    if random.below(2) == 0 {
                        file.write_all_at(sector, entry.offset + (index * SECTOR_BYTES) as u64)?;
                    }
                }
            } else if random.below(100) < kept {
                file.write_all_at(data, entry.offset)?;
            }
        }
        Ok(())
    }

    /// The disk after an orderly end: all that was recorded is there.
    #[must_use]
    pub fn finish(mut self) -> Image {
        self.advance(self.log.len());
        self.settle(self.cached.len());
        self.durable
    }

    /// Writes that a cut now may take away.
    #[must_use]
    pub fn cached(&self) -> usize {
        self.cached.iter().filter(|entry| !self.is_forced(**entry)).count()
    }

    /// It is on the disk as soon as it is done, whatever happens to others.
    fn is_forced(&self, entry: Entry) -> bool {
        self.syncs == Syncs::Honoured && entry.is_fua()
    }

    fn take(&mut self, entry: Entry) {
        let has_data = !self.log.data(entry).is_empty();
        match self.syncs {
            Syncs::Honoured => {
                if entry.is_flush() {
                    self.settle(self.cached.len());
                }
                // Discarded sectors may keep what they held: they do here.
                // A write that is durable itself keeps its place, so that no
                // older one in the cache is made over it.
                if has_data {
                    self.cached.push(entry);
                }
            }
            Syncs::Dropped { cached_writes } => {
                if has_data {
                    self.cached.push(entry);
                }
                self.settle(self.cached.len().saturating_sub(cached_writes));
            }
        }
    }

    /// The oldest `count` cached writes are durable.
    fn settle(&mut self, count: usize) {
        for entry in self.cached.drain(..count) {
            self.durable.write(entry.offset, self.log.data(entry));
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is no record of writes: {why}", path.display())]
    NotALog { path: PathBuf, why: String },
    #[error("{} has {bytes} bytes, where {LOG_BYTES_MAX} are read at most", path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ReplayError {
    let path = path.to_owned();
    move |source| ReplayError::Io { what, path, source }
}
