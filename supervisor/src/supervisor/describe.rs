//! `wherry describe`: all that is known about a pod.
//!
//! What a pod uses is asked of the launcher; the answer to the command line
//! waits for that. Never here: contents of config maps and secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::SyncSender;

use wherry_bundle::message::{NodeStatus, PodStatus};
use wherry_bundle::model::{ConfigKind, Container, Deployment, Resources, VolumeSource};
use wherry_bundle::{Bundle, Name};
use wherry_core::Observed;
use wherry_runtime::proto::Usage;

use super::report::{RecentEvents, megabytes};
use crate::control::{
    ContainerDescription, MountDescription, PodDescription, PodPressure, PodUsage, Response,
    VolumeStatus,
};

/// Events of a pod that are shown with it.
const EVENTS_MAX: usize = 10;
/// Descriptions under way: more than the control socket has connections.
const PENDING_MAX: usize = 16;

/// Answers that wait for the launcher.
#[derive(Debug, Default)]
pub struct Descriptions {
    pending: Vec<Pending>,
}

#[derive(Debug)]
struct Pending {
    pods: Vec<PodDescription>,
    /// Questions without an answer.
    asked: BTreeSet<u32>,
    answer: SyncSender<Response>,
}

impl Descriptions {
    /// Answers once all of `asked` are answered.
    pub fn begin(
        &mut self,
        name: Option<&Name>,
        pods: Vec<PodDescription>,
        asked: Vec<u32>,
        answer: SyncSender<Response>,
    ) {
        if let Some(name) = name
            && pods.is_empty()
        {
            let text = format!("there is no pod or deployment `{name}` (`wherry ps` lists them)");
            let _ = answer.try_send(Response::Error(text));
            return;
        }
        if self.pending.len() == PENDING_MAX {
            // Its client has given up long ago.
            self.pending.remove(0);
        }
        self.pending.push(Pending { pods, asked: asked.into_iter().collect(), answer });
        self.send_complete();
    }

    pub fn usage(&mut self, pod: &Name, usage: &Usage) {
        let waiting = self.pending.iter_mut().flat_map(|pending| &mut pending.pods);
        for description in waiting.filter(|description| description.status.name == *pod) {
            description.usage = Some(PodUsage {
                cpu_micros: usage.cpu_micros,
                memory_bytes: usage.memory_bytes,
                memory_bytes_peak: usage.memory_bytes_peak,
                processes: usage.pids,
                oom_kills: usage.oom_kills,
                pressure: usage.pressure.map(|known| PodPressure {
                    cpu: f32::from(known.cpu) / 100.0,
                    memory: f32::from(known.memory) / 100.0,
                    io: f32::from(known.io) / 100.0,
                }),
            });
        }
    }

    pub fn answered(&mut self, seq: u32) {
        for pending in &mut self.pending {
            pending.asked.remove(&seq);
        }
        self.send_complete();
    }

    fn send_complete(&mut self) {
        let all = std::mem::take(&mut self.pending);
        for pending in all {
            if pending.asked.is_empty() {
                // Whoever asked may be gone.
                let _ = pending.answer.try_send(Response::Pods(pending.pods));
            } else {
                self.pending.push(pending);
            }
        }
    }
}

/// The pod of that name, or all pods of the deployment of that name; without
/// one all pods, each in short.
#[must_use]
pub fn describe(
    name: Option<&Name>,
    status: &NodeStatus,
    observed: &Observed,
    recent: &RecentEvents,
    bundle: Option<&Bundle>,
    volumes: &[VolumeStatus],
) -> Vec<PodDescription> {
    let one = status.pods.iter().any(|pod| Some(&pod.name) == name);
    let wanted = |pod: &&PodStatus| match name {
        Some(name) if one => pod.name == *name,
        Some(name) => pod.deployment == *name,
        None => true,
    };
    let hashes = hashes(bundle);
    let describe = |pod: &PodStatus| {
        let seen = observed.pods.get(&pod.name);
        let found = bundle
            .and_then(|bundle| Some((bundle, bundle.deployment(&pod.deployment)?)))
            .filter(|(_, deployment)| {
                seen.is_none_or(|seen| hashes.get(&deployment.name) == Some(&seen.hash))
            });
        PodDescription {
            status: pod.clone(),
            hash: seen.map(|pod| pod.hash.short()).unwrap_or_default(),
            current: found.is_some(),
            restart_policy: seen.map(|pod| pod.restart_policy),
            grace_seconds: seen.map_or(0, |pod| pod.grace.0 / 1000),
            memory_bytes_max: found.and_then(|(_, found)| memory_bytes_max(found)),
            cpu_millis_max: found.and_then(|(_, found)| cpu_millis_max(found)),
            containers: found
                .filter(|_| name.is_some())
                .map(|(bundle, found)| containers(bundle, found, volumes))
                .unwrap_or_default(),
            usage: None,
            events: recent.about(pod.name.as_str(), if name.is_some() { EVENTS_MAX } else { 0 }),
        }
    };
    status.pods.iter().filter(wanted).map(describe).collect()
}

/// What all its containers may use together; `None` if one has no limit.
fn memory_bytes_max(deployment: &Deployment) -> Option<u64> {
    let limited = all_have(deployment, |resources| resources.memory_bytes.is_some());
    limited.then(|| deployment.pod.memory_bytes_max())
}

fn cpu_millis_max(deployment: &Deployment) -> Option<u32> {
    let limited = all_have(deployment, |resources| resources.cpu_millis.is_some());
    limited.then(|| deployment.pod.cpu_millis_max())
}

fn all_have(deployment: &Deployment, limit: impl Fn(&Resources) -> bool) -> bool {
    deployment.pod.containers.iter().all(|container| limit(&container.resources))
}

fn hashes(bundle: Option<&Bundle>) -> BTreeMap<Name, wherry_bundle::Digest> {
    let all = bundle.into_iter().flat_map(|bundle| {
        bundle.deployments.iter().map(move |d| (d.name.clone(), bundle.pod_hash(d)))
    });
    all.collect()
}

fn containers(
    bundle: &Bundle,
    deployment: &Deployment,
    volumes: &[VolumeStatus],
) -> Vec<ContainerDescription> {
    let describe = |container: &Container| ContainerDescription {
        name: container.name.clone(),
        image: bundle.image(&container.image).map(|i| i.reference.clone()).unwrap_or_default(),
        args: container.args.iter().map(ToString::to_string).collect(),
        user: container.user.uid,
        capabilities: container.capabilities.iter().cloned().collect(),
        cpu_millis: container.resources.cpu_millis,
        memory_bytes: container.resources.memory_bytes,
        ports: container.ports.clone(),
        mounts: mounts(deployment, container, volumes),
    };
    deployment.pod.containers.iter().map(describe).collect()
}

fn mounts(
    deployment: &Deployment,
    container: &Container,
    volumes: &[VolumeStatus],
) -> Vec<MountDescription> {
    let describe = |mount: &wherry_bundle::model::Mount| {
        let volume = deployment.pod.volumes.iter().find(|volume| volume.name == mount.volume)?;
        let source = match &volume.source {
            VolumeSource::Config(source) => match source.config.kind {
                ConfigKind::ConfigMap => format!("config map {}", source.config.name),
                ConfigKind::Secret => format!("secret {}", source.config.name),
            },
            VolumeSource::HostPath(source) => format!("host path {}", source.path),
            VolumeSource::Claim(source) => claim_text(&source.claim, volumes),
            VolumeSource::EmptyDir { bytes_max } => format!("memory, {}", megabytes(*bytes_max)),
        };
        Some(MountDescription { path: mount.path.clone(), source })
    };
    container.mounts.iter().filter_map(describe).collect()
}

fn claim_text(claim: &Name, volumes: &[VolumeStatus]) -> String {
    let found = volumes.iter().find(|volume| volume.name == *claim);
    let known = found.and_then(|volume| Some((volume, volume.bytes_used?, volume.bytes_max?)));
    let Some((volume, used, max)) = known else { return format!("claim {claim}") };
    let over = if volume.is_over() { ", over its limit" } else { "" };
    format!("claim {claim}, {} of {}{over}", megabytes(used), megabytes(max))
}
