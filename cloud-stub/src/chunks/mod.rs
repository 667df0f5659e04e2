//! Layers in chunks: each layer file is cut once, and its chunks are found by
//! their digests.
//!
//! Never here: MQTT, and what a node is sent.

mod cache;
mod cut;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use wherry_bundle::Digest;
use wherry_bundle::chunk::{ChunkList, ChunkListError};

pub use cache::Cache;
use cut::Stop;

use crate::db::{self, Db, DbError};
use crate::image::BlobDir;

/// Why a layer has no chunks.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    #[error("layer {}: {source}", .layer.short())]
    Read { layer: Digest, source: io::Error },
    #[error(
        "the file of layer {} is damaged, its digest is {found}: import its image again",
        .layer.short()
    )]
    Damaged { layer: Digest, found: Digest },
    #[error("layer {}: {source}", .layer.short())]
    Lists { layer: Digest, source: ChunkListError },
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Why there are no bytes for a digest. Its text is for the node that asked.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("there is no such chunk")]
    Unknown,
    /// In each layer that has it.
    #[error("the chunk cannot be read: {}", .0.join("; "))]
    Unreadable(Vec<String>),
    #[error("the database cannot be read")]
    Db(#[from] DbError),
}

/// Cuts those of `layers` that were not cut yet; how many that were. Each file
/// is read once, and is checked.
///
/// # Errors
/// [`CutError`] for the first one; those before it are cut.
pub fn cut_new(db: &Db, blobs: &BlobDir, layers: &BTreeSet<Digest>) -> Result<usize, CutError> {
    let known = db.read(db::chunk::layers)?;
    let mut count = 0;
    for layer in layers.difference(&known) {
        cut_layer(db, blobs, layer)?;
        count += 1;
    }
    Ok(count)
}

/// Cuts every layer file that was not cut yet: those of a data folder of an
/// earlier version, and one whose import was cut short. What cannot be cut is
/// told in the log.
pub fn heal(db: &Db, blobs: &BlobDir) {
    let (files, known) = match (blobs.layers(), db.read(db::chunk::layers)) {
        (Ok(files), Ok(known)) => (files, known),
        (Err(error), _) => return log::error!("the layer files cannot be listed: {error}"),
        (_, Err(error)) => return log::error!("the layers cannot be read: {error}"),
    };
    for layer in files.iter().filter(|layer| !known.contains(layer)) {
        match cut_layer(db, blobs, layer) {
            Ok(()) => log::info!("layer {} cut into chunks", layer.short()),
            Err(error) => log::warn!("not cut into chunks: {error}"),
        }
    }
}

fn cut_layer(db: &Db, blobs: &BlobDir, layer: &Digest) -> Result<(), CutError> {
    let layer = *layer;
    let file = File::open(blobs.layer_path(&layer)).map_err(Stop::Read);
    let (chunks, found) = file.and_then(cut::cut).map_err(|stop| match stop {
        Stop::Read(source) => CutError::Read { layer, source },
        Stop::Lists(source) => CutError::Lists { layer, source },
    })?;
    if found != layer {
        return Err(CutError::Damaged { layer, found });
    }
    let lists = ChunkList::encode(&chunks).map_err(|source| CutError::Lists { layer, source })?;
    Ok(db.write(|tx| db::chunk::add(tx, &layer, &chunks, &lists))?)
}

/// The bytes of a chunk, or of a chunk list, whose digest was checked.
///
/// # Errors
/// [`ReadError`]: nobody has it, or nobody has it undamaged.
pub fn read(db: &Db, blobs: &BlobDir, digest: &Digest) -> Result<Vec<u8>, ReadError> {
    let checked = |bytes: Vec<u8>| match Digest::of(&bytes) {
        found if found == *digest => Ok(bytes),
        _ => Err("damaged".to_owned()),
    };
    let (list, places) = db
        .read(|c| Ok::<_, DbError>((db::chunk::list(c, digest)?, db::chunk::places(c, digest)?)))?;
    let mut problems = Vec::new();
    if let Some(list) = list {
        match checked(list) {
            Ok(bytes) => return Ok(bytes),
            Err(why) => problems.push(format!("chunk list: {why}")),
        }
    }
    for place in places {
        match read_place(blobs, &place).map_err(|error| error.to_string()).and_then(checked) {
            Ok(bytes) => return Ok(bytes),
            Err(why) => problems.push(format!("layer {}: {why}", place.layer.short())),
        }
    }
    Err(if problems.is_empty() { ReadError::Unknown } else { ReadError::Unreadable(problems) })
}

fn read_place(blobs: &BlobDir, place: &db::chunk::Place) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; place.size_bytes as usize];
    File::open(blobs.layer_path(&place.layer))?.read_exact_at(&mut bytes, place.offset)?;
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use wherry_bundle::chunk::Chunk;

    use super::*;

    /// The same bytes for the same seed, of no pattern.
    pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
        // xorshift64*
        let mut state = seed;
        let mut next = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_F491_4F6C_DD1D)
        };
        (0..bytes.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(bytes).collect()
    }

    struct Layers {
        _dir: tempfile::TempDir,
        db: Db,
        blobs: BlobDir,
    }

    impl Layers {
        fn new() -> Self {
            let (dir, db) = db::tests::open();
            let blobs = BlobDir::open(&dir.path().join("layers")).unwrap();
            Self { _dir: dir, db, blobs }
        }

        fn file(&self, bytes: &[u8]) -> Digest {
            let layer = Digest::of(bytes);
            fs::write(self.blobs.layer_path(&layer), bytes).unwrap();
            layer
        }

        fn chunks(&self, layer: &Digest, size_bytes: usize) -> Vec<Chunk> {
            let lists = self.db.read(|c| db::chunk::list_digests(c, layer)).unwrap();
            let lists: Vec<Vec<u8>> = lists.iter().map(|list| self.read(list).unwrap()).collect();
            ChunkList::join(lists.iter().map(Vec::as_slice), size_bytes as u64).unwrap()
        }

        fn read(&self, digest: &Digest) -> Result<Vec<u8>, String> {
            read(&self.db, &self.blobs, digest).map_err(|error| error.to_string())
        }
    }

    #[test]
    fn a_layer_is_the_sum_of_its_chunks() {
        let layers = Layers::new();
        let bytes = noise(1, 1 << 20);
        // The same chunks twice in one layer.
        let bytes = [&*bytes, &*bytes].concat();
        let layer = layers.file(&bytes);
        let cut = || cut_new(&layers.db, &layers.blobs, &[layer].into()).unwrap();
        assert_eq!((cut(), cut()), (1, 0), "once");
        let chunks = layers.chunks(&layer, bytes.len());
        let parts: Vec<Vec<u8>> =
            chunks.iter().map(|chunk| layers.read(&chunk.digest).unwrap()).collect();
        assert!(parts.concat() == bytes);
        assert_eq!(layers.read(&Digest::of(b"x")), Err("there is no such chunk".into()));
    }

    #[test]
    fn a_damaged_chunk_is_read_from_another_layer() {
        let layers = Layers::new();
        let bytes = noise(2, 1 << 20);
        let first = layers.file(&bytes);
        let second = layers.file(&[&*bytes, b"more"].concat());
        cut_new(&layers.db, &layers.blobs, &[first, second].into()).unwrap();
        let chunk = layers.chunks(&first, bytes.len())[0];
        let expected = &bytes[..chunk.size_bytes as usize];
        fs::remove_file(layers.blobs.layer_path(&first.min(second))).unwrap();
        assert_eq!(layers.read(&chunk.digest).unwrap(), expected);
        fs::write(layers.blobs.layer_path(&first.max(second)), vec![0; bytes.len()]).unwrap();
        let error = layers.read(&chunk.digest).unwrap_err();
        assert!(error.contains("No such file") && error.contains("damaged"), "{error}");
        layers.file(&bytes);
        layers.file(&[&*bytes, b"more"].concat());
        assert_eq!(layers.read(&chunk.digest).unwrap(), expected, "mended");
    }

    #[test]
    fn what_was_not_cut_is_cut_at_the_start_and_damage_is_not_believed() {
        let layers = Layers::new();
        let (old, cut) = (layers.file(b"old"), layers.file(b"cut"));
        cut_new(&layers.db, &layers.blobs, &[cut].into()).unwrap();
        let damaged = layers.file(b"damaged");
        fs::write(layers.blobs.layer_path(&damaged), b"DAMAGED").unwrap();
        heal(&layers.db, &layers.blobs);
        assert_eq!(layers.db.read(db::chunk::layers).unwrap(), [old, cut].into());
        let error = cut_new(&layers.db, &layers.blobs, &[damaged].into()).unwrap_err();
        assert!(error.to_string().contains("import its image again"), "{error}");
    }
}
