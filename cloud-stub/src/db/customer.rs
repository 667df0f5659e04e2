//! Customers: who a fleet belongs to.

use rusqlite::{Connection, OptionalExtension, params};
use wherry_bundle::Name;

use super::error::{self, DbError, What};
use crate::view::Customer;

/// # Errors
/// [`DbError::Taken`].
pub fn add(connection: &Connection, name: &Name, now: u64) -> Result<(), DbError> {
    connection
        .execute(
            "INSERT INTO customer (name, created_at) VALUES (?1, ?2)",
            params![name.as_str(), now],
        )
        .map_err(error::taken(What::Customer, name))?;
    Ok(())
}

/// Ordered by name.
///
/// # Errors
/// The database's.
pub fn list(connection: &Connection) -> Result<Vec<Customer>, DbError> {
    let names = error::names(connection, "SELECT name FROM customer ORDER BY name", [])?;
    names.iter().map(|name| show(connection, name)).collect()
}

/// # Errors
/// [`DbError::NotFound`].
pub fn show(connection: &Connection, name: &Name) -> Result<Customer, DbError> {
    let created_at = connection
        .query_row("SELECT created_at FROM customer WHERE name = ?1", [name.as_str()], |row| {
            row.get(0)
        })
        .optional()?
        .ok_or_else(|| DbError::not_found(What::Customer, name))?;
    Ok(Customer { name: name.clone(), projects: projects(connection, name)?, created_at })
}

/// # Errors
/// [`DbError::NotFound`], or [`DbError::InUse`] by projects.
pub fn remove(connection: &Connection, name: &Name) -> Result<(), DbError> {
    let customer = show(connection, name)?;
    let users = customer.projects.iter().map(|project| format!("project `{project}`"));
    error::unused(What::Customer, name, users.collect())?;
    connection.execute("DELETE FROM customer WHERE name = ?1", [name.as_str()])?;
    Ok(())
}

fn projects(connection: &Connection, name: &Name) -> Result<Vec<Name>, DbError> {
    let sql = "SELECT name FROM project WHERE customer = ?1 ORDER BY name";
    error::names(connection, sql, [name.as_str()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::project;

    #[test]
    fn names_are_checked() {
        let (_dir, db) = crate::db::tests::open();
        let acme: Name = "acme".parse().unwrap();
        let plant: Name = "plant".parse().unwrap();
        db.write(|tx| add(tx, &acme, 7)).unwrap();
        let taken = db.write(|tx| add(tx, &acme, 8)).unwrap_err();
        assert_eq!(taken.to_string(), "there is a customer `acme` already");
        db.write(|tx| project::add(tx, &plant, &acme, 9)).unwrap();
        let in_use = db.write(|tx| remove(tx, &acme)).unwrap_err();
        assert_eq!(in_use.to_string(), "customer `acme` is used by project `plant`");
        db.write(|tx| project::remove(tx, &plant)).unwrap();
        db.write(|tx| remove(tx, &acme)).unwrap();
        let gone = db.write(|tx| remove(tx, &acme)).unwrap_err();
        assert_eq!(gone.to_string(), "there is no customer `acme`");
    }
}
