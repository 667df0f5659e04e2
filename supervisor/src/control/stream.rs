//! Frames on a Unix stream, with deadlines.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wherry_bundle::carrier::Item;
use wherry_bundle::frame::{self, FrameError};
use wherry_bundle::message::Message;
use wherry_bundle::wire::{self, WireError};

use super::protocol::SCHEMA;
use crate::io::Io;

/// One side of a connection.
#[derive(Debug)]
pub(crate) struct Frames {
    stream: Io<UnixStream>,
}

#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error(transparent)]
    Frame(#[from] FrameError<embedded_io::ErrorKind>),
    #[error("a message of the other side: {0}")]
    Wire(#[from] WireError),
    #[error("it closed the connection without an answer")]
    Ended,
    #[error("the file ends before its end")]
    Cut,
    #[error("setting a deadline: {0}")]
    Deadline(std::io::Error),
}

impl Frames {
    /// `read` and `write` bound each call; `None` waits.
    pub fn new(
        stream: UnixStream,
        read: Option<Duration>,
        write: Duration,
    ) -> Result<Self, StreamError> {
        stream.set_read_timeout(read).map_err(StreamError::Deadline)?;
        stream.set_write_timeout(Some(write)).map_err(StreamError::Deadline)?;
        Ok(Self { stream: Io(stream) })
    }

    pub fn socket(&self) -> &UnixStream {
        &self.stream.0
    }

    /// As [`Self::new`] has them, both alike.
    pub fn set_timeouts(&self, timeout: Duration) -> Result<(), StreamError> {
        self.socket().set_read_timeout(Some(timeout)).map_err(StreamError::Deadline)?;
        self.socket().set_write_timeout(Some(timeout)).map_err(StreamError::Deadline)
    }

    /// The next item of a carried file.
    pub fn item(&mut self) -> Result<Item, StreamError> {
        let payload = frame::read(&mut self.stream, Item::BYTES_MAX)?.ok_or(StreamError::Cut)?;
        Ok(Item::from_bytes(&payload)?)
    }

    pub fn send<T: Serialize>(&mut self, message: &T) -> Result<(), StreamError> {
        Ok(frame::write(&mut self.stream, &wire::encode(SCHEMA, message)?)?)
    }

    pub fn receive<T: DeserializeOwned>(&mut self, bytes_max: usize) -> Result<T, StreamError> {
        let payload = frame::read(&mut self.stream, bytes_max)?.ok_or(StreamError::Ended)?;
        Ok(wire::decode(SCHEMA, &payload)?)
    }
}
