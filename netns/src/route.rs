//! Links, addresses and routes by rtnetlink(7), one function a verb, all
//! idempotent. It must NOT know which links there should be.
//!
//! Formats: `linux/if_link.h`, `linux/if_addr.h`, `linux/rtnetlink.h`.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use crate::message::{Message, Received, attributes, find, text_of, u32_at};
use crate::netlink::{Netlink, NetlinkError};
use crate::subnet::Subnet;

// What libc has no name for.
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const LINK_HEADER_BYTES: usize = 16;
const ADDRESS_HEADER_BYTES: usize = 8;
const UP: u32 = libc::IFF_UP.unsigned_abs();

/// A network interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `bridge`, `veth`…; `None` of a physical one and of `lo`.
    pub kind: Option<String>,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    /// Of a veth: its other end's index, in the other end's namespace.
    pub peer: Option<u32>,
}

/// One end of a veth pair that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    pub name: &'a str,
    pub mac: [u8; 6],
}

pub fn link(netlink: &Netlink, name: &str) -> Result<Option<Link>, NetlinkError> {
    let mut found = None;
    let message = Message::new(libc::RTM_GETLINK, libc::NLM_F_REQUEST, &link_header(0, 0))
        .text(libc::IFLA_IFNAME, name);
    match netlink.query(
        || format!("look for link `{name}`"),
        message,
        |answer| found = found.take().or_else(|| parse_link(answer)),
    ) {
        Ok(()) => Ok(found),
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

pub fn links(netlink: &Netlink) -> Result<Vec<Link>, NetlinkError> {
    let mut found = Vec::new();
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    let message = Message::new(libc::RTM_GETLINK, flags, &link_header(0, 0));
    netlink.query(
        || "list links".to_owned(),
        message,
        |answer| found.extend(parse_link(answer)),
    )?;
    Ok(found)
}

/// A fixed `mac` keeps the bridge from taking on its ports' as they come and
/// go, which would leave pods with a wrong neighbour entry for their gateway.
pub fn add_bridge(netlink: &Netlink, name: &str, mac: [u8; 6]) -> Result<(), NetlinkError> {
    let message = new_link()
        .text(libc::IFLA_IFNAME, name)
        .attribute(libc::IFLA_ADDRESS, &mac)
        .nested(libc::IFLA_LINKINFO, |info| info.attribute(libc::IFLA_INFO_KIND, b"bridge"));
    netlink.request(|| format!("add bridge `{name}`"), message)
}

/// Makes a veth pair with its second end already in another namespace, so
/// that no moment exists in which the pair is in the wrong place.
///
/// One queue each: the default is one a processor, each with its memory.
pub fn add_veth(
    netlink: &Netlink,
    near: VethEnd<'_>,
    far: VethEnd<'_>,
    far_namespace: BorrowedFd<'_>,
) -> Result<(), NetlinkError> {
    let fd = far_namespace.as_raw_fd().unsigned_abs();
    let end = |message: Message, end: VethEnd<'_>| {
        message
            .text(libc::IFLA_IFNAME, end.name)
            .attribute(libc::IFLA_ADDRESS, &end.mac)
            .u32(libc::IFLA_NUM_TX_QUEUES, 1)
            .u32(libc::IFLA_NUM_RX_QUEUES, 1)
    };
    let message = end(new_link(), near).nested(libc::IFLA_LINKINFO, |info| {
        info.attribute(libc::IFLA_INFO_KIND, b"veth").nested(libc::IFLA_INFO_DATA, |data| {
            data.nested(VETH_INFO_PEER, |peer| {
                end(peer.raw(&link_header(0, 0)), far).u32(libc::IFLA_NET_NS_FD, fd)
            })
        })
    });
    netlink.request(|| format!("add veth `{}`", near.name), message)
}

/// Also of a link that is not there.
pub fn delete_link(netlink: &Netlink, link: &Link) -> Result<(), NetlinkError> {
    let header = link_header(link.index, 0);
    let message = Message::new(libc::RTM_DELLINK, libc::NLM_F_REQUEST, &header);
    match netlink.request(|| format!("delete link `{}`", link.name), message) {
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(()),
        outcome => outcome,
    }
}

pub fn set_up(netlink: &Netlink, link: &Link) -> Result<(), NetlinkError> {
    let header = link_header(link.index, UP);
    let message = Message::new(libc::RTM_NEWLINK, libc::NLM_F_REQUEST, &header);
    netlink.request(|| format!("set link `{}` up", link.name), message)
}

/// Keeps the kernel from giving the link an IPv6 link-local address, and with
/// it from sending duplicate detection and router solicitations.
pub fn without_ipv6_address(netlink: &Netlink, link: &Link) -> Result<(), NetlinkError> {
    let message = Message::new(libc::RTM_NEWLINK, libc::NLM_F_REQUEST, &link_header(link.index, 0))
        .nested(libc::IFLA_AF_SPEC, |families| {
            families.nested(AF_INET6, |inet6| {
                inet6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE])
            })
        });
    match netlink.request(|| format!("keep IPv6 off link `{}`", link.name), message) {
        // A kernel without IPv6 does what we want anyway.
        Err(error) if matches!(error.errno(), Some(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP)) => {
            Ok(())
        }
        outcome => outcome,
    }
}

/// Makes `link` a port of `bridge`, up, in hairpin mode: where br_netfilter is
/// loaded, a packet to a pod's own service goes back out of the port on which
/// it came in.
pub fn enslave(netlink: &Netlink, link: &Link, bridge: &Link) -> Result<(), NetlinkError> {
    let header = link_header(link.index, UP);
    let message = Message::new(libc::RTM_NEWLINK, libc::NLM_F_REQUEST, &header)
        .u32(libc::IFLA_MASTER, bridge.index);
    let action = || format!("make `{}` a port of `{}`", link.name, bridge.name);
    netlink.request(action, message)?;
    // Apart: port settings are refused before there is a bridge above.
    let message = Message::new(libc::RTM_NEWLINK, libc::NLM_F_REQUEST, &link_header(link.index, 0))
        .nested(libc::IFLA_LINKINFO, |info| {
            info.attribute(libc::IFLA_INFO_SLAVE_KIND, b"bridge")
                .nested(libc::IFLA_INFO_SLAVE_DATA, |port| port.attribute(IFLA_BRPORT_MODE, &[1]))
        });
    netlink.request(|| format!("set hairpin mode on `{}`", link.name), message)
}

/// Gives the link this IPv4 address and takes every other from it.
pub fn set_address(
    netlink: &Netlink,
    link: &Link,
    address: Ipv4Addr,
    subnet: Subnet,
) -> Result<(), NetlinkError> {
    for (old, prefix) in addresses(netlink, link)? {
        if (old, prefix) != (address, subnet.prefix()) {
            let header = address_header(link.index, prefix);
            let message = Message::new(libc::RTM_DELADDR, libc::NLM_F_REQUEST, &header)
                .address(libc::IFA_LOCAL, old);
            netlink.request(|| format!("take {old} from `{}`", link.name), message)?;
        }
    }
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let header = address_header(link.index, subnet.prefix());
    let message = Message::new(libc::RTM_NEWADDR, flags, &header)
        .address(libc::IFA_LOCAL, address)
        .address(libc::IFA_ADDRESS, address)
        .address(libc::IFA_BROADCAST, subnet.broadcast());
    netlink.request(|| format!("give {address} to `{}`", link.name), message)
}

/// Where a route leads, besides its link.
#[derive(Clone, Copy, Debug)]
pub enum Via {
    Gateway(Ipv4Addr),
    /// On the link itself, with this as the source of our own packets.
    Link {
        source: Ipv4Addr,
    },
}

/// Replaces the route to `destination` in the main table.
pub fn set_route(
    netlink: &Netlink,
    destination: Subnet,
    link: &Link,
    via: Via,
) -> Result<(), NetlinkError> {
    let scope = match via {
        Via::Gateway(_) => libc::RT_SCOPE_UNIVERSE,
        Via::Link { .. } => libc::RT_SCOPE_LINK,
    };
    let header = [
        AF_INET,
        destination.prefix(),
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_STATIC,
        scope,
        libc::RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let message = Message::new(libc::RTM_NEWROUTE, flags, &header)
        .address(libc::RTA_DST, destination.base())
        .u32(libc::RTA_OIF, link.index);
    let message = match via {
        Via::Gateway(gateway) => message.address(libc::RTA_GATEWAY, gateway),
        Via::Link { source } => message.address(libc::RTA_PREFSRC, source),
    };
    netlink.request(|| format!("route {destination} over `{}`", link.name), message)
}

fn addresses(netlink: &Netlink, link: &Link) -> Result<Vec<(Ipv4Addr, u8)>, NetlinkError> {
    let mut found = Vec::new();
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    let message = Message::new(libc::RTM_GETADDR, flags, &address_header(0, 0));
    netlink.query(
        || format!("list addresses of `{}`", link.name),
        message,
        |answer| {
            let of_link = u32_at(answer.body, 4) == Some(link.index);
            let rest = answer.body.get(ADDRESS_HEADER_BYTES..).unwrap_or_default();
            let local = find(rest, libc::IFA_LOCAL).and_then(|bytes| bytes.first_chunk::<4>());
            if let (true, Some(octets), Some(prefix)) = (of_link, local, answer.body.get(1)) {
                found.push((Ipv4Addr::from(*octets), *prefix));
            }
        },
    )?;
    Ok(found)
}

fn new_link() -> Message {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    Message::new(libc::RTM_NEWLINK, flags, &link_header(0, 0))
}

#[allow(clippy::cast_possible_truncation)] // both are small by ABI: 2 and 10
const AF_INET: u8 = libc::AF_INET as u8;
#[allow(clippy::cast_possible_truncation)]
const AF_INET6: u16 = libc::AF_INET6 as u16;

/// `ifinfomsg`: family, type, index, flags to set, flags that are meant.
fn link_header(index: u32, flags: u32) -> [u8; LINK_HEADER_BYTES] {
    let mut header = [0; LINK_HEADER_BYTES];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

/// `ifaddrmsg`: family, prefix length, flags, scope, index.
fn address_header(index: u32, prefix: u8) -> [u8; ADDRESS_HEADER_BYTES] {
    let mut header = [AF_INET, prefix, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}

fn parse_link(answer: Received<'_>) -> Option<Link> {
    let rest = answer.body.get(LINK_HEADER_BYTES..)?;
    let number = |bytes: &[u8]| u32_at(bytes, 0);
    let mut link = Link {
        index: u32_at(answer.body, 4)?,
        name: String::new(),
        kind: None,
        master: None,
        peer: None,
    };
    for (kind, payload) in attributes(rest) {
        match kind {
            libc::IFLA_IFNAME => link.name = text_of(payload),
            libc::IFLA_MASTER => link.master = number(payload),
            libc::IFLA_LINK => link.peer = number(payload),
            libc::IFLA_LINKINFO => link.kind = find(payload, libc::IFLA_INFO_KIND).map(text_of),
            _ => (),
        }
    }
    (i32::from(answer.kind) == i32::from(libc::RTM_NEWLINK)).then_some(link)
}
