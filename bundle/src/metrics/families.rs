//! Every family of metrics that a node has, in the order of the text.
//!
//! Names are node_exporter's, cAdvisor's and kube-state-metrics' (and
//! kube-scheduler's for a pod's limits) where they have one for the same thing;
//! the others begin with `wherry_`. node_exporter's names of memory are those
//! of its BSD collectors: the ones for Linux have capital letters in them,
//! which `promtool check metrics` refuses.

use super::text::{Kind, Samples, Value};
use super::{Container, Interface, Metrics, Pod, Traffic, Usage};
use crate::message::{Exit, Phase, PodPhase};

/// One name, and how its lines follow from a sample.
#[derive(Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    /// A sentence. Without a backslash or a line feed.
    pub help: &'static str,
    pub(super) samples: fn(&Metrics, &mut Samples<'_>),
}

/// What Wherry wrote to flash.
pub const FLASH_WRITTEN: &str = "wherry_node_flash_written_bytes_total";

const fn gauge(
    name: &'static str,
    help: &'static str,
    samples: fn(&Metrics, &mut Samples<'_>),
) -> Family {
    Family { name, kind: Kind::Gauge, help, samples }
}

const fn counter(
    name: &'static str,
    help: &'static str,
    samples: fn(&Metrics, &mut Samples<'_>),
) -> Family {
    Family { name, kind: Kind::Counter, help, samples }
}

pub const FAMILIES: &[Family] = &[
    gauge("machine_cpu_cores", "Number of logical processors.", |m, s| {
        s.line(&[], m.machine.cpus);
    }),
    counter(
        "node_cpu_seconds_total",
        "Seconds the processors spent in each mode, all together.",
        |m, s| {
            let Some(cpu) = m.machine.cpu else { return };
            for (mode, millis) in [
                ("user", cpu.user),
                ("nice", cpu.nice),
                ("system", cpu.system),
                ("idle", cpu.idle),
                ("iowait", cpu.iowait),
                ("irq", cpu.irq),
                ("softirq", cpu.softirq),
                ("steal", cpu.steal),
            ] {
                s.line(&[("mode", mode)], Value::thousandths(millis));
            }
        },
    ),
    gauge("node_load1", "Load average over 1 minute.", |m, s| load(m, s, 0)),
    gauge("node_load5", "Load average over 5 minutes.", |m, s| load(m, s, 1)),
    gauge("node_load15", "Load average over 15 minutes.", |m, s| load(m, s, 2)),
    gauge("node_memory_total_bytes", "Memory that the kernel has.", |m, s| {
        kib(s, m.machine.memory.total);
    }),
    gauge("node_memory_free_bytes", "Memory that nothing uses.", |m, s| {
        kib(s, m.machine.memory.free);
    }),
    gauge("node_memory_available_bytes", "Memory that new processes can have.", |m, s| {
        kib(s, m.machine.memory.available);
    }),
    gauge("node_memory_buffers_bytes", "Memory that buffers block devices.", |m, s| {
        kib(s, m.machine.memory.buffers);
    }),
    gauge("node_memory_cached_bytes", "Memory that caches files, tmpfs included.", |m, s| {
        kib(s, m.machine.memory.cached);
    }),
    gauge("node_memory_swap_total_bytes", "Swap space.", |m, s| {
        kib(s, m.machine.memory.swap_total);
    }),
    gauge("node_memory_swap_free_bytes", "Swap space that is not used.", |m, s| {
        kib(s, m.machine.memory.swap_free);
    }),
    gauge("node_filesystem_size_bytes", "Size of the file system of a folder.", |m, s| {
        file_systems(m, s, |one| one.size_bytes);
    }),
    gauge("node_filesystem_free_bytes", "Free space, what is reserved included.", |m, s| {
        file_systems(m, s, |one| one.free_bytes);
    }),
    gauge("node_filesystem_avail_bytes", "Free space for ordinary programs.", |m, s| {
        file_systems(m, s, |one| one.available_bytes);
    }),
    gauge("node_filesystem_files", "Inodes of the file system.", |m, s| {
        file_systems(m, s, |one| one.files);
    }),
    gauge("node_filesystem_files_free", "Inodes that are free.", |m, s| {
        file_systems(m, s, |one| one.files_free);
    }),
    counter("node_disk_read_bytes_total", "Bytes read from a disk.", |m, s| {
        let disks = m.machine.disks.iter();
        disks.for_each(|disk| s.line(&[("device", &disk.name)], disk.read_bytes));
    }),
    counter("node_disk_written_bytes_total", "Bytes written to a disk, by anybody.", |m, s| {
        let disks = m.machine.disks.iter();
        disks.for_each(|disk| s.line(&[("device", &disk.name)], disk.written_bytes));
    }),
    counter("node_disk_io_time_seconds_total", "Seconds in which a disk was busy.", |m, s| {
        for disk in &m.machine.disks {
            s.line(&[("device", &disk.name)], Value::thousandths(disk.busy_millis));
        }
    }),
    counter("node_network_receive_bytes_total", "Bytes received by an interface.", |m, s| {
        traffic(m, s, |one| one.received, |traffic| traffic.bytes);
    }),
    counter("node_network_receive_packets_total", "Packets received.", |m, s| {
        traffic(m, s, |one| one.received, |traffic| traffic.packets);
    }),
    counter("node_network_receive_errs_total", "Errors while receiving.", |m, s| {
        traffic(m, s, |one| one.received, |traffic| traffic.errors);
    }),
    counter("node_network_receive_drop_total", "Received packets that were dropped.", |m, s| {
        traffic(m, s, |one| one.received, |traffic| traffic.dropped);
    }),
    counter("node_network_transmit_bytes_total", "Bytes sent by an interface.", |m, s| {
        traffic(m, s, |one| one.sent, |traffic| traffic.bytes);
    }),
    counter("node_network_transmit_packets_total", "Packets sent.", |m, s| {
        traffic(m, s, |one| one.sent, |traffic| traffic.packets);
    }),
    counter("node_network_transmit_errs_total", "Errors while sending.", |m, s| {
        traffic(m, s, |one| one.sent, |traffic| traffic.errors);
    }),
    counter("node_network_transmit_drop_total", "Packets dropped instead of sent.", |m, s| {
        traffic(m, s, |one| one.sent, |traffic| traffic.dropped);
    }),
    gauge("node_thermal_zone_temp", "Temperature of a zone in Celsius.", |m, s| {
        for zone in &m.machine.thermal_zones {
            let number = zone.number.to_string();
            let labels = [("zone", number.as_str()), ("type", &zone.kind)];
            s.line(&labels, Value::signed_thousandths(zone.temperature));
        }
    }),
    counter(
        "node_pressure_cpu_waiting_seconds_total",
        "Seconds in which some process waited for a processor.",
        |m, s| s.maybe(&[], m.machine.pressure.cpu_waiting.map(Value::millionths)),
    ),
    counter(
        "node_pressure_memory_waiting_seconds_total",
        "Seconds in which some process waited for memory.",
        |m, s| s.maybe(&[], m.machine.pressure.memory_waiting.map(Value::millionths)),
    ),
    counter(
        "node_pressure_memory_stalled_seconds_total",
        "Seconds in which every process waited for memory.",
        |m, s| s.maybe(&[], m.machine.pressure.memory_stalled.map(Value::millionths)),
    ),
    counter(
        "node_pressure_io_waiting_seconds_total",
        "Seconds in which some process waited for a disk.",
        |m, s| s.maybe(&[], m.machine.pressure.io_waiting.map(Value::millionths)),
    ),
    counter(
        "node_pressure_io_stalled_seconds_total",
        "Seconds in which every process waited for a disk.",
        |m, s| s.maybe(&[], m.machine.pressure.io_stalled.map(Value::millionths)),
    ),
    gauge("wherry_node_uptime_seconds", "Seconds since the node booted.", |m, s| {
        s.line(&[], m.machine.uptime_seconds);
    }),
    gauge("wherry_node_info", "What the node is; always 1.", |m, s| {
        let labels = [
            ("version", m.wherry.version.as_str()),
            ("architecture", &m.wherry.architecture),
            ("kernel", &m.wherry.kernel),
        ];
        s.line(&labels, true);
    }),
    gauge("wherry_node_generation", "The generation that the node works towards.", |m, s| {
        s.line(&[], m.wherry.generation.0);
    }),
    gauge("wherry_node_phase", "How far it is with that; 1 for the present phase.", |m, s| {
        s.line(&[("phase", phase(&m.wherry.phase))], true);
    }),
    gauge("wherry_node_application_info", "Its applications and their versions.", |m, s| {
        for (application, version) in &m.wherry.applications {
            let version = version.to_string();
            let labels = [("application", application.as_str()), ("version", &version)];
            s.line(&labels, true);
        }
    }),
    gauge("wherry_node_fetched_bytes", "Bytes of its layers that are there.", |m, s| {
        if let Phase::Fetching { bytes_done, .. } = m.wherry.phase {
            s.line(&[], bytes_done);
        }
    }),
    gauge("wherry_node_fetch_size_bytes", "Bytes of all its layers.", |m, s| {
        if let Phase::Fetching { bytes_total, .. } = m.wherry.phase {
            s.line(&[], bytes_total);
        }
    }),
    gauge("wherry_node_bundle_refused", "Whether the last bundle was refused.", |m, s| {
        s.line(&[], m.wherry.refused);
    }),
    gauge("wherry_node_generation_failed", "Whether the last generation failed.", |m, s| {
        s.line(&[], m.wherry.failed);
    }),
    gauge("wherry_node_generation_held", "Whether a newer generation is held.", |m, s| {
        s.line(&[], m.wherry.held);
    }),
    gauge("wherry_node_cloud_connected", "Whether the node has its broker.", |m, s| {
        s.line(&[], m.wherry.cloud_connected);
    }),
    gauge("wherry_node_events_waiting", "Events that no cloud has confirmed.", |m, s| {
        s.line(&[], m.wherry.events_waiting);
    }),
    counter("wherry_node_events_dropped_total", "Events dropped for want of room.", |m, s| {
        s.line(&[], m.wherry.events_dropped);
    }),
    counter(FLASH_WRITTEN, "Bytes that Wherry wrote to a node's flash since it booted.", |m, s| {
        let flash = m.wherry.flash;
        s.line(&[("purpose", "layers")], flash.layer_bytes);
        s.line(&[("purpose", "state")], flash.state_bytes);
        s.line(&[("purpose", "logs")], flash.log_bytes);
    }),
    counter(
        "wherry_node_process_cpu_seconds_total",
        "Seconds of processor that a process of Wherry used.",
        |m, s| {
            for (name, process) in
                [("launcher", m.wherry.launcher), ("supervisor", m.wherry.supervisor)]
            {
                let seconds = process.map(|process| Value::thousandths(process.cpu_millis));
                s.maybe(&[("process", name)], seconds);
            }
        },
    ),
    gauge(
        "wherry_node_process_resident_memory_bytes",
        "Memory of a process of Wherry, shared pages included.",
        |m, s| {
            for (name, process) in
                [("launcher", m.wherry.launcher), ("supervisor", m.wherry.supervisor)]
            {
                s.maybe(&[("process", name)], process.map(|process| process.resident_bytes));
            }
        },
    ),
    gauge("kube_deployment_status_replicas", "Pods of a deployment, there or planned.", |m, s| {
        deployments(m, s, |_| true);
    }),
    gauge("kube_deployment_status_replicas_available", "Those that are available.", |m, s| {
        deployments(m, s, is_available);
    }),
    gauge("wherry_pod_phase", "What a pod is at; 1 for the present phase.", |m, s| {
        pods(m, s, |pod, labels, s| {
            s.line(&[labels[0], labels[1], ("phase", pod.phase.as_str())], true);
        });
    }),
    gauge("kube_pod_status_ready", "Whether a pod is available.", |m, s| {
        pods(m, s, |pod, labels, s| {
            let ready = is_available(pod);
            s.line(&[labels[0], labels[1], ("condition", "true")], ready);
            s.line(&[labels[0], labels[1], ("condition", "false")], !ready);
        });
    }),
    gauge("kube_pod_resource_limit", "What a pod's containers may use together.", |m, s| {
        pods(m, s, |pod, [a, b], s| {
            let cores = pod.cpu_millis_max.map(|millis| Value::thousandths(millis.into()));
            s.maybe(&[a, b, ("resource", "cpu"), ("unit", "cores")], cores);
            let labels = [a, b, ("resource", "memory"), ("unit", "bytes")];
            s.maybe(&labels, pod.memory_bytes_max);
        });
    }),
    counter("container_cpu_usage_seconds_total", "Processor time that a pod used.", |m, s| {
        usage(m, s, |usage| Value::millionths(usage.cpu_micros));
    }),
    gauge("container_memory_usage_bytes", "Memory of a pod, its page cache included.", |m, s| {
        usage(m, s, |usage| usage.memory_bytes.into());
    }),
    gauge("container_memory_max_usage_bytes", "The most memory that a pod had.", |m, s| {
        usage(m, s, |usage| usage.memory_bytes_peak.into());
    }),
    gauge("container_processes", "Processes and threads of a pod.", |m, s| {
        usage(m, s, |usage| usage.processes.into());
    }),
    counter("container_oom_events_total", "Processes killed by a pod's memory limits.", |m, s| {
        usage(m, s, |usage| usage.oom_kills.into());
    }),
    gauge(
        "wherry_pod_pressure_ratio",
        "Share of the last ten seconds in which some process of a pod waited.",
        |m, s| {
            pods(m, s, |pod, [a, b], s| {
                let Some(known) = pod.usage.and_then(|usage| usage.pressure) else { return };
                for (name, part) in [("cpu", known.cpu), ("memory", known.memory), ("io", known.io)]
                {
                    s.line(&[a, b, ("resource", name)], Value::ten_thousandths(part));
                }
            });
        },
    ),
    counter(
        "kube_pod_container_status_restarts_total",
        "How often a container was started again.",
        |m, s| containers(m, s, |one, labels, s| s.line(labels, one.restarts)),
    ),
    gauge("kube_pod_container_status_running", "Whether a container runs.", |m, s| {
        containers(m, s, |one, labels, s| s.line(labels, one.running));
    }),
    gauge(
        "kube_pod_container_status_last_terminated_reason",
        "How a container ended last; always 1.",
        |m, s| {
            containers(m, s, |one, [a, b, c], s| {
                let reason = one.last_exit.map(reason);
                s.maybe(
                    &[*a, *b, *c, ("reason", reason.unwrap_or_default())],
                    reason.map(|_| true),
                );
            });
        },
    ),
];

fn load(m: &Metrics, s: &mut Samples<'_>, index: usize) {
    s.maybe(&[], m.machine.load.map(|load| Value::hundredths(load[index])));
}

fn kib(s: &mut Samples<'_>, value: Option<u64>) {
    s.maybe(&[], value.map(|kib| kib.saturating_mul(1024)));
}

fn file_systems(m: &Metrics, s: &mut Samples<'_>, of: fn(&super::FileSystem) -> u64) {
    for one in &m.machine.file_systems {
        s.line(&[("mountpoint", &one.folder)], of(one));
    }
}

fn traffic(
    m: &Metrics,
    s: &mut Samples<'_>,
    side: fn(&Interface) -> Traffic,
    of: fn(Traffic) -> u64,
) {
    for one in &m.machine.interfaces {
        s.line(&[("device", &one.name)], of(side(one)));
    }
}

fn deployments(m: &Metrics, s: &mut Samples<'_>, counts: fn(&Pod) -> bool) {
    let mut sums = std::collections::BTreeMap::<&str, u32>::new();
    for pod in m.pods.iter().filter(|pod| pod.phase != PodPhase::Terminating) {
        *sums.entry(pod.deployment.as_str()).or_default() += u32::from(counts(pod));
    }
    sums.into_iter().for_each(|(name, sum)| s.line(&[("deployment", name)], sum));
}

type PodLabels<'a> = [(&'a str, &'a str); 2];
type ContainerLabels<'a> = [(&'a str, &'a str); 3];

fn pods(m: &Metrics, s: &mut Samples<'_>, lines: impl Fn(&Pod, PodLabels<'_>, &mut Samples<'_>)) {
    for pod in &m.pods {
        lines(pod, [("deployment", pod.deployment.as_str()), ("pod", pod.name.as_str())], s);
    }
}

fn usage(m: &Metrics, s: &mut Samples<'_>, of: fn(&Usage) -> Value) {
    pods(m, s, |pod, labels, s| s.maybe(&labels, pod.usage.as_ref().map(of)));
}

fn containers(
    m: &Metrics,
    s: &mut Samples<'_>,
    lines: impl Fn(&Container, &ContainerLabels<'_>, &mut Samples<'_>),
) {
    pods(m, s, |pod, [a, b], s| {
        for one in &pod.containers {
            lines(one, &[a, b, ("container", one.name.as_str())], s);
        }
    });
}

fn is_available(pod: &Pod) -> bool {
    matches!(pod.phase, PodPhase::Available | PodPhase::Succeeded)
}

/// In a word.
#[must_use]
pub fn phase(phase: &Phase) -> &'static str {
    match phase {
        Phase::Empty => "empty",
        Phase::Fetching { .. } => "fetching",
        Phase::Rolling { .. } => "rolling",
        Phase::Stabilising => "stabilising",
        Phase::Good => "good",
    }
}

/// Kubernetes' words.
fn reason(exit: Exit) -> &'static str {
    match exit {
        Exit::Code(0) => "Completed",
        Exit::Code(_) | Exit::Signal(_) => "Error",
        Exit::OutOfMemory => "OOMKilled",
        Exit::Unknown => "ContainerStatusUnknown",
    }
}
