//! The store on a disk without room: a clean error, the acknowledged state
//! intact, and on with it when there is room again. Needs root, to mount a
//! small tmpfs.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use wherry::store::{NewEvent, Store, StoreError};
use wherry_bundle::Generation;
use wherry_bundle::message::{EventKind, WallMillis};

struct SmallDisk {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(bytes: usize) -> Self {
        let dir = tempfile::Builder::new().prefix("wherry-test-full").tempdir().unwrap();
        let path = dir.path().join("disk");
        fs::create_dir(&path).unwrap();
        let options = format!("size={bytes}");
        let source = Some("wherry-test");
        mount(source, &path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self { path, _dir: dir }
    }

    /// Takes all room that is left but about `spare` bytes.
    fn fill(&self, spare: u64) -> PathBuf {
        let filler = self.path.join("filler");
        let mut file = File::create(&filler).unwrap();
        let mut length = 0;
        while file.write_all(&[1; 4096]).is_ok() {
            length += 4096;
        }
        file.set_len(length - spare).unwrap();
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

fn envelope(generation: u64) -> Vec<u8> {
    vec![u8::try_from(generation % 251).unwrap(); 60_000]
}

fn open(dir: &Path) -> Store {
    let (store, recoveries) = Store::open(dir).unwrap();
    assert_eq!(recoveries, []);
    store
}

fn current(store: &Store) -> (u64, Vec<u8>) {
    let current = store.generations().unwrap().current.unwrap();
    (current.generation.0, current.envelope)
}

#[test]
fn a_full_disk_is_a_clean_error_and_costs_nothing() {
    // More and less room, so that different steps fail.
    for spare in [0, 8192, 40_000, 70_000, 100_000] {
        let disk = SmallDisk::mount(8 * 1024 * 1024);
        let state = disk.path.join("state");
        let store = open(&state);
        store.take_up(Generation(1), &envelope(1)).unwrap();
        let filler = disk.fill(spare);
        let mut taken = 1;
        let error = loop {
            match store.take_up(Generation(taken + 1), &envelope(taken + 1)) {
                Ok(()) => taken += 1,
                Err(error) => break error,
            }
            assert!(taken < 1000, "spare {spare}: the disk never filled up");
        };
        let clean = matches!(error, StoreError::Io { .. } | StoreError::Database { .. });
        assert!(clean, "spare {spare}: {error}");
        store.push_event(&NewEvent {
            wall_time: WallMillis(0),
            boot_millis: 0,
            generation: Generation(taken),
            kind: EventKind::BundleTakenUp,
            subject: String::new(),
            text: "no room for this".into(),
        });
        fs::remove_file(filler).unwrap();
        let next = store.generations().unwrap().highest_seen.0 + 1;
        assert!(next == taken + 1 || next == taken + 2, "spare {spare}: {next} after {taken}");
        store.take_up(Generation(next), &envelope(next)).unwrap();
        assert_eq!(store.events_after(0, usize::MAX).unwrap().len(), 1, "spare {spare}");
        drop(store);
        assert_eq!(current(&open(&state)), (next, envelope(next)), "spare {spare}");
    }
}

#[test]
fn after_a_restart_on_a_full_disk_the_state_can_be_read() {
    let disk = SmallDisk::mount(8 * 1024 * 1024);
    let state = disk.path.join("state");
    let store = open(&state);
    store.take_up(Generation(1), &envelope(1)).unwrap();
    drop(store);
    disk.fill(0);
    if let Ok((store, recoveries)) = Store::open(&state) {
        assert_eq!(recoveries, []);
        assert_eq!(current(&store), (1, envelope(1)));
    }
    let salvaged = Store::salvage(&state).unwrap().current.unwrap();
    assert_eq!(salvaged.envelope, envelope(1));
}
