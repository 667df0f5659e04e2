//! Delivers a query's lines to whoever asked, and goes on with new ones.
//!
//! Runs on a thread of the one who asked: it waits, so it must never be
//! called in the supervisor's loop.

use std::time::Duration;

use wherry_bundle::message::{LogLine, LogQuery};

use super::LogError;
use super::collector::Progress;
use super::file::LogFolder;
use super::read::Merged;

/// How often a follower looks whether it is still wanted while nothing is
/// printed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Hands batches of lines to `deliver`, which says false when nobody wants
/// more. With `follow`, waits for new lines as long as `goes_on` says so.
///
/// # Errors
/// What was asked for is not there, or the run folder.
pub fn stream(
    folder: &LogFolder,
    query: &LogQuery,
    progress: &Progress,
    mut deliver: impl FnMut(Vec<LogLine>) -> bool,
    mut goes_on: impl FnMut() -> bool,
) -> Result<(), LogError> {
    let mut merged = Merged::open(folder, query)?;
    loop {
        // Before reading: a write after it ends the wait below at once.
        let seen = progress.count();
        loop {
            let lines = merged.batch()?;
            if lines.is_empty() {
                break;
            }
            if !deliver(lines) {
                return Ok(());
            }
        }
        if !query.follow || !goes_on() {
            return Ok(());
        }
        progress.wait(seen, LOOK_INTERVAL);
        merged.refresh()?;
    }
}
