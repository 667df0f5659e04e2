//! From a bundle to what decisions need. Pure; the bundle was validated.

use std::collections::{BTreeMap, BTreeSet};

use wherry_bundle::Bundle;
use wherry_bundle::model::{
    AccessMode, ClaimVolume, Deployment, HostPathKind, Port, Volume, VolumeSource,
};

use crate::model::{Desired, Millis, PublishedPort, Workload};

impl Desired {
    /// What `bundle` asks for.
    #[must_use]
    pub fn of(bundle: &Bundle) -> Self {
        let workloads: BTreeMap<_, _> =
            bundle.deployments.iter().map(|d| (d.name.clone(), Workload::of(bundle, d))).collect();
        Self { generation: bundle.generation, workloads, replace: BTreeSet::new() }
    }
}

impl Workload {
    fn of(bundle: &Bundle, deployment: &Deployment) -> Self {
        let pod = &deployment.pod;
        let ports = pod.containers.iter().flat_map(|container| &container.ports);
        Self {
            hash: bundle.pod_hash(deployment),
            replicas: deployment.replicas,
            strategy: deployment.strategy,
            min_ready: seconds(deployment.min_ready_seconds),
            progress_deadline: seconds(deployment.progress_deadline_seconds),
            after: deployment.after.clone(),
            restart_policy: pod.restart_policy,
            job: deployment.job,
            grace: seconds(pod.termination_grace_seconds),
            containers: pod.containers.iter().map(|c| (c.name.clone(), c.role)).collect(),
            layers: bundle.layers_of(deployment),
            host_network: pod.host_network,
            ports: ports.filter_map(|port| published(port, pod.host_network)).collect(),
            has_device: pod.volumes.iter().any(is_device),
            has_claim: pod.claims().any(|volume| is_for_one(bundle, volume)),
            memory_bytes: pod.memory_bytes_max(),
        }
    }

    /// No two of its pods may run at once: they would want the same device, claim,
    /// or ports of the host's own network.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.has_device || self.has_claim || (self.host_network && !self.ports.is_empty())
    }
}

fn is_device(volume: &Volume) -> bool {
    match &volume.source {
        VolumeSource::HostPath(host) => host.kind == HostPathKind::CharDevice,
        VolumeSource::Config(_) | VolumeSource::EmptyDir { .. } | VolumeSource::Claim(_) => false,
    }
}

/// Whoever only reads it is in nobody's way.
fn is_for_one(bundle: &Bundle, volume: &ClaimVolume) -> bool {
    let claim = bundle.claim(&volume.claim).filter(|_| !volume.read_only);
    claim.is_some_and(|claim| claim.access == AccessMode::ReadWriteOnce)
}

/// On the host's network a container's port is the host's port.
fn published(port: &Port, host_network: bool) -> Option<PublishedPort> {
    let host_port = if host_network { Some(port.container_port) } else { port.host_port };
    let (protocol, container_port) = (port.protocol, port.container_port);
    host_port.map(|host_port| PublishedPort { protocol, host_port, container_port })
}

fn seconds(seconds: u32) -> Millis {
    Millis(u64::from(seconds).saturating_mul(1_000))
}
