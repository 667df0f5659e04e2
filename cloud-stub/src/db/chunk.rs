//! How layers are cut, and where each chunk is.

use std::collections::{BTreeSet, HashSet};

use rusqlite::{Connection, OptionalExtension, params};
use wherry_bundle::Digest;
use wherry_bundle::chunk::Chunk;

use super::error::DbError;

/// Places of one chunk that are worth trying, should the first ones be
/// damaged.
const PLACES_MAX: usize = 64;

/// Where a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub layer: Digest,
    pub offset: u64,
    pub size_bytes: u32,
}

/// Keeps how a layer is cut: its chunks in order, and its encoded lists of
/// them.
///
/// # Errors
/// The database's; also if the layer was there already.
pub fn add(
    connection: &Connection,
    layer: &Digest,
    chunks: &[Chunk],
    lists: &[Vec<u8>],
) -> Result<(), DbError> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO chunk (digest, layer, offset, size_bytes) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let mut offset: u64 = 0;
    for chunk in chunks {
        insert.execute(params![chunk.digest.0, layer.0, offset, chunk.size_bytes])?;
        offset += u64::from(chunk.size_bytes);
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO chunk_list (layer, position, digest, bytes) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for (position, bytes) in lists.iter().enumerate() {
        insert.execute(params![layer.0, position, Digest::of(bytes).0, bytes])?;
    }
    Ok(())
}

/// The digests of a layer's lists, in order; none if it was not cut.
///
/// # Errors
/// The database's.
pub fn list_digests(connection: &Connection, layer: &Digest) -> Result<Vec<Digest>, DbError> {
    let mut statement = connection
        .prepare_cached("SELECT digest FROM chunk_list WHERE layer = ?1 ORDER BY position")?;
    let rows = statement.query_map([layer.0], |row| row.get(0).map(Digest))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The list of this digest, encoded; whichever layer has it.
///
/// # Errors
/// The database's.
pub fn list(connection: &Connection, digest: &Digest) -> Result<Option<Vec<u8>>, DbError> {
    let mut statement =
        connection.prepare_cached("SELECT bytes FROM chunk_list WHERE digest = ?1 LIMIT 1")?;
    Ok(statement.query_row([digest.0], |row| row.get(0)).optional()?)
}

/// Where a chunk is, at most [`PLACES_MAX`] of them.
///
/// # Errors
/// The database's.
pub fn places(connection: &Connection, digest: &Digest) -> Result<Vec<Place>, DbError> {
    let mut statement = connection.prepare_cached(
        "SELECT layer, offset, size_bytes FROM chunk WHERE digest = ?1
         ORDER BY layer, offset LIMIT ?2",
    )?;
    let rows = statement.query_map(params![digest.0, PLACES_MAX], |row| {
        Ok(Place { layer: Digest(row.get(0)?), offset: row.get(1)?, size_bytes: row.get(2)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// All chunks of some layers.
///
/// # Errors
/// The database's.
pub fn of_layers(
    connection: &Connection,
    layers: &BTreeSet<Digest>,
) -> Result<HashSet<Digest>, DbError> {
    let mut statement = connection.prepare_cached("SELECT digest FROM chunk WHERE layer = ?1")?;
    let mut chunks = HashSet::new();
    for layer in layers {
        for digest in statement.query_map([layer.0], |row| row.get(0).map(Digest))? {
            chunks.insert(digest?);
        }
    }
    Ok(chunks)
}

/// Every layer that was cut.
///
/// # Errors
/// The database's.
pub fn layers(connection: &Connection) -> Result<BTreeSet<Digest>, DbError> {
    let mut statement = connection.prepare_cached("SELECT DISTINCT layer FROM chunk_list")?;
    let rows = statement.query_map([], |row| row.get(0).map(Digest))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Forgets how layers are cut that `used` does not name.
///
/// # Errors
/// The database's.
pub fn forget_others(connection: &Connection, used: &BTreeSet<Digest>) -> Result<(), DbError> {
    for layer in layers(connection)?.difference(used) {
        connection.execute("DELETE FROM chunk WHERE layer = ?1", [layer.0])?;
        connection.execute("DELETE FROM chunk_list WHERE layer = ?1", [layer.0])?;
    }
    Ok(())
}
