//! Forgetting tracked connections, by ctnetlink.
//!
//! A UDP sender with a fixed port renews its tracked connection with every
//! packet: without this it would be sent to a pod that is long gone, or to
//! whoever has that address now.
//!
//! Format: `linux/netfilter/nfnetlink_conntrack.h`. Kernels before 6.11 cannot
//! choose what to delete by address, so the entries are listed first.

use std::net::Ipv4Addr;

use nix::errno::Errno;

use crate::message::{Message, Received, find};
use crate::netlink::{Netlink, NetlinkError};

// What libc has no name for.
const IPCTNL_MSG_CT_GET: i32 = 1;
const IPCTNL_MSG_CT_DELETE: i32 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const HEADER_BYTES: usize = 4;

/// By what the kernel finds an entry again.
#[derive(Debug)]
struct Entry {
    original: Vec<u8>,
    id: Vec<u8>,
}

/// Forgets every connection that is answered by `address`, in the calling
/// thread's network namespace. Gives how many there were.
pub fn forget_answered_by(address: Ipv4Addr) -> Result<usize, NetlinkError> {
    let netlink = Netlink::netfilter()?;
    let mut entries = Vec::new();
    netlink.query(
        || "list tracked connections".to_owned(),
        message(IPCTNL_MSG_CT_GET, libc::NLM_F_DUMP),
        |answer| entries.extend(entry_answered_by(answer, address)),
    )?;
    for entry in &entries {
        let message = message(IPCTNL_MSG_CT_DELETE, 0)
            .nested(CTA_TUPLE_ORIG, |tuple| tuple.raw(&entry.original))
            .attribute(CTA_ID, &entry.id);
        match netlink.request(|| format!("forget a connection to {address}"), message) {
            // It ended by itself meanwhile.
            Err(error) if error.errno() == Some(Errno::ENOENT) => (),
            outcome => outcome?,
        }
    }
    Ok(entries.len())
}

fn entry_answered_by(answer: Received<'_>, address: Ipv4Addr) -> Option<Entry> {
    let attributes = answer.body.get(HEADER_BYTES..)?;
    let reply = find(find(attributes, CTA_TUPLE_REPLY)?, CTA_TUPLE_IP)?;
    if find(reply, CTA_IP_V4_SRC)? != address.octets() {
        return None;
    }
    let original = find(attributes, CTA_TUPLE_ORIG)?.to_vec();
    Some(Entry { original, id: find(attributes, CTA_ID)?.to_vec() })
}

fn message(kind: i32, flags: i32) -> Message {
    let flags = libc::NLM_F_REQUEST | flags;
    Message::nfnetlink(libc::NFNL_SUBSYS_CTNETLINK, kind, flags, libc::NFPROTO_IPV4, 0)
}
