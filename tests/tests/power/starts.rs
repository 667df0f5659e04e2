//! A process that is killed before its fsync leaves what the next one finds
//! and goes by. When a start has found it, no power cut may take it away.

use std::fs::{self, File};
use std::path::Path;
use std::thread;

use anyhow::{Result, ensure};
use tempfile::TempDir;
use wherry::layers::Layers;
use wherry::store::{NewEvent, Store};
use wherry_bundle::message::{EventKind, WallMillis};
use wherry_bundle::model::Layer;
use wherry_bundle::{Digest, Generation, Name};
use wherry_rig::replay::{Image, Log, Random, Replay, Syncs};
use wherry_tests::PREFIX;
use wherry_tests::power::crash::SUPERBLOCK;
use wherry_tests::power::disk::{RecordedDisk, own_mounts};
use wherry_tests::power::look::{Look, ask, mounted};
use wherry_tests::power::marks::Known;
use wherry_tests::power::native::NODE;
use wherry_tests::power::sys::drop_own_syncs;

const STATES: usize = 12;
/// Cuts are within so many writes and flushes after the start.
const SOON: usize = 3;

#[test]
fn an_event_outlives_the_cut_after_the_start_that_found_it() {
    let state = |data: &Path| data.join("state");
    let mut found = Vec::new();
    let recorded = run(|data| {
        drop(Store::open(&state(data))?);
        let unsynced = state(data);
        thread::spawn(move || {
            drop_own_syncs().unwrap();
            let (store, _) = Store::open(&unsynced).unwrap();
            store.push_event(&event());
            store.commit().unwrap();
        })
        .join()
        .unwrap();
        let (store, _) = Store::open(&state(data))?;
        found = store.events_after(0, usize::MAX)?;
        ensure!(found.len() == 1, "{found:?}");
        Ok(store)
    })
    .unwrap();
    let known = Known { events: found, ..Known::default() };
    holds(&recorded, |data| {
        let data = data.to_owned();
        let findings = ask(&Look { data, node: Name::new(NODE)?, known: known.clone() })?;
        ensure!(findings.is_empty(), "{findings:#?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_layer_outlives_the_cut_after_the_start_that_found_it() {
    let bytes = vec![7; 10_000];
    let layer = Layer { digest: Digest::of(&bytes), size_bytes: bytes.len() as u64 };
    let folder = |data: &Path| data.join("layers");
    let recorded = run(|data| {
        let layers = Layers::open(&folder(data))?;
        // As far as a kill lets it come.
        let whole = layers.path(&layer.digest);
        let part = whole.with_extension("part");
        fs::write(&part, &bytes)?;
        File::open(&part)?.sync_all()?;
        fs::rename(&part, &whole)?;
        let layers = Layers::open(&folder(data))?;
        ensure!(layers.is_whole(&layer));
        Ok(())
    })
    .unwrap();
    holds(&recorded, |data| {
        ensure!(Layers::open(&folder(data))?.is_whole(&layer), "the layer is gone");
        Ok(())
    })
    .unwrap();
}

/// What is left of a run.
struct Recorded {
    disk: RecordedDisk,
    /// How long the record was when the start was done.
    position: u64,
    _folder: TempDir,
}

/// Calls `work` with a folder on a recorded disk. What it returns is dropped
/// when its position was noted.
fn run<T>(work: impl FnOnce(&Path) -> Result<T>) -> Result<Recorded> {
    own_mounts()?;
    let folder = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
    let point = folder.path().join("data");
    let mut disk = RecordedDisk::mount(&folder.path().join("disk"), &point)?;
    let kept = work(&point)?;
    let position = fs::metadata(&disk.record)?.len();
    drop(kept);
    disk.unmount()?;
    Ok(Recorded { disk, position, _folder: folder })
}

/// Checks each of the disks that a cut at or soon after the start may leave.
fn holds(recorded: &Recorded, check: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let Recorded { disk, position, .. } = recorded;
    let folder = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
    let point = folder.path().join("disk");
    fs::create_dir(&point)?;
    let log = Log::read(&disk.record)?;
    let mut random = Random::new(1);
    for state in 0..STATES {
        let mut replay =
            Replay::new(&log, Image::read(&disk.base)?, Syncs::Honoured).never_torn(SUPERBLOCK);
        replay.advance(log.count_at(*position) + state % SOON);
        let image = folder.path().join(format!("image-{state}"));
        replay.cut(&File::create(&image)?, &mut random)?;
        mounted(&image, &point, || check(&point))??;
        fs::remove_file(&image)?;
    }
    Ok(())
}

fn event() -> NewEvent {
    NewEvent {
        wall_time: WallMillis(1),
        boot_millis: 2,
        generation: Generation(0),
        kind: EventKind::Started,
        subject: String::new(),
        text: String::new(),
    }
}
