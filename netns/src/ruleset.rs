//! From services to nftables chains. Pure.
//!
//! ```text
//! prerouting-guard  what a pod must not send: other sources, loopback targets
//! prerouting        → services
//! output            → services           (the node's own connections)
//! services          service address → a pod, port kept
//!                   host port       → a pod, container port
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

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::subnet::Subnet;

/// One map must fit a netlink attribute (64 KiB, 44 bytes a pod); a node has
/// far fewer.
pub const PODS_MAX: usize = 256;
pub const SERVICES_MAX: usize = 256;
pub const PORTS_MAX: usize = 64;
/// A DNS label; nftables allows comments of 128.
const NAME_BYTES_MAX: usize = 63;
const LOOPBACK: (Ipv4Addr, u8) = (Ipv4Addr::new(127, 0, 0, 0), 8);

/// A name that leads to pods: by its own address on any port, and by ports of
/// the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    /// Of the services' half of the subnet.
    pub address: Ipv4Addr,
    /// New connections go to these in turn; with none they are refused. For
    /// pods on the host's network this is the bridge's address.
    pub pods: Vec<Ipv4Addr>,
    pub ports: Vec<PublishedPort>,
}

/// `host_port` of every address of the node, 127.0.0.1 included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedPort {
    pub protocol: Protocol,
    pub host_port: u16,
    pub container_port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesetError {
    #[error(
        "service name `{0}`: must have 1 to {NAME_BYTES_MAX} bytes, none of them a control character"
    )]
    Name(String),
    #[error("service `{service}`: address {address} is not of {subnet}")]
    Address { service: String, address: Ipv4Addr, subnet: Subnet },
    #[error("{count} {what}, where at most {max} are possible")]
    TooMany { what: &'static str, count: usize, max: usize },
    #[error("service `{0}`: port 0 cannot be published")]
    PortZero(String),
    #[error("host port {port}/{protocol:?} is published by `{first}` and by `{second}`")]
    PortTwice { port: u16, protocol: Protocol, first: String, second: String },
}

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

/// The whole table.
///
/// # Errors
/// Services that cannot be told apart or are not of this node's subnet.
pub fn chains(ground: &Ground<'_>, services: &[Service]) -> Result<Vec<Chain>, RulesetError> {
    check(ground, services)?;
    let base = |kind, hook, priority| Some(Base { kind, hook, priority });
    let to_services = || vec![rule([Part::Jump(SERVICES)])];
    let filter = libc::NF_IP_PRI_FILTER;
    Ok(vec![
        Chain { name: SERVICES, base: None, rules: leading(services) },
        Chain {
            name: "prerouting-guard",
            base: base("filter", libc::NF_INET_PRE_ROUTING, libc::NF_IP_PRI_RAW),
            rules: guard(ground),
        },
        Chain {
            name: "prerouting",
            base: base("nat", libc::NF_INET_PRE_ROUTING, libc::NF_IP_PRI_NAT_DST),
            rules: to_services(),
        },
        Chain {
            name: "output",
            base: base("nat", libc::NF_INET_LOCAL_OUT, libc::NF_IP_PRI_NAT_DST),
            rules: to_services(),
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
    ])
}

fn check(ground: &Ground<'_>, services: &[Service]) -> Result<(), RulesetError> {
    let bounded = |what, count, max| {
        if count > max { Err(RulesetError::TooMany { what, count, max }) } else { Ok(()) }
    };
    bounded("services", services.len(), SERVICES_MAX)?;
    let mut publishers = BTreeMap::new();
    for service in services {
        let name = &service.name;
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || name.chars().any(char::is_control) {
            return Err(RulesetError::Name(name.clone()));
        }
        if !ground.services.contains(service.address) {
            let (service, address) = (name.clone(), service.address);
            return Err(RulesetError::Address { service, address, subnet: ground.services });
        }
        bounded("pods of a service", service.pods.len(), PODS_MAX)?;
        bounded("ports of a service", service.ports.len(), PORTS_MAX)?;
        for port in &service.ports {
            if port.host_port == 0 || port.container_port == 0 {
                return Err(RulesetError::PortZero(name.clone()));
            }
            let (port, protocol) = (port.host_port, port.protocol);
            if let Some(first) = publishers.insert((protocol, port), name) {
                let (first, second) = (first.clone(), name.clone());
                return Err(RulesetError::PortTwice { port, protocol, first, second });
            }
        }
    }
    Ok(())
}

/// Host ports come last: a service address is nobody's local address, and
/// most connections on a gateway are between pods.
fn leading(services: &[Service]) -> Vec<Rule> {
    let with_pods = || services.iter().filter(|service| !service.pods.is_empty());
    let addresses = with_pods().map(|service| Rule {
        comment: service.name.clone(),
        parts: vec![
            Part::To(Is::Equal, single(service.address)),
            Part::Dnat(service.pods.clone(), None),
        ],
    });
    let ports = with_pods().flat_map(|service| {
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
    addresses.chain(ports).collect()
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
