use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use wherry_bundle::chunk::{Chunk, ChunkList};

use super::*;

const CHUNK: usize = 32 * 1024;
const DAY: Millis = Millis(24 * 60 * 60 * 1000);
/// All at once.
const FAST: Pace = Pace { bytes_per_second: u64::MAX, interval: DAY };
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    dir: tempfile::TempDir,
    layers: Layers,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layers = Layers::open(&dir.path().join("layers")).unwrap();
        Self { dir, layers }
    }

    fn record(&self) -> PathBuf {
        self.dir.path().join("checked")
    }

    /// A layer of `chunks` chunks, with its lists or without.
    fn put(&self, seed: usize, chunks: usize, with_lists: bool) -> Layer {
        let bytes: Vec<u8> = (0..chunks * CHUNK)
            .map(|i| u8::try_from((i * 7 + i / 251 + seed) % 256).unwrap())
            .collect();
        let layer = Layer { digest: Digest::of(&bytes), size_bytes: bytes.len() as u64 };
        fs::write(self.layers.path(&layer.digest), &bytes).unwrap();
        if with_lists {
            let size_bytes = u32::try_from(CHUNK).unwrap();
            let cut = |bytes: &[u8]| Chunk { digest: Digest::of(bytes), size_bytes };
            let cut: Vec<Chunk> = bytes.chunks(CHUNK).map(cut).collect();
            self.layers.put_lists(&layer, &ChunkList::encode(&cut).unwrap()).unwrap();
        }
        layer
    }

    fn change(&self, layer: &Layer, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.layers.path(&layer.digest);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
    }

    fn start(&self, pace: Pace) -> (Scrubber, Receiver<Damaged>) {
        let (sender, found) = channel();
        let sink = move |damaged| {
            let _ = sender.send(damaged);
        };
        (Scrubber::start(self.layers.clone(), pace, self.record(), sink).unwrap(), found)
    }

    /// Waits until all of these were found sound.
    fn wait_sound(&self, layers: &[Layer]) {
        let start = std::time::Instant::now();
        let all_sound =
            |record: Record| layers.iter().all(|l| record.sound_at(&l.digest).is_some());
        while !all_sound(Record::load(self.record())) {
            assert!(start.elapsed() < PATIENCE, "not checked");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn flip(at: usize) -> impl FnOnce(&mut Vec<u8>) {
    move |bytes| bytes[at] ^= 1
}

fn damaged(layer: Layer, chunks_bad: u32, chunks: u32) -> Damaged {
    Damaged { layer: layer.digest, damage: Damage { chunks_bad, chunks } }
}

#[test]
fn damage_is_found_counted_and_put_aside() {
    let bench = Bench::new();
    let (sound, bad) = (bench.put(1, 5, true), bench.put(2, 300, true));
    bench.change(&bad, |bytes| {
        bytes[3] ^= 1;
        // Far behind the first piece.
        bytes[299 * CHUNK + 5] ^= 0x80;
    });
    let (scrubber, found) = bench.start(FAST);
    scrubber.watch(vec![bad, sound]);
    assert_eq!(found.recv_timeout(PATIENCE).unwrap(), damaged(bad, 2, 300));
    bench.wait_sound(&[sound]);
    assert!(!bench.layers.is_whole(&bad) && bench.layers.is_whole(&sound));
    let aside = bench.layers.path(&bad.digest).with_extension("damaged");
    assert!(aside.exists(), "its good chunks are of use");
    let record = Record::load(bench.record());
    assert_eq!(record.damaged().get(&bad.digest), Some(&Damage { chunks_bad: 2, chunks: 300 }));

    // It was mended; nobody has to look again.
    scrubber.is_fresh(bad.digest);
    bench.wait_sound(&[bad]);
    assert!(Record::load(bench.record()).damaged().is_empty());
    assert!(found.try_recv().is_err());
}

#[test]
fn a_layer_whose_chunks_nobody_knows_is_checked_as_a_whole() {
    for lists_are_damaged in [false, true] {
        let bench = Bench::new();
        let (sound, bad) = (bench.put(1, 3, lists_are_damaged), bench.put(2, 3, lists_are_damaged));
        if lists_are_damaged {
            for layer in [sound, bad] {
                let path = bench.layers.path(&layer.digest).with_extension("chunks");
                let mut bytes = fs::read(&path).unwrap();
                bytes[50] ^= 1;
                fs::write(path, bytes).unwrap();
            }
        }
        bench.change(&bad, flip(2 * CHUNK));
        let (scrubber, found) = bench.start(FAST);
        scrubber.watch(vec![sound, bad]);
        assert_eq!(found.recv_timeout(PATIENCE).unwrap(), damaged(bad, 1, 0));
        bench.wait_sound(&[sound]);
    }
}

#[test]
fn a_file_that_is_too_short_or_too_long_is_damaged() {
    let bench = Bench::new();
    let (short, long) = (bench.put(1, 4, true), bench.put(2, 4, true));
    bench.change(&short, |bytes| bytes.truncate(CHUNK + 1));
    bench.change(&long, |bytes| bytes.push(0));
    let (scrubber, found) = bench.start(FAST);
    scrubber.watch(vec![short, long]);
    assert_eq!(found.recv_timeout(PATIENCE).unwrap(), damaged(short, 3, 4));
    assert_eq!(found.recv_timeout(PATIENCE).unwrap(), damaged(long, 0, 4));
}

#[test]
fn what_was_checked_since_boot_is_not_read_again() {
    let bench = Bench::new();
    let layer = bench.put(1, 2, true);
    let (scrubber, _found) = bench.start(FAST);
    scrubber.watch(vec![layer]);
    bench.wait_sound(&[layer]);
    drop(scrubber);
    // Another supervisor, of the same boot.
    bench.change(&layer, flip(7));
    let other = bench.put(2, 2, true);
    let (scrubber, found) = bench.start(FAST);
    scrubber.watch(vec![layer, other]);
    scrubber.suspect(vec![layer]);
    bench.wait_sound(&[layer, other]);
    assert!(found.try_recv().is_err());
    // Another boot.
    drop(scrubber);
    fs::remove_file(bench.record()).unwrap();
    let (scrubber, found) = bench.start(FAST);
    scrubber.watch(vec![layer]);
    assert_eq!(found.recv_timeout(PATIENCE).unwrap(), damaged(layer, 1, 2));
}

#[test]
fn what_is_suspected_does_not_wait_for_what_is_slow() {
    let bench = Bench::new();
    let (slow, bad) = (bench.put(1, 300, true), bench.put(2, 2, true));
    bench.change(&bad, flip(0));
    // One piece of it takes more than an hour.
    let (scrubber, found) = bench.start(Pace { bytes_per_second: 1024, interval: DAY });
    scrubber.watch(vec![slow, bad]);
    thread::sleep(Duration::from_millis(50));
    scrubber.suspect(vec![bad]);
    assert_eq!(found.recv_timeout(PATIENCE).unwrap(), damaged(bad, 1, 2));
}

#[test]
fn nothing_is_read_at_rate_zero_and_missing_files_are_left_to_others() {
    let bench = Bench::new();
    let (bad, absent) = (bench.put(1, 2, true), bench.put(2, 2, true));
    bench.change(&bad, flip(0));
    let (scrubber, found) = bench.start(Pace { bytes_per_second: 0, interval: DAY });
    scrubber.watch(vec![bad]);
    scrubber.suspect(vec![bad]);
    assert!(found.recv_timeout(Duration::from_millis(200)).is_err());
    drop(scrubber);
    fs::remove_file(bench.layers.path(&absent.digest)).unwrap();
    let (scrubber, found) = bench.start(FAST);
    scrubber.watch(vec![absent, bad]);
    assert_eq!(found.recv_timeout(PATIENCE).unwrap(), damaged(bad, 1, 2));
}

#[test]
fn checks_come_round_again_and_pauses_keep_the_rate() {
    let layer = |seed: u8| Layer { digest: Digest([seed; 32]), size_bytes: 10 };
    let path = Path::new("/nonexistent/checked").to_owned();
    let pace = Pace { bytes_per_second: 1 << 20, interval: DAY };
    let mut turn = Turn::new(Record::load(path), pace);
    let at = |days: u64| Millis(days * DAY.0);
    assert_eq!((turn.next(at(0)), turn.due(at(0))), (None, None));
    turn.take(Order::Watch(vec![layer(1), layer(2)]), at(0));
    assert_eq!((turn.next(at(0)), turn.due(at(3))), (Some(layer(1)), Some(at(3))));
    turn.is_sound(layer(1).digest, at(3));
    assert_eq!(turn.next(at(3)), Some(layer(2)));
    turn.skip(layer(2).digest);
    assert_eq!((turn.next(at(3)), turn.due(at(3))), (None, Some(at(4))));
    assert_eq!(turn.next(at(4)), Some(layer(1)));
    assert_eq!(pace.pause(PIECE_BYTES), Duration::from_secs(4));
}
