//! Records in the run folder, one a file (`RUN/ledger.bin`): written when they
//! changed, read by a supervisor that comes back.
//!
//! On a tmpfs, so no fsync: they die with a reboot, as all pods do. Losing one
//! costs promptness, never safety. Never here: what they mean.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use wherry_bundle::wire::{self, WireError};

/// A ledger of 128 pods is a tenth of this.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum RunFileError {
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Contents { path: PathBuf, source: WireError },
}

/// What is kept; `None` if nothing is, as after a reboot.
///
/// # Errors
/// It cannot be read, or was written by another build: it counts as lost.
pub fn load<T: DeserializeOwned>(schema: u8, path: &Path) -> Result<Option<T>, RunFileError> {
    let io_error = |source| RunFileError::Io { what: "read", path: path.to_owned(), source };
    let length = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(io_error)?.len(),
    };
    if length > FILE_BYTES_MAX {
        return Err(io_error(io::ErrorKind::FileTooLarge.into()));
    }
    let bytes = fs::read(path).map_err(io_error)?;
    let record = wire::decode(schema, &bytes)
        .map_err(|source| RunFileError::Contents { path: path.to_owned(), source })?;
    Ok(Some(record))
}

/// Replaces what is kept, at once.
///
/// # Errors
/// The run folder is full, or cannot be written; what was kept stays.
pub fn save<T: Serialize>(schema: u8, path: &Path, record: &T) -> Result<(), RunFileError> {
    let contents = |source| RunFileError::Contents { path: path.to_owned(), source };
    let bytes = wire::encode(schema, record).map_err(contents)?;
    let new = path.with_extension("new");
    let io_error = |what| move |source| RunFileError::Io { what, path: path.to_owned(), source };
    fs::write(&new, bytes).map_err(io_error("write"))?;
    fs::rename(&new, path).map_err(io_error("replace"))
}

#[cfg(test)]
mod tests {
    use wherry_core::Ledger;

    use super::*;

    #[test]
    fn it_reads_back_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.bin");
        assert!(load::<Ledger>(Ledger::SCHEMA, &path).unwrap().is_none());
        let ledger = Ledger { serial_floor: 7, ..Ledger::default() };
        save(Ledger::SCHEMA, &path, &ledger).unwrap();
        save(Ledger::SCHEMA, &path, &ledger).unwrap();
        assert_eq!(load::<Ledger>(Ledger::SCHEMA, &path).unwrap(), Some(ledger));
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] += 1;
        fs::write(&path, &bytes).unwrap();
        assert!(load::<Ledger>(Ledger::SCHEMA, &path).unwrap_err().to_string().contains("schema"));
        fs::write(&path, b"").unwrap();
        assert!(load::<Ledger>(Ledger::SCHEMA, &path).is_err());
    }
}
