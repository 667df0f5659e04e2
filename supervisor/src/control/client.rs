//! The command line's side of the control socket.

use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wherry_runtime::packet;

use super::apply::STALL_TIMEOUT;
use super::protocol::{RESPONSE_BYTES_MAX, Request, Response};
use super::stream::{Frames, StreamError};

/// An answer of the loop takes milliseconds; a supervisor that is busy
/// committing to a slow flash takes longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const FILE_BUFFER_BYTES: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no node answers at {}: {source} (is `wherry run` running, and is this its run_dir? \
         give --config or --run-dir)",
        path.display()
    )]
    Connect { path: PathBuf, source: io::Error },
    #[error("{}: {source} (only root may ask the node)", path.display())]
    Denied { path: PathBuf, source: io::Error },
    #[error("the node's answer: {0}")]
    Stream(#[from] StreamError),
    #[error("the file cannot be read: {0}")]
    File(io::Error),
    #[error("the node does not take the standard streams: {0}")]
    Streams(String),
    #[error("{0}")]
    Refused(String),
    #[error("the node answered something else: its version differs from this command's")]
    Unexpected,
}

/// One question and its answers.
#[derive(Debug)]
pub struct Client {
    frames: Frames,
}

impl Client {
    /// Connects to the socket at `path` and asks.
    ///
    /// # Errors
    /// Nobody listens there, or this user may not connect.
    pub fn ask(path: &Path, request: &Request) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|source| {
            let path = path.to_owned();
            if source.kind() == io::ErrorKind::PermissionDenied {
                ClientError::Denied { path, source }
            } else {
                ClientError::Connect { path, source }
            }
        })?;
        // A follower of logs waits as long as its container is silent, who runs
        // a command for its end.
        let waits = match request {
            Request::Logs(query) => query.follow,
            Request::Exec(_) => true,
            _ => false,
        };
        let timeout = (!waits).then_some(ANSWER_TIMEOUT);
        let mut frames = Frames::new(stream, timeout, ANSWER_TIMEOUT)?;
        if let Err(error) = frames.send(request) {
            // A node that is busy answers without having listened.
            return match frames.receive(RESPONSE_BYTES_MAX) {
                Ok(Response::Error(reason)) => Err(ClientError::Refused(reason)),
                Ok(_) | Err(_) => Err(error.into()),
            };
        }
        Ok(Self { frames })
    }

    /// Sends the bytes of a carried file after [`Request::Apply`]. A node that
    /// has heard enough answers before the end: that is no error here.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn send_file(&mut self, file: &mut impl io::Read) -> Result<(), ClientError> {
        self.frames.set_timeouts(STALL_TIMEOUT)?;
        let mut socket = self.frames.socket();
        let mut buffer = vec![0; FILE_BUFFER_BYTES];
        loop {
            let sent = match file.read(&mut buffer).map_err(ClientError::File)? {
                // The node must not wait for more of a file that was cut.
                0 => return socket.shutdown(Shutdown::Write).or(Ok(())),
                length => socket.write_all(&buffer[..length]),
            };
            if let Err(error) = sent {
                log::debug!("the node takes no more of the file: {error}");
                return Ok(());
            }
        }
    }

    /// Sends the standard streams after [`Request::Exec`].
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the node's reason, or the connection's
    /// end.
    pub fn send_streams(&mut self, streams: &[OwnedFd]) -> Result<(), ClientError> {
        match self.answer()? {
            Response::Done => {}
            _ => return Err(ClientError::Unexpected),
        }
        packet::send_with(self.frames.socket().as_fd(), &[0], streams)
            .map_err(|error| ClientError::Streams(error.to_string()))
    }

    /// Readable once an answer is there.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.frames.socket().as_fd()
    }

    /// The next answer.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the node's reason, or the connection's
    /// end.
    pub fn answer(&mut self) -> Result<Response, ClientError> {
        match self.frames.receive(RESPONSE_BYTES_MAX)? {
            Response::Error(reason) => Err(ClientError::Refused(reason)),
            response => Ok(response),
        }
    }
}
