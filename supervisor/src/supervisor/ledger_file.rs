//! The reconciler's ledger in `RUN/ledger.bin`: written when it changed, read
//! once by a supervisor that comes back.
//!
//! On a tmpfs, so no fsync: it dies with a reboot, as all pods do. Losing it
//! costs promptness, never safety. Never here: what the ledger means.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use wherry_bundle::wire::{self, WireError};
use wherry_core::Ledger;

/// A ledger of 128 pods is a tenth of this.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Contents { path: PathBuf, source: WireError },
}

/// What is kept; `None` if nothing is, as after a reboot.
///
/// # Errors
/// It cannot be read, or was written by another build: it counts as lost.
pub fn load(path: &Path) -> Result<Option<Ledger>, LedgerError> {
    let io_error = |source| LedgerError::Io { what: "read", path: path.to_owned(), source };
    let length = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(io_error)?.len(),
    };
    if length > FILE_BYTES_MAX {
        return Err(io_error(io::ErrorKind::FileTooLarge.into()));
    }
    let bytes = fs::read(path).map_err(io_error)?;
    let ledger = wire::decode(Ledger::SCHEMA, &bytes)
        .map_err(|source| LedgerError::Contents { path: path.to_owned(), source })?;
    Ok(Some(ledger))
}

/// Replaces what is kept, at once.
///
/// # Errors
/// The run folder is full, or cannot be written; what was kept stays.
pub fn save(path: &Path, ledger: &Ledger) -> Result<(), LedgerError> {
    let contents = |source| LedgerError::Contents { path: path.to_owned(), source };
    let bytes = wire::encode(Ledger::SCHEMA, ledger).map_err(contents)?;
    let new = path.with_extension("new");
    let io_error = |what| move |source| LedgerError::Io { what, path: path.to_owned(), source };
    fs::write(&new, bytes).map_err(io_error("write"))?;
    fs::rename(&new, path).map_err(io_error("replace"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.bin");
        assert!(load(&path).unwrap().is_none());
        let ledger = Ledger { serial_floor: 7, ..Ledger::default() };
        save(&path, &ledger).unwrap();
        save(&path, &ledger).unwrap();
        assert_eq!(load(&path).unwrap(), Some(ledger));
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] += 1;
        fs::write(&path, &bytes).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("schema"));
        fs::write(&path, b"").unwrap();
        assert!(load(&path).is_err());
    }
}
