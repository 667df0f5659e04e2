#![allow(clippy::unwrap_used)]

use super::*;

/// A record with sectors of 512 bytes.
struct Record(Vec<u8>);

impl Record {
    fn new() -> Self {
        let mut bytes = vec![0; SECTOR_BYTES];
        bytes[..8].copy_from_slice(&0x006a_7366_7773_6872_u64.to_le_bytes());
        bytes[8] = 1;
        bytes[24..28].copy_from_slice(&512_u32.to_le_bytes());
        Self(bytes)
    }

    fn entry(mut self, sector: u64, sectors: usize, flags: u64, fill: u8) -> Self {
        let mut header = vec![0; SECTOR_BYTES];
        header[..8].copy_from_slice(&sector.to_le_bytes());
        header[8..16].copy_from_slice(&(sectors as u64).to_le_bytes());
        header[16..24].copy_from_slice(&flags.to_le_bytes());
        self.0.extend_from_slice(&header);
        if flags & 4 == 0 {
            self.0.extend_from_slice(&vec![fill; sectors * SECTOR_BYTES]);
        }
        self
    }

    fn write(self, sector: u64, fill: u8) -> Self {
        self.entry(sector, 1, 0, fill)
    }

    fn flush(self) -> Self {
        self.entry(0, 0, 1, 0)
    }

    fn log(&self) -> Log {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &self.0).unwrap();
        Log::read(file.path()).unwrap()
    }
}

const SECTORS: usize = 16;
/// The fifth sector and the two behind it.
const WHOLE: std::ops::Range<u64> = 2560..4096;

/// All that a disk of 16 sectors, zeros at first, may hold after `count`
/// entries: the first byte of each sector.
fn outcomes(log: &Log, count: usize, syncs: Syncs) -> std::collections::BTreeSet<Vec<u8>> {
    let base = tempfile::NamedTempFile::new().unwrap();
    base.as_file().set_len((SECTORS * SECTOR_BYTES) as u64).unwrap();
    let replay = Replay::new(log, Image::read(base.path()).unwrap(), syncs);
    let mut replay = replay.never_torn(WHOLE);
    replay.advance(count);
    let mut random = Random::new(7);
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut found = std::collections::BTreeSet::new();
    for _ in 0..500 {
        replay.cut(file.as_file(), &mut random).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!(bytes.len(), SECTORS * SECTOR_BYTES);
        found.insert(bytes.iter().step_by(SECTOR_BYTES).copied().take(3).collect());
        assert_eq!(bytes[5 * SECTOR_BYTES], bytes[6 * SECTOR_BYTES], "never torn");
    }
    found
}

fn all_of(first: &[u8], second: &[u8], third: &[u8]) -> std::collections::BTreeSet<Vec<u8>> {
    let pairs = first.iter().flat_map(|a| second.iter().map(move |b| [*a, *b]));
    pairs.flat_map(|[a, b]| third.iter().map(move |c| vec![a, b, *c])).collect()
}

#[test]
fn what_was_flushed_stays_and_each_later_write_may_or_may_not() {
    let log = Record::new().write(0, 1).flush().write(1, 2).write(2, 3).log();
    assert_eq!((log.len(), log.flushes()), (4, 1));
    let honoured = |count| outcomes(&log, count, Syncs::Honoured);
    assert_eq!(honoured(1), all_of(&[0, 1], &[0], &[0]));
    assert_eq!(honoured(2), all_of(&[1], &[0], &[0]));
    assert_eq!(honoured(4), all_of(&[1], &[0, 2], &[0, 3]));
}

#[test]
fn a_disk_that_drops_flushes_may_lose_what_they_covered() {
    let log = Record::new().write(0, 1).flush().write(1, 2).write(2, 3).log();
    let dropped = outcomes(&log, 4, Syncs::Dropped { cached_writes: 2 });
    assert_eq!(dropped, all_of(&[1], &[0, 2], &[0, 3]));
    let dropped = outcomes(&log, 4, Syncs::Dropped { cached_writes: 3 });
    assert_eq!(dropped, all_of(&[0, 1], &[0, 2], &[0, 3]));
}

#[test]
fn a_write_of_several_sectors_may_be_torn_between_them() {
    let log = Record::new().entry(0, 3, 0, 9).entry(5, 2, 0, 9).log();
    assert_eq!(outcomes(&log, 2, Syncs::Honoured), all_of(&[0, 9], &[0, 9], &[0, 9]));
}

#[test]
fn a_later_write_of_a_sector_never_turns_back_into_an_earlier_one() {
    let log = Record::new().write(0, 1).flush().write(0, 2).write(0, 3).flush().log();
    assert_eq!(outcomes(&log, 4, Syncs::Honoured), all_of(&[1, 2, 3], &[0], &[0]));
    assert_eq!(outcomes(&log, 5, Syncs::Honoured), all_of(&[3], &[0], &[0]));
}

#[test]
fn forced_writes_last_without_a_flush_and_discards_change_nothing() {
    let log = Record::new().entry(1, 1, 2, 5).write(0, 1).entry(0, 16, 4, 0).log();
    assert_eq!(outcomes(&log, 3, Syncs::Honoured), all_of(&[0, 1], &[5], &[0]));
}

#[test]
fn a_forced_write_is_not_undone_by_an_older_one_in_the_cache() {
    let log = Record::new().write(0, 1).entry(0, 1, 2, 5).write(1, 2).log();
    assert_eq!(outcomes(&log, 3, Syncs::Honoured), all_of(&[5], &[0, 2], &[0]));
}

#[test]
fn an_orderly_end_holds_all_and_differences_are_found() {
    let log = Record::new().write(0, 1).entry(1, 2, 0, 2).flush().write(9, 3).write(12, 0).log();
    let disk = |bytes: [u8; SECTORS]| {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = bytes.iter().flat_map(|byte| [*byte; SECTOR_BYTES]).collect();
        std::fs::write(file.path(), bytes).unwrap();
        Image::read(file.path()).unwrap()
    };
    let whole = Replay::new(&log, disk([0; SECTORS]), Syncs::Honoured).finish();
    let wanted = [1, 2, 2, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0];
    assert_eq!(whole.first_difference(&disk(wanted)), None);
    let mut other = wanted;
    other[9] = 4;
    assert_eq!(whole.first_difference(&disk(other)), Some(8 * SECTOR_BYTES as u64));
}

#[test]
fn positions_are_lengths_of_the_record() {
    let log = Record::new().write(0, 1).flush().write(1, 2).log();
    let lengths: Vec<u64> = (0..=3).map(|count| log.position(count)).collect();
    assert_eq!(lengths, [0, 1536, 2048, 3072]);
    for (position, count) in [(0, 1), (1536, 1), (1537, 2), (2048, 2), (2049, 3), (3072, 3)] {
        assert_eq!(log.count_at(position), count, "{position}");
    }
}

#[test]
fn a_cut_off_entry_is_left_out_and_rubbish_is_refused() {
    let mut record = Record::new().write(0, 1).write(1, 2);
    record.0.truncate(record.0.len() - 1);
    assert_eq!(record.log().len(), 1);
    let file = tempfile::NamedTempFile::new().unwrap();
    for rubbish in [&b"short"[..], &[7; 4096]] {
        std::fs::write(file.path(), rubbish).unwrap();
        assert!(matches!(Log::read(file.path()), Err(ReplayError::NotALog { .. })));
    }
}
