//! The store's end: starts the keeper, asks, and waits for its end.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io::Read;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Answer, Failure, MESSAGE_BYTES_MAX, ROLE, Request};
use crate::control::Frames;
use crate::store::disk::{Batch, Page};
use crate::store::error::StoreError;

/// A commit on flash that is busy with its own housekeeping. Beyond it the
/// keeper counts as gone, and is killed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Closing a database writes its last page.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A running keeper with an open database. Dropping it closes the database.
#[derive(Debug)]
pub(in crate::store) struct Keeper {
    path: PathBuf,
    process: Child,
    frames: RefCell<Frames>,
    /// It did not answer, or not as agreed.
    is_lost: Cell<bool>,
}

impl Keeper {
    /// Starts `program` to open the database in folder `path`.
    pub fn start(program: &Path, path: &Path) -> Result<Self, StoreError> {
        let error = |source| StoreError::Start { path: path.to_owned(), source };
        let (ours, theirs) = UnixStream::pair().map_err(error)?;
        let process = Command::new(program)
            .arg(ROLE)
            .arg(path)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // Signals of a terminal are for the launcher.
            .process_group(0)
            .spawn()
            .map_err(error)?;
        let frames = Frames::new(ours, Some(ANSWER_TIMEOUT), ANSWER_TIMEOUT)
            .map_err(|error| gone(path, &error))?;
        let (frames, is_lost) = (RefCell::new(frames), Cell::new(false));
        let keeper = Self { path: path.to_owned(), process, frames, is_lost };
        match keeper.answer()? {
            Answer::Opened => Ok(keeper),
            other => Err(keeper.unexpected(other)),
        }
    }

    /// Whether it still runs and answers. It may have been killed for want
    /// of memory while nothing was asked of it.
    pub fn is_usable(&mut self) -> bool {
        !self.is_lost.get() && matches!(self.process.try_wait(), Ok(None))
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.ask(&Request::Get { key: key.to_vec() })? {
            Answer::Value(value) => Ok(value),
            other => Err(self.unexpected(other)),
        }
    }

    pub fn page(&self, prefix: &[u8], first: &[u8]) -> Result<Page, StoreError> {
        let request = Request::Page { prefix: prefix.to_vec(), first: first.to_vec() };
        match self.ask(&request)? {
            Answer::Page(page) => Ok(page),
            other => Err(self.unexpected(other)),
        }
    }

    pub fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        match self.ask(&Request::Commit(batch))? {
            Answer::Committed => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }

    fn ask(&self, request: &Request) -> Result<Answer, StoreError> {
        let sent = self.frames.borrow_mut().send(request);
        sent.map_err(|error| self.lost(&error))?;
        self.answer()
    }

    fn answer(&self) -> Result<Answer, StoreError> {
        let answer = self.frames.borrow_mut().receive(MESSAGE_BYTES_MAX);
        match answer.map_err(|error| self.lost(&error))? {
            Answer::Failed(Failure { is_locked: true, .. }) => {
                Err(StoreError::Locked { path: self.path.clone() })
            }
            Answer::Failed(Failure { text, errno, .. }) => Err(StoreError::Kept { text, errno }),
            answer => Ok(answer),
        }
    }

    fn unexpected(&self, answer: Answer) -> StoreError {
        self.lost(&format!("it answered {answer:?}"))
    }

    fn lost(&self, why: &dyn Display) -> StoreError {
        self.is_lost.set(true);
        gone(&self.path, why)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let stream = self.frames.get_mut().socket();
        let closed = stream
            .shutdown(Shutdown::Write)
            .and_then(|()| stream.set_read_timeout(Some(END_TIMEOUT)))
            // Its end of the stream lives as long as it does.
            .and_then(|()| std::io::copy(&mut stream.take(1), &mut std::io::sink()));
        if let Err(error) = closed {
            log::warn!(
                "{} is not closed in time, its keeper is killed: {error}",
                self.path.display()
            );
            // It fails when the keeper has just ended.
            let _ = self.process.kill();
        }
        if let Err(error) = self.process.wait() {
            log::warn!("waiting for the keeper of {}: {error}", self.path.display());
        }
    }
}

fn gone(path: &Path, why: &dyn Display) -> StoreError {
    StoreError::Gone { path: path.to_owned(), why: why.to_string() }
}
