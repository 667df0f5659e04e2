//! Imported images, by name and architecture.
//!
//! The layers' files are in the blob folder; here is what they are for.

use std::collections::BTreeSet;

use rusqlite::{Connection, params};
use wherry_bundle::Digest;

use super::error::{self, DbError, What};
use crate::image::ImageInfo;
use crate::view::{Image, VersionId};

/// Keeps an image; one of the same name and architecture is replaced.
///
/// # Errors
/// The database's.
pub fn put(connection: &Connection, info: &ImageInfo, now: u64) -> Result<(), DbError> {
    connection.execute(
        "INSERT INTO image (reference, architecture, info, imported_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (reference, architecture)
         DO UPDATE SET info = excluded.info, imported_at = excluded.imported_at",
        params![info.reference, info.architecture, error::to_json(info)?, now],
    )?;
    Ok(())
}

/// Ordered by name and architecture.
///
/// # Errors
/// The database's.
pub fn list(connection: &Connection) -> Result<Vec<Image>, DbError> {
    let sql = "SELECT info, imported_at FROM image ORDER BY reference, architecture";
    read(connection, sql, [])
}

/// The image in each architecture that there is.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn show(connection: &Connection, reference: &str) -> Result<Vec<Image>, DbError> {
    let sql = "SELECT info, imported_at FROM image WHERE reference = ?1 ORDER BY architecture";
    let images = read(connection, sql, [reference])?;
    if images.is_empty() { Err(DbError::not_found(What::Image, reference)) } else { Ok(images) }
}

/// Removes it, of one architecture or of all.
///
/// # Errors
/// [`DbError::NotFound`], or [`DbError::InUse`] by versions.
pub fn remove(
    connection: &Connection,
    reference: &str,
    architecture: Option<&str>,
) -> Result<(), DbError> {
    let wanted = |image: &Image| architecture.is_none_or(|wanted| wanted == image.architecture);
    let images: Vec<Image> =
        show(connection, reference)?.into_iter().filter(|image| wanted(image)).collect();
    if images.is_empty() {
        let name = format!("{reference} for {}", architecture.unwrap_or_default());
        return Err(DbError::not_found(What::Image, name));
    }
    let users: BTreeSet<&VersionId> = images.iter().flat_map(|image| &image.used_by).collect();
    let users = users.into_iter().map(|version| format!("version `{version}`")).collect();
    error::unused(What::Image, &reference, users)?;
    for image in images {
        connection.execute(
            "DELETE FROM image WHERE reference = ?1 AND architecture = ?2",
            [reference, image.architecture.as_str()],
        )?;
    }
    Ok(())
}

/// The image of this name as it is now, of each architecture.
///
/// # Errors
/// The database's.
pub fn infos(connection: &Connection, reference: &str) -> Result<Vec<ImageInfo>, DbError> {
    let sql = "SELECT info FROM image WHERE reference = ?1 ORDER BY architecture";
    error::texts(connection, sql, [reference])?.iter().map(|text| error::json(text)).collect()
}

/// Every layer that an image or a version still needs.
///
/// # Errors
/// The database's.
pub fn layers_in_use(connection: &Connection) -> Result<BTreeSet<Digest>, DbError> {
    let sql = "SELECT info FROM image UNION SELECT info FROM version_image";
    let mut layers = BTreeSet::new();
    for text in error::texts(connection, sql, [])? {
        let info: ImageInfo = error::json(&text)?;
        layers.extend(info.layers.iter().map(|layer| layer.digest));
    }
    Ok(layers)
}

fn read(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> Result<Vec<Image>, DbError> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement
        .query_map(parameters, |row| Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?)))?
        .collect::<Result<Vec<_>, _>>()?;
    rows.into_iter()
        .map(|(info, imported_at)| {
            let info: ImageInfo = error::json(&info)?;
            Ok(Image {
                used_by: users(connection, &info)?,
                layers: info.layers.len(),
                size_bytes: info.layers.iter().map(|layer| layer.size_bytes).sum(),
                reference: info.reference,
                architecture: info.architecture,
                digest: info.digest,
                imported_at,
            })
        })
        .collect()
}

/// Versions that were made of exactly this image.
fn users(connection: &Connection, info: &ImageInfo) -> Result<Vec<VersionId>, DbError> {
    let mut statement = connection.prepare_cached(
        "SELECT v.application, v.x || '.' || v.y || '.' || v.z || '.' || v.build, i.info
         FROM version_image i JOIN version v ON v.id = i.version
         WHERE i.reference = ?1 AND i.architecture = ?2
         ORDER BY v.application, v.x, v.y, v.z, v.build",
    )?;
    let rows = statement
        .query_map([&info.reference, &info.architecture], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    let mut users = Vec::new();
    for (application, number, used) in rows {
        if error::json::<ImageInfo>(&used)?.digest == info.digest {
            users.push(error::version_id(&application, &number)?);
        }
    }
    Ok(users)
}
