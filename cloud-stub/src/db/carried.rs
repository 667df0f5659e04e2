//! Bundles that a person carries to a node: neither issued nor published
//! until the node says that it took one up.

use rusqlite::{Connection, OptionalExtension, params};
use wherry_bundle::{Generation, Name};

use super::error::{self, DbError};
use super::rollout;
use crate::view;

/// Keeps a bundle with the version that it is about; it replaces the one
/// before.
///
/// # Errors
/// The database's.
pub fn put(
    connection: &Connection,
    node: &Name,
    generation: Generation,
    version_row: i64,
    envelope: &[u8],
) -> Result<(), DbError> {
    connection.execute(
        "INSERT INTO carried (node, generation, version, envelope) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (node) DO UPDATE SET generation = excluded.generation,
         version = excluded.version, envelope = excluded.envelope",
        params![node.as_str(), generation.0, version_row, envelope],
    )?;
    Ok(())
}

/// The node's bundle that is under way.
///
/// # Errors
/// The database's.
pub fn envelope(connection: &Connection, node: &Name) -> Result<Option<Vec<u8>>, DbError> {
    let sql = "SELECT envelope FROM carried WHERE node = ?1";
    Ok(connection.query_row(sql, [node.as_str()], |row| row.get(0)).optional()?)
}

/// What is under way to the node.
///
/// # Errors
/// The database's.
pub fn show(connection: &Connection, node: &Name) -> Result<Option<view::Carried>, DbError> {
    let found: Option<(u64, String, String)> = connection
        .query_row(
            "SELECT c.generation, v.application,
             v.x || '.' || v.y || '.' || v.z || '.' || v.build
             FROM carried c JOIN version v ON v.id = c.version WHERE c.node = ?1",
            [node.as_str()],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let Some((generation, application, number)) = found else { return Ok(None) };
    let version = error::version_id(&application, &number)?;
    Ok(Some(view::Carried { generation: Generation(generation), version }))
}

/// Nothing is under way to the node any more: something newer was given to
/// it.
///
/// # Errors
/// The database's.
pub fn forget(connection: &Connection, node: &Name) -> Result<(), DbError> {
    connection.execute("DELETE FROM carried WHERE node = ?1", [node.as_str()])?;
    Ok(())
}

/// The node says that it took up `generation`. If that was carried to it, it
/// becomes what is issued, and is to be published next: then true.
///
/// # Errors
/// The database's.
pub fn promote(
    connection: &Connection,
    node: &Name,
    generation: Generation,
) -> Result<bool, DbError> {
    let found: Option<(i64, String, Vec<u8>)> = connection
        .prepare_cached(
            "SELECT c.version, v.application, c.envelope
             FROM carried c JOIN version v ON v.id = c.version
             WHERE c.node = ?1 AND c.generation = ?2",
        )?
        .query_row(params![node.as_str(), generation.0], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((version, application, envelope)) = found else { return Ok(false) };
    rollout::assign(connection, node, &error::name(&application)?, version)?;
    rollout::issue(connection, node, generation, &envelope)?;
    forget(connection, node)?;
    Ok(true)
}
