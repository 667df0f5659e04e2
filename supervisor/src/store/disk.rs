//! Where the database is: in this process, or kept by one of its own.
//!
//! Never here: what the records mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::database::Database;
use super::error::StoreError;
use super::keeper::Keeper;

/// Which process opens the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// This one, until it ends: for tests and tools.
    Here,
    /// One that runs `program` as [`super::keeper::ROLE`], and ends when
    /// nothing was asked of it for `rest_delay` to twice that.
    Apart { program: PathBuf, rest_delay: Duration },
}

/// An open database. After an error of [`Self::commit`] it must be dropped
/// and opened anew: a failed fsync may have thrown the written pages away,
/// and the next one would succeed without them.
#[derive(Debug)]
pub(super) enum Disk {
    Here(Box<Database>),
    Apart(Keeper),
}

/// Changes that are made all at once. The last one of a key counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Batch {
    /// Key and new value; `None` removes it.
    pub changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// Some entries, in order.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Page {
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
    /// There are more after the last one.
    pub more: bool,
}

impl Batch {
    pub fn insert(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.changes.push((key.into(), Some(value.into())));
    }

    pub fn remove(&mut self, key: impl Into<Vec<u8>>) {
        self.changes.push((key.into(), None));
    }
}

impl Disk {
    /// Opens or makes the database in folder `path`.
    pub fn open(path: &Path, keeping: &Keeping) -> Result<Self, StoreError> {
        Ok(match keeping {
            Keeping::Here => Self::Here(Box::new(Database::open(path)?)),
            Keeping::Apart { program, .. } => Self::Apart(Keeper::start(program, path)?),
        })
    }

    /// False: it must be dropped and opened anew.
    pub fn is_usable(&mut self) -> bool {
        match self {
            Self::Here(_) => true,
            Self::Apart(keeper) => keeper.is_usable(),
        }
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Self::Here(database) => database.get(key),
            Self::Apart(keeper) => keeper.get(key),
        }
    }

    /// All entries whose key starts with `prefix`, in order.
    pub fn scan(&self, prefix: &[u8]) -> Entries<'_> {
        self.scan_from(prefix, prefix)
    }

    /// Those of [`Self::scan`] whose key is at least `first`.
    pub fn scan_from(&self, prefix: &[u8], first: &[u8]) -> Entries<'_> {
        Entries {
            disk: self,
            prefix: prefix.to_vec(),
            next: Some(first.to_vec()),
            page: Vec::new().into_iter(),
        }
    }

    /// All or nothing; on the disk when it returns.
    pub fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        match self {
            Self::Here(database) => database.commit(batch),
            Self::Apart(keeper) => keeper.commit(batch),
        }
    }

    fn page(&self, prefix: &[u8], first: &[u8]) -> Result<Page, StoreError> {
        match self {
            Self::Here(database) => database.page(prefix, first),
            Self::Apart(keeper) => keeper.page(prefix, first),
        }
    }
}

/// Entries, read a page at a time. Ends after an error.
#[derive(Debug)]
pub(super) struct Entries<'a> {
    disk: &'a Disk,
    prefix: Vec<u8>,
    /// Where the next page begins, if there is one.
    next: Option<Vec<u8>>,
    page: std::vec::IntoIter<(Vec<u8>, Vec<u8>)>,
}

impl Iterator for Entries<'_> {
    type Item = Result<(Vec<u8>, Vec<u8>), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(Ok(entry));
            }
            let first = self.next.take()?;
            match self.disk.page(&self.prefix, &first) {
                Ok(page) => {
                    // The least key above the last one.
                    let after = page.entries.last().map(|(key, _)| [key.as_slice(), &[0]].concat());
                    self.next = after.filter(|_| page.more);
                    self.page = page.entries.into_iter();
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_pages_are_one_scan() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(&dir.path().join("sled"), &Keeping::Here).unwrap();
        let mut batch = Batch::default();
        for number in 0..200_u8 {
            batch.insert([b'e', number], vec![number; 2000]);
        }
        batch.insert(*b"d", *b"before");
        batch.insert(*b"f", *b"after");
        disk.commit(batch).unwrap();
        let numbers = |entries: Entries<'_>| -> Vec<u8> {
            entries.map(|entry| entry.unwrap().0[1]).collect()
        };
        assert_eq!(numbers(disk.scan(b"e")), (0..200).collect::<Vec<u8>>());
        assert_eq!(numbers(disk.scan_from(b"e", &[b'e', 150])), (150..200).collect::<Vec<u8>>());
        assert_eq!(disk.scan(b"x").count(), 0);
        assert_eq!(disk.get(b"d").unwrap().as_deref(), Some(&b"before"[..]));
    }
}
