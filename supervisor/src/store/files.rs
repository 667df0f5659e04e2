//! Files and folders, durably.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::error::StoreError;

/// Makes new names in `path` durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    let dir = File::open(path).map_err(StoreError::io("open", path))?;
    dir.sync_all().map_err(StoreError::io("sync", path))
}

/// Replaces `dir/name` by `bytes`: at each moment, and after a power cut, it
/// is the old file or the new one.
pub(super) fn replace_file(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = dir.join(format!("{name}.tmp"));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    if let Err(error) = write() {
        // What was written of it takes room on a disk that may be full.
        let _ = fs::remove_file(&temporary);
        return Err(StoreError::io("write", &temporary)(error));
    }
    let path = dir.join(name);
    fs::rename(&temporary, &path).map_err(StoreError::io("rename", &temporary))?;
    sync_dir(dir)
}
