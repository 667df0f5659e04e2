//! Frames on a Unix stream, with deadlines.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wherry_bundle::frame::{self, FrameError};
use wherry_bundle::wire::{self, WireError};

use super::protocol::SCHEMA;

/// One side of a connection.
#[derive(Debug)]
pub(crate) struct Frames {
    stream: Io,
}

/// `embedded-io`'s traits for a Unix stream.
#[derive(Debug)]
struct Io(UnixStream);

#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error(transparent)]
    Frame(#[from] FrameError<embedded_io::ErrorKind>),
    #[error("a message of the other side: {0}")]
    Wire(#[from] WireError),
    #[error("it closed the connection without an answer")]
    Ended,
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

    pub fn send<T: Serialize>(&mut self, message: &T) -> Result<(), StreamError> {
        Ok(frame::write(&mut self.stream, &wire::encode(SCHEMA, message)?)?)
    }

    pub fn receive<T: DeserializeOwned>(&mut self, bytes_max: usize) -> Result<T, StreamError> {
        let payload = frame::read(&mut self.stream, bytes_max)?.ok_or(StreamError::Ended)?;
        Ok(wire::decode(SCHEMA, &payload)?)
    }
}

impl embedded_io::ErrorType for Io {
    type Error = embedded_io::ErrorKind;
}

impl embedded_io::Read for Io {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        loop {
            match std::io::Read::read(&mut self.0, buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                result => return result.map_err(|error| error.kind().into()),
            }
        }
    }
}

impl embedded_io::Write for Io {
    fn write(&mut self, buffer: &[u8]) -> Result<usize, Self::Error> {
        loop {
            match std::io::Write::write(&mut self.0, buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                result => return result.map_err(|error| error.kind().into()),
            }
        }
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}
