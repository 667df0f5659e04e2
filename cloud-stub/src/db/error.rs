//! Why the database says no.

use wherry_bundle::BuildVersion;

use crate::view::VersionId;

/// What kind of thing a name is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Customer,
    Project,
    Node,
    Application,
    Image,
    Version,
    Rollout,
}

impl What {
    /// As the command line calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Project => "project",
            Self::Node => "node",
            Self::Application => "application",
            Self::Image => "image",
            Self::Version => "version",
            Self::Rollout => "rollout",
        }
    }
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DbError {
    #[error("there is no {what} `{name}`")]
    NotFound { what: What, name: String },
    #[error("there is a {what} `{name}` already")]
    Taken { what: What, name: String },
    /// `by` is cut to a readable length.
    #[error("{what} `{name}` is used by {}", .by.join(", "))]
    InUse { what: What, name: String, by: Vec<String> },
    #[error("the database has form {found}, and this program knows forms up to {known}: update it")]
    Newer { found: usize, known: usize },
    #[error("the database holds something that this program did not write: {0}")]
    Corrupt(String),
    #[error("database: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

impl DbError {
    pub(crate) fn not_found(what: What, name: impl ToString) -> Self {
        Self::NotFound { what, name: name.to_string() }
    }

    pub(crate) fn version_not_found(application: &impl ToString, number: BuildVersion) -> Self {
        let name = format!("{}@{number}", application.to_string());
        Self::NotFound { what: What::Version, name }
    }
}

/// Users of a thing that an error names; the rest are counted.
const USERS_NAMED_MAX: usize = 10;

/// An error if `users` is not empty.
pub(crate) fn unused(what: What, name: &dyn ToString, users: Vec<String>) -> Result<(), DbError> {
    let count = users.len();
    if count == 0 {
        return Ok(());
    }
    let mut by: Vec<String> = users.into_iter().take(USERS_NAMED_MAX).collect();
    if count > by.len() {
        by.push(format!("and {} more", count - by.len()));
    }
    Err(DbError::InUse { what, name: name.to_string(), by })
}

/// For `map_err` on an insert: a key that is there already has a name.
pub(crate) fn taken(what: What, name: &dyn ToString) -> impl FnOnce(rusqlite::Error) -> DbError {
    let name = name.to_string();
    move |error| match error.sqlite_error().map(|error| error.extended_code) {
        Some(
            rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY | rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE,
        ) => DbError::Taken { what, name },
        _ => DbError::Sqlite(error),
    }
}

/// Reads a name back.
pub(crate) fn name(text: &str) -> Result<wherry_bundle::Name, DbError> {
    text.parse().map_err(|error| DbError::Corrupt(format!("{error}")))
}

/// Reads a version's number back.
pub(crate) fn number(text: &str) -> Result<BuildVersion, DbError> {
    text.parse().map_err(|error| DbError::Corrupt(format!("{error}")))
}

/// Reads a JSON column back.
pub(crate) fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, DbError> {
    serde_json::from_str(text).map_err(|error| DbError::Corrupt(error.to_string()))
}

/// Writes a JSON column.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, DbError> {
    serde_json::to_string(value).map_err(|error| DbError::Corrupt(error.to_string()))
}

/// Reads names from a statement's first column.
pub(crate) fn names(
    connection: &rusqlite::Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> Result<Vec<wherry_bundle::Name>, DbError> {
    texts(connection, sql, parameters)?.iter().map(|text| name(text)).collect()
}

/// Reads texts from a statement's first column.
pub(crate) fn texts(
    connection: &rusqlite::Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> Result<Vec<String>, DbError> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(parameters, |row| row.get::<_, String>(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Reads `APPLICATION@NUMBER` back.
pub(crate) fn version_id(application: &str, number_text: &str) -> Result<VersionId, DbError> {
    Ok(VersionId { application: name(application)?, number: number(number_text)? })
}
