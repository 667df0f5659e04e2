//! Bookkeeping of the events that wait for the cloud: which numbers there
//! are, what is not on the disk yet, and what must leave it.
//!
//! Pure: it stages changes in a batch, the store commits them.

use std::collections::{BTreeSet, VecDeque};

use super::disk::Batch;
use super::record::{OutboxMark, Record};

/// Events that wait at most: days of an ordinary node without its cloud.
pub const EVENTS_MAX: usize = 2048;
/// Bytes of all of them: what the node's flash and, while they are read, the
/// uplink are asked for at most.
pub const EVENTS_BYTES_MAX: usize = 1024 * 1024;
/// By how much numbers jump when the database was lost: more events than
/// this were never numbered between two writes of the mirror.
pub(super) const SEQ_JUMP: u64 = 1 << 32;
pub(super) const MARK_KEY: &[u8] = b"o";
pub(super) const EVENT_PREFIX: &[u8] = b"e";

/// Numbers always grow; within `entries` they are ordered.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    entries: VecDeque<Entry>,
    bytes: usize,
    used_seq: u64,
    dropped: u64,
    /// On the disk, to be taken away with the next commit.
    removed: BTreeSet<u64>,
    dirty: bool,
}

#[derive(Debug)]
struct Entry {
    seq: u64,
    bytes: usize,
    /// The record, as long as it is not committed.
    uncommitted: Option<Vec<u8>>,
    /// Also true after a commit that failed late: it may be there.
    on_disk: bool,
}

impl Outbox {
    /// From what the disk holds: the mark, and numbers with their records'
    /// lengths in order.
    pub fn load(mark: OutboxMark, stored: &[(u64, usize)]) -> Self {
        let mut outbox = Self { used_seq: mark.used_seq, dropped: mark.dropped, ..Self::default() };
        for &(seq, bytes) in stored {
            outbox.bytes += bytes;
            outbox.used_seq = outbox.used_seq.max(seq);
            outbox.entries.push_back(Entry { seq, bytes, uncommitted: None, on_disk: true });
        }
        outbox
    }

    /// Takes a record in and gives it its number.
    pub fn push(&mut self, record: Vec<u8>) -> u64 {
        self.make_room(record.len());
        self.used_seq += 1;
        self.bytes += record.len();
        self.entries.push_back(Entry {
            seq: self.used_seq,
            bytes: record.len(),
            uncommitted: Some(record),
            on_disk: false,
        });
        self.dirty = true;
        self.used_seq
    }

    /// Forgets all up to `seq`.
    pub fn ack(&mut self, seq: u64) {
        while self.entries.front().is_some_and(|entry| entry.seq <= seq) {
            self.remove_oldest();
        }
    }

    /// Never number anything up to `seq` again.
    pub fn skip_to(&mut self, seq: u64) {
        if seq > self.used_seq {
            self.used_seq = seq;
            self.dirty = true;
        }
    }

    /// Takes all records out, oldest first, to be pushed again under new
    /// numbers. `read` gets a record that is on the disk only.
    pub fn take_all(&mut self, mut read: impl FnMut(u64) -> Option<Vec<u8>>) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        while let Some(entry) = self.entries.front_mut() {
            let seq = entry.seq;
            records.extend(entry.uncommitted.take().or_else(|| read(seq)));
            self.remove_oldest();
        }
        records
    }

    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    pub fn waiting(&self) -> usize {
        self.entries.len()
    }

    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    pub fn used_seq(&self) -> u64 {
        self.used_seq
    }

    /// Puts all that changed into `batch`.
    pub fn stage(&self, batch: &mut Batch) {
        if !self.dirty {
            return;
        }
        for &seq in &self.removed {
            batch.remove(event_key(seq));
        }
        for entry in &self.entries {
            if let Some(record) = &entry.uncommitted {
                batch.insert(event_key(entry.seq), record.clone());
            }
        }
        let mark = OutboxMark { used_seq: self.used_seq, dropped: self.dropped };
        if let Ok(record) = mark.to_record() {
            batch.insert(MARK_KEY, record);
        }
    }

    /// What [`Self::stage`] staged is on the disk.
    pub fn committed(&mut self) {
        self.dirty = false;
        self.removed.clear();
        for entry in &mut self.entries {
            entry.uncommitted = None;
            entry.on_disk = true;
        }
    }

    /// Whether the disk holds just what this outbox left there.
    pub fn is_as_stored(&self, stored: &[(u64, usize)]) -> bool {
        let on_disk = self.entries.iter().filter(|entry| entry.on_disk).map(|entry| entry.seq);
        let left: BTreeSet<u64> = on_disk.chain(self.removed.iter().copied()).collect();
        left.into_iter().eq(stored.iter().map(|&(seq, _)| seq))
    }

    /// After a failed commit and a fresh open, the disk holds `stored`: no
    /// one knows beforehand whether the last batch is in it. What this
    /// outbox says counts, as far as the records still exist.
    pub fn reconcile(&mut self, stored: &[(u64, usize)]) {
        let stored: BTreeSet<u64> = stored.iter().map(|&(seq, _)| seq).collect();
        let before = self.entries.len();
        self.entries.retain(|entry| entry.uncommitted.is_some() || stored.contains(&entry.seq));
        self.dropped += (before - self.entries.len()) as u64;
        for entry in &mut self.entries {
            entry.on_disk = stored.contains(&entry.seq);
        }
        self.bytes = self.entries.iter().map(|entry| entry.bytes).sum();
        let ours: BTreeSet<u64> = self.entries.iter().map(|entry| entry.seq).collect();
        self.removed = stored.difference(&ours).copied().collect();
        self.dirty = true;
    }

    fn make_room(&mut self, bytes: usize) {
        while self.entries.len() >= EVENTS_MAX
            || (self.bytes + bytes > EVENTS_BYTES_MAX && !self.entries.is_empty())
        {
            self.remove_oldest();
            self.dropped += 1;
        }
    }

    fn remove_oldest(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.bytes;
            if entry.on_disk {
                self.removed.insert(entry.seq);
            }
            self.dirty = true;
        }
    }
}

pub(super) fn event_key(seq: u64) -> Vec<u8> {
    [EVENT_PREFIX, &seq.to_be_bytes()].concat()
}

/// The number in a key of [`event_key`].
pub(super) fn event_seq(key: &[u8]) -> Option<u64> {
    let digits = key.strip_prefix(EVENT_PREFIX)?;
    Some(u64::from_be_bytes(digits.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let mut outbox = Outbox::default();
        for _ in 0..EVENTS_MAX + 10 {
            outbox.push(vec![0; 8]);
        }
        assert_eq!((outbox.waiting(), outbox.dropped()), (EVENTS_MAX, 10));
        let mut outbox = Outbox::default();
        for _ in 0..4 {
            outbox.push(vec![0; EVENTS_BYTES_MAX / 3]);
        }
        assert_eq!((outbox.waiting(), outbox.dropped()), (3, 1));
    }

    #[test]
    fn an_ack_of_what_is_on_the_disk_removes_it_there() {
        let mut outbox = Outbox::load(OutboxMark { used_seq: 3, dropped: 0 }, &[(2, 10), (3, 10)]);
        assert_eq!(outbox.push(vec![0; 10]), 4);
        outbox.ack(2);
        assert_eq!(outbox.removed, [2].into());
        assert_eq!(outbox.waiting(), 2);
        assert!(outbox.is_as_stored(&[(2, 10), (3, 10)]));
        outbox.ack(4);
        // Number 4 never was on the disk.
        assert_eq!(outbox.removed, [2, 3].into());
        assert!(outbox.is_as_stored(&[(2, 10), (3, 10)]));
        assert!(!outbox.is_as_stored(&[(3, 10)]));
        outbox.committed();
        assert!(!outbox.is_dirty());
        assert_eq!(outbox.push(vec![]), 5);
    }

    #[test]
    fn a_fresh_open_keeps_what_can_be_kept() {
        let mut outbox = Outbox::load(OutboxMark::default(), &[(1, 10), (2, 10), (3, 10), (4, 10)]);
        outbox.push(vec![0; 10]);
        outbox.ack(1);
        // The removal of 1 was lost, 4 is gone, 5 had arrived or not.
        outbox.reconcile(&[(1, 10), (2, 10), (3, 10), (5, 10)]);
        let seqs: Vec<u64> = outbox.entries.iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, [2, 3, 5]);
        assert_eq!(outbox.removed, [1].into());
        assert_eq!(outbox.dropped(), 1);
    }

    #[test]
    fn keys_sort_as_numbers_do() {
        assert!(event_key(255) < event_key(256));
        assert_eq!(event_seq(&event_key(77)), Some(77));
        assert_eq!(event_seq(b"m"), None);
    }
}
