//! Projects: nodes and applications that belong together.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};
use wherry_bundle::Name;

use super::error::{self, DbError, What};
use super::{customer, error::names};
use crate::view::Project;

/// # Errors
/// [`DbError::Taken`], or [`DbError::NotFound`] for the customer.
pub fn add(connection: &Connection, name: &Name, customer: &Name, now: u64) -> Result<(), DbError> {
    customer::show(connection, customer)?;
    connection
        .execute(
            "INSERT INTO project (name, customer, created_at) VALUES (?1, ?2, ?3)",
            params![name.as_str(), customer.as_str(), now],
        )
        .map_err(error::taken(What::Project, name))?;
    Ok(())
}

/// Ordered by name.
///
/// # Errors
/// The database's.
pub fn list(connection: &Connection) -> Result<Vec<Project>, DbError> {
    let all = names(connection, "SELECT name FROM project ORDER BY name", [])?;
    all.iter().map(|name| show(connection, name)).collect()
}

/// Whose each of them is.
///
/// # Errors
/// The database's.
pub fn customers(connection: &Connection) -> Result<BTreeMap<Name, Name>, DbError> {
    let mut statement = connection.prepare_cached("SELECT name, customer FROM project")?;
    let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
    let rows = statement.query_map([], read)?.collect::<Result<Vec<_>, _>>()?;
    rows.iter().map(|(of, customer)| Ok((error::name(of)?, error::name(customer)?))).collect()
}

/// # Errors
/// [`DbError::NotFound`].
pub fn show(connection: &Connection, name: &Name) -> Result<Project, DbError> {
    let (customer, created_at): (String, u64) = connection
        .query_row(
            "SELECT customer, created_at FROM project WHERE name = ?1",
            [name.as_str()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?
        .ok_or_else(|| DbError::not_found(What::Project, name))?;
    let of = |sql| names(connection, sql, [name.as_str()]);
    Ok(Project {
        name: name.clone(),
        customer: error::name(&customer)?,
        nodes: of("SELECT name FROM node WHERE project = ?1 ORDER BY name")?,
        applications: of("SELECT name FROM application WHERE project = ?1 ORDER BY name")?,
        created_at,
    })
}

/// # Errors
/// [`DbError::NotFound`], or [`DbError::InUse`] by nodes and applications.
pub fn remove(connection: &Connection, name: &Name) -> Result<(), DbError> {
    let project = show(connection, name)?;
    let nodes = project.nodes.iter().map(|node| format!("node `{node}`"));
    let applications = project.applications.iter().map(|name| format!("application `{name}`"));
    error::unused(What::Project, name, nodes.chain(applications).collect())?;
    connection.execute("DELETE FROM project WHERE name = ?1", [name.as_str()])?;
    Ok(())
}
