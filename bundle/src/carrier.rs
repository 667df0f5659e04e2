//! Files that a person carries: an update to a node without a line, and the
//! node's report back. Both are frames ([`crate::frame`]), one [`Message`] a
//! frame.
//!
//! An update: [`Item::Start`], an [`Item::Envelope`] for each node that may
//! take it, then each layer: [`Item::Layer`], its [`Item::List`]s, and those
//! [`Item::Chunk`]s of it that the file has, in the order of the layer;
//! [`Item::End`] last. A report: [`ReportItem::Status`],
//! [`ReportItem::Events`]…, [`ReportItem::End`].
//!
//! Nothing in an update is trusted: its envelopes are signed, lists and chunks
//! are named by what is signed. A report is signed by nobody: it is as
//! trustworthy as the person who brings it.

use embedded_io::{Read, Write};
use serde::{Deserialize, Serialize};

use crate::Name;
use crate::frame::{self, FrameError};
use crate::limits::MQTT_PAYLOAD_BYTES_MAX;
use crate::message::{Events, Message, NodeStatus};
use crate::model::Layer;
use crate::wire::WireError;

/// A part of an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    Start(Start),
    /// For one node: [`crate::envelope`].
    Envelope {
        node: Name,
        bytes: Vec<u8>,
    },
    /// What follows is of this layer.
    Layer(Layer),
    /// A chunk list: [`crate::chunk::ChunkList`].
    List(Vec<u8>),
    Chunk(Vec<u8>),
    /// The file is whole.
    End,
}
impl Message for Item {
    const BYTES_MAX: usize = MQTT_PAYLOAD_BYTES_MAX;
}

/// What an update is, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Such as `shop@1.4.0.2`.
    pub version: String,
    /// The version whose chunks the file leaves out, if any.
    pub since: Option<String>,
}

/// A part of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReportItem {
    Status(Box<NodeStatus>),
    Events(Events),
    End,
}
impl Message for ReportItem {
    const BYTES_MAX: usize = MQTT_PAYLOAD_BYTES_MAX;
}

/// Why a carried file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CarrierError<E: core::fmt::Debug> {
    #[error(transparent)]
    Frame(#[from] FrameError<E>),
    #[error("{0}")]
    Contents(#[from] WireError),
}

/// Appends one item.
///
/// # Errors
/// An item that is too large, or what the stream says.
pub fn write<M: Message, W: Write>(stream: &mut W, item: &M) -> Result<(), CarrierError<W::Error>> {
    Ok(frame::write(stream, &item.to_bytes()?)?)
}

/// Reads the next item; `None` at a clean end of the stream.
///
/// # Errors
/// Damage, or what the stream says.
pub fn read<M: Message, R: Read>(stream: &mut R) -> Result<Option<M>, CarrierError<R::Error>> {
    match frame::read(stream, M::BYTES_MAX)? {
        Some(bytes) => Ok(Some(M::from_bytes(&bytes)?)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_read_back_and_damage_is_told() {
        let start = Start { version: "shop@1.0.0.1".into(), since: None };
        let items = [Item::Start(start), Item::Chunk(vec![7; 1000]), Item::End];
        let mut file = Vec::new();
        for item in &items {
            write(&mut file, item).unwrap();
        }
        let mut input = file.as_slice();
        for item in items {
            assert_eq!(read::<Item, _>(&mut input).unwrap(), Some(item));
        }
        assert_eq!(read::<Item, _>(&mut input).unwrap(), None);
        file[20] ^= 1;
        let error = read::<Item, _>(&mut file.as_slice()).unwrap_err();
        assert_eq!(error.to_string(), "the checksum of a frame does not match");
        let mut report = Vec::new();
        write(&mut report, &ReportItem::End).unwrap();
        // Of another kind: number 2 is a layer here.
        assert!(read::<Item, _>(&mut report.as_slice()).is_err());
    }
}
