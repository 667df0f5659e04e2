//! The record of what went to a disk, in the format of the kernel's
//! dm-log-writes (`drivers/md/dm-log-writes.c`), as QEMU's `blklogwrites`
//! driver writes it:
//!
//! | where | what, little endian |
//! |---|---|
//! | sector 0 | `u64` magic, `u64` version, `u64` entries, `u32` bytes of a sector |
//! | each entry | a sector: `u64` first sector, `u64` sectors, `u64` flags, `u64` length of a mark |
//! | | then, but for a discard, the data of so many sectors |

use std::fs;
use std::path::Path;

use super::{ReplayError, SECTOR_BYTES, io_error};

/// A record is read into memory: more than this is no short upgrade.
pub const LOG_BYTES_MAX: u64 = 1 << 30;
const SECTOR_BYTES_MAX: usize = 4096;
const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// All that went to a disk, in order.
#[derive(Debug)]
pub struct Log {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where on the disk.
    pub offset: u64,
    /// Where in the record.
    data_at: usize,
    data_bytes: usize,
    flags: u64,
    /// The record's length when this entry was in it.
    end: u64,
}

impl Log {
    /// Reads what is there; an entry that was cut off with its writer is
    /// left out.
    ///
    /// # Errors
    /// The file cannot be read, or is no such record.
    pub fn read(path: &Path) -> Result<Self, ReplayError> {
        let length = fs::metadata(path).map_err(io_error("examine", path))?.len();
        if length > LOG_BYTES_MAX {
            return Err(ReplayError::TooLarge { path: path.to_owned(), bytes: length });
        }
        let bytes = fs::read(path).map_err(io_error("read", path))?;
        let entries =
            parse(&bytes).map_err(|why| ReplayError::NotALog { path: path.to_owned(), why })?;
        Ok(Self { bytes, entries })
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many of the entries are flushes.
    #[must_use]
    pub fn flushes(&self) -> usize {
        self.entries.iter().filter(|entry| entry.is_flush()).count()
    }

    /// How long the record was, in bytes, when its first `count` entries were
    /// in it: to be compared with lengths seen while it was written.
    #[must_use]
    pub fn position(&self, count: usize) -> u64 {
        let last = count.min(self.entries.len()).checked_sub(1);
        last.and_then(|last| self.entries.get(last)).map_or(0, |entry| entry.end)
    }

    /// The least number of entries that make the record at least `position`
    /// bytes long.
    #[must_use]
    pub fn count_at(&self, position: u64) -> usize {
        self.entries.partition_point(|entry| entry.end < position) + 1
    }

    pub(super) fn entry(&self, index: usize) -> Option<Entry> {
        self.entries.get(index).copied()
    }

    /// Nothing, if it is a flush, a discard or a mark.
    pub(super) fn data(&self, entry: Entry) -> &[u8] {
        self.bytes.get(entry.data_at..entry.data_at + entry.data_bytes).unwrap_or_default()
    }
}

impl Entry {
    /// All that came before is to be durable.
    pub fn is_flush(self) -> bool {
        self.flags & FLUSH != 0
    }

    /// It is durable itself, as soon as it is done.
    pub fn is_fua(self) -> bool {
        self.flags & FUA != 0
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<Entry>, String> {
    let short = || "it is too short".to_owned();
    let magic = number(bytes, 0).ok_or_else(short)?;
    if magic != MAGIC {
        return Err(format!("it begins with {magic:#x}"));
    }
    let version = number(bytes, 8).ok_or_else(short)?;
    if version != VERSION {
        return Err(format!("its version is {version}"));
    }
    let sector = number(bytes, 24).ok_or_else(short)? & u64::from(u32::MAX);
    let sector = usize::try_from(sector).map_err(|error| error.to_string())?;
    if !sector.is_power_of_two() || !(SECTOR_BYTES..=SECTOR_BYTES_MAX).contains(&sector) {
        return Err(format!("its sectors have {sector} bytes"));
    }
    let mut entries = Vec::new();
    let mut at = sector;
    // The count in the first sector is only written now and then.
    while let Some((entry, next)) = parse_entry(bytes, at, sector) {
        entries.push(entry);
        at = next;
    }
    Ok(entries)
}

/// The entry at `at` and where the next one begins; `None` behind the last.
fn parse_entry(bytes: &[u8], at: usize, sector: usize) -> Option<(Entry, usize)> {
    let [first, sectors, flags, mark_bytes] = [0, 8, 16, 24].map(|field| number(bytes, at + field));
    let (first, sectors, flags, mark_bytes) = (first?, sectors?, flags?, mark_bytes?);
    if [first, sectors, flags, mark_bytes] == [0; 4] || flags > FLUSH | FUA | DISCARD | MARK {
        return None;
    }
    let data_at = at.checked_add(sector)?;
    let data = if flags & DISCARD == 0 { sectors } else { 0 };
    let data_bytes = usize::try_from(data).ok()?.checked_mul(sector)?;
    let next = data_at.checked_add(data_bytes)?;
    if next > bytes.len() {
        return None;
    }
    let offset = first.checked_mul(sector as u64)?;
    let data_bytes = if flags & MARK == 0 { data_bytes } else { 0 };
    Some((Entry { offset, data_at, data_bytes, flags, end: next as u64 }, next))
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}
