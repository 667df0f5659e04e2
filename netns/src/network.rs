//! The node's network: which bridge, links, addresses and rules there are.
//!
//! Every function but the pure ones is idempotent, and belongs to the calling
//! thread's network namespace as well as to the sockets that it is given: call
//! them from the host's.
//!
//! What an operator should know:
//! - `net.ipv4.ip_forward` is set, as every container engine does: a host with
//!   several uplinks then routes between them unless its own firewall forbids.
//! - Rules of others stay in force. A table of another program whose *forward*
//!   policy is drop (Docker's, firewalld's) also drops pods' packets, whatever
//!   our table accepts: allow the bridge there (`iptables -I DOCKER-USER -i
//!   wherry0 -j ACCEPT`, and `-o`).
//! - Pods are reached from outside by published ports only.

use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use crate::netlink::{Netlink, NetlinkError};
use crate::route::{self, Link, VethEnd, Via};
use crate::ruleset::{self, Ground};
use crate::service::{self, Service, ServiceError};
use crate::subnet::Subnet;
use crate::sysctl::{self, SysctlError};
use crate::{conntrack, nft, pod};

/// Of interface names, without the NUL of `IFNAMSIZ`.
const LINK_NAME_BYTES_MAX: usize = libc::IFNAMSIZ - 1;
/// Longest bridge name that can stand whole in a pod's link, as in
/// `wherry0-32766`.
const STEM_BYTES_MAX: usize = LINK_NAME_BYTES_MAX - 6;
/// Smaller numbers are larger subnets: /16 has 32,765 pods, /24 has 125.
const PREFIX_MIN: u8 = 16;
const PREFIX_MAX: u8 = 24;
const POD_LINK: &str = "eth0";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Also the nftables table's name, and the start of the pods' links'.
    pub bridge: String,
    /// Its lower half is the pods', its upper half the services'.
    pub subnet: Subnet,
}

/// The network of one node. Plain data.
#[derive(Clone, Debug)]
pub struct Network {
    bridge: String,
    stem: String,
    pods: Subnet,
    services: Subnet,
    gateway: Ipv4Addr,
}

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error(
        "bridge name `{0}`: must have 1 to {LINK_NAME_BYTES_MAX} letters, digits, `-` or `_`, a letter first"
    )]
    BridgeName(String),
    #[error("subnet {0}: its prefix must be /{PREFIX_MIN} to /{PREFIX_MAX}")]
    Prefix(Subnet),
    #[error("pod number {number} is not of {subnet}: numbers start at 2")]
    PodNumber { number: u16, subnet: Subnet },
    #[error(
        "link `{name}` is there but is no {expected}: remove it, or choose another bridge name"
    )]
    Foreign { name: String, expected: &'static str },
    #[error("there is no link `{0}`")]
    Missing(String),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl Network {
    /// # Errors
    /// A name that is no interface's, or a subnet too large or too small.
    pub fn new(config: NetworkConfig) -> Result<Self, NetworkError> {
        let NetworkConfig { bridge, subnet } = config;
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let letter_first = bridge.starts_with(|c: char| c.is_ascii_alphabetic());
        // A pod's `lo` and `eth0` and the kernel's own names are taken.
        let taken = ["lo", "all", "default", POD_LINK].contains(&bridge.as_str());
        if !letter_first || taken || bridge.len() > LINK_NAME_BYTES_MAX || !bridge.bytes().all(good)
        {
            return Err(NetworkError::BridgeName(bridge));
        }
        if !(PREFIX_MIN..=PREFIX_MAX).contains(&subnet.prefix()) {
            return Err(NetworkError::Prefix(subnet));
        }
        let (pods, services) = subnet.halves().ok_or(NetworkError::Prefix(subnet))?;
        let gateway = pods.host(1).ok_or(NetworkError::Prefix(subnet))?;
        Ok(Self { stem: stem(&bridge), bridge, pods, services, gateway })
    }

    /// Of pod number `number`, from 2: 1 is the bridge.
    #[must_use]
    pub fn pod_address(&self, number: u16) -> Option<Ipv4Addr> {
        self.pods.host(number.into()).filter(|address| *address != self.gateway)
    }

    /// Of service number `number`, from 1.
    #[must_use]
    pub fn service_address(&self, number: u16) -> Option<Ipv4Addr> {
        self.services.host(number.into())
    }

    #[must_use]
    pub fn bridge_address(&self) -> Ipv4Addr {
        self.gateway
    }

    #[must_use]
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    #[must_use]
    pub fn pod_subnet(&self) -> Subnet {
        self.pods
    }

    #[must_use]
    pub fn service_subnet(&self) -> Subnet {
        self.services
    }

    /// The host's end of pod number `number`'s link.
    #[must_use]
    pub fn pod_link(&self, number: u16) -> String {
        format!("{}-{number}", self.stem)
    }

    /// Makes what is missing of: the bridge, up, with its address; the route
    /// of the services' subnet; `net.ipv4.ip_forward` and the bridge's
    /// `route_localnet`, by which 127.0.0.1 reaches published ports; the
    /// nftables table. What is published stays published.
    ///
    /// Switches ICMP redirects off for the bridge: between a pod and a service
    /// they would be wrong, and count against the kernel's limit on the ICMP
    /// errors that refuse UDP. Either of two settings switches them on, so
    /// that also `net.ipv4.conf.all.send_redirects` is cleared; other
    /// interfaces go by their own, which stays.
    ///
    /// # Errors
    /// The kernel refuses, or the bridge's name is another link's.
    pub fn ensure_host(&self, host: &Netlink) -> Result<(), NetworkError> {
        let bridge = match self.own_bridge(host)? {
            Some(bridge) => bridge,
            None => {
                route::add_bridge(host, &self.bridge, mac(POD_MAC, self.gateway))?;
                self.own_bridge(host)?.ok_or(NetworkError::Missing(self.bridge.clone()))?
            }
        };
        route::without_ipv6_address(host, &bridge)?;
        route::set_up(host, &bridge)?;
        route::set_address(host, &bridge, self.gateway, self.pods)?;
        // A packet of the node's own must have a route before its destination
        // is translated.
        let via = Via::Link { source: self.gateway };
        route::set_route(host, self.services, &bridge, via)?;
        sysctl::set("ipv4/ip_forward", "1")?;
        let of_bridge = |name| format!("ipv4/conf/{}/{name}", self.bridge);
        sysctl::set(&of_bridge("route_localnet"), "1")?;
        sysctl::set(&of_bridge("send_redirects"), "0")?;
        sysctl::set("ipv4/conf/all/send_redirects", "0")?;

        let chains = ruleset::chains(&self.ground(), &[]);
        match Netlink::netfilter()?.transact(nft::make_new(&self.bridge, &chains)) {
            Err(error) if error.errno() == Some(Errno::EEXIST) => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    /// Connects the pod's namespace: a veth pair to the bridge, `eth0` with
    /// the pod's address, the default route over the bridge, `lo` up. Gives
    /// the address.
    ///
    /// `pod` is a socket that was opened in the namespace behind `pod_netns`.
    /// A link that an earlier pod of this number left (the kernel removes
    /// namespaces some time after their last user) is deleted.
    ///
    /// # Errors
    /// A number that is no pod's, no bridge, or the kernel refuses.
    pub fn attach_pod(
        &self,
        host: &Netlink,
        pod: &Netlink,
        pod_netns: BorrowedFd<'_>,
        number: u16,
    ) -> Result<Ipv4Addr, NetworkError> {
        let address = self
            .pod_address(number)
            .ok_or(NetworkError::PodNumber { number, subnet: self.pods })?;
        let bridge =
            self.own_bridge(host)?.ok_or_else(|| NetworkError::Missing(self.bridge.clone()))?;
        pod::set_loopback_up(pod)?;
        let (near, far) = self.pod_links_of(host, pod, pod_netns, number, address)?;
        route::without_ipv6_address(host, &near)?;
        route::enslave(host, &near, &bridge)?;
        route::set_address(pod, &far, address, self.pods)?;
        route::set_up(pod, &far)?;
        let everywhere = Subnet::masked(Ipv4Addr::UNSPECIFIED, 0);
        route::set_route(pod, everywhere, &far, Via::Gateway(self.gateway))?;
        Ok(address)
    }

    /// Replaces everything that is published, at once: a connection meets the
    /// old rules or the new ones. Connections under way stay where they are;
    /// UDP senders that found nobody before find a pod now.
    ///
    /// # Errors
    /// Services that [`ServiceError`] names, or the kernel refuses the rules:
    /// then what was published before stays.
    pub fn publish(&self, services: &[Service]) -> Result<(), NetworkError> {
        service::check(self.services, services)?;
        let chains = ruleset::chains(&self.ground(), services);
        Netlink::netfilter()?.transact(nft::replace(&self.bridge, &chains))?;
        let udp_ports = service::udp_ports(services);
        if !udp_ports.is_empty() {
            conntrack::forget_untranslated(&udp_ports)?;
        }
        Ok(())
    }

    /// Forgets tracked connections that `address` answers: call it when a pod
    /// is gone, or UDP senders go on sending to it. Gives how many there were.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn forget_pod(&self, address: Ipv4Addr) -> Result<usize, NetworkError> {
        Ok(conntrack::forget_answered_by(address)?)
    }

    /// The host's ends of pods' links that there are, by name.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn pod_links(&self, host: &Netlink) -> Result<Vec<String>, NetworkError> {
        Ok(self.own_veths(host)?.into_iter().map(|link| link.name).collect())
    }

    /// Removes the table, the pods' links and the bridge with its addresses
    /// and routes. `ip_forward` stays as it is: others may count on it.
    ///
    /// # Errors
    /// The kernel refuses, or the bridge's name is another link's.
    pub fn remove_host(&self, host: &Netlink) -> Result<(), NetworkError> {
        Netlink::netfilter()?.transact(nft::remove(&self.bridge))?;
        for link in self.own_veths(host)? {
            route::delete_link(host, &link)?;
        }
        match self.own_bridge(host)? {
            Some(bridge) => Ok(route::delete_link(host, &bridge)?),
            None => Ok(()),
        }
    }

    fn ground(&self) -> Ground<'_> {
        Ground { bridge: &self.bridge, pods: self.pods, services: self.services }
    }

    fn own_bridge(&self, host: &Netlink) -> Result<Option<Link>, NetworkError> {
        let link = route::link(host, &self.bridge)?;
        link.map(|link| expect_kind(link, "bridge")).transpose()
    }

    fn own_veths(&self, host: &Netlink) -> Result<Vec<Link>, NetworkError> {
        let mut links = route::links(host)?;
        links.retain(|link| {
            let number = link.name.strip_prefix(&self.stem).and_then(|end| end.strip_prefix('-'));
            let is_number = number.is_some_and(|number| number.parse::<u16>().is_ok());
            is_number && link.kind.as_deref() == Some("veth")
        });
        Ok(links)
    }

    /// Both ends of the pod's link, made if need be.
    fn pod_links_of(
        &self,
        host: &Netlink,
        pod: &Netlink,
        pod_netns: BorrowedFd<'_>,
        number: u16,
        address: Ipv4Addr,
    ) -> Result<(Link, Link), NetworkError> {
        let name = self.pod_link(number);
        let far = route::link(pod, POD_LINK)?;
        if let Some(near) = route::link(host, &name)? {
            let near = expect_kind(near, "veth")?;
            match far {
                Some(far) if far.peer == Some(near.index) => return Ok((near, far)),
                _ => route::delete_link(host, &near)?,
            }
        }
        let near_end = VethEnd { name: &name, mac: mac(HOST_MAC, address) };
        let far_end = VethEnd { name: POD_LINK, mac: mac(POD_MAC, address) };
        route::add_veth(host, near_end, far_end, pod_netns)?;
        let near = route::link(host, &name)?.ok_or(NetworkError::Missing(name))?;
        let far = route::link(pod, POD_LINK)?;
        Ok((near, far.ok_or_else(|| NetworkError::Missing(POD_LINK.to_owned()))?))
    }
}

fn expect_kind(link: Link, expected: &'static str) -> Result<Link, NetworkError> {
    if link.kind.as_deref() == Some(expected) {
        Ok(link)
    } else {
        Err(NetworkError::Foreign { name: link.name, expected })
    }
}

/// First bytes of hardware addresses; 2 says: locally administered.
const POD_MAC: [u8; 2] = [0x02, 0x57];
const HOST_MAC: [u8; 2] = [0x06, 0x57];

/// The hardware address that an IPv4 address always has, so that no neighbour
/// entry goes stale when a pod is replaced.
fn mac([first, second]: [u8; 2], address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [first, second, a, b, c, d]
}

/// What pods' links start with: the bridge's name, or where that leaves no
/// room for numbers its start and a hash (FNV-1a, 16 bits of it).
fn stem(bridge: &str) -> String {
    if bridge.len() <= STEM_BYTES_MAX {
        return bridge.to_owned();
    }
    let hash = bridge
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let start = bridge.get(..STEM_BYTES_MAX - 4).unwrap_or_default();
    format!("{start}{:04x}", (hash >> 16) ^ (hash & 0xffff))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(bridge: &str, subnet: &str) -> Result<Network, NetworkError> {
        Network::new(NetworkConfig {
            bridge: bridge.to_owned(),
            subnet: subnet.parse().expect("a subnet"),
        })
    }

    #[test]
    fn pods_have_the_lower_half_and_services_the_upper() {
        let network = network("wherry0", "10.87.0.0/16").unwrap();
        assert_eq!(network.bridge_address(), Ipv4Addr::new(10, 87, 0, 1));
        for number in [0, 1, 32767, u16::MAX] {
            assert_eq!(network.pod_address(number), None, "{number}");
        }
        assert_eq!(network.pod_address(2), Some(Ipv4Addr::new(10, 87, 0, 2)));
        assert_eq!(network.pod_address(32766), Some(Ipv4Addr::new(10, 87, 127, 254)));
        assert_eq!(network.service_address(0), None);
        assert_eq!(network.service_address(1), Some(Ipv4Addr::new(10, 87, 128, 1)));
        assert_eq!(network.service_address(32767), None);
    }

    #[test]
    fn names_and_subnets_are_checked() {
        let long = "a".repeat(LINK_NAME_BYTES_MAX + 1);
        for bridge in ["", "0wherry", "a/b", "a.b", "a b", "lo", "all", "eth0", "..", long.as_str()]
        {
            let error = network(bridge, "10.87.0.0/16").unwrap_err();
            assert!(matches!(error, NetworkError::BridgeName(_)), "{bridge}: {error}");
        }
        for subnet in ["10.0.0.0/8", "10.86.0.0/15", "10.87.0.0/25", "10.87.0.1/32"] {
            let error = network("wherry0", subnet).unwrap_err();
            assert!(matches!(error, NetworkError::Prefix(_)), "{subnet}: {error}");
        }
        network("wherry0", "10.87.3.0/24").unwrap();
    }

    #[test]
    fn names_of_pods_links_fit_and_differ() {
        let name = |bridge: &str| network(bridge, "10.87.0.0/16").unwrap().pod_link(32766);
        assert_eq!(name("wherry0"), "wherry0-32766");
        let names = ["gateway-a-west", "gateway-a-east", "gateway-a", "gateway-b"].map(name);
        for (index, name) in names.iter().enumerate() {
            assert!(name.len() <= LINK_NAME_BYTES_MAX, "{name}");
            assert!(!names[..index].contains(name), "{name}");
        }
    }
}
