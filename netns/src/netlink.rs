//! The netlink socket: sends messages, waits for the kernel's answers.
//!
//! A socket belongs to the network namespace in which it was opened, whatever
//! namespace its user is in later. It must NOT know what messages mean.

use std::cell::Cell;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{ReceiveTimeout, SndBufForce};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendmsg,
    setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::message::{Message, Received, messages};

/// The kernel answers at once, but may first wait for its own locks: deleting
/// links in another namespace holds them for tens of milliseconds.
const ANSWER_SECONDS_MAX: i64 = 10;
/// The largest packet that the kernel makes for a dump.
const PACKET_BYTES_MAX: usize = 32 * 1024;
/// What a sent packet may hold, with the kernel's own overhead: the rules of
/// 64 services with 128 pods and 32 ports each.
const SEND_BYTES_MAX: usize = 32 * 1024 * 1024;

/// An rtnetlink socket. Not shared between threads.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: Cell<u32>,
}

#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("cannot open a netlink socket: {0}")]
    Open(Errno),
    #[error("cannot {action}: {source}{}", hint(*.source))]
    Refused { action: String, source: Errno },
    #[error("cannot {action}: no answer from the kernel within {ANSWER_SECONDS_MAX} s")]
    NoAnswer { action: String },
}

impl NetlinkError {
    /// What the kernel said, if it answered.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Open(errno) | Self::Refused { source: errno, .. } => Some(*errno),
            Self::NoAnswer { .. } => None,
        }
    }
}

fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => " (needs CAP_NET_ADMIN)",
        Errno::EOPNOTSUPP | Errno::ENOENT => {
            " (the kernel may lack BRIDGE, VETH, NF_TABLES_IPV4 or an NFT_… option)"
        }
        _ => "",
    }
}

impl Netlink {
    /// Opens rtnetlink in the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel refused the socket.
    pub fn open() -> Result<Self, NetlinkError> {
        Self::with(SockProtocol::NetlinkRoute)
    }

    pub(crate) fn netfilter() -> Result<Self, NetlinkError> {
        Self::with(SockProtocol::NetlinkNetFilter)
    }

    fn with(protocol: SockProtocol) -> Result<Self, NetlinkError> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)
            .map_err(NetlinkError::Open)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(NetlinkError::Open)?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(ANSWER_SECONDS_MAX))
            .map_err(NetlinkError::Open)?;
        Ok(Self { socket, sequence: Cell::new(1) })
    }

    /// Sends one message and waits until the kernel has done it.
    pub(crate) fn request(
        &self,
        action: impl Fn() -> String,
        message: Message,
    ) -> Result<(), NetlinkError> {
        let sequence = self.next();
        self.send(&message.flag(libc::NLM_F_ACK).finish(sequence)).map_err(refused(&action))?;
        self.answers(&action, |answer| match answer.error() {
            Some(0) if answer.sequence == sequence => Some(Ok(())),
            Some(errno) if answer.sequence == sequence => Some(Err(Errno::from_raw(errno))),
            _ => None,
        })
    }

    /// Hands each answer to `take`, until the dump, or the one answer and its
    /// acknowledgement, is over.
    pub(crate) fn query(
        &self,
        action: impl Fn() -> String,
        message: Message,
        mut take: impl FnMut(Received<'_>),
    ) -> Result<(), NetlinkError> {
        let sequence = self.next();
        self.send(&message.flag(libc::NLM_F_ACK).finish(sequence)).map_err(refused(&action))?;
        self.answers(&action, |answer| {
            if answer.sequence != sequence {
                return None;
            }
            match answer.error() {
                Some(0) => Some(Ok(())),
                Some(errno) => Some(Err(Errno::from_raw(errno))),
                None if i32::from(answer.kind) == libc::NLMSG_DONE => Some(Ok(())),
                None => {
                    take(answer);
                    None
                }
            }
        })
    }

    /// Sends the messages as one packet, which the kernel takes whole or not
    /// at all, and waits for the last one's acknowledgement. An error names
    /// the action of the message at fault.
    ///
    /// The kernel answers a batch in order, a failure of the whole first
    /// (`nfnetlink_rcv_batch` in `net/netfilter/nfnetlink.c`): the first error
    /// is the verdict. After one the socket is of no more use.
    pub(crate) fn transact(&self, batch: Batch) -> Result<(), NetlinkError> {
        let Batch { begin, steps, end } = batch;
        let first = self.next();
        let mut packet = begin.finish(first);
        let mut last = first;
        let count = steps.len();
        let mut actions = Vec::with_capacity(count);
        for (index, (action, message)) in steps.into_iter().enumerate() {
            last = self.next();
            let is_last = index + 1 == count;
            let message = if is_last { message.flag(libc::NLM_F_ACK) } else { message };
            packet.extend(message.finish(last));
            actions.push(action);
        }
        packet.extend(end.finish(self.next()));
        let named = |sequence: u32| {
            let index = usize::try_from(sequence.wrapping_sub(first + 1)).unwrap_or(usize::MAX);
            actions.get(index).cloned().unwrap_or_else(|| "commit the nftables batch".to_owned())
        };

        setsockopt(&self.socket, SndBufForce, &packet.len().saturating_mul(2).min(SEND_BYTES_MAX))
            .map_err(refused(&|| "make room for the nftables batch".to_owned()))?;
        self.send(&packet).map_err(refused(&|| "send the nftables batch".to_owned()))?;
        let mut at_fault = last;
        self.answers(&|| named(last), |answer| {
            at_fault = answer.sequence;
            match answer.error() {
                Some(0) => (answer.sequence == last).then_some(Ok(())),
                Some(errno) => Some(Err(Errno::from_raw(errno))),
                None => None,
            }
        })
        .map_err(|error| match error {
            NetlinkError::Refused { source, .. } => {
                NetlinkError::Refused { action: named(at_fault), source }
            }
            other => other,
        })
    }

    fn send(&self, packet: &[u8]) -> Result<(), Errno> {
        let parts = [IoSlice::new(packet)];
        let kernel = NetlinkAddr::new(0, 0);
        loop {
            match sendmsg(self.socket.as_raw_fd(), &parts, &[], MsgFlags::empty(), Some(&kernel)) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => (),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Receives until `judge` has a verdict.
    fn answers(
        &self,
        action: &impl Fn() -> String,
        mut judge: impl FnMut(Received<'_>) -> Option<Result<(), Errno>>,
    ) -> Result<(), NetlinkError> {
        let mut packet = vec![0; PACKET_BYTES_MAX];
        loop {
            let received = match recv(self.socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                Ok(received) => received,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Err(NetlinkError::NoAnswer { action: action() }),
                Err(errno) => return Err(refused(action)(errno)),
            };
            let mut verdict = None;
            for answer in messages(packet.get(..received).unwrap_or_default()) {
                verdict = verdict.or_else(|| judge(answer));
            }
            if let Some(verdict) = verdict {
                return verdict.map_err(refused(action));
            }
        }
    }

    fn next(&self) -> u32 {
        let sequence = self.sequence.get();
        self.sequence.set(sequence.wrapping_add(1));
        sequence
    }
}

/// What an nfnetlink transaction holds: each message with what to say when it
/// is refused ("add …").
#[derive(Debug)]
pub(crate) struct Batch {
    pub begin: Message,
    pub steps: Vec<(String, Message)>,
    pub end: Message,
}

fn refused(action: &impl Fn() -> String) -> impl Fn(Errno) -> NetlinkError {
    move |source| NetlinkError::Refused { action: action(), source }
}
