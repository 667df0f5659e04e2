//! From services to nftables chains. Pure.
//!
//! ```text
//! prerouting-guard  what a pod must not send: other sources, loopback targets
//! prerouting        from the bridge → services; all → host-ports
//! output            → services, host-ports (the node's own connections)
//! services          service address → a pod, port kept
//! host-ports        port of the node → a pod, container port
//! postrouting       masquerade: pods to the world; pods to pods by a service;
//!                   the node's 127.0.0.1 to a pod
//! input-filter      host ports of services without pods: refused
//! forward-filter    service addresses without pods: refused; pods from
//!                   outside but by a published port: refused
//! output-filter     service addresses without pods: refused
//! ```
//!
//! NAT chains see the first packet of a connection only: connections under way
//! keep their pod whatever is published later.

use std::net::Ipv4Addr;

use crate::service::{Protocol, Service};
use crate::subnet::Subnet;

const LOOPBACK: (Ipv4Addr, u8) = (Ipv4Addr::new(127, 0, 0, 0), 8);

/// What all rules of a node have in common.
#[derive(Clone, Debug)]
pub struct Ground<'a> {
    pub bridge: &'a str,
    pub pods: Subnet,
    pub services: Subnet,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: &'static str,
    /// `None`: reached only by a jump.
    pub base: Option<Base>,
    pub rules: Vec<Rule>,
}

/// Where a base chain hangs (`linux/netfilter_ipv4.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    pub kind: &'static str,
    pub hook: i32,
    pub priority: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// For people who read `nft list table`; may be empty.
    pub comment: String,
    pub parts: Vec<Part>,
}

/// One condition or the verdict of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    In(Is, String),
    Out(Is, String),
    From(Is, Subnet),
    To(Is, Subnet),
    /// To an address of this host, loopback included.
    ToThisHost,
    Over(Protocol),
    ToPort(u16),
    FirstOfConnection,
    /// Whether the connection's destination has been translated.
    Translated(bool),
    /// To the addresses in turn (not empty), and to this port.
    Dnat(Vec<Ipv4Addr>, Option<u16>),
    Masquerade,
    Drop,
    /// A TCP reset.
    Reset,
    /// ICMP port unreachable.
    Unreachable,
    Jump(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    Equal,
    Not,
}

const SERVICES: &str = "services";
const HOST_PORTS: &str = "host-ports";

/// The whole table.
///
/// `services` have passed [`crate::service::check`].
pub fn chains(ground: &Ground<'_>, services: &[Service]) -> Vec<Chain> {
    let base = |kind, hook, priority| Some(Base { kind, hook, priority });
    let filter = libc::NF_IP_PRI_FILTER;
    vec![
        Chain { name: SERVICES, base: None, rules: to_addresses(services) },
        Chain { name: HOST_PORTS, base: None, rules: to_host_ports(services) },
        Chain {
            name: "prerouting-guard",
            base: base("filter", libc::NF_INET_PRE_ROUTING, libc::NF_IP_PRI_RAW),
            rules: guard(ground),
        },
        Chain {
            name: "prerouting",
            base: base("nat", libc::NF_INET_PRE_ROUTING, libc::NF_IP_PRI_NAT_DST),
            rules: vec![
                rule([Part::In(Is::Equal, ground.bridge.to_owned()), Part::Jump(SERVICES)]),
                rule([Part::Jump(HOST_PORTS)]),
            ],
        },
        Chain {
            name: "output",
            base: base("nat", libc::NF_INET_LOCAL_OUT, libc::NF_IP_PRI_NAT_DST),
            rules: vec![rule([Part::Jump(SERVICES)]), rule([Part::Jump(HOST_PORTS)])],
        },
        Chain {
            name: "postrouting",
            base: base("nat", libc::NF_INET_POST_ROUTING, libc::NF_IP_PRI_NAT_SRC),
            rules: masquerade(ground),
        },
        Chain {
            name: "input-filter",
            base: base("filter", libc::NF_INET_LOCAL_IN, filter),
            rules: refused_ports(services),
        },
        Chain {
            name: "forward-filter",
            base: base("filter", libc::NF_INET_FORWARD, filter),
            rules: [refused_addresses(ground), unpublished(ground)].concat(),
        },
        Chain {
            name: "output-filter",
            base: base("filter", libc::NF_INET_LOCAL_OUT, filter),
            rules: refused_addresses(ground),
        },
    ]
}

fn to_addresses(services: &[Service]) -> Vec<Rule> {
    let with_pods = services.iter().filter(|service| !service.pods.is_empty());
    let rules = with_pods.map(|service| Rule {
        comment: service.name.clone(),
        parts: vec![
            Part::To(Is::Equal, single(service.address)),
            Part::Dnat(service.pods.clone(), None),
        ],
    });
    rules.collect()
}

fn to_host_ports(services: &[Service]) -> Vec<Rule> {
    let with_pods = services.iter().filter(|service| !service.pods.is_empty());
    let rules = with_pods.flat_map(|service| {
        service.ports.iter().map(|port| Rule {
            comment: service.name.clone(),
            parts: vec![
                Part::ToThisHost,
                Part::Over(port.protocol),
                Part::ToPort(port.host_port),
                Part::Dnat(service.pods.clone(), Some(port.container_port)),
            ],
        })
    });
    rules.collect()
}

/// `route_localnet` on the bridge lets answers to the node's 127.0.0.1 come
/// back; without this it would also let pods reach what listens only there
/// (CVE-2020-8558). Before connection tracking, where an answer is still
/// addressed to the bridge.
fn guard(ground: &Ground<'_>) -> Vec<Rule> {
    let from_bridge = || Part::In(Is::Equal, ground.bridge.to_owned());
    vec![
        rule([from_bridge(), Part::From(Is::Not, ground.pods), Part::Drop]),
        rule([from_bridge(), Part::To(Is::Equal, loopback()), Part::Drop]),
    ]
}

fn masquerade(ground: &Ground<'_>) -> Vec<Rule> {
    let bridge = |is| Part::Out(is, ground.bridge.to_owned());
    let from_pods = || Part::From(Is::Equal, ground.pods);
    vec![
        // Not on `lo`: there the source is the bridge's own address.
        Rule {
            comment: "pods to the world".to_owned(),
            parts: vec![
                from_pods(),
                bridge(Is::Not),
                Part::Out(Is::Not, "lo".to_owned()),
                Part::Masquerade,
            ],
        },
        // A pod would answer another pod directly, past the translation.
        Rule {
            comment: "pods to pods by a service".to_owned(),
            parts: vec![from_pods(), bridge(Is::Equal), Part::Translated(true), Part::Masquerade],
        },
        Rule {
            comment: "127.0.0.1 to pods".to_owned(),
            parts: vec![Part::From(Is::Equal, loopback()), bridge(Is::Equal), Part::Masquerade],
        },
    ]
}

/// New connections only: a port in the range that the host uses for its own
/// outgoing connections must not lose their answers.
fn refused_ports(services: &[Service]) -> Vec<Rule> {
    let without_pods = services.iter().filter(|service| service.pods.is_empty());
    let ports = without_pods.flat_map(|service| service.ports.iter().map(move |p| (service, p)));
    ports
        .map(|(service, port)| Rule {
            comment: service.name.clone(),
            parts: vec![
                Part::ToThisHost,
                Part::Over(port.protocol),
                Part::ToPort(port.host_port),
                Part::FirstOfConnection,
                match port.protocol {
                    Protocol::Tcp => Part::Reset,
                    Protocol::Udp => Part::Unreachable,
                },
            ],
        })
        .collect()
}

/// What is still addressed to a service here has found no pod.
fn refused_addresses(ground: &Ground<'_>) -> Vec<Rule> {
    let to_services = || Part::To(Is::Equal, ground.services);
    vec![
        rule([to_services(), Part::Over(Protocol::Tcp), Part::Reset]),
        rule([to_services(), Part::Unreachable]),
    ]
}

/// The node forwards packets; that must not open pods to its neighbours.
fn unpublished(ground: &Ground<'_>) -> Vec<Rule> {
    let entering = || {
        [
            Part::Out(Is::Equal, ground.bridge.to_owned()),
            Part::In(Is::Not, ground.bridge.to_owned()),
            Part::FirstOfConnection,
            Part::Translated(false),
        ]
    };
    let with = |verdict: &[Part]| rule([&entering()[..], verdict].concat());
    vec![with(&[Part::Over(Protocol::Tcp), Part::Reset]), with(&[Part::Unreachable])]
}

fn rule(parts: impl Into<Vec<Part>>) -> Rule {
    Rule { comment: String::new(), parts: parts.into() }
}

fn single(address: Ipv4Addr) -> Subnet {
    Subnet::masked(address, 32)
}

fn loopback() -> Subnet {
    Subnet::masked(LOOPBACK.0, LOOPBACK.1)
}
