//! Which layer files go when space is wanted.
//!
//! What nothing needs stays as long as there is room: the next update is copied
//! from it. A file's modification time says how old it is, and is no time: it is
//! the number of the last generation that needed the file, in seconds, for a
//! gateway may have no clock.
//! Never here: what is needed, and how much room is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use wherry_bundle::{Digest, Generation};

use super::{DAMAGED, LISTS, LayerError, Layers, PART, WHOLE};

/// What `st_blocks` counts (`stat(2)`).
const BLOCK_BYTES: u64 = 512;
/// The latest time that every file system can keep.
const AGE_SECONDS_MAX: u64 = i32::MAX as u64;

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Those that were whole.
    pub layers: Vec<Digest>,
    /// Space on the disk, of parts and damaged files too.
    pub bytes: u64,
}

/// Files that go together.
#[derive(Debug)]
struct Candidate {
    /// What is of no use by itself goes before whole layers.
    is_whole: bool,
    age: u64,
    layer: Digest,
    bytes: u64,
    /// The first one decides what the others are good for.
    paths: Vec<PathBuf>,
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    age: u64,
    bytes: u64,
}

impl Layers {
    /// Notes that `generation` needs these layers. Writes only what differs.
    pub fn mark(&self, layers: impl IntoIterator<Item = Digest>, generation: Generation) {
        let age = generation.0.min(AGE_SECONDS_MAX);
        for layer in layers {
            for extension in [WHOLE, LISTS, PART, DAMAGED] {
                let path = self.file(&layer, extension);
                if let Err(error) = set_age(&path, age)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    log::warn!("{}: how old it is cannot be noted: {error}", path.display());
                }
            }
        }
    }

    /// What [`Self::make_room`] could free, in bytes.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn removable_bytes(&self, pinned: &BTreeSet<Digest>) -> Result<u64, LayerError> {
        let candidates = self.candidates(pinned)?;
        Ok(candidates.iter().fold(0, |sum, candidate| sum.saturating_add(candidate.bytes)))
    }

    /// What this layer's files take on the disk before it is whole, in bytes.
    #[must_use]
    pub fn part_bytes(&self, layer: &Digest) -> u64 {
        fs::metadata(self.file(layer, PART))
            .map_or(0, |part| part.blocks().saturating_mul(BLOCK_BYTES))
    }

    /// Removes files that are of no use to `pinned` layers, the oldest first,
    /// until `bytes` are freed or nothing is left to remove. Files that cannot
    /// be removed are logged and left.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn make_room(&self, pinned: &BTreeSet<Digest>, bytes: u64) -> Result<Removed, LayerError> {
        let mut removed = Removed::default();
        for candidate in self.candidates(pinned)? {
            if removed.bytes >= bytes {
                break;
            }
            if let Err((path, error)) = remove_all(&candidate.paths) {
                log::warn!("{} cannot be removed to make room: {error}", path.display());
                continue;
            }
            removed.bytes = removed.bytes.saturating_add(candidate.bytes);
            if candidate.is_whole {
                removed.layers.push(candidate.layer);
            }
        }
        Ok(removed)
    }

    /// In the order in which they go.
    fn candidates(&self, pinned: &BTreeSet<Digest>) -> Result<Vec<Candidate>, LayerError> {
        let mut candidates = Vec::new();
        for (layer, mut files) in self.entries()? {
            let is_pinned = pinned.contains(&layer);
            let whole = files.remove(WHOLE);
            let lists = if whole.is_some() { files.remove(LISTS) } else { None };
            // A pinned layer that is not whole is made of what there is of it.
            let leftovers = files.into_values().filter(|_| !is_pinned || whole.is_some());
            candidates.extend(leftovers.map(|file| candidate(false, layer, file, None)));
            if let Some(whole) = whole.filter(|_| !is_pinned) {
                candidates.push(candidate(true, layer, whole, lists));
            }
        }
        candidates.sort_by_key(|candidate| (candidate.is_whole, candidate.age, candidate.layer));
        Ok(candidates)
    }

    /// Our own files in the folder, by their layers and extensions.
    fn entries(&self) -> Result<BTreeMap<Digest, BTreeMap<&'static str, Entry>>, LayerError> {
        let mut found: BTreeMap<Digest, BTreeMap<&'static str, Entry>> = BTreeMap::new();
        for (layer, extension, path) in self.files()? {
            // It may have got another name meanwhile.
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let age = u64::try_from(metadata.mtime()).unwrap_or(0);
            let bytes = metadata.blocks().saturating_mul(BLOCK_BYTES);
            found.entry(layer).or_default().insert(extension, Entry { path, age, bytes });
        }
        Ok(found)
    }
}

fn candidate(is_whole: bool, layer: Digest, first: Entry, second: Option<Entry>) -> Candidate {
    let (age, mut bytes, mut paths) = (first.age, first.bytes, vec![first.path]);
    if let Some(second) = second {
        bytes = bytes.saturating_add(second.bytes);
        paths.push(second.path);
    }
    Candidate { is_whole, age, layer, bytes, paths }
}

fn remove_all(paths: &[PathBuf]) -> Result<(), (&Path, std::io::Error)> {
    paths.iter().try_for_each(|path| match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err((path.as_path(), error)),
        _ => Ok(()),
    })
}

fn set_age(path: &Path, seconds: u64) -> std::io::Result<()> {
    let age = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let file = File::open(path)?;
    if file.metadata()?.modified()? == age { Ok(()) } else { file.set_modified(age) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn folder(files: &[(&str, &str, usize)]) -> (tempfile::TempDir, Layers) {
        let dir = tempfile::tempdir().unwrap();
        let layers = Layers::open(dir.path()).unwrap();
        for (layer, extension, bytes) in files {
            let name = format!("{}.{extension}", digest(layer).hex());
            fs::write(dir.path().join(name), vec![7; *bytes]).unwrap();
        }
        (dir, layers)
    }

    fn here(dir: &tempfile::TempDir, layer: &str, extension: &str) -> bool {
        dir.path().join(format!("{}.{extension}", digest(layer).hex())).exists()
    }

    #[test]
    fn the_oldest_go_first_and_only_as_many_as_it_takes() {
        let (dir, layers) = folder(&[
            ("a", "squashfs", 40 * KIB),
            ("a", "chunks", 4 * KIB),
            ("b", "squashfs", 40 * KIB),
            ("c", "squashfs", 40 * KIB),
        ]);
        fs::write(dir.path().join("README"), "mine").unwrap();
        layers.mark([digest("c")], Generation(1));
        layers.mark([digest("a")], Generation(2));
        layers.mark([digest("b")], Generation(3));
        assert_eq!(layers.make_room(&BTreeSet::new(), 0).unwrap(), Removed::default());
        let removed = layers.make_room(&BTreeSet::new(), 41 * KIB as u64).unwrap();
        assert_eq!(removed.layers, [digest("c"), digest("a")]);
        assert_eq!(removed.bytes, 84 * KIB as u64);
        assert!(!here(&dir, "a", "chunks") && here(&dir, "b", "squashfs"));
        let removed = layers.make_room(&BTreeSet::new(), u64::MAX).unwrap();
        assert_eq!(removed.layers, [digest("b")]);
        assert!(dir.path().join("README").exists());
    }

    #[test]
    fn what_is_pinned_stays_and_leftovers_go_before_whole_layers() {
        let (dir, layers) = folder(&[
            ("pinned", "squashfs", 40 * KIB),
            ("pinned", "damaged", 40 * KIB),
            ("coming", "part", 8 * KIB),
            ("coming", "damaged", 8 * KIB),
            ("coming", "chunks", 4 * KIB),
            ("other", "squashfs", 40 * KIB),
            ("left", "part", 16 * KIB),
            ("left", "chunks", 4 * KIB),
        ]);
        let pinned = [digest("pinned"), digest("coming")].into();
        layers.mark([digest("left"), digest("pinned")], Generation(9));
        layers.mark([digest("other")], Generation(1));
        assert_eq!(layers.removable_bytes(&pinned).unwrap(), 100 * KIB as u64);
        assert_eq!(layers.part_bytes(&digest("coming")), 8 * KIB as u64);
        let removed = layers.make_room(&pinned, 60 * KIB as u64).unwrap();
        assert_eq!((removed.layers, removed.bytes), (vec![], 60 * KIB as u64));
        assert!(!here(&dir, "pinned", "damaged") && !here(&dir, "left", "part"));
        let removed = layers.make_room(&pinned, u64::MAX).unwrap();
        assert_eq!(removed.layers, [digest("other")]);
        for (layer, extension) in [
            ("pinned", "squashfs"),
            ("coming", "part"),
            ("coming", "damaged"),
            ("coming", "chunks"),
        ] {
            assert!(here(&dir, layer, extension), "{layer}.{extension}");
        }
    }

    #[test]
    fn an_age_is_written_once() {
        let (dir, layers) = folder(&[("a", "squashfs", KIB)]);
        let changed =
            || fs::metadata(layers.path(&digest("a"))).map(|m| (m.ctime(), m.ctime_nsec()));
        layers.mark([digest("a"), digest("absent")], Generation(5));
        assert_eq!(fs::metadata(layers.path(&digest("a"))).unwrap().mtime(), 5);
        let before = changed().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        layers.mark([digest("a")], Generation(5));
        assert_eq!(changed().unwrap(), before, "the disk is left alone");
        layers.mark([digest("a")], Generation(u64::MAX));
        assert_eq!(fs::metadata(layers.path(&digest("a"))).unwrap().mtime(), i64::from(i32::MAX));
        drop(dir);
    }
}
