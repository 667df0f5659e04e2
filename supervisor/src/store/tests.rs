//! The store as its users see it, over damage of every kind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use wherry_bundle::message::{Cause, EventKind, Failed, Refused, WallMillis};
use wherry_bundle::{Digest, Generation};

use super::{EVENTS_MAX, NewEvent, Recovery, Store, StoreError, Stored};

/// Long enough for many pieces.
fn envelope(generation: u64) -> Vec<u8> {
    let byte = |i: u64| u8::try_from((i * 31 + i / 256 + generation) % 256).unwrap();
    (0..40_000 + generation).map(byte).collect()
}

fn event(text: &str) -> NewEvent {
    NewEvent {
        wall_time: WallMillis(1),
        boot_millis: 2,
        generation: Generation(3),
        kind: EventKind::ContainerExited,
        subject: "web-1".into(),
        text: text.into(),
    }
}

fn stored(generation: u64) -> Option<Stored> {
    Some(Stored { generation: Generation(generation), envelope: envelope(generation) })
}

/// Opens where nothing may need mending.
fn open(dir: &Path) -> Store {
    let (store, recoveries) = Store::open(dir).unwrap();
    assert_eq!(recoveries, []);
    store
}

fn take_up(store: &Store, generation: u64) {
    store.take_up(Generation(generation), &envelope(generation)).unwrap();
}

fn seqs(store: &Store) -> Vec<u64> {
    store.events_after(0, usize::MAX).unwrap().iter().map(|event| event.seq).collect()
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn generations_live_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(store.generations().unwrap(), super::Generations::default());
    take_up(&store, 3);
    store.mark_good(Generation(3)).unwrap();
    take_up(&store, 5);
    take_up(&store, 9);
    drop(store);
    let store = open(dir.path());
    let generations = store.generations().unwrap();
    assert_eq!(generations.current, stored(9));
    assert_eq!(generations.last_good, stored(3));
    assert_eq!(generations.highest_seen, Generation(9));
    assert_eq!(Store::salvage(dir.path()).unwrap(), generations);
    store.mark_good(Generation(9)).unwrap();
    assert_eq!(store.generations().unwrap().last_good, stored(9));
}

#[test]
fn a_generation_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    take_up(&store, 3);
    take_up(&store, 3);
    for (generation, bytes) in [(3, envelope(4)), (2, envelope(2)), (0, vec![])] {
        let result = store.take_up(Generation(generation), &bytes);
        assert!(matches!(result, Err(StoreError::NotNewer { .. })), "{generation}");
    }
    assert!(matches!(store.mark_good(Generation(2)), Err(StoreError::NotCurrent { .. })));
    let large = vec![0; wherry_bundle::limits::ENVELOPE_BYTES_MAX];
    store.take_up(Generation(4), &large).unwrap();
    let larger = [large.as_slice(), &[0]].concat();
    assert!(matches!(store.take_up(Generation(5), &larger), Err(StoreError::TooLarge { .. })));
    drop(store);
    let current = open(dir.path()).generations().unwrap().current.unwrap();
    assert_eq!(current.envelope, large);
    // A page too large for sled's log would have become a file, unsynced.
    assert_eq!(fs::read_dir(dir.path().join("sled/blobs")).unwrap().count(), 0);
}

#[test]
fn a_refusal_is_kept_until_something_newer_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let refused = Refused { generation: Generation(4), reason: "made for node `b`".into() };
    let store = open(dir.path());
    store.set_refused(Some(&refused)).unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.refused(), Some(refused));
    take_up(&store, 5);
    assert_eq!(store.refused(), None);
    drop(store);
    assert_eq!(open(dir.path()).refused(), None);
}

#[test]
fn events_wait_in_order_and_numbers_are_never_reused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for text in ["one", "two", "three"] {
        store.push_event(&event(text));
    }
    let events = store.events_after(1, usize::MAX).unwrap();
    let texts: Vec<&str> = events.iter().map(|event| event.text.as_str()).collect();
    assert_eq!(texts, ["two", "three"]);
    assert_eq!(store.events_after(0, 1).unwrap().len(), 1);
    store.ack_events(2).unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(seqs(&store), [3]);
    store.ack_events(3).unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.outbox_status().waiting, 0);
    assert_eq!(store.push_event(&event("four")), 4);
}

#[test]
fn the_outbox_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for _ in 0..EVENTS_MAX + 5 {
        store.push_event(&event("again"));
    }
    store.commit().unwrap();
    store.push_event(&event("again"));
    drop(store);
    let store = open(dir.path());
    let status = store.outbox_status();
    assert_eq!((status.waiting, status.dropped), (EVENTS_MAX, 6));
    assert_eq!(seqs(&store).first(), Some(&7));
}

#[test]
fn one_process_at_a_time_and_root_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let _store = open(dir.path());
    assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Locked { .. })));
}

#[test]
fn nothing_is_written_while_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    take_up(&store, 1);
    let written = || {
        let io = fs::read_to_string("/proc/thread-self/io").unwrap();
        io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().to_owned()
    };
    let snapshot = || {
        let mut files = Vec::new();
        list(dir.path(), &mut files);
        let times = files.iter().map(|path| fs::metadata(path).unwrap().modified().unwrap());
        times.zip(files.clone()).collect::<Vec<_>>()
    };
    let (before, files) = (written(), snapshot());
    let again = Refused { generation: Generation(0), reason: String::new() };
    store.set_refused(None).unwrap();
    take_up(&store, 1);
    store.commit().unwrap();
    store.ack_events(0).unwrap();
    assert_eq!((written(), snapshot()), (before.clone(), files.clone()));
    store.set_refused(Some(&again)).unwrap();
    assert_ne!(snapshot(), files, "the measure itself works");
}

#[test]
fn an_empty_or_missing_or_older_database_is_restored_from_the_mirror() {
    let dir = tempfile::tempdir().unwrap();
    let sled = dir.path().join("sled");
    let older = dir.path().join("older");
    let store = open(dir.path());
    take_up(&store, 3);
    store.mark_good(Generation(3)).unwrap();
    drop(store);
    copy_dir(&sled, &older);
    let store = open(dir.path());
    store.push_event(&event("one"));
    take_up(&store, 4);
    drop(store);
    let damages: [(&str, &dyn Fn()); 3] = [
        ("missing", &|| {}),
        ("empty", &|| drop(sled::open(&sled).unwrap())),
        ("older than", &|| copy_dir(&older, &sled)),
    ];
    let mut highest = 1;
    for (word, damage) in damages {
        fs::remove_dir_all(&sled).unwrap();
        damage();
        let (store, recoveries) = Store::open(dir.path()).unwrap();
        let text = recoveries.first().unwrap().to_string();
        // A database with sled's own segment size does not even open.
        assert!(text.contains(word) || (word == "empty" && text.contains("damaged")), "{text}");
        assert!(matches!(recoveries[..], [Recovery::Restored { generation: Generation(4), .. }]));
        let generations = store.generations().unwrap();
        assert_eq!((generations.current, generations.last_good), (stored(4), stored(3)));
        let seq = store.push_event(&event("after"));
        assert!(seq > highest, "{seq} after {highest}");
        highest = seq;
        take_up_again(&store);
        drop(store);
        open(dir.path());
    }
    let broken = fs::read_dir(dir.path()).unwrap().filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("broken-")
    });
    assert_eq!(broken.count(), 2, "a bounded number is kept");
}

/// The mark against going back was restored too.
fn take_up_again(store: &Store) {
    let result = store.take_up(Generation(4), b"another");
    assert!(matches!(result, Err(StoreError::NotNewer { .. })));
}

#[test]
fn a_database_that_kills_its_opener_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    take_up(&store, 3);
    drop(store);
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let note = |boot: &str| fs::write(dir.path().join("opening"), format!("{boot} 3")).unwrap();
    // The power went away three times: nothing against the database.
    note("another-boot");
    drop(open(dir.path()));
    note(boot.trim());
    let (store, recoveries) = Store::open(dir.path()).unwrap();
    assert!(matches!(recoveries[..], [Recovery::Restored { .. }]), "{recoveries:?}");
    assert_eq!(store.generations().unwrap().current, stored(3));
    drop(store);
    open(dir.path());
}

/// The power goes away after each restoration, before the mirror is written.
#[test]
fn numbers_jump_at_each_restoration() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    take_up(&store, 3);
    drop(store);
    let mirror = fs::read(dir.path().join("mirror.0")).unwrap();
    let mut highest = 0;
    for _ in 0..3 {
        fs::remove_dir_all(dir.path().join("sled")).unwrap();
        let (store, recoveries) = Store::open(dir.path()).unwrap();
        assert!(matches!(recoveries[..], [Recovery::Restored { .. }]), "{recoveries:?}");
        drop(store);
        fs::remove_file(dir.path().join("mirror.1")).unwrap();
        fs::write(dir.path().join("mirror.0"), &mirror).unwrap();
        let store = open(dir.path());
        let seq = store.push_event(&event("after"));
        assert!(seq > highest, "{seq} after {highest}");
        highest = seq;
    }
}

#[test]
fn without_a_mirror_a_broken_database_means_a_new_node() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    take_up(&store, 3);
    drop(store);
    for name in ["mirror.0", "mirror.1"] {
        let _ = fs::remove_file(dir.path().join(name));
    }
    fs::write(dir.path().join("sled/conf"), vec![0xff; 64]).unwrap();
    let (store, recoveries) = Store::open(dir.path()).unwrap();
    assert!(matches!(recoveries[..], [Recovery::StateLost { .. }]), "{recoveries:?}");
    assert_eq!(store.generations().unwrap(), super::Generations::default());
}

/// Numbers for the choice of damages; the seed is printed when one fails.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap()
    }
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), files);
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
}

/// Cuts, flips or fills one place of one file.
fn damage(dir: &Path, chance: &mut Chance) -> String {
    let mut files = Vec::new();
    list(dir, &mut files);
    files.retain(|path| fs::metadata(path).unwrap().len() > 0);
    let path = &files[chance.below(files.len())];
    let mut bytes = fs::read(path).unwrap();
    let at = chance.below(bytes.len());
    let what = match chance.below(3) {
        0 => {
            bytes.truncate(at);
            "cut"
        }
        1 => {
            bytes[at] ^= 1 << chance.below(8);
            "flipped"
        }
        _ => {
            let end = bytes.len().min(at + 512);
            bytes[at..end].fill(0);
            "zeroed"
        }
    };
    fs::write(path, bytes).unwrap();
    format!("{} {what} at {at}", path.display())
}

/// One damage at one place costs no acknowledged generation, ever.
/// `WHERRY_DAMAGES` sets how many are tried, `WHERRY_SEED` where to begin.
#[test]
fn no_single_damage_loses_a_generation() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (damages, first) = (number("WHERRY_DAMAGES").unwrap_or(150), number("WHERRY_SEED"));
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let store = open(&origin);
    for generation in 1..=6 {
        take_up(&store, generation);
        store.push_event(&event("taken up"));
        store.mark_good(Generation(generation)).unwrap();
    }
    take_up(&store, 7);
    drop(store);
    let mut mended = 0;
    for seed in (first.unwrap_or(1)..).take(usize::try_from(damages).unwrap()) {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let copy = dir.path().join("copy");
        copy_dir(&origin, &copy);
        let place = damage(&copy, &mut chance);
        let (store, recoveries) =
            Store::open(&copy).unwrap_or_else(|error| panic!("seed {seed}: {place}: {error}"));
        mended += usize::from(!recoveries.is_empty());
        let generations = store.generations().unwrap();
        assert_eq!(generations.current, stored(7), "seed {seed}: {place}: {recoveries:?}");
        assert_eq!(generations.last_good, stored(6), "seed {seed}: {place}: {recoveries:?}");
        take_up(&store, 8);
        drop(store);
        assert_eq!(open(&copy).generations().unwrap().current, stored(8), "seed {seed}: {place}");
        fs::remove_dir_all(&copy).unwrap();
    }
    assert!(mended > 0, "no damage did any harm: the test does not test");
    println!("{mended} of {damages} had to be mended");
}

fn failed(generation: u64) -> Failed {
    let cause = Cause::BootLoop { boots: 4 };
    Failed { generation: Generation(generation), cause, lines: vec!["no config".into()] }
}

#[test]
fn a_failed_generation_is_left_for_the_last_good_one_and_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    take_up(&store, 1);
    store.mark_good(Generation(1)).unwrap();
    take_up(&store, 2);
    assert!(store.fail(&failed(1)).is_err(), "it is not the current one");
    store.fail(&failed(2)).unwrap();
    let check = |store: &Store| {
        let found = store.generations().unwrap();
        assert_eq!((found.current, found.last_good), (stored(1), stored(1)));
        assert_eq!(found.highest_seen, Generation(2));
    };
    check(&store);
    drop(store);
    let store = open(dir.path());
    check(&store);
    let known = store.failed().unwrap();
    assert_eq!(known.envelope, Digest::of(&envelope(2)));
    assert_eq!(known.report, Some(failed(2)));
    assert!(store.take_up(Generation(2), &envelope(2)).is_err(), "it is not tried again");
    // Without its database a node does not try it again either.
    drop(store);
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    check(&store);
    take_up(&store, 3);
    assert_eq!(store.failed(), None);
    assert_eq!(open_again(store, dir.path()).failed(), None);
}

#[test]
fn with_nothing_to_go_back_to_a_failed_generation_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    take_up(&store, 1);
    store.fail(&failed(1)).unwrap();
    assert_eq!(store.generations().unwrap().current, stored(1));
    let store = open_again(store, dir.path());
    assert_eq!(store.failed().unwrap().report, Some(failed(1)));
}

#[test]
fn boots_are_counted_until_a_generation_is_good() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    assert_eq!(store.count_boot([1; 16]).unwrap(), 0, "nothing to count for");
    take_up(&store, 1);
    for (boot, boots) in [(1, 0), (1, 0), (2, 1), (2, 1), (3, 2)] {
        assert_eq!(store.count_boot([boot; 16]).unwrap(), boots);
        store = open_again(store, dir.path());
    }
    take_up(&store, 2);
    assert_eq!(store.count_boot([3; 16]).unwrap(), 0, "another one begins anew");
    store.mark_good(Generation(2)).unwrap();
    assert_eq!(store.count_boot([4; 16]).unwrap(), 0);
}

fn open_again(store: Store, dir: &Path) -> Store {
    drop(store);
    open(dir)
}
