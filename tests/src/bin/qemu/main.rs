//! `make qemu`: Wherry on machines of its gateways' architectures, with
//! Debian's own kernels, cgroup v2 and Wherry's static binary, booted under
//! QEMU. Writes `qemu.json` and `boot.json`.

mod boot;
mod first;
mod memory;
mod service;
mod site;
mod whole;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use serde::Serialize;
use wherry_rig::Arch;
use wherry_tests::interrupt;

const USAGE: &str = "usage: wherry-qemu [ARCH...] [whole] [init] [systemd] [memory] [boot] [short]

Boots machines and tests Wherry on them; all of it without words.
  ARCH              aarch64, armv7 or x86_64
  whole             from installation to power-off: the scenarios of the host
  init              Wherry as the first program: how machines begin and end
  systemd           Wherry as a service (aarch64)
  memory            small machines
  boot              how soon pods run
  short             without what another machine shows as well

Reports: target/reports/qemu.json, boot.json";
const REPORTS: &str = "target/reports";
/// What is made for the machines that run at the same time carries these.
const IDS: [&str; 2] = ["rig0", "rig1"];

/// What was found out about one machine.
#[derive(Debug, Serialize)]
pub struct RigReport {
    arch: &'static str,
    memory_mb: u32,
    /// What it was for.
    test: &'static str,
    ok: bool,
    /// From the start of QEMU, without a cloud, to every pod running.
    boot_to_pods_ms: Option<u64>,
    tests_passed: usize,
    /// `MemTotal` and `MemAvailable` with all pods running, and what
    /// Wherry's own processes take of it: the sum of their `Pss`.
    memory: Option<memory::Figures>,
}

fn main() -> ExitCode {
    interrupt::sweeps(&IDS);
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some(choice) = Choice::of(&words) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match all(&choice) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is to be done.
#[derive(Debug, Default)]
struct Choice {
    archs: Vec<Arch>,
    whole: bool,
    init: bool,
    systemd: bool,
    memory: bool,
    boot: bool,
    short: bool,
}

impl Choice {
    fn of(words: &[String]) -> Option<Self> {
        let mut choice = Self::default();
        for word in words {
            match word.as_str() {
                "whole" => choice.whole = true,
                "init" => choice.init = true,
                "systemd" => choice.systemd = true,
                "memory" => choice.memory = true,
                "boot" => choice.boot = true,
                "short" => choice.short = true,
                arch => choice.archs.push(arch.parse().ok()?),
            }
        }
        if choice.archs.is_empty() {
            choice.archs = Arch::ALL.to_vec();
        }
        if !(choice.whole || choice.init || choice.systemd || choice.memory || choice.boot) {
            let Self { archs, short, .. } = choice;
            choice = Self {
                archs,
                short,
                whole: true,
                init: true,
                systemd: true,
                memory: true,
                boot: true,
            };
        }
        Some(choice)
    }
}

/// One machine after the other of these; two at a time.
#[derive(Clone, Copy, Debug)]
enum Job {
    Whole(Arch),
    /// The first part of [`Self::Whole`].
    Brief(Arch),
    Init(Arch),
    Systemd(Arch),
    Memory(Arch, u32, u16),
}

impl Job {
    /// What is left of it where another machine, or this one, shows the rest:
    /// what decides is the same on all; what a kernel or a processor has a
    /// part in comes early in a machine's life.
    fn short(self) -> Option<Self> {
        match self {
            Self::Whole(Arch::Armv7) => Some(Self::Brief(Arch::Armv7)),
            Self::Whole(Arch::X86_64) | Self::Init(Arch::Armv7 | Arch::X86_64) => None,
            // The smallest machine of the one, the fullest of the other.
            Self::Memory(Arch::Aarch64, _, 3) | Self::Memory(Arch::Armv7, _, 10) => None,
            all => Some(all),
        }
    }

    fn run(self, id: &str) -> RigReport {
        match self {
            Self::Whole(arch) => whole::run(id, arch, false),
            Self::Brief(arch) => whole::run(id, arch, true),
            Self::Init(arch) => first::run(id, arch),
            Self::Systemd(arch) => service::run(id, arch),
            Self::Memory(arch, memory_mib, pods) => memory::run(id, arch, memory_mib, pods),
        }
    }
}

/// Goes on after a failure, so that a report says what works.
fn all(choice: &Choice) -> Result<bool> {
    let mut jobs = Vec::new();
    if choice.whole {
        jobs.extend(choice.archs.iter().map(|&arch| Job::Whole(arch)));
    }
    if choice.init {
        jobs.extend(choice.archs.iter().map(|&arch| Job::Init(arch)));
    }
    // What differs is the init system, not the processor.
    if choice.systemd && choice.archs.contains(&Arch::Aarch64) {
        jobs.push(Job::Systemd(Arch::Aarch64));
    }
    if choice.memory {
        let machines = |&arch: &Arch| {
            memory::machines(arch).iter().map(move |&(mib, pods)| Job::Memory(arch, mib, pods))
        };
        jobs.extend(choice.archs.iter().flat_map(machines));
    }
    if choice.short {
        jobs = jobs.into_iter().filter_map(Job::short).collect();
    }
    let rigs = two_at_a_time(&jobs);
    // Alone: what else the machine does would be in the figures.
    let boots: Vec<_> = choice
        .archs
        .iter()
        .filter(|&&arch| choice.boot && arch != Arch::X86_64)
        .map(|&arch| boot::run(IDS[0], arch))
        .collect();
    let ok = rigs.iter().all(|rig| rig.ok) && boots.iter().all(|boot| boot.ok);
    if !rigs.is_empty() {
        write("qemu.json", &serde_json::json!({ "rigs": rigs }))?;
    }
    if !boots.is_empty() {
        write("boot.json", &serde_json::json!({ "boots": boots }))?;
    }
    let passed: usize = rigs.iter().map(|rig| rig.tests_passed).sum();
    let failed = rigs.iter().filter(|rig| !rig.ok).count() + boots.iter().filter(|b| !b.ok).count();
    let verdict = if ok { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed; 0 ignored");
    Ok(ok)
}

/// An emulated machine has one processor, which takes one of this machine's.
fn two_at_a_time(jobs: &[Job]) -> Vec<RigReport> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for id in IDS {
            let (next, done) = (&next, &done);
            scope.spawn(move || {
                while let Some(&job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = job.run(id);
                    if !report.ok {
                        println!("test {job:?} ... FAILED");
                    }
                    done.lock().unwrap_or_else(PoisonError::into_inner).push(report);
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn write(name: &str, value: &serde_json::Value) -> Result<()> {
    let path = Path::new(REPORTS).join(name);
    std::fs::create_dir_all(REPORTS)?;
    let text = serde_json::to_string_pretty(value)? + "\n";
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}
