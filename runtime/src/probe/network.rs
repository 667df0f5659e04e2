//! Bridge, veth, nftables and connection tracking, in a network namespace
//! that goes with its child: by [`wherry_netns`], as pods have them.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use nix::sched::{CloneFlags, setns, unshare};
use serde::{Deserialize, Serialize};
use wherry_netns::{
    Netlink, Network as PodNetwork, NetworkConfig, NetworkError, Protocol, PublishedPort, Service,
    Subnet, prepare_pod_namespace,
};

use super::trial::{Obstacle, Trial, in_child};

/// Nobody else is in the namespace: any name and subnet do.
const BRIDGE: &str = "wherry-check";
const SUBNET: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 87, 0, 0), 16);
const PODS: [u16; 2] = [2, 3];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Forwarding and the like, below `/proc/sys/net`.
    pub settings: Trial<()>,
    pub bridge: Trial<()>,
    /// A pod's link into a namespace of its own, with address and route.
    pub veth: Trial<()>,
    /// Table, chains, masquerading, connection tracking's state, rejecting.
    pub nftables: Trial<()>,
    /// Leading an address and a port to one pod: destination NAT.
    pub nat: Trial<()>,
    /// Spreading over two pods: `numgen` and a map.
    pub balancing: Trial<()>,
    /// Reading and removing tracked connections.
    pub conntrack: Trial<()>,
}

/// Tries all of it, in a network namespace of its own.
///
/// # Errors
/// Not even that could be made.
pub fn attempt() -> Trial<Network> {
    in_child(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(Obstacle::refused("a new network namespace"))?;
        let failed = |error: String| Obstacle::Failed(error);
        let (base, prefix) = SUBNET;
        let subnet = Subnet::new(base, prefix).map_err(|error| failed(error.to_string()))?;
        let network = PodNetwork::new(NetworkConfig { bridge: BRIDGE.into(), subnet })
            .map_err(|error| failed(error.to_string()))?;
        let host = Netlink::open().map_err(|error| obstacle(error.into()))?;
        Ok(all(&network, &host))
    })
}

fn all(network: &PodNetwork, host: &Netlink) -> Network {
    let (settings, bridge, nftables) = ground(network.ensure_host(host));
    let after = |needed: &Trial<()>, name: &str, work: &dyn Fn() -> Trial<()>| match needed {
        Ok(()) => work(),
        Err(_) => Err(Obstacle::NotTried(name.into())),
    };
    let publish = |pods: usize, protocol| {
        network.publish(&[service(network, pods, protocol)]).map_err(obstacle)
    };
    let nat = after(&nftables, "nftables", &|| publish(1, Protocol::Tcp));
    let balancing = after(&nat, "nftables NAT", &|| publish(2, Protocol::Tcp));
    let conntrack = after(&nat, "nftables NAT", &|| {
        network.forget_pod(network.bridge_address()).map_err(obstacle)?;
        publish(1, Protocol::Udp)
    });
    let veth = after(&bridge, "a bridge", &|| veth(network, host));
    Network { settings, bridge, veth, nftables, nat, balancing, conntrack }
}

/// Which of the steps of [`PodNetwork::ensure_host`] it was: links first,
/// then settings, then the table.
fn ground(outcome: Result<(), NetworkError>) -> (Trial<()>, Trial<()>, Trial<()>) {
    let not_tried = |what: &str| Err(Obstacle::NotTried(what.into()));
    match outcome {
        Ok(()) => (Ok(()), Ok(()), Ok(())),
        Err(error @ NetworkError::Sysctl(_)) => {
            (Err(obstacle(error)), has_bridge(), not_tried("network settings"))
        }
        Err(error) => match has_bridge() {
            Ok(()) => (Ok(()), Ok(()), Err(obstacle(error))),
            Err(_) => (not_tried("a bridge"), Err(obstacle(error)), not_tried("a bridge")),
        },
    }
}

fn has_bridge() -> Trial<()> {
    let text = fs::read_to_string("/proc/self/net/dev").map_err(Obstacle::io("listing links"))?;
    match text.lines().any(|line| line.trim_start().starts_with(&format!("{BRIDGE}:"))) {
        true => Ok(()),
        false => Err(Obstacle::Wrong("the bridge is not there".into())),
    }
}

fn service(network: &PodNetwork, pods: usize, protocol: Protocol) -> Service {
    Service {
        name: "check".into(),
        address: network.service_address(1).unwrap_or(Ipv4Addr::UNSPECIFIED),
        pods: PODS.iter().take(pods).filter_map(|pod| network.pod_address(*pod)).collect(),
        ports: vec![PublishedPort { protocol, host_port: 80, container_port: 8080 }],
    }
}

fn veth(network: &PodNetwork, host: &Netlink) -> Trial<()> {
    let open = || File::open("/proc/self/ns/net").map_err(Obstacle::io("/proc/self/ns/net"));
    let own = open()?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(Obstacle::refused("a new network namespace"))?;
    let attached = (|| {
        prepare_pod_namespace()?;
        let inside = Netlink::open()?;
        Ok((inside, File::open("/proc/self/ns/net")))
    })()
    .map_err(obstacle)
    .and_then(|(inside, namespace)| {
        let namespace = namespace.map_err(Obstacle::io("/proc/self/ns/net"))?;
        network.attach_pod(host, &inside, namespace.as_fd(), PODS[0]).map_err(obstacle)
    });
    // Even after a failure: what comes next belongs to the first namespace.
    setns(own, CloneFlags::CLONE_NEWNET).map_err(Obstacle::refused("going back"))?;
    attached.map(drop)
}

fn obstacle(error: NetworkError) -> Obstacle {
    let errno = match &error {
        NetworkError::Netlink(netlink) => netlink.errno(),
        _ => None,
    };
    // The text has the kernel's word for the number already.
    match errno {
        Some(nix::errno::Errno::EPERM) => {
            Obstacle::Refused { what: "netlink".into(), errno: libc::EPERM }
        }
        Some(_) | None => Obstacle::Wrong(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_all_of_it_and_nothing_stays() {
        let links = || fs::read_to_string("/proc/self/net/dev").unwrap();
        let names = |text: String| -> Vec<String> {
            let name = |line: &str| line.split(':').next().unwrap_or_default().trim().to_owned();
            text.lines().map(name).collect()
        };
        let before = names(links());
        let found = attempt().unwrap();
        let Network { settings, bridge, veth, nftables, nat, balancing, conntrack } = found;
        for trial in [settings, bridge, veth, nftables, nat, balancing, conntrack] {
            assert_eq!(trial, Ok(()));
        }
        assert_eq!(names(links()), before);
    }

    #[test]
    fn a_taken_name_is_the_bridges_fault() {
        let error = NetworkError::Foreign { name: BRIDGE.into(), expected: "bridge" };
        let (settings, bridge, nftables) = ground(Err(error));
        assert!(bridge.unwrap_err().is_lack());
        assert!(settings.is_err() && nftables.is_err());
    }
}
