//! Removes layer files that nothing needs any more.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use wherry_bundle::Digest;

use crate::image::BlobDir;

const SUFFIX: &str = ".squashfs";

/// Removes every layer that `used` does not name; how many that were. Other
/// files stay. Call it while no import is running.
///
/// # Errors
/// The first one of the filesystem; the rest is for the next time.
pub fn remove(blobs: &BlobDir, used: &BTreeSet<Digest>) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(blobs.path())? {
        let entry = entry?;
        let name = entry.file_name();
        let digest =
            name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(Digest::parse);
        if let Some(digest) = digest
            && !used.contains(&digest)
        {
            fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unused_layers_go() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobDir::open(dir.path()).unwrap();
        let (used, unused) = (Digest::of(b"used"), Digest::of(b"unused"));
        for digest in [used, unused] {
            fs::write(blobs.layer_path(&digest), b"x").unwrap();
        }
        fs::write(dir.path().join("notes.squashfs"), b"x").unwrap();
        assert_eq!(remove(&blobs, &[used].into()).unwrap(), 1);
        assert!(blobs.layer_path(&used).exists() && !blobs.layer_path(&unused).exists());
        assert!(dir.path().join("notes.squashfs").exists());
    }
}
