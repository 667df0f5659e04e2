//! What the supervisor says of itself and its pods, as figures. Pure.

use wherry_bundle::message::{ContainerState, ContainerStatus};
use wherry_bundle::metrics::{Container, Pod, PodPressure, Process, Usage, Wherry};

use crate::control::{LocalStatus, PodDescription, PodUsage};

/// With the processes of launcher and supervisor.
#[must_use]
pub(super) fn wherry(
    LocalStatus { node, cloud, .. }: &LocalStatus,
    [launcher, supervisor]: [Option<Process>; 2],
) -> Wherry {
    let applications = node.versions.iter();
    Wherry {
        version: node.wherry_version.clone(),
        architecture: node.architecture.clone(),
        kernel: node.kernel.clone(),
        generation: node.generation,
        phase: node.phase.clone(),
        applications: applications.map(|one| (one.application.clone(), one.number)).collect(),
        refused: node.refused.is_some(),
        failed: node.failed.is_some(),
        held: node.held.is_some(),
        cloud_connected: cloud.connected,
        events_waiting: node.events_waiting,
        events_dropped: node.events_dropped,
        flash: node.flash,
        launcher,
        supervisor,
    }
}

#[must_use]
pub(super) fn pod(pod: &PodDescription) -> Pod {
    let status = &pod.status;
    Pod {
        name: status.name.clone(),
        deployment: status.deployment.clone(),
        phase: status.phase,
        memory_bytes_max: pod.memory_bytes_max,
        cpu_millis_max: pod.cpu_millis_max,
        usage: pod.usage.as_ref().map(usage),
        containers: status.containers.iter().map(container).collect(),
    }
}

fn container(status: &ContainerStatus) -> Container {
    Container {
        name: status.name.clone(),
        running: matches!(status.state, ContainerState::Running { .. }),
        restarts: status.restarts,
        last_exit: status.last_exit,
    }
}

fn usage(usage: &PodUsage) -> Usage {
    Usage {
        cpu_micros: usage.cpu_micros,
        memory_bytes: usage.memory_bytes,
        memory_bytes_peak: usage.memory_bytes_peak,
        processes: usage.processes,
        oom_kills: usage.oom_kills,
        pressure: usage.pressure.map(|known| PodPressure {
            cpu: hundredths(known.cpu),
            memory: hundredths(known.memory),
            io: hundredths(known.io),
        }),
    }
}

/// Of a percentage, 100 at most.
fn hundredths(percent: f32) -> u16 {
    // A cast of a float ends at the bounds; what is no number becomes 0.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let hundredths = (percent * 100.0).round() as u16;
    hundredths.min(10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        for (percent, expected) in
            [(0.0, 0), (1.25, 125), (99.99, 9_999), (100.0, 10_000), (1e9, 10_000), (-1.0, 0)]
        {
            assert_eq!(hundredths(percent), expected);
        }
        assert_eq!(hundredths(f32::NAN), 0);
    }
}
