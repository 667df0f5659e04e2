//! Removes layer files that nothing needs any more, and what is known of how
//! they are cut.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use wherry_bundle::Digest;

use crate::db::{self, Db, DbError};
use crate::image::BlobDir;

/// Why unused layers are still there.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("layer files: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Removes every layer that `used` does not name; how many files that were.
/// Other files stay. Call it while no import is running.
///
/// # Errors
/// The first one; the rest is for the next time.
pub fn remove(db: &Db, blobs: &BlobDir, used: &BTreeSet<Digest>) -> Result<usize, RemoveError> {
    // First, so that no chunk is looked for in a file that is gone. A file
    // that stays is cut again at the next start.
    db.write(|tx| db::chunk::forget_others(tx, used))?;
    let mut removed = 0;
    for layer in blobs.layers()?.iter().filter(|layer| !used.contains(layer)) {
        fs::remove_file(blobs.layer_path(layer))?;
        removed += 1;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunks;

    #[test]
    fn only_unused_layers_go() {
        let (dir, db) = db::tests::open();
        let dir = dir.path().join("layers");
        let blobs = BlobDir::open(&dir).unwrap();
        let [used, unused] = [b"used", b"idle"].map(|contents| {
            let layer = Digest::of(contents);
            fs::write(blobs.layer_path(&layer), contents).unwrap();
            layer
        });
        chunks::cut_new(&db, &blobs, &[used, unused].into()).unwrap();
        fs::write(dir.join("notes.squashfs"), b"x").unwrap();
        assert_eq!(remove(&db, &blobs, &[used].into()).unwrap(), 1);
        assert!(blobs.layer_path(&used).exists() && !blobs.layer_path(&unused).exists());
        assert!(dir.join("notes.squashfs").exists());
        let known = |layer: &Digest| {
            db.read(|c| {
                let lists = db::chunk::list_digests(c, layer)?.len();
                Ok::<_, DbError>((lists, db::chunk::places(c, layer)?.len()))
            })
            .unwrap()
        };
        // A layer of one chunk is that chunk.
        assert_eq!((known(&used), known(&unused)), ((1, 1), (0, 0)));
    }
}
