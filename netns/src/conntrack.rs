//! Forgetting tracked connections, by ctnetlink.
//!
//! Rules meet the first packet of a connection only. A UDP sender with a fixed
//! port renews its connection with every packet: without this it would for
//! ever be sent to where its first packet went, be that a pod that is long
//! gone, or nowhere.
//!
//! Format: `linux/netfilter/nfnetlink_conntrack.h`. Kernels before 6.11 cannot
//! choose what to delete by address, so the entries are listed first.

use std::collections::BTreeSet;
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
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const HEADER_BYTES: usize = 4;
const UDP: u8 = 17;

/// One tracked connection.
#[derive(Debug)]
struct Flow {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    /// Who answers, and to whom: others than above where it is translated.
    answers_from: Ipv4Addr,
    answers_to: Ipv4Addr,
    protocol: u8,
    /// 0 of a protocol without ports.
    destination_port: u16,
    /// By what the kernel finds it again, as received.
    original: Vec<u8>,
    id: Vec<u8>,
}

/// Forgets every connection that `address` answers. Gives how many.
pub fn forget_answered_by(address: Ipv4Addr) -> Result<usize, NetlinkError> {
    forget(|flow| flow.answers_from == address)
}

/// Forgets UDP connections to these ports that began when nobody translated
/// them. Harmless to a connection that is none of ours: the kernel tracks it
/// anew from its next packet.
pub fn forget_untranslated(udp_ports: &BTreeSet<u16>) -> Result<usize, NetlinkError> {
    forget(|flow| {
        flow.protocol == UDP
            && udp_ports.contains(&flow.destination_port)
            && (flow.source, flow.destination) == (flow.answers_to, flow.answers_from)
    })
}

/// In the calling thread's network namespace.
fn forget(which: impl Fn(&Flow) -> bool) -> Result<usize, NetlinkError> {
    let netlink = Netlink::netfilter()?;
    let mut flows = Vec::new();
    netlink.query(
        || "list tracked connections".to_owned(),
        message(IPCTNL_MSG_CT_GET, libc::NLM_F_DUMP),
        |answer| flows.extend(flow(answer).filter(&which)),
    )?;
    for flow in &flows {
        let message = message(IPCTNL_MSG_CT_DELETE, 0)
            .nested(CTA_TUPLE_ORIG, |tuple| tuple.raw(&flow.original))
            .attribute(CTA_ID, &flow.id);
        let action = || format!("forget the connection {} to {}", flow.source, flow.destination);
        match netlink.request(action, message) {
            // It ended by itself meanwhile.
            Err(error) if error.errno() == Some(Errno::ENOENT) => (),
            outcome => outcome?,
        }
    }
    Ok(flows.len())
}

fn flow(answer: Received<'_>) -> Option<Flow> {
    let attributes = answer.body.get(HEADER_BYTES..)?;
    let original = find(attributes, CTA_TUPLE_ORIG)?;
    let (addresses, ports) = (find(original, CTA_TUPLE_IP)?, find(original, CTA_TUPLE_PROTO)?);
    let reply = find(find(attributes, CTA_TUPLE_REPLY)?, CTA_TUPLE_IP)?;
    let port = find(ports, CTA_PROTO_DST_PORT).and_then(|bytes| bytes.first_chunk());
    Some(Flow {
        source: address(addresses, CTA_IP_V4_SRC)?,
        destination: address(addresses, CTA_IP_V4_DST)?,
        answers_from: address(reply, CTA_IP_V4_SRC)?,
        answers_to: address(reply, CTA_IP_V4_DST)?,
        protocol: *find(ports, CTA_PROTO_NUM)?.first()?,
        destination_port: port.map_or(0, |bytes| u16::from_be_bytes(*bytes)),
        original: original.to_vec(),
        id: find(attributes, CTA_ID)?.to_vec(),
    })
}

fn address(attributes: &[u8], kind: u16) -> Option<Ipv4Addr> {
    find(attributes, kind)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
}

fn message(kind: i32, flags: i32) -> Message {
    let flags = libc::NLM_F_REQUEST | flags;
    Message::nfnetlink(libc::NFNL_SUBSYS_CTNETLINK, kind, flags, libc::NFPROTO_IPV4, 0)
}
