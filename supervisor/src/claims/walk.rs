//! How much the files of a folder take, found piece by piece.
//!
//! Pods write there meanwhile, and may be hostile: no symlink is followed, and
//! what is looked at is bounded. What is gone when its turn comes counts nothing.

use std::fs::{self, File, Metadata, ReadDir};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use wherry_runtime::claims::open_folder;

use super::ClaimUse;

/// Files and folders that are looked at: at the usual pace, ten seconds.
const ENTRIES_MAX: usize = 50_000;
/// Folders that wait for their turn: bounds the memory that this takes.
const FOLDERS_MAX: usize = 2_000;
/// Of `stat(2)`, whatever the file system's own is.
const BLOCK_BYTES: u64 = 512;

#[derive(Debug)]
pub(super) struct Walk {
    root: File,
    /// Relative to it.
    waiting: Vec<PathBuf>,
    folder: Option<(PathBuf, ReadDir)>,
    entries_left: usize,
    bytes: u64,
    is_partial: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    More,
    Done(ClaimUse),
}

impl Walk {
    pub fn begin(path: &Path) -> io::Result<Self> {
        let root = File::open(path)?;
        let bytes = held(&root.metadata()?);
        let waiting = vec![PathBuf::from(".")];
        let (folder, entries_left, is_partial) = (None, ENTRIES_MAX, false);
        Ok(Self { root, waiting, folder, entries_left, bytes, is_partial })
    }

    /// Looks at so many more entries.
    pub fn step(&mut self, entries: usize) -> Step {
        for _ in 0..entries {
            let Some((path, folder)) = &mut self.folder else {
                let Some(path) = self.waiting.pop() else { return self.done() };
                // It was replaced, or goes too deep.
                self.folder = self.list(&path).ok().map(|folder| (path, folder));
                self.is_partial |= self.folder.is_none();
                continue;
            };
            let Some(Ok(entry)) = folder.next() else {
                self.folder = None;
                continue;
            };
            if self.entries_left == 0 {
                self.is_partial = true;
                return self.done();
            }
            self.entries_left -= 1;
            let Ok(found) = entry.metadata() else { continue };
            self.bytes = self.bytes.saturating_add(held(&found));
            if found.is_dir() && self.waiting.len() < FOLDERS_MAX {
                self.waiting.push(path.join(entry.file_name()));
            } else if found.is_dir() {
                self.is_partial = true;
            }
        }
        Step::More
    }

    fn list(&self, path: &Path) -> io::Result<ReadDir> {
        let folder = open_folder(self.root.as_fd(), path)?;
        fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))
    }

    fn done(&self) -> Step {
        let (bytes, is_partial) = (self.bytes, self.is_partial);
        Step::Done(ClaimUse { bytes, is_limited: false, is_partial })
    }
}

/// A file of several names counts once, whichever of them are in the folder.
fn held(found: &Metadata) -> u64 {
    let links = if found.is_dir() { 1 } else { found.nlink().max(1) };
    found.blocks().saturating_mul(BLOCK_BYTES) / links
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const MIB: usize = 1 << 20;

    fn measure(path: &Path) -> (ClaimUse, usize) {
        let mut walk = Walk::begin(path).unwrap();
        for steps in 1.. {
            if let Step::Done(held) = walk.step(10) {
                return (held, steps);
            }
        }
        unreachable!()
    }

    #[test]
    fn links_lead_nowhere_and_count_once() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("big"), vec![1; 8 * MIB]).unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        fs::write(dir.path().join("in/file"), vec![1; 4 * MIB]).unwrap();
        fs::hard_link(dir.path().join("in/file"), dir.path().join("other-name")).unwrap();
        symlink(outside.path(), dir.path().join("out")).unwrap();
        symlink("..", dir.path().join("in/up")).unwrap();
        let (held, _) = measure(dir.path());
        assert!((4 * MIB..5 * MIB).contains(&usize::try_from(held.bytes).unwrap()), "{held:?}");
        assert!(!held.is_partial && !held.is_limited);
        // Looked at before it was replaced.
        let mut walk = Walk::begin(dir.path()).unwrap();
        walk.waiting.push("out".into());
        while walk.step(10) == Step::More {}
        let Step::Done(held) = walk.step(1) else { panic!("goes on") };
        assert!(held.is_partial && held.bytes < 5 * MIB as u64, "{held:?}");
    }

    #[test]
    fn what_is_looked_at_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..100 {
            fs::write(dir.path().join(number.to_string()), "").unwrap();
        }
        let (held, steps) = measure(dir.path());
        assert!(!held.is_partial);
        assert!((10..15).contains(&steps), "{steps}");
        let mut walk = Walk::begin(dir.path()).unwrap();
        walk.entries_left = 50;
        let done = loop {
            if let Step::Done(held) = walk.step(10) {
                break held;
            }
        };
        assert!(done.is_partial);
        // So are folders that wait.
        let mut walk = Walk::begin(dir.path()).unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        walk.waiting = vec![PathBuf::from("none"); FOLDERS_MAX - 1];
        walk.waiting.push(".".into());
        walk.waiting.insert(0, "none".into());
        walk.step(200);
        assert!(walk.is_partial && walk.waiting.len() <= FOLDERS_MAX);
    }
}
