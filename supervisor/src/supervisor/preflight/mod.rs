//! Whether this node can run a bundle at all: looked at before it is taken up,
//! so before its first byte is fetched. All reasons against it are told at
//! once, with numbers.
//!
//! Pure but for the two modules that look. Never here: what follows from a
//! refusal.

pub mod claims;
pub mod kernel;
pub mod ports;
mod security;

use std::path::PathBuf;

use wherry_bundle::Bundle;
use wherry_bundle::model::{Deployment, Protocol};
use wherry_runtime::check::Allowed;

use super::report::megabytes;
use kernel::Lacks;

/// What the node has to offer.
#[derive(Clone, Debug)]
pub struct Offer {
    pub flash: Option<Flash>,
    /// `MemTotal`.
    pub memory_bytes: Option<u64>,
    /// Of that, what the limits of all pods together may be.
    pub memory_percent_max: u32,
    pub lacks: Lacks,
    /// What pods may have of the host.
    pub allowed: Allowed,
    /// Claims that are too small for what is there.
    pub too_small: Vec<String>,
}

/// Room for layers, and for what claims may come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flash {
    pub folder: PathBuf,
    /// What of them is not there yet.
    pub needed_bytes: u64,
    /// With what nothing needs removed.
    pub free_bytes: u64,
}

/// Why `bundle` cannot run here, for people; empty if nothing is known against
/// it. `taken` says who has a port of the host's.
pub fn reasons(
    bundle: &Bundle,
    offer: &Offer,
    taken: impl Fn(Protocol, u16) -> Option<String>,
) -> Vec<String> {
    let mut reasons = Vec::new();
    reasons.extend(offer.flash.as_ref().and_then(flash));
    reasons.extend(offer.too_small.iter().cloned());
    reasons.extend(offer.memory_bytes.and_then(|bytes| memory(bundle, bytes, offer)));
    reasons.extend(kernel::reasons(bundle, &offer.lacks));
    reasons.extend(security::reasons(bundle, offer));
    for (protocol, port) in host_ports(bundle) {
        let name = match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        reasons.extend(taken(protocol, port).map(|by| format!("port {port}/{name} is {by}")));
    }
    reasons
}

fn flash(flash: &Flash) -> Option<String> {
    let Flash { folder, needed_bytes, free_bytes } = flash;
    let is_short = *needed_bytes > *free_bytes;
    is_short.then(|| {
        let (needed, free) = (megabytes(*needed_bytes), free_bytes / 100_000);
        format!("needs {needed} on {}, {}.{} MB free", folder.display(), free / 10, free % 10)
    })
}

fn memory(bundle: &Bundle, bytes: u64, offer: &Offer) -> Option<String> {
    let bytes_max = u128::from(bytes) * u128::from(offer.memory_percent_max) / 100;
    let bytes_max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let limits = |deployment: &Deployment| deployment.pod.memory_bytes_max();
    let all = bundle.deployments.iter().fold(0, |sum: u64, deployment| {
        let replicas = u64::from(deployment.replicas);
        sum.saturating_add(limits(deployment).saturating_mul(replicas))
    });
    if all > bytes_max {
        let (all, max) = (megabytes(all), megabytes(bytes_max));
        return Some(format!("pods may use {all} of memory, {max} are there"));
    }
    // More than all of it may have been allowed for pods that never peak
    // together; one alone does.
    let largest = bundle.deployments.iter().max_by_key(|deployment| limits(deployment))?;
    let is_too_large = largest.replicas > 0 && limits(largest) > bytes;
    is_too_large.then(|| {
        let (own, bytes) = (megabytes(limits(largest)), megabytes(bytes));
        format!("a pod of {} may use {own} of memory, {bytes} are there", largest.name)
    })
}

fn host_ports(bundle: &Bundle) -> Vec<(Protocol, u16)> {
    let running = bundle.deployments.iter().filter(|deployment| deployment.replicas > 0);
    let containers = running.flat_map(|deployment| {
        let on_host = deployment.pod.host_network;
        deployment.pod.containers.iter().map(move |container| (on_host, container))
    });
    let ports = containers.flat_map(|(on_host, container)| {
        container.ports.iter().filter_map(move |port| {
            let own = on_host.then_some(port.container_port);
            Some((port.protocol, port.host_port.or(own)?))
        })
    });
    ports.collect()
}

#[cfg(test)]
mod tests {
    use wherry_bundle::model::{HostPath, HostPathKind, Volume, VolumeSource};

    use super::*;
    use crate::supervisor::sample;

    fn offer() -> Offer {
        Offer {
            too_small: Vec::new(),
            flash: None,
            memory_bytes: Some(480_000_000),
            memory_percent_max: 100,
            lacks: Lacks::default(),
            allowed: Allowed::default(),
        }
    }

    fn with_memory(bytes: u64, replicas: u16) -> Bundle {
        let mut bundle = sample::bundle();
        for deployment in &mut bundle.deployments {
            for container in &mut deployment.pod.containers {
                container.resources.memory_bytes = None;
            }
        }
        let deployment = &mut bundle.deployments[0];
        deployment.replicas = replicas;
        deployment.pod.containers[0].resources.memory_bytes = Some(bytes);
        bundle
    }

    fn told(bundle: &Bundle, offer: &Offer) -> Vec<String> {
        reasons(bundle, offer, |_, _| None)
    }

    #[test]
    fn flash_is_refused_with_numbers() {
        let bundle = with_memory(1, 1);
        let flash = |needed_bytes, free_bytes| Offer {
            flash: Some(Flash { folder: "/var/lib/wherry".into(), needed_bytes, free_bytes }),
            ..offer()
        };
        assert_eq!(told(&bundle, &flash(38_150_001, 38_150_001)), Vec::<String>::new());
        let why = told(&bundle, &flash(38_150_001, 21_099_999));
        assert_eq!(why, ["needs 38.2 MB on /var/lib/wherry, 21.0 MB free"]);
    }

    #[test]
    fn memory_is_all_pods_together_and_each_alone() {
        let told = |bytes, replicas, percent| {
            let offer = Offer { memory_percent_max: percent, ..offer() };
            told(&with_memory(bytes, replicas), &offer)
        };
        assert_eq!(told(240_000_000, 2, 100), Vec::<String>::new());
        let why = told(306_000_000, 2, 100);
        assert_eq!(why, ["pods may use 612.0 MB of memory, 480.0 MB are there"]);
        assert_eq!(told(306_000_000, 2, 200), Vec::<String>::new());
        let [why] = &told(500_000_000, 1, 200)[..] else { panic!() };
        assert!(why.contains("a pod of") && why.contains("500.0 MB"), "{why}");
        assert_eq!(told(500_000_000, 0, 200), Vec::<String>::new());
        let [why] = &told(300_000_000, 1, 50)[..] else { panic!() };
        assert!(why.contains("240.0 MB are there"), "{why}");
    }

    #[test]
    fn of_the_host_a_pod_gets_what_the_node_allows() {
        let mut bundle = sample::bundle();
        let host_path = HostPath { path: "/run/line".into(), kind: HostPathKind::Directory };
        let source = VolumeSource::HostPath(host_path);
        bundle.deployments[0].pod.volumes.push(Volume { name: sample::name("line"), source });
        let allowing = |allowed: &str| {
            let allowed = Allowed { host_paths: vec![allowed.into()], ..Allowed::default() };
            Offer { allowed, ..offer() }
        };
        for allowed in ["/run/line", "/run"] {
            assert_eq!(told(&bundle, &allowing(allowed)), Vec::<String>::new());
        }
        for allowed in ["/run/line/one", "/run/li", "/srv"] {
            let [why] = &told(&bundle, &allowing(allowed))[..] else { panic!("{allowed}") };
            assert!(why.contains("volume line: the host path `/run/line`"), "{why}");
        }
    }

    #[test]
    fn a_device_is_one_that_the_node_allows() {
        let mut bundle = sample::bundle();
        let device = |path: &str| HostPath { path: path.into(), kind: HostPathKind::CharDevice };
        let source = VolumeSource::HostPath(device("/dev/null"));
        bundle.deployments[0].pod.volumes.push(Volume { name: sample::name("modem"), source });
        let allowing = |allowed: &str| {
            let allowed = Allowed { devices: vec![allowed.into()], ..Allowed::default() };
            Offer { allowed, ..offer() }
        };
        assert_eq!(told(&bundle, &allowing("/dev/null")), Vec::<String>::new());
        for allowed in ["/dev/nul", "/dev/null/x", "/dev/zero"] {
            let [why] = &told(&bundle, &allowing(allowed))[..] else { panic!("{allowed}") };
            assert!(why.contains("volume modem: the device `/dev/null` is not among"), "{why}");
        }
    }

    #[test]
    fn all_reasons_are_told_at_once() {
        let mut bundle = with_memory(500_000_000, 1);
        let container = &mut bundle.deployments[0].pod.containers[0];
        container.ports = vec![wherry_bundle::model::Port {
            name: String::new(),
            protocol: Protocol::Udp,
            container_port: 53,
            host_port: Some(5353),
        }];
        let taken = |protocol, port| {
            (protocol == Protocol::Udp && port == 5353).then(|| "taken by avahi".to_owned())
        };
        let why = reasons(&bundle, &offer(), taken);
        assert_eq!(why.len(), 2, "{why:?}");
        assert_eq!(why[1], "port 5353/udp is taken by avahi");
        // On the host's network its own port is the host's.
        let deployment = &mut bundle.deployments[0];
        deployment.pod.host_network = true;
        deployment.pod.containers[0].ports[0].host_port = None;
        assert!(host_ports(&bundle).contains(&(Protocol::Udp, 53)));
    }
}
