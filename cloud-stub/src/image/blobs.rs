//! The folder of finished layers: `HEX.squashfs`, named by SHA-256.
//!
//! A file is there whole or not at all: it is written under a temporary name,
//! fsynced, renamed, and the folder fsynced. Nothing here removes a layer.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use wherry_bundle::Digest;

use super::region::Region;

const TEMPORARY_PREFIX: &str = ".import-";
const LAYER_SUFFIX: &str = ".squashfs";

/// A folder of layers, shared by all images.
#[derive(Clone, Debug)]
pub struct BlobDir {
    path: PathBuf,
}

impl BlobDir {
    /// Opens the folder, and makes it if it is not there.
    ///
    /// # Errors
    /// What the filesystem says.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(Self { path: path.to_owned() })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the layer is, or would be.
    #[must_use]
    pub fn layer_path(&self, digest: &Digest) -> PathBuf {
        self.path.join(format!("{}{LAYER_SUFFIX}", digest.hex()))
    }

    /// The layers whose files are there, in no order.
    ///
    /// # Errors
    /// What the filesystem says.
    pub fn layers(&self) -> io::Result<Vec<Digest>> {
        let mut layers = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let hex = name.to_str().and_then(|name| name.strip_suffix(LAYER_SUFFIX));
            layers.extend(hex.and_then(Digest::parse));
        }
        Ok(layers)
    }

    /// Removes what an import that was killed left behind. Call it at start,
    /// when no import is running.
    ///
    /// # Errors
    /// What the filesystem says.
    pub fn remove_temporary(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// A folder for work, on the same filesystem, removed when dropped.
    pub(super) fn work_dir(&self) -> io::Result<tempfile::TempDir> {
        tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempdir_in(&self.path)
    }

    /// A file that becomes a layer with [`BlobDir::commit`], or goes away.
    pub(super) fn temporary(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempfile_in(&self.path)
    }

    /// Gives `file` its name; `false` if the layer was there already.
    pub(super) fn commit(&self, file: NamedTempFile, digest: &Digest) -> io::Result<bool> {
        let path = self.layer_path(digest);
        let size = file.as_file().metadata()?.len();
        // A damaged one is replaced: importing again is how to mend it.
        if let Ok(old) = File::open(&path).and_then(Region::whole)
            && old.len() == size
            && old.digest()? == *digest
        {
            return Ok(false);
        }
        // Temporary files are private; a layer is read by whoever serves it.
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(readable)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        File::open(&self.path)?.sync_all()?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_left_half_done_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobDir::open(dir.path()).unwrap();
        let (_, kept) = blobs.temporary().unwrap().keep().unwrap();
        let folder = blobs.work_dir().unwrap().keep();
        fs::write(folder.join("spool"), "x").unwrap();
        let layer = blobs.layer_path(&Digest::of(b"layer"));
        fs::write(&layer, "layer").unwrap();
        blobs.remove_temporary().unwrap();
        assert!(!kept.exists() && !folder.exists());
        assert!(layer.exists());
    }
}
