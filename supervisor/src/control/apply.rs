//! The supervisor's side of `wherry apply`: an update comes as items of a
//! carried file, which the client sends after its request.
//!
//! Here layers are imported, on the connection's own thread; what is done with
//! a bundle is the loop's matter.

use std::sync::mpsc::{self, SyncSender};
use std::time::Duration;

use wherry_bundle::Name;
use wherry_bundle::carrier::Item;
use wherry_bundle::limits::ENVELOPE_BYTES_MAX;

use super::protocol::Response;
use super::server::{ANSWER_TIMEOUT, Ask};
use super::stream::{Frames, StreamError};
use crate::layers::{Import, ImportError, Layers};

/// A stick that is read slowly, and layers that are copied before the next
/// chunk of the file is needed.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(600);
/// Nodes that one file can be for.
const ENVELOPES_MAX: usize = 16 * 1024;

/// What becomes of the file, for the client.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error("the file is not an update: it does not begin as one")]
    NotAnUpdate,
    #[error("the file has no bundle for node `{own}`, only for: {others}")]
    NotForUs { own: Name, others: String },
    #[error("the file has bundles for too many nodes")]
    TooMany,
    /// Said by the node.
    #[error("{0}")]
    Refused(String),
    #[error("the node is ending")]
    Ending,
    #[error("no answer in time")]
    NoAnswer,
}

/// Reads the file and applies it; the answer for the client.
pub(super) fn apply(
    frames: &mut Frames,
    own: &Name,
    layers: &Layers,
    ask: &dyn Fn(Ask) -> bool,
) -> Response {
    let result = import(frames, own, layers, ask);
    if result.is_err() {
        // Whatever was said before: the agent may fetch again.
        let (answer, _) = mpsc::sync_channel(1);
        ask(Ask::Apply { applied: None, answer });
    }
    result.unwrap_or_else(|error| Response::Error(error.to_string()))
}

fn import(
    frames: &mut Frames,
    own: &Name,
    layers: &Layers,
    ask: &dyn Fn(Ask) -> bool,
) -> Result<Response, ApplyError> {
    let (envelope, mut item) = envelope(frames, own)?;
    let offer = |answer| Ask::Offer { envelope: envelope.clone(), answer };
    let wanted = answer(ask, offer)?.map_err(ApplyError::Refused)?;
    let mut import = Import::new(layers.clone(), wanted);
    loop {
        let is_end = item == Item::End;
        import.take(item)?;
        if is_end {
            break;
        }
        item = frames.item()?;
    }
    let imported = import.finish()?;
    answer(ask, |answer| Ask::Apply { applied: Some((envelope.clone(), imported)), answer })
}

/// What the loop says.
fn answer<T>(
    ask: &dyn Fn(Ask) -> bool,
    question: impl Fn(SyncSender<T>) -> Ask,
) -> Result<T, ApplyError> {
    let (answer, answered) = mpsc::sync_channel(1);
    if !ask(question(answer)) {
        return Err(ApplyError::Ending);
    }
    answered.recv_timeout(ANSWER_TIMEOUT).map_err(|_| ApplyError::NoAnswer)
}

/// The bundle for this node, and the item behind the bundles.
fn envelope(frames: &mut Frames, own: &Name) -> Result<(Vec<u8>, Item), ApplyError> {
    let Item::Start(_) = frames.item()? else { return Err(ApplyError::NotAnUpdate) };
    let (mut found, mut others) = (None, Vec::new());
    loop {
        match frames.item()? {
            Item::Envelope { node, bytes } => {
                if others.len() == ENVELOPES_MAX {
                    return Err(ApplyError::TooMany);
                }
                if node == *own && bytes.len() <= ENVELOPE_BYTES_MAX {
                    found = Some(bytes);
                }
                others.push(node);
            }
            item => {
                let named = others.iter().map(Name::as_str).take(10).collect::<Vec<_>>();
                let others = named.join(", ");
                let envelope =
                    found.ok_or_else(|| ApplyError::NotForUs { own: own.clone(), others })?;
                return Ok((envelope, item));
            }
        }
    }
}
