//! Packets of at most [`PACKET_BYTES_MAX`] bytes on a `SOCK_SEQPACKET` pair.
//!
//! Only moves bytes: what a packet means is in [`crate::proto`]. Never waits
//! unless asked to.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, getsockopt,
    recvmsg, send, sendmsg, socketpair, sockopt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wherry_bundle::wire::{self, WireError};

use crate::proto::PACKET_BYTES_MAX;
use crate::sys;

/// Changes whenever the postcard form of a packet or a notice does: the two
/// processes are one binary, so a difference means that one was replaced.
pub const PACKET_SCHEMA: u8 = 2;

/// Descriptors that come with one packet: standard streams.
pub const DESCRIPTORS_MAX: usize = 3;

/// Why a packet did not go through.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    #[error("socket between launcher and supervisor: {0}")]
    Socket(#[source] Errno),
    #[error("a packet from the other side: {0}")]
    Wire(#[from] WireError),
    #[error("a packet of {bytes} bytes, where at most {PACKET_BYTES_MAX} are allowed")]
    TooLarge { bytes: usize },
}

/// What [`receive`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<T> {
    Packet(T),
    /// Nothing is there now; only without waiting.
    Nothing,
    /// The other side is gone.
    End,
}

/// Whether a call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Yes,
    No,
}

/// Both ends of a new pair, close-on-exec.
///
/// # Errors
/// What `socketpair(2)` says.
pub fn pair() -> Result<(OwnedFd, OwnedFd), PacketError> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(PacketError::Socket)
}

/// Whether `fd` is a socket of the kind that [`pair`] makes.
#[must_use]
pub fn is_packet_socket(fd: BorrowedFd<'_>) -> bool {
    getsockopt(&fd, sockopt::SockType) == Ok(SockType::SeqPacket)
}

/// The bytes of one packet.
///
/// # Errors
/// [`PacketError::TooLarge`]; the types of [`crate::proto`] stay below it.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, PacketError> {
    let bytes = wire::encode(PACKET_SCHEMA, value)?;
    if bytes.len() > PACKET_BYTES_MAX {
        return Err(PacketError::TooLarge { bytes: bytes.len() });
    }
    Ok(bytes)
}

/// Sends one packet whole. `false`: it would have had to wait.
///
/// # Errors
/// What `send(2)` says; `EPIPE` when the other side is gone.
pub fn send_bytes(fd: BorrowedFd<'_>, bytes: &[u8], wait: Wait) -> Result<bool, PacketError> {
    loop {
        match send(fd.as_raw_fd(), bytes, flags(wait) | MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if wait == Wait::No => return Ok(false),
            Err(errno) => return Err(PacketError::Socket(errno)),
        }
    }
}

/// Sends one packet whole, waiting for room, and duplicates of descriptors with
/// it (`SCM_RIGHTS` of `unix(7)`).
///
/// # Errors
/// What `sendmsg(2)` says.
pub fn send_with(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[OwnedFd],
) -> Result<(), PacketError> {
    let descriptors: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let (bytes, rights) = ([IoSlice::new(bytes)], [ControlMessage::ScmRights(&descriptors)]);
    loop {
        match sendmsg::<()>(fd.as_raw_fd(), &bytes, &rights, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(PacketError::Socket(errno)),
        }
    }
}

/// Descriptors that came with one byte on a stream: the other side used
/// [`send_with`] for both.
///
/// # Errors
/// What `recvmsg(2)` says; `ECONNRESET` when the other side is gone.
pub fn take_descriptors(stream: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, PacketError> {
    let mut byte = [0];
    match receive_message(stream, &mut byte, MsgFlags::empty())? {
        (0, _) => Err(PacketError::Socket(Errno::ECONNRESET)),
        (_, descriptors) => Ok(descriptors),
    }
}

/// How many bytes came, and what came along.
fn receive_message(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: MsgFlags,
) -> Result<(usize, Vec<OwnedFd>), PacketError> {
    let mut rights = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    loop {
        let mut slices = [IoSliceMut::new(buffer)];
        match recvmsg::<()>(fd.as_raw_fd(), &mut slices, Some(&mut rights), flags) {
            Ok(message) => {
                let mut descriptors = Vec::new();
                for rights in message.cmsgs().map_err(PacketError::Socket)? {
                    if let ControlMessageOwned::ScmRights(received) = rights {
                        descriptors.extend(received.into_iter().map(sys::received_fd));
                    }
                }
                return Ok((message.bytes, descriptors));
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(PacketError::Socket(errno)),
        }
    }
}

/// Receives one packet; descriptors that came with it are closed. `buffer` is
/// the caller's, to be used again.
///
/// # Errors
/// A packet that is too large or malformed is consumed, so that the next
/// call sees the next one.
pub fn receive<T: DeserializeOwned>(
    fd: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    wait: Wait,
) -> Result<Received<T>, PacketError> {
    Ok(match receive_with(fd, buffer, wait)? {
        Received::Packet((packet, _)) => Received::Packet(packet),
        Received::Nothing => Received::Nothing,
        Received::End => Received::End,
    })
}

/// As [`receive`], with the descriptors, at most [`DESCRIPTORS_MAX`].
///
/// # Errors
/// As [`receive`].
pub fn receive_with<T: DeserializeOwned>(
    fd: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    wait: Wait,
) -> Result<Received<(T, Vec<OwnedFd>)>, PacketError> {
    buffer.resize(PACKET_BYTES_MAX, 0);
    // With MSG_TRUNC the kernel tells the packet's real length.
    let received = receive_message(fd, buffer, flags(wait) | MsgFlags::MSG_TRUNC);
    let (bytes, descriptors) = match received {
        Ok((0, _)) | Err(PacketError::Socket(Errno::ECONNRESET)) => return Ok(Received::End),
        Err(PacketError::Socket(Errno::EAGAIN)) if wait == Wait::No => {
            return Ok(Received::Nothing);
        }
        received => received?,
    };
    let packet = buffer.get(..bytes).ok_or(PacketError::TooLarge { bytes })?;
    Ok(Received::Packet((wire::decode(PACKET_SCHEMA, packet)?, descriptors)))
}

fn flags(wait: Wait) -> MsgFlags {
    match wait {
        Wait::Yes => MsgFlags::empty(),
        Wait::No => MsgFlags::MSG_DONTWAIT,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::proto::{Notice, Packet, Request};

    #[test]
    fn packets_arrive_whole_and_end_cleanly() {
        let (a, b) = pair().unwrap();
        assert!(is_packet_socket(a.as_fd()));
        let mut buffer = Vec::new();
        let packet = Packet { seq: 7, request: Request::List };
        assert_eq!(receive::<Packet>(b.as_fd(), &mut buffer, Wait::No).unwrap(), Received::Nothing);
        assert!(send_bytes(a.as_fd(), &encode(&packet).unwrap(), Wait::Yes).unwrap());
        let got = receive(b.as_fd(), &mut buffer, Wait::Yes).unwrap();
        assert_eq!(got, Received::Packet(packet));
        drop(a);
        assert_eq!(receive::<Packet>(b.as_fd(), &mut buffer, Wait::Yes).unwrap(), Received::End);
    }

    #[test]
    fn descriptors_come_along_and_are_closed_if_nobody_wants_them() {
        use std::io::{Read, Write};
        let (a, b) = pair().unwrap();
        let mut buffer = Vec::new();
        let bytes = encode(&Notice::Done { seq: 3 }).unwrap();
        for is_wanted in [true, false] {
            let (mut reader, writer) = std::io::pipe().unwrap();
            send_with(a.as_fd(), &bytes, &[writer.into()]).unwrap();
            if is_wanted {
                let received = receive_with::<Notice>(b.as_fd(), &mut buffer, Wait::Yes).unwrap();
                let Received::Packet((Notice::Done { seq: 3 }, mut fds)) = received else {
                    panic!("{received:?}")
                };
                std::fs::File::from(fds.remove(0)).write_all(b"here").unwrap();
            } else {
                receive::<Notice>(b.as_fd(), &mut buffer, Wait::Yes).unwrap();
            }
            let mut text = String::new();
            // It ends: no other copy of the writing end is left.
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, if is_wanted { "here" } else { "" });
        }
    }

    #[test]
    fn malformed_packets_are_refused_one_by_one() {
        let (a, b) = pair().unwrap();
        let mut buffer = Vec::new();
        send_bytes(a.as_fd(), &vec![1; PACKET_BYTES_MAX + 1], Wait::Yes).unwrap();
        send_bytes(a.as_fd(), &[PACKET_SCHEMA + 1, 0], Wait::Yes).unwrap();
        send_bytes(a.as_fd(), &encode(&Notice::Done { seq: 3 }).unwrap(), Wait::Yes).unwrap();
        let mut next = || receive::<Notice>(b.as_fd(), &mut buffer, Wait::Yes);
        assert!(matches!(next(), Err(PacketError::TooLarge { .. })));
        assert!(matches!(next(), Err(PacketError::Wire(WireError::Schema { .. }))));
        assert_eq!(next().unwrap(), Received::Packet(Notice::Done { seq: 3 }));
    }
}
