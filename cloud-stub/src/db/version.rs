//! Versions of applications: immutable, with the images that they were made
//! of.

use rusqlite::{Connection, OptionalExtension, params};
use wherry_bundle::{BuildVersion, Name};

use super::application;
use super::error::{self, DbError, What};
use crate::image::ImageInfo;
use crate::version::VersionPackage;
use crate::view::{Version, VersionId, VersionImage};

/// A version with all that compiling it needs.
#[derive(Clone, Debug)]
pub struct StoredVersion {
    pub row: i64,
    pub id: VersionId,
    pub package: VersionPackage,
    /// Of every architecture that there was when it was created.
    pub images: Vec<ImageInfo>,
}

/// Adds a version and gives it the next build number of its `X.Y.Z`.
///
/// # Errors
/// [`DbError::NotFound`] for the application.
pub fn add(
    connection: &Connection,
    package: &VersionPackage,
    images: &[ImageInfo],
    now: u64,
) -> Result<VersionId, DbError> {
    let application = &package.application;
    application::show(connection, application)?;
    let crate::version::Number { x, y, z } = package.number;
    let build: u32 = connection.query_row(
        "INSERT INTO build (application, x, y, z, last) VALUES (?1, ?2, ?3, ?4, 1)
         ON CONFLICT (application, x, y, z) DO UPDATE SET last = last + 1 RETURNING last",
        params![application.as_str(), x, y, z],
        |row| row.get(0),
    )?;
    connection.execute(
        "INSERT INTO version (application, x, y, z, build, package, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![application.as_str(), x, y, z, build, error::to_json(package)?, now],
    )?;
    let row = connection.last_insert_rowid();
    for image in images {
        connection.execute(
            "INSERT INTO version_image (version, reference, architecture, info)
             VALUES (?1, ?2, ?3, ?4)",
            params![row, image.reference, image.architecture, error::to_json(image)?],
        )?;
    }
    let number = BuildVersion { x, y, z, build };
    Ok(VersionId { application: application.clone(), number })
}

/// Of one application or of all, oldest number first.
///
/// # Errors
/// [`DbError::NotFound`] for the application.
pub fn list(connection: &Connection, application: Option<&Name>) -> Result<Vec<Version>, DbError> {
    let applications = match application {
        Some(name) => vec![application::show(connection, name)?],
        None => application::list(connection)?,
    };
    let mut versions = Vec::new();
    for application in applications {
        for number in application.versions {
            let id = VersionId { application: application.name.clone(), number };
            versions.push(show(connection, &id)?);
        }
    }
    Ok(versions)
}

/// # Errors
/// [`DbError::NotFound`].
pub fn show(connection: &Connection, id: &VersionId) -> Result<Version, DbError> {
    let (row, package, created_at) = find(connection, id)?;
    let sql = "SELECT node FROM assignment WHERE version = ?1 ORDER BY node";
    let images = images(connection, row)?.into_iter().map(|info| VersionImage {
        reference: info.reference,
        architecture: info.architecture,
        digest: info.digest,
    });
    Ok(Version {
        id: id.clone(),
        description: package.description,
        product_type: package.product_type,
        components: package.components.into_iter().map(|component| component.name).collect(),
        images: images.collect(),
        nodes: error::names(connection, sql, [row])?,
        created_at,
    })
}

/// With its package and images.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn load(connection: &Connection, id: &VersionId) -> Result<StoredVersion, DbError> {
    let (row, package, _) = find(connection, id)?;
    Ok(StoredVersion { row, id: id.clone(), package, images: images(connection, row)? })
}

/// # Errors
/// [`DbError::NotFound`], or [`DbError::InUse`] by nodes that have it, or that it is carried to.
pub fn remove(connection: &Connection, id: &VersionId) -> Result<(), DbError> {
    let version = show(connection, id)?;
    let (row, _, _) = find(connection, id)?;
    let mut users: Vec<String> =
        version.nodes.iter().map(|node| format!("node `{node}`")).collect();
    let sql = "SELECT node FROM carried WHERE version = ?1 ORDER BY node";
    let carried = error::names(connection, sql, [row])?;
    users.extend(carried.iter().map(|node| format!("what is carried to node `{node}`")));
    error::unused(What::Version, id, users)?;
    connection.execute("DELETE FROM version WHERE id = ?1", [row])?;
    Ok(())
}

/// The numbers of an application's versions, oldest number first.
///
/// # Errors
/// The database's.
pub fn numbers(connection: &Connection, application: &Name) -> Result<Vec<BuildVersion>, DbError> {
    let mut statement = connection.prepare_cached(
        "SELECT x, y, z, build FROM version WHERE application = ?1 ORDER BY x, y, z, build",
    )?;
    let rows = statement.query_map([application.as_str()], |row| {
        Ok(BuildVersion { x: row.get(0)?, y: row.get(1)?, z: row.get(2)?, build: row.get(3)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn find(connection: &Connection, id: &VersionId) -> Result<(i64, VersionPackage, u64), DbError> {
    let BuildVersion { x, y, z, build } = id.number;
    let found: Option<(i64, String, u64)> = connection
        .query_row(
            "SELECT id, package, created_at FROM version
             WHERE application = ?1 AND x = ?2 AND y = ?3 AND z = ?4 AND build = ?5",
            params![id.application.as_str(), x, y, z, build],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let (row, package, created_at) =
        found.ok_or_else(|| DbError::version_not_found(&id.application, id.number))?;
    Ok((row, error::json(&package)?, created_at))
}

fn images(connection: &Connection, row: i64) -> Result<Vec<ImageInfo>, DbError> {
    let sql = "SELECT info FROM version_image WHERE version = ?1 ORDER BY reference, architecture";
    error::texts(connection, sql, [row])?.iter().map(|text| error::json(text)).collect()
}
