//! Figures of a node that has all of them.

use wherry_bundle::message::{Exit, FlashUse, Phase, PodPhase};
use wherry_bundle::metrics::{
    Container, CpuTimes, Disk, FileSystem, Interface, Machine, Memory, Metrics, Pod, PodPressure,
    Pressure, Process, ThermalZone, Traffic, Usage, Wherry,
};
use wherry_bundle::{BuildVersion, Generation};

use super::name;

pub fn full() -> Metrics {
    Metrics {
        push_seconds: 300,
        machine: machine(),
        wherry: Wherry {
            version: "0.1.0".into(),
            architecture: "arm64".into(),
            kernel: "6.1.0".into(),
            generation: Generation(7),
            phase: Phase::Fetching { bytes_done: 1_000, bytes_total: 5_000 },
            applications: vec![(name("zoo"), BuildVersion { x: 1, y: 4, z: 0, build: 2 })],
            refused: true,
            failed: false,
            held: true,
            cloud_connected: true,
            events_waiting: 2,
            events_dropped: 300,
            flash: FlashUse { layer_bytes: 1_000, state_bytes: 20_000, log_bytes: 0 },
            launcher: Some(Process { cpu_millis: 1_230, resident_bytes: 2 << 20 }),
            supervisor: Some(Process { cpu_millis: 4_560, resident_bytes: 4 << 20 }),
        },
        pods: vec![pod("db-1", "db", false), pod("web-3", "web", true), pod("web-4", "web", true)],
    }
}

fn machine() -> Machine {
    let traffic = |bytes| Traffic { bytes, packets: bytes / 100, errors: 1, dropped: 2 };
    Machine {
        uptime_seconds: 86_400,
        cpus: 4,
        cpu: Some(CpuTimes {
            user: 1_000,
            nice: 20,
            system: 3_000,
            idle: 4_000_500,
            iowait: 500,
            irq: 0,
            softirq: 70,
            steal: 8,
        }),
        load: Some([5, 110, 1_500]),
        memory: Memory {
            total: Some(100_000),
            free: Some(10_000),
            available: Some(50_000),
            buffers: Some(1_000),
            cached: Some(30_000),
            swap_total: Some(0),
            swap_free: Some(0),
        },
        file_systems: vec![FileSystem {
            folder: "/var/lib/wherry".into(),
            size_bytes: 1 << 30,
            free_bytes: 1 << 29,
            available_bytes: 1 << 28,
            files: 65_536,
            files_free: 60_000,
        }],
        disks: vec![Disk {
            name: "mmcblk0".into(),
            read_bytes: 1 << 30,
            written_bytes: 1 << 20,
            busy_millis: 1_234,
        }],
        interfaces: vec![Interface {
            name: "eth0".into(),
            received: traffic(1_000_000),
            sent: traffic(50_000),
        }],
        thermal_zones: vec![ThermalZone {
            number: 0,
            kind: "cpu-thermal".into(),
            temperature: 48_312,
        }],
        pressure: Pressure {
            cpu_waiting: Some(1_500_000),
            memory_waiting: Some(3),
            memory_stalled: Some(2),
            io_waiting: Some(1_000),
            io_stalled: Some(900),
        },
    }
}

fn pod(pod: &str, deployment: &str, runs: bool) -> Pod {
    let usage = Usage {
        cpu_micros: 12_345_678,
        memory_bytes: 20 << 20,
        memory_bytes_peak: 30 << 20,
        processes: 5,
        oom_kills: 1,
        pressure: Some(PodPressure { cpu: 125, memory: 0, io: 10_000 }),
    };
    Pod {
        name: name(pod),
        deployment: name(deployment),
        phase: if runs { PodPhase::Available } else { PodPhase::BackOff },
        memory_bytes_max: Some(64 << 20),
        cpu_millis_max: Some(250),
        usage: runs.then_some(usage),
        containers: vec![Container {
            name: name("main"),
            running: runs,
            restarts: 4,
            last_exit: (!runs).then_some(Exit::OutOfMemory),
        }],
    }
}
