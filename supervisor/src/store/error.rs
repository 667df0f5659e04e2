//! What can go wrong with the node's state.

use std::io;
use std::path::{Path, PathBuf};

use wherry_bundle::Generation;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("another process uses {}: stop it first", path.display())]
    Locked { path: PathBuf },
    #[error("cannot {what} the database {}: {source}", path.display())]
    Database { what: &'static str, path: PathBuf, source: sled::Error },
    /// As [`Self::Database`] or [`Self::Io`], in the keeper's process.
    #[error("{text}")]
    Kept { text: String, errno: Option<i32> },
    #[error("cannot start a process for the database {}: {source}", path.display())]
    Start { path: PathBuf, source: io::Error },
    /// Killed, out of memory, or the database made it fail.
    #[error("the process that keeps the database {} is gone ({why})", path.display())]
    Gone { path: PathBuf, why: String },
    /// The state is the one before it, and the next change builds on that.
    #[error("the database {} lost a change that was not acknowledged: ask again", path.display())]
    Lost { path: PathBuf },
    #[error("record `{record}`: {source}")]
    Record { record: String, source: RecordError },
    #[error("generation {asked} is not newer than {seen}, the newest that was taken up")]
    NotNewer { asked: Generation, seen: Generation },
    #[error("generation {asked} is not the current one, which is {current}")]
    NotCurrent { asked: Generation, current: Generation },
    #[error("{bytes} bytes, where an envelope has at most {max}")]
    TooLarge { bytes: usize, max: usize },
}

/// Why stored bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("missing, though another record refers to it")]
    Missing,
    #[error("its checksum does not match")]
    Checksum,
    #[error("version {found} is not known here (this build reads {known}): install a newer one")]
    Version { found: u8, known: u8 },
    #[error("malformed")]
    Malformed,
}

impl StoreError {
    /// Of the system call that failed, if it was one.
    pub(super) fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } | Self::Start { source, .. } => source.raw_os_error(),
            Self::Database { source: sled::Error::Io(source), .. } => source.raw_os_error(),
            Self::Kept { errno, .. } => *errno,
            Self::Database { .. }
            | Self::Locked { .. }
            | Self::Gone { .. }
            | Self::Lost { .. }
            | Self::Record { .. }
            | Self::NotNewer { .. }
            | Self::NotCurrent { .. }
            | Self::TooLarge { .. } => None,
        }
    }

    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    pub(super) fn database(what: &'static str, path: &Path) -> impl FnOnce(sled::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Database { what, path, source }
    }
}
