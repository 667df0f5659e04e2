//! sled behind guards: nothing counts as committed before an fsync.
//!
//! Once opened, sled keeps threads that wake each second until their process
//! ends; so on a node it lives in a process of its own ([`super::keeper`]).
//! On Linux sled's `flush` calls `sync_file_range`, which survives a kill but
//! no power cut; so each commit ends with `sync_all` on a handle of our own.
//! Never here: what the records mean.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use sled::{Db, Mode};

use super::disk::{Batch, Page};
use super::error::StoreError;
use super::files::{make_dir, sync_dir};

/// sled's page cache; the default is 1 GiB.
const CACHE_BYTES: u64 = 2 * 1024 * 1024;
/// sled writes a page above a quarter of its segment to a file of its own,
/// and that file without any fsync. A leaf holds about 16 values of at most
/// [`VALUE_BYTES_MAX`], which stays below; a smaller segment would not do,
/// a larger one costs RAM for its buffers.
const SEGMENT_BYTES: usize = 256 * 1024;
/// See [`SEGMENT_BYTES`]; larger values are stored in pieces.
pub(super) const VALUE_BYTES_MAX: usize = 2048;
/// The lock on sled's file is given up by its last background thread, a
/// moment after the handle was dropped; or a killed supervisor's keeper is
/// still at its last commit.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_POLL: Duration = Duration::from_millis(10);
/// Of one page, but for its last entry.
const PAGE_BYTES_MAX: usize = 64 * 1024;

/// An open database. After an error of [`Self::commit`] it must be dropped
/// and opened anew: a failed fsync may have thrown the written pages away,
/// and the next one would succeed without them.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    db: Db,
    /// Our own handle of sled's one data file.
    file: File,
}

impl Database {
    /// Opens or makes the database in folder `path`. Whatever is read from it
    /// is durable: a process that was killed may have written it and not come
    /// to its fsync, and nobody would ask for another.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        make_dir(path)?;
        remove_torn_snapshots(path)?;
        let db = open_sled(path)?;
        let data = path.join("db");
        let file = File::open(&data).map_err(StoreError::io("open", &data))?;
        let database = Self { path: path.to_owned(), db, file };
        database.sync()?;
        // sled writes it once and never syncs it; without it, nothing opens.
        sync_file(&path.join("conf"))?;
        sync_dir(path)?;
        Ok(database)
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.db.get(key).map_err(StoreError::database("read", &self.path))?;
        Ok(value.map(|value| value.to_vec()))
    }

    /// Entries in order, from the first whose key starts with `prefix` and
    /// is at least `first`.
    pub fn page(&self, prefix: &[u8], first: &[u8]) -> Result<Page, StoreError> {
        let mut page = Page::default();
        let mut bytes = 0;
        for entry in self.db.range(first.max(prefix)..) {
            let (key, value) = entry.map_err(StoreError::database("read", &self.path))?;
            if !key.starts_with(prefix) {
                break;
            }
            if bytes > PAGE_BYTES_MAX {
                page.more = true;
                break;
            }
            bytes += key.len() + value.len();
            page.entries.push((key.to_vec(), value.to_vec()));
        }
        Ok(page)
    }

    /// All or nothing; on the disk when it returns.
    pub fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut all = sled::Batch::default();
        for (key, value) in batch.changes {
            match value {
                Some(value) => all.insert(key, value),
                None => all.remove(key),
            }
        }
        self.db.apply_batch(all).map_err(StoreError::database("write", &self.path))?;
        self.db.flush().map_err(StoreError::database("flush", &self.path))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.sync_blobs()?;
        self.file.sync_all().map_err(StoreError::io("sync", &self.path.join("db")))
    }

    /// Pages that were too large for the log after all: none, by the choice
    /// of [`VALUE_BYTES_MAX`], but a wrong guess must not cost durability.
    fn sync_blobs(&self) -> Result<(), StoreError> {
        let dir = self.path.join("blobs");
        let mut found = false;
        for entry in fs::read_dir(&dir).map_err(StoreError::io("list", &dir))? {
            let path = entry.map_err(StoreError::io("list", &dir))?.path();
            match File::open(&path) {
                Ok(file) => file.sync_all().map_err(StoreError::io("sync", &path))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io("open", &path)(error)),
            }
            found = true;
        }
        if found { sync_dir(&dir) } else { Ok(()) }
    }
}

fn sync_file(path: &Path) -> Result<(), StoreError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    file.sync_all().map_err(StoreError::io("sync", path))
}

fn open_sled(path: &Path) -> Result<Db, StoreError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .segment_size(SEGMENT_BYTES)
        .mode(Mode::LowSpace)
        .flush_every_ms(None);
    let give_up_at = Instant::now() + LOCK_WAIT;
    loop {
        match config.open() {
            Err(error) if is_lock(&error) && Instant::now() < give_up_at => {
                thread::sleep(LOCK_POLL);
            }
            Err(error) if is_lock(&error) => return Err(StoreError::Locked { path: path.into() }),
            result => return result.map_err(StoreError::database("open", path)),
        }
    }
}

/// sled has no error of its own for this.
fn is_lock(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

/// A kill while sled writes a snapshot leaves a torn one behind, which the
/// next open would take for a whole one.
fn remove_torn_snapshots(path: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(path).map_err(StoreError::io("list", path))? {
        let entry = entry.map_err(StoreError::io("list", path))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            let torn = entry.path();
            fs::remove_file(&torn).map_err(StoreError::io("remove", &torn))?;
        }
    }
    Ok(())
}
