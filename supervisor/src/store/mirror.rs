//! The desired state once more, in two files that take turns: `mirror.0` and
//! `mirror.1`.
//!
//! sled is trusted with its own writes, but not alone: a database that will
//! not open, or opens without what was acknowledged, is restored from here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{RecordError, StoreError};
use super::files::replace_file;
use super::record::{Mirror, Record};

const NAMES: [&str; 2] = ["mirror.0", "mirror.1"];

#[derive(Debug)]
pub(super) struct Mirrors {
    dir: PathBuf,
    /// The slot whose turn it is.
    next: usize,
    /// Since they were loaded.
    written_bytes: u64,
}

/// What the files hold.
#[derive(Debug)]
pub(super) struct Found {
    /// The newest whole one.
    pub newest: Option<Mirror>,
    pub damaged: Vec<(PathBuf, RecordError)>,
}

impl Mirrors {
    pub fn load(dir: &Path) -> Result<(Self, Found), StoreError> {
        let mut next = 0;
        let mut found = Found { newest: None, damaged: Vec::new() };
        for (slot, name) in NAMES.iter().enumerate() {
            let path = dir.join(name);
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(StoreError::io("read", &path)(error)),
            };
            match parse(&bytes) {
                Ok(mirror) => {
                    let newer =
                        found.newest.as_ref().is_none_or(|newest| age(&mirror) > age(newest));
                    if newer {
                        found.newest = Some(mirror);
                        next = 1 - slot;
                    }
                }
                Err(source @ RecordError::Version { .. }) => {
                    return Err(StoreError::Record { record: (*name).into(), source });
                }
                Err(error) => found.damaged.push((path, error)),
            }
        }
        Ok((Self { dir: dir.to_owned(), next, written_bytes: 0 }, found))
    }

    /// What [`Self::save`] wrote, in bytes.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Durable when it returns; the other file is untouched.
    pub fn save(&mut self, mirror: &Mirror) -> Result<(), StoreError> {
        let name = NAMES[self.next];
        let bytes = mirror
            .to_record()
            .map_err(|source| StoreError::Record { record: name.into(), source })?;
        replace_file(&self.dir, name, &bytes)?;
        self.written_bytes = self.written_bytes.saturating_add(bytes.len() as u64);
        self.next = 1 - self.next;
        Ok(())
    }
}

/// A restoration writes the same revision again, with a higher number.
fn age(mirror: &Mirror) -> (u64, u64) {
    (mirror.meta.revision, mirror.used_seq)
}

fn parse(bytes: &[u8]) -> Result<Mirror, RecordError> {
    let mirror = Mirror::from_record(bytes)?;
    if mirror.is_consistent() { Ok(mirror) } else { Err(RecordError::Checksum) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::{BundleRef, Meta};
    use wherry_bundle::Generation;

    fn mirror(revision: u64) -> Mirror {
        let envelope = vec![u8::try_from(revision).unwrap(); 100];
        let current = BundleRef::of(Generation(revision), &envelope);
        let meta = Meta { revision, current, last_good: None, highest_seen: revision };
        Mirror { meta, current: Some(envelope), last_good: None, used_seq: 5 }
    }

    #[test]
    fn the_files_take_turns_and_the_newest_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (mut mirrors, found) = Mirrors::load(dir.path()).unwrap();
        assert_eq!(found.newest, None);
        for revision in 1..=5 {
            mirrors.save(&mirror(revision)).unwrap();
            let (reloaded, found) = Mirrors::load(dir.path()).unwrap();
            assert_eq!(found.newest, Some(mirror(revision)));
            assert_eq!(reloaded.next, mirrors.next);
        }
        fs::write(dir.path().join(NAMES[1 - mirrors.next]), b"rubbish").unwrap();
        let (reloaded, found) = Mirrors::load(dir.path()).unwrap();
        assert_eq!(found.newest, Some(mirror(4)));
        assert_eq!(found.damaged.len(), 1);
        // The next one replaces the damaged file, not the good one.
        assert_eq!(reloaded.next, 1 - mirrors.next);
    }

    #[test]
    fn an_envelope_that_its_reference_does_not_fit_is_damage() {
        let mut wrong = mirror(1);
        wrong.current = Some(b"another".to_vec());
        assert_eq!(parse(&wrong.to_record().unwrap()), Err(RecordError::Checksum));
    }
}
