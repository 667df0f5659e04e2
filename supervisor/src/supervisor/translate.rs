//! Between the launcher's words and the reconciler's: addresses and host
//! numbers, reports and observations. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use heapless::Vec as Bounded;
use wherry_bundle::Name;
use wherry_bundle::health::Check;
use wherry_core::{Millis, ObservedContainer, ObservedPod, Preparation, Publication};
use wherry_runtime::proto::{
    ContainerState, HostPort, PodReport, ProbeCheck, Service, Services, join_words,
};

use super::spec::PodOrder;
use crate::subnet::Subnet;

/// A pod as the launcher reported it.
#[must_use]
pub fn observed_pod(report: &PodReport, subnet: Subnet) -> ObservedPod {
    let containers =
        report.containers.iter().map(|c| (c.name.clone(), observed_container(c.state)));
    ObservedPod {
        deployment: report.deployment.clone(),
        hash: report.hash,
        generation: report.generation,
        address: report.address.and_then(|address| subnet.pod_number(address)),
        complete: report.complete,
        containers: containers.collect(),
        order: report.order.to_vec(),
        restart_policy: report.restart_policy,
        grace: Millis(report.grace_millis),
        health: BTreeMap::new(),
        unhealthy: BTreeSet::new(),
        preparation: Preparation::default(),
    }
}

/// A pod as it is once the launcher has done what `order` asks for.
#[must_use]
pub fn created_pod(order: &PodOrder, address: Option<u16>) -> ObservedPod {
    let containers = order.containers.iter();
    ObservedPod {
        deployment: order.pod.deployment.clone(),
        hash: order.pod.hash,
        generation: order.pod.generation,
        address,
        complete: true,
        containers: containers.map(|c| (c.name.clone(), ObservedContainer::Defined)).collect(),
        order: order.pod.containers.to_vec(),
        restart_policy: order.pod.restart_policy,
        grace: Millis(order.pod.grace_millis),
        health: BTreeMap::new(),
        unhealthy: BTreeSet::new(),
        preparation: Preparation::default(),
    }
}

#[must_use]
pub fn observed_container(state: ContainerState) -> ObservedContainer {
    match state {
        ContainerState::Defined => ObservedContainer::Defined,
        ContainerState::Running { pid: _, since_millis } => {
            ObservedContainer::Running { since: Millis(since_millis) }
        }
        ContainerState::Exited { exit, started_millis, at_millis } => ObservedContainer::Exited {
            exit,
            started: Millis(started_millis),
            at: Millis(at_millis),
        },
    }
}

/// A probe as the launcher takes it; `None` if it does not fit in a packet,
/// which bundles' limits rule out.
#[must_use]
pub fn probe_check(check: &Check) -> Option<ProbeCheck> {
    Some(match check {
        Check::Exec { args } => {
            ProbeCheck::Exec { args: join_words(args.iter().map(String::as_str))? }
        }
        Check::HttpGet { port, path, headers } => {
            let headers: Vec<String> =
                headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            ProbeCheck::HttpGet {
                port: *port,
                path: path.as_str().try_into().ok()?,
                headers: join_words(headers.iter().map(String::as_str))?,
            }
        }
        Check::TcpConnect { port } => ProbeCheck::TcpConnect { port: *port },
    })
}

/// What is published, in addresses; `None` if it does not fit in a packet or
/// in the subnet, which bundles' limits rule out.
#[must_use]
pub fn services(publication: &Publication, subnet: Subnet) -> Option<Services> {
    let mut services = Services::default();
    for (name, service) in &publication.services {
        services.0.push(service_of(name, service, subnet)?).ok()?;
    }
    Some(services)
}

fn service_of(name: &Name, service: &wherry_core::Service, subnet: Subnet) -> Option<Service> {
    let mut pods: Bounded<Ipv4Addr, _> = Bounded::new();
    for number in &service.pods {
        pods.push(subnet.pod(*number)?).ok()?;
    }
    let mut ports = Bounded::new();
    for port in &service.ports {
        let port = HostPort {
            protocol: port.protocol,
            host_port: port.host_port,
            container_port: port.container_port,
        };
        ports.push(port).ok()?;
    }
    Some(Service { name: name.clone(), address: subnet.service(service.address)?, pods, ports })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use wherry_bundle::Digest;
    use wherry_bundle::Generation;
    use wherry_bundle::message::Exit;
    use wherry_bundle::model::{Protocol, RestartPolicy, Role};
    use wherry_core::PublishedPort;
    use wherry_runtime::proto::ContainerReport;

    use super::*;
    use crate::supervisor::sample::{self, name};

    #[test]
    fn a_report_is_read_as_it_is() {
        let exited =
            ContainerState::Exited { exit: Exit::Signal(9), started_millis: 5, at_millis: 7 };
        let states = [
            ("a", ContainerState::Defined),
            ("b", ContainerState::Running { pid: 77, since_millis: 3 }),
            ("c", exited),
        ];
        let containers = states.map(|(n, state)| ContainerReport { name: name(n), state });
        let report = PodReport {
            name: name("web-1"),
            deployment: name("web"),
            generation: Generation(4),
            hash: Digest::of(b"h"),
            address: Some(Ipv4Addr::new(10, 87, 0, 9)),
            restart_policy: RestartPolicy::Never,
            grace_millis: 1500,
            complete: false,
            containers: containers.into_iter().collect(),
            order: [(name("c"), Role::Init), (name("a"), Role::Main)].into_iter().collect(),
        };
        let pod = observed_pod(&report, Subnet::default());
        assert_eq!((pod.address, pod.grace, pod.complete), (Some(9), Millis(1500), false));
        assert_eq!(pod.order, [(name("c"), Role::Init), (name("a"), Role::Main)]);
        let (started, at) = (Millis(5), Millis(7));
        let wanted = [
            ObservedContainer::Defined,
            ObservedContainer::Running { since: Millis(3) },
            ObservedContainer::Exited { exit: Exit::Signal(9), started, at },
        ];
        assert!(pod.containers.values().eq(wanted.iter()), "{:?}", pod.containers);
    }

    #[test]
    fn what_was_ordered_is_what_is_then_observed() {
        let bundle = sample::bundle();
        let subnet = Subnet::default();
        let order =
            PodOrder::new(&bundle, &bundle.deployments[0], &name("web-1"), subnet.pod(9)).unwrap();
        let pod = created_pod(&order, Some(9));
        assert_eq!(pod.hash, bundle.pod_hash(&bundle.deployments[0]));
        assert_eq!((pod.address, pod.complete, pod.grace), (Some(9), true, Millis(10_000)));
        assert_eq!(pod.containers, BTreeMap::from([(name("lion"), ObservedContainer::Defined)]));
    }

    #[test]
    fn numbers_become_addresses() {
        let ports =
            vec![PublishedPort { protocol: Protocol::Udp, host_port: 53, container_port: 5353 }];
        let service = wherry_core::Service { address: 1, pods: BTreeSet::from([2, 300]), ports };
        let publication =
            |service| Publication { services: BTreeMap::from([(name("dns"), service)]) };
        let services = services(&publication(service.clone()), Subnet::default()).unwrap();
        let [dns] = &services.0[..] else { panic!("{services:?}") };
        assert_eq!(dns.address, Ipv4Addr::new(10, 87, 128, 1));
        assert_eq!(dns.pods[..], [Ipv4Addr::new(10, 87, 0, 2), Ipv4Addr::new(10, 87, 1, 44)]);
        assert_eq!((dns.ports[0].host_port, dns.ports[0].container_port), (53, 5353));
        let bridge = wherry_core::Service { pods: BTreeSet::from([1]), ..service };
        assert_eq!(super::services(&publication(bridge), Subnet::default()), None);
    }
}
