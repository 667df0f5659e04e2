//! A node's figures at one moment, as it pushes them and as it shows them to a
//! scraper, and their form as text ([`families`], [`text`]).
//!
//! Small on purpose, for a thin uplink: whole numbers in the kernel's own
//! units, names once, no text that a reader can make himself. What a kernel
//! does not tell is absent.
//! Never here: reading `/proc`.

pub mod families;
pub mod text;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::limits::{CONTAINERS_MAX, DEPLOYMENTS_MAX, PODS_MAX, cut};
use crate::message::{Exit, FlashUse, Message, Phase, PodPhase};
use crate::{BuildVersion, Generation, Name};

/// Of each kind of device: a gateway has a few, and each is a dozen lines for
/// whoever scrapes a fleet.
pub const DEVICES_MAX: usize = 8;
/// Bytes of a text that becomes a label's value.
pub const LABEL_BYTES_MAX: usize = 64;

/// One sample of everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// The next comes after this; 0 where none is pushed.
    pub push_seconds: u32,
    pub machine: Machine,
    pub wherry: Wherry,
    /// Ordered by name.
    pub pods: Vec<Pod>,
}

impl Message for Metrics {
    /// 128 pods of 16 containers at their longest names are three times this:
    /// such a node shows its figures to a scraper only.
    const BYTES_MAX: usize = 64 * 1024;
}

/// Since the node booted, where it is a sum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub uptime_seconds: u64,
    pub cpus: u32,
    pub cpu: Option<CpuTimes>,
    /// Hundredths, over 1, 5 and 15 minutes.
    pub load: Option<[u32; 3]>,
    pub memory: Memory,
    /// Of Wherry's folders.
    pub file_systems: Vec<FileSystem>,
    pub disks: Vec<Disk>,
    /// Without loopback, and without the pods' links.
    pub interfaces: Vec<Interface>,
    pub thermal_zones: Vec<ThermalZone>,
    pub pressure: Pressure,
}

/// Of all processors together, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTimes {
    pub user: u64,
    pub nice: u64,
    pub system: u64,
    pub idle: u64,
    pub iowait: u64,
    pub irq: u64,
    pub softirq: u64,
    pub steal: u64,
}

/// In KiB, as the kernel tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    pub total: Option<u64>,
    pub free: Option<u64>,
    pub available: Option<u64>,
    pub buffers: Option<u64>,
    pub cached: Option<u64>,
    pub swap_total: Option<u64>,
    pub swap_free: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystem {
    /// A folder on it.
    pub folder: String,
    pub size_bytes: u64,
    pub free_bytes: u64,
    /// For programs without special rights.
    pub available_bytes: u64,
    pub files: u64,
    pub files_free: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub name: String,
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// In which some request was under way.
    pub busy_millis: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    pub received: Traffic,
    pub sent: Traffic,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThermalZone {
    pub number: u32,
    pub kind: String,
    /// Thousandths of a degree Celsius.
    pub temperature: i32,
}

/// Microseconds in which some process (waiting) or every one (stalled) had to
/// wait; absent on a kernel without PSI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    pub cpu_waiting: Option<u64>,
    pub memory_waiting: Option<u64>,
    pub memory_stalled: Option<u64>,
    pub io_waiting: Option<u64>,
    pub io_stalled: Option<u64>,
}

/// About Wherry itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wherry {
    pub version: String,
    pub architecture: String,
    pub kernel: String,
    pub generation: Generation,
    pub phase: Phase,
    /// What the generation has, each application in its version.
    pub applications: Vec<(Name, BuildVersion)>,
    /// Whether a bundle was refused, the last generation failed, or a newer one
    /// is held.
    pub refused: bool,
    pub failed: bool,
    pub held: bool,
    pub cloud_connected: bool,
    pub events_waiting: u32,
    pub events_dropped: u64,
    pub flash: FlashUse,
    pub launcher: Option<Process>,
    pub supervisor: Option<Process>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub cpu_millis: u64,
    pub resident_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    pub name: Name,
    pub deployment: Name,
    pub phase: PodPhase,
    /// Of all its containers together, if each has one.
    pub memory_bytes_max: Option<u64>,
    pub cpu_millis_max: Option<u32>,
    /// Absent while it is not there.
    pub usage: Option<Usage>,
    pub containers: Vec<Container>,
}

/// By the pod's cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub cpu_micros: u64,
    pub memory_bytes: u64,
    pub memory_bytes_peak: u64,
    pub processes: u64,
    pub oom_kills: u64,
    pub pressure: Option<PodPressure>,
}

/// Hundredths of a percent of the last ten seconds in which some process of it
/// waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodPressure {
    pub cpu: u16,
    pub memory: u16,
    pub io: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub name: Name,
    pub running: bool,
    pub restarts: u32,
    pub last_exit: Option<Exit>,
}

impl Metrics {
    /// Within all bounds, and each name once: two lines for one series would
    /// spoil the scrape of a whole fleet. For the node that makes a sample, and
    /// for the cloud, which does not know who made it.
    #[must_use]
    pub fn tidy(mut self) -> Self {
        let Machine { file_systems, disks, interfaces, thermal_zones, .. } = &mut self.machine;
        once(file_systems, DEVICES_MAX, |one| short(&mut one.folder).clone());
        once(disks, DEVICES_MAX, |one| short(&mut one.name).clone());
        once(interfaces, DEVICES_MAX, |one| short(&mut one.name).clone());
        once(thermal_zones, DEVICES_MAX, |one| {
            short(&mut one.kind);
            one.number
        });
        let Wherry { version, architecture, kernel, applications, .. } = &mut self.wherry;
        for text in [version, architecture, kernel] {
            short(text);
        }
        // Each has a deployment at least.
        once(applications, DEPLOYMENTS_MAX, |one| one.0.clone());
        once(&mut self.pods, PODS_MAX, |one| one.name.clone());
        for pod in &mut self.pods {
            once(&mut pod.containers, CONTAINERS_MAX, |one| one.name.clone());
        }
        self
    }
}

fn short(text: &mut String) -> &String {
    text.truncate(cut(text, LABEL_BYTES_MAX).len());
    text
}

/// The first of each name, at most `max`.
fn once<T, K: Ord>(all: &mut Vec<T>, max: usize, mut key: impl FnMut(&mut T) -> K) {
    let mut seen = BTreeSet::new();
    all.retain_mut(|one| seen.insert(key(one)));
    all.truncate(max);
}
