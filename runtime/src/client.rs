//! The supervisor's side of the socket to the launcher.
//!
//! [`LauncherClient`] asks, [`NoticeReader`] (one, in a thread of its own)
//! hears. Nothing is kept here: matching answers to questions by `seq` is the
//! supervisor's.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{Shutdown, shutdown};

use crate::packet::{self, PacketError, Received, Wait};
use crate::proto::{Notice, Packet};
use crate::sys;

/// The descriptor on which a supervisor finds its socket.
pub const SUPERVISOR_FD: i32 = 3;

/// Why there is no launcher to talk to.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("this command is run by the launcher only: use `wherry run`")]
    NotStartedByLauncher,
    #[error("duplicating the socket to the launcher: {0}")]
    Duplicate(#[source] std::io::Error),
}

/// Sends requests.
#[derive(Debug)]
pub struct LauncherClient {
    socket: OwnedFd,
}

impl LauncherClient {
    /// Takes over descriptor [`SUPERVISOR_FD`], which the launcher left open
    /// for its supervisor. To be called once, first thing in the process.
    ///
    /// # Errors
    /// [`ClientError::NotStartedByLauncher`] when it is no such socket.
    pub fn from_inherited() -> Result<Self, ClientError> {
        let socket =
            sys::take_inherited_fd(SUPERVISOR_FD).map_err(|_| ClientError::NotStartedByLauncher)?;
        if !packet::is_packet_socket(socket.as_fd()) {
            return Err(ClientError::NotStartedByLauncher);
        }
        // It was executed as `/proc/self/exe`, which is how it would be listed.
        let _ = nix::sys::prctl::set_name(c"wherry-superv");
        Ok(Self { socket })
    }

    /// For tests and tools that made the pair themselves.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends one request; waits only while the launcher is behind by more
    /// than the kernel's socket buffer.
    ///
    /// # Errors
    /// The launcher is gone, or the packet is too large.
    pub fn send(&self, packet: &Packet) -> Result<(), PacketError> {
        let bytes = packet::encode(packet)?;
        packet::send_bytes(self.socket.as_fd(), &bytes, Wait::Yes).map(|_| ())
    }

    /// As [`Self::send`], with duplicates of `descriptors`.
    ///
    /// # Errors
    /// The launcher is gone, or the packet is too large.
    pub fn send_with(&self, packet: &Packet, descriptors: &[OwnedFd]) -> Result<(), PacketError> {
        let bytes = packet::encode(packet)?;
        packet::send_with(self.socket.as_fd(), &bytes, descriptors)
    }

    /// Ends the connection, for a reader in another thread too.
    pub fn shutdown(&self) {
        // Fails only if the launcher has done so before.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
    }

    /// The hearing end, for a thread.
    ///
    /// # Errors
    /// No free descriptor.
    pub fn reader(&self) -> Result<NoticeReader, ClientError> {
        let socket = self.socket.try_clone().map_err(ClientError::Duplicate)?;
        Ok(NoticeReader { socket, buffer: Vec::new() })
    }
}

/// Hears notices.
#[derive(Debug)]
pub struct NoticeReader {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl NoticeReader {
    /// Waits for the next notice; `None`: the launcher is gone, and this
    /// process has to end.
    ///
    /// # Errors
    /// A malformed packet (another one may follow), or the socket's error.
    pub fn recv(&mut self) -> Result<Option<Notice>, PacketError> {
        match packet::receive(self.socket.as_fd(), &mut self.buffer, Wait::Yes)? {
            Received::Packet(notice) => Ok(Some(notice)),
            // `Nothing` cannot be: the call waits.
            Received::Nothing | Received::End => Ok(None),
        }
    }
}
