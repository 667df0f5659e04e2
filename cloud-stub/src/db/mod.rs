//! Everything that the cloud remembers: one SQLite file, `DATA/cloud.db`.
//!
//! One connection behind a lock: statements are short, and SQLite has one
//! writer anyway. Each entity has a file of functions over a connection;
//! [`Db::write`] makes a transaction of them. Never here: HTTP, MQTT, and
//! anything slow inside of a transaction.

pub mod application;
pub mod carried;
pub mod chunk;
pub mod customer;
pub mod error;
pub mod event;
pub mod image;
pub mod node;
pub mod project;
pub mod rollout;
pub mod site;
pub mod version;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};

pub use error::{DbError, What};

/// The form of the tables, one entry for each change ever made. Never edit
/// one that was released: append.
const MIGRATIONS: [&str; 3] =
    [include_str!("schema_1.sql"), include_str!("schema_2.sql"), include_str!("schema_3.sql")];
/// Another process at the same file, such as a backup, may hold it this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Db {
    connection: Mutex<Connection>,
}

impl Db {
    /// Opens the file, makes it if it is not there, and brings its tables to
    /// the newest form.
    ///
    /// # Errors
    /// SQLite's, or a file that a newer program wrote.
    pub fn open(path: &Path) -> Result<Self, DbError> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A commit is on the disk when it returns: events are acknowledged
        // on the strength of it.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        migrate(&mut connection)?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// Reads.
    ///
    /// # Errors
    /// What `read` says.
    pub fn read<T, E>(&self, read: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        read(&self.lock())
    }

    /// Writes, all or nothing: what `write` did is undone when it fails.
    ///
    /// # Errors
    /// What `write` says, or a commit that failed.
    pub fn write<T, E: From<DbError>>(
        &self,
        write: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.lock();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(DbError::from)?;
        let value = write(&transaction)?;
        transaction.commit().map_err(DbError::from)?;
        Ok(value)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic while the lock was held rolled its transaction back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn migrate(connection: &mut Connection) -> Result<(), DbError> {
    let found: usize = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > MIGRATIONS.len() {
        return Err(DbError::Newer { found, known: MIGRATIONS.len() });
    }
    for (number, sql) in MIGRATIONS.iter().enumerate().skip(found) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", number + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn open() -> (tempfile::TempDir, Db) {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("cloud.db")).unwrap();
        (dir, db)
    }

    #[test]
    fn what_was_written_is_there_after_opening_again() {
        let (dir, db) = open();
        db.write(|tx| customer::add(tx, &"acme".parse().unwrap(), 1)).unwrap();
        drop(db);
        let db = Db::open(&dir.path().join("cloud.db")).unwrap();
        assert_eq!(db.read(customer::list).unwrap().len(), 1);
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let (_dir, db) = open();
        let error = db.write(|tx| {
            customer::add(tx, &"acme".parse().unwrap(), 1)?;
            project::add(tx, &"plant".parse().unwrap(), &"nobody".parse().unwrap(), 1)
        });
        assert!(error.is_err());
        assert_eq!(db.read(customer::list).unwrap(), []);
    }

    #[test]
    fn a_file_of_an_earlier_form_is_brought_up_to_date() {
        let (dir, db) = node::tests::with_node();
        let status = node::tests::online(3, wherry_bundle::message::Phase::Good);
        let name = node::tests::name("gw-1");
        db.write(|tx| node::set_status(tx, &name, &status, false, 1)).unwrap();
        let before = db.read(|c| node::detail(c, &name)).unwrap();
        db.read(|c| {
            c.execute_batch(
                "DROP TABLE chunk; DROP TABLE chunk_list; DROP TABLE carried;
                 UPDATE node SET status = json_remove(status, '$.flash', '$.transfer');
                 PRAGMA user_version = 1",
            )
        })
        .unwrap();
        assert!(db.read(node::list).is_err(), "the old form");
        drop(db);
        let db = Db::open(&dir.path().join("cloud.db")).unwrap();
        assert_eq!(db.read(|c| node::detail(c, &name)).unwrap(), before);
    }

    #[test]
    fn a_file_from_the_future_is_refused() {
        let (dir, db) = open();
        db.read(|c| c.pragma_update(None, "user_version", 99)).unwrap();
        drop(db);
        let error = Db::open(&dir.path().join("cloud.db")).unwrap_err().to_string();
        assert!(error.contains("form 99"), "{error}");
    }
}
