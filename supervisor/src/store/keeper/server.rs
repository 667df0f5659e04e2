//! The keeper itself.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use super::{Answer, Failure, MESSAGE_BYTES_MAX, Request};
use crate::control::{Frames, StreamError};
use crate::logger;
use crate::store::database::Database;
use crate::store::error::StoreError;

/// Whoever asked takes the answer at once.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves the process at the other end of standard input until that closes
/// it. Never returns before the database is closed.
#[must_use]
pub fn serve(path: &Path) -> ExitCode {
    logger::init("store");
    // It was executed as `/proc/self/exe`, which is how it would be listed.
    let _ = nix::sys::prctl::set_name(c"wherry-store");
    match exchange(path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

fn exchange(path: &Path) -> Result<(), StreamError> {
    ignore_farewells().map_err(StreamError::Deadline)?;
    let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(StreamError::Deadline)?;
    let mut frames = Frames::new(UnixStream::from(stdin), None, SEND_TIMEOUT)?;
    let database = match Database::open(path) {
        Ok(database) => database,
        Err(error) => return frames.send(&Answer::Failed(failure(&error))),
    };
    frames.send(&Answer::Opened)?;
    loop {
        let answer = match frames.receive(MESSAGE_BYTES_MAX) {
            Ok(request) => answer(&database, request),
            Err(StreamError::Ended) => return Ok(()),
            Err(error) => return Err(error),
        };
        frames.send(&answer)?;
    }
}

fn answer(database: &Database, request: Request) -> Answer {
    let result = match request {
        Request::Get { key } => database.get(&key).map(Answer::Value),
        Request::Page { prefix, first } => database.page(&prefix, &first).map(Answer::Page),
        Request::Commit(batch) => database.commit(batch).map(|()| Answer::Committed),
    };
    result.unwrap_or_else(|error| Answer::Failed(failure(&error)))
}

fn failure(error: &StoreError) -> Failure {
    Failure {
        text: error.to_string(),
        errno: error.errno(),
        is_locked: matches!(error, StoreError::Locked { .. }),
    }
}

/// An init system that ends a service asks every process to; this one ends
/// after the supervisor, whose last commit it has to make. Before any thread,
/// so that all inherit the mask.
fn ignore_farewells() -> io::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().map_err(io::Error::from)
}
