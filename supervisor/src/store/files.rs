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

/// Makes `path` and the folders above it, if need be, so that its name
/// outlives a power cut. Also if it was there: whoever made it may have been
/// killed before that was sure.
pub(super) fn make_dir(path: &Path) -> Result<(), StoreError> {
    let missing = path.ancestors().take_while(|folder| !folder.exists()).count();
    fs::create_dir_all(path).map_err(StoreError::io("create", path))?;
    let parents = path.ancestors().skip(1).take(missing.max(1));
    // A relative path has an empty one at its end.
    parents.filter(|parent| !parent.as_os_str().is_empty()).try_for_each(sync_dir)
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
