//! The store with its database in a process of its own: that process comes
//! and goes, and may die at any time, and nothing acknowledged is lost.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wherry::store::{Keeping, NewEvent, Recovery, Store, StoreError};
use wherry_bundle::Generation;
use wherry_bundle::message::{EventKind, WallMillis};

const REST: Duration = Duration::from_millis(150);

fn apart(program: &str) -> Keeping {
    Keeping::Apart { program: PathBuf::from(program), rest_delay: REST }
}

fn open(dir: &Path) -> Store {
    let (store, recoveries) = Store::open_kept(dir, apart(env!("CARGO_BIN_EXE_wherry"))).unwrap();
    assert_eq!(recoveries, []);
    store
}

fn envelope(generation: u64) -> Vec<u8> {
    vec![u8::try_from(generation % 251).unwrap(); 90_000]
}

fn take_up(store: &Store, generation: u64) -> Result<(), StoreError> {
    store.take_up(Generation(generation), &envelope(generation))
}

fn push(store: &Store, text: &str) -> u64 {
    store.push_event(&NewEvent {
        wall_time: WallMillis(1),
        boot_millis: 2,
        generation: Generation(3),
        kind: EventKind::ContainerExited,
        subject: "web-1".into(),
        text: text.into(),
    })
}

/// Keepers of a database below `dir`, whoever started them.
fn keepers(dir: &Path) -> Vec<Pid> {
    let database = dir.join("sled");
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: i32 = entry.unwrap().file_name().to_str()?.parse().ok()?;
        let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<&str> = words.split('\0').collect();
        (words.get(1..3)? == ["store-keeper", database.to_str()?]).then(|| Pid::from_raw(pid))
    });
    pids.collect()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}: not in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn current(store: &Store) -> Option<(Generation, Vec<u8>)> {
    let current = store.generations().unwrap().current;
    current.map(|stored| (stored.generation, stored.envelope))
}

#[test]
fn the_keeper_goes_when_it_is_not_needed_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    take_up(&store, 1).unwrap();
    assert_eq!(keepers(dir.path()).len(), 1);
    wait_until("the keeper's end", || keepers(dir.path()).is_empty());
    // What is in RAM is known without it.
    assert_eq!(store.refused(), None);
    assert_eq!(push(&store, "one"), 1);
    assert_eq!(store.events_after(0, usize::MAX).unwrap().len(), 1);
    assert_eq!(keepers(dir.path()).len(), 1);
    wait_until("the keeper's end", || keepers(dir.path()).is_empty());
    assert!(!store.ack_events(1).unwrap());
    wait_until("a commit", || !keepers(dir.path()).is_empty());
    wait_until("the keeper's end", || keepers(dir.path()).is_empty());
    assert_eq!(current(&store), Some((Generation(1), envelope(1))));
    drop(store);
    assert!(keepers(dir.path()).is_empty());
    let (store, recoveries) = Store::open(dir.path()).unwrap();
    assert_eq!((recoveries, store.outbox_status().waiting), (vec![], 0));
    assert_eq!(current(&store), Some((Generation(1), envelope(1))));
    assert_eq!(push(&store, "two"), 2);
}

#[test]
fn a_keeper_that_is_killed_while_nothing_is_asked_is_not_missed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    take_up(&store, 1).unwrap();
    for generation in 2..8 {
        let before = keepers(dir.path());
        before.iter().for_each(|pid| kill(*pid, Signal::SIGKILL).unwrap());
        wait_until("its end", || keepers(dir.path()).is_empty());
        // Its memory goes a moment before the rest of it.
        std::thread::sleep(Duration::from_millis(20));
        take_up(&store, generation).unwrap();
        assert_eq!(push(&store, "taken up"), generation - 1);
        assert_eq!(store.events_after(0, usize::MAX).unwrap().len() as u64, generation - 1);
    }
    assert_eq!(store.take_recoveries(), []);
}

#[test]
fn a_kill_in_the_middle_is_an_error_and_what_was_acknowledged_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let store = open(dir.path());
    take_up(&store, 1).unwrap();
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let commits = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&commits);
    let killer = std::thread::spawn(move || {
        let (mut pause, mut before, mut vain) = (61, 0, 0);
        while end.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            // Time to open the database, and to commit a few times.
            std::thread::sleep(Duration::from_millis(80 + pause));
            pause = pause * 7 % 151;
            // On a busy machine it takes longer; a database that is not opened
            // in three starts counts as damaged.
            let now = seen.load(Ordering::Relaxed);
            if now == before && vain == 2 {
                continue;
            }
            vain = if now == before { vain + 1 } else { 0 };
            before = now;
            // It may have ended by itself.
            for pid in keepers(&path) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
    });
    let (mut acknowledged, mut failures, mut events) = (1, 0, 0);
    for generation in 2..150 {
        match take_up(&store, generation) {
            Ok(()) => {
                acknowledged = generation;
                commits.store(generation, Ordering::Relaxed);
            }
            Err(error) => {
                failures += 1;
                assert!(
                    matches!(
                        error,
                        StoreError::Gone { .. }
                            | StoreError::Lost { .. }
                            | StoreError::NotNewer { .. }
                    ),
                    "{error}"
                );
            }
        }
        events = push(&store, "tried");
    }
    ended.send(()).unwrap();
    killer.join().unwrap();
    assert!(failures > 0 && acknowledged > 1, "{failures} failures, {acknowledged}");
    store.commit().or_else(|_| store.commit()).unwrap();
    drop(store);
    let (store, recoveries) = Store::open(dir.path()).unwrap();
    assert_eq!(recoveries, []);
    let (found, bytes) = current(&store).unwrap();
    assert!(found.0 >= acknowledged, "{found}, not {acknowledged}");
    assert_eq!(bytes, envelope(found.0));
    assert_eq!(store.events_after(0, usize::MAX).unwrap().last().unwrap().seq, events);
}

/// What a kill may do between a commit and its copy in the mirror.
#[test]
fn a_commit_that_is_lost_before_its_mirror_is_an_error_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    take_up(&store, 1).unwrap();
    wait_until("the keeper's end", || keepers(dir.path()).is_empty());
    let (database, before) = (dir.path().join("sled"), dir.path().join("before"));
    copy(&database, &before);
    // Where the mirror's next file would be written.
    let blocked = ["mirror.0.tmp", "mirror.1.tmp"].map(|name| dir.path().join(name));
    blocked.iter().for_each(|path| fs::create_dir(path).unwrap());
    let error = take_up(&store, 2).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    wait_until("the keeper's end", || keepers(dir.path()).is_empty());
    fs::remove_dir_all(&database).unwrap();
    fs::rename(&before, &database).unwrap();
    blocked.iter().for_each(|path| fs::remove_dir(path).unwrap());
    let error = take_up(&store, 3).unwrap_err();
    assert!(matches!(error, StoreError::Lost { .. }), "{error}");
    assert_eq!(current(&store), Some((Generation(1), envelope(1))));
    take_up(&store, 3).unwrap();
    drop(store);
    assert_eq!(current(&open(dir.path())), Some((Generation(3), envelope(3))));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let there = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &there),
            false => drop(fs::copy(entry.path(), there).unwrap()),
        }
    }
}

#[test]
fn damage_while_it_is_closed_is_mended_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    take_up(&store, 1).unwrap();
    push(&store, "before");
    wait_until("the keeper's end", || {
        store.outbox_status().waiting == 1 && keepers(dir.path()).is_empty()
    });
    fs::write(dir.path().join("sled/conf"), [0xff; 64]).unwrap();
    take_up(&store, 2).unwrap();
    let recoveries = store.take_recoveries();
    assert!(matches!(recoveries[..], [Recovery::Restored { .. }]), "{recoveries:?}");
    assert_eq!(store.take_recoveries(), []);
    assert_eq!(current(&store), Some((Generation(2), envelope(2))));
    assert!(push(&store, "after") > 1 << 32, "numbers jump: the cloud may know some");
    drop(store);
    assert_eq!(current(&open(dir.path())), Some((Generation(2), envelope(2))));
}

#[test]
fn a_database_that_kills_its_keeper_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    take_up(&store, 3).unwrap();
    drop(store);
    for _ in 0..3 {
        let error = Store::open_kept(dir.path(), apart("/bin/false")).unwrap_err();
        assert!(matches!(error, StoreError::Gone { .. }), "{error}");
    }
    let keeping = apart(env!("CARGO_BIN_EXE_wherry"));
    let (store, recoveries) = Store::open_kept(dir.path(), keeping).unwrap();
    assert!(matches!(recoveries[..], [Recovery::Restored { .. }]), "{recoveries:?}");
    assert_eq!(current(&store), Some((Generation(3), envelope(3))));
    drop(store);
    let error = Store::open_kept(dir.path(), apart("/nowhere")).unwrap_err();
    assert!(matches!(error, StoreError::Start { .. }), "{error}");
    assert_eq!(current(&open(dir.path())), Some((Generation(3), envelope(3))));
}
