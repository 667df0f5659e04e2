//! Applications: what a project deploys.

use rusqlite::{Connection, OptionalExtension, params};
use wherry_bundle::Name;

use super::error::{self, DbError, What};
use super::{project, version};
use crate::view::Application;

/// # Errors
/// [`DbError::Taken`], or [`DbError::NotFound`] for the project.
pub fn add(connection: &Connection, name: &Name, project: &Name, now: u64) -> Result<(), DbError> {
    project::show(connection, project)?;
    connection
        .execute(
            "INSERT INTO application (name, project, created_at) VALUES (?1, ?2, ?3)",
            params![name.as_str(), project.as_str(), now],
        )
        .map_err(error::taken(What::Application, name))?;
    Ok(())
}

/// Ordered by name.
///
/// # Errors
/// The database's.
pub fn list(connection: &Connection) -> Result<Vec<Application>, DbError> {
    let names = error::names(connection, "SELECT name FROM application ORDER BY name", [])?;
    names.iter().map(|name| show(connection, name)).collect()
}

/// # Errors
/// [`DbError::NotFound`].
pub fn show(connection: &Connection, name: &Name) -> Result<Application, DbError> {
    let (project, created_at): (String, u64) = connection
        .query_row(
            "SELECT project, created_at FROM application WHERE name = ?1",
            [name.as_str()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?
        .ok_or_else(|| DbError::not_found(What::Application, name))?;
    Ok(Application {
        name: name.clone(),
        project: error::name(&project)?,
        versions: version::numbers(connection, name)?,
        created_at,
    })
}

/// # Errors
/// [`DbError::NotFound`], or [`DbError::InUse`] by versions.
pub fn remove(connection: &Connection, name: &Name) -> Result<(), DbError> {
    let application = show(connection, name)?;
    let users = application.versions.iter().map(|number| format!("version `{name}@{number}`"));
    error::unused(What::Application, name, users.collect())?;
    connection.execute("DELETE FROM application WHERE name = ?1", [name.as_str()])?;
    Ok(())
}
