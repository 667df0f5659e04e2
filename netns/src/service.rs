//! Published services, and what a set of them must keep to. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::subnet::Subnet;

/// One map must fit a netlink attribute (64 KiB, 44 bytes a pod); a node has
/// far fewer.
pub const PODS_MAX: usize = 256;
pub const SERVICES_MAX: usize = 256;
pub const PORTS_MAX: usize = 64;
/// A DNS label; nftables allows comments of 128.
const NAME_BYTES_MAX: usize = 63;
/// Pods times ways to them (an address, and each port), over all services:
/// below 1 MiB in one netlink packet. Twice what a full node has.
const ENTRIES_MAX: usize = 8192;

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
pub enum ServiceError {
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

/// # Errors
/// The first thing that is wrong.
pub fn check(subnet: Subnet, services: &[Service]) -> Result<(), ServiceError> {
    let bounded = |what, count, max| {
        if count > max { Err(ServiceError::TooMany { what, count, max }) } else { Ok(()) }
    };
    bounded("services", services.len(), SERVICES_MAX)?;
    let ways = |service: &Service| service.pods.len().saturating_mul(1 + service.ports.len());
    bounded("ways to pods", services.iter().map(ways).sum(), ENTRIES_MAX)?;
    let mut publishers = BTreeMap::new();
    for service in services {
        let name = &service.name;
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || name.chars().any(char::is_control) {
            return Err(ServiceError::Name(name.clone()));
        }
        if !subnet.contains(service.address) {
            let (service, address) = (name.clone(), service.address);
            return Err(ServiceError::Address { service, address, subnet });
        }
        bounded("pods of a service", service.pods.len(), PODS_MAX)?;
        bounded("ports of a service", service.ports.len(), PORTS_MAX)?;
        for port in &service.ports {
            if port.host_port == 0 || port.container_port == 0 {
                return Err(ServiceError::PortZero(name.clone()));
            }
            let (port, protocol) = (port.host_port, port.protocol);
            if let Some(first) = publishers.insert((protocol, port), name) {
                let (first, second) = (first.clone(), name.clone());
                return Err(ServiceError::PortTwice { port, protocol, first, second });
            }
        }
    }
    Ok(())
}

/// The host's UDP ports that lead to a pod.
pub fn udp_ports(services: &[Service]) -> BTreeSet<u16> {
    let with_pods = services.iter().filter(|service| !service.pods.is_empty());
    let ports = with_pods.flat_map(|service| &service.ports);
    ports.filter(|port| port.protocol == Protocol::Udp).map(|port| port.host_port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, host_port: u16) -> Service {
        let port = PublishedPort { protocol: Protocol::Tcp, host_port, container_port: 80 };
        Service {
            name: name.to_owned(),
            address: Ipv4Addr::new(10, 87, 128, 1),
            pods: vec![Ipv4Addr::new(10, 87, 0, 2)],
            ports: vec![port],
        }
    }

    fn refusal(services: &[Service]) -> String {
        let subnet = "10.87.128.0/17".parse().expect("a subnet");
        check(subnet, services).expect_err("refused").to_string()
    }

    #[test]
    fn the_usual_is_fine() {
        let subnet = "10.87.128.0/17".parse().unwrap();
        let mut udp = service("b", 80);
        udp.ports[0].protocol = Protocol::Udp;
        check(subnet, &[]).unwrap();
        check(subnet, &[service("a", 80), udp, service("c", 81)]).unwrap();
    }

    #[test]
    fn every_refusal_says_which_service() {
        let name =
            "service name `a\u{1b}[2J`: must have 1 to 63 bytes, none of them a control character";
        assert_eq!(refusal(&[service("a\u{1b}[2J", 80)]), name);
        assert!(refusal(&[service("", 80)]).contains("1 to 63 bytes"));
        assert!(refusal(&[service(&"a".repeat(64), 80)]).contains("1 to 63 bytes"));

        let mut elsewhere = service("a", 80);
        elsewhere.address = Ipv4Addr::new(192, 0, 2, 1);
        let address = "service `a`: address 192.0.2.1 is not of 10.87.128.0/17";
        assert_eq!(refusal(&[elsewhere]), address);

        assert_eq!(refusal(&[service("a", 0)]), "service `a`: port 0 cannot be published");
        let twice = "host port 80/Tcp is published by `a` and by `b`";
        assert_eq!(refusal(&[service("a", 80), service("b", 80)]), twice);
    }

    #[test]
    fn everything_is_bounded() {
        let mut pods = service("a", 80);
        pods.pods = vec![Ipv4Addr::new(10, 87, 0, 2); PODS_MAX + 1];
        assert_eq!(refusal(&[pods]), "257 pods of a service, where at most 256 are possible");
        let mut ports = service("a", 80);
        ports.ports = vec![ports.ports[0]; PORTS_MAX + 1];
        assert_eq!(refusal(&[ports]), "65 ports of a service, where at most 64 are possible");
        let many = vec![service("a", 80); SERVICES_MAX + 1];
        assert_eq!(refusal(&many), "257 services, where at most 256 are possible");
        let mut ways = service("a", 80);
        ways.pods = vec![Ipv4Addr::new(10, 87, 0, 2); PODS_MAX];
        let ways = vec![ways; SERVICES_MAX];
        assert_eq!(refusal(&ways), "131072 ways to pods, where at most 8192 are possible");
    }
}
