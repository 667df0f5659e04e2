//! A process of its own for the database, `wherry store-keeper PATH`: started
//! when something is to be committed or read, ended soon after.
//!
//! sled's threads wake each second for as long as their process lives, and
//! its memory stays; an idle node has neither. And a database whose damage
//! makes sled fail takes nothing else along.
//! One request, one answer, over a Unix stream that is the keeper's standard
//! input; when the stream ends, so does the keeper. Both ends are the same
//! program, so the schema needs no history.

mod client;
mod server;

use serde::{Deserialize, Serialize};
use wherry_bundle::limits::ENVELOPE_BYTES_MAX;

use super::disk::{Batch, Page};
use super::outbox::EVENTS_BYTES_MAX;
pub(super) use client::Keeper;
pub use server::serve;

/// The word on the command line, followed by the database's folder.
pub const ROLE: &str = "store-keeper";
/// A commit of a bundle with a full outbox, and keys and lengths around it.
const MESSAGE_BYTES_MAX: usize = 2 * (ENVELOPE_BYTES_MAX + EVENTS_BYTES_MAX);

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Get { key: Vec<u8> },
    Page { prefix: Vec<u8>, first: Vec<u8> },
    Commit(Batch),
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// The first one, without a request.
    Opened,
    Value(Option<Vec<u8>>),
    Page(Page),
    Committed,
    Failed(Failure),
}

#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    text: String,
    errno: Option<i32>,
    /// Another process has the database open.
    is_locked: bool,
}
