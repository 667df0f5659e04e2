//! `make qemu`: Wherry on machines of its gateways' architectures, with
//! Debian's own kernels, cgroup v2 and Wherry's static binary, booted under
//! QEMU. Writes `qemu.json` and `boot.json`.

mod boot;
mod memory;
mod site;
mod whole;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;
use wherry_rig::Arch;
use wherry_tests::host::sweep;

const USAGE: &str = "usage: wherry-qemu [ARCH...] [whole] [memory] [boot]

Boots machines and tests Wherry on them; all of it without words.
  ARCH              aarch64, armv7 or x86_64
  whole             from installation to power-off: the scenarios of the host
  memory            small machines
  boot              how soon pods run

Reports: target/reports/qemu.json, boot.json";
const REPORTS: &str = "target/reports";

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
    let words: Vec<String> = std::env::args().skip(1).collect();
    let interrupted = ctrlc::set_handler(|| {
        println!("interrupted: cleaning up");
        sweep(site::ID);
        std::process::exit(130);
    });
    if let Err(error) = interrupted {
        eprintln!("an interruption will not be cleaned up: {error}");
    }
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
    memory: bool,
    boot: bool,
}

impl Choice {
    fn of(words: &[String]) -> Option<Self> {
        let mut choice = Self::default();
        for word in words {
            match word.as_str() {
                "whole" => choice.whole = true,
                "memory" => choice.memory = true,
                "boot" => choice.boot = true,
                arch => choice.archs.push(arch.parse().ok()?),
            }
        }
        if choice.archs.is_empty() {
            choice.archs = Arch::ALL.to_vec();
        }
        if !(choice.whole || choice.memory || choice.boot) {
            (choice.whole, choice.memory, choice.boot) = (true, true, true);
        }
        Some(choice)
    }
}

/// Goes on after a failure, so that a report says what works.
fn all(choice: &Choice) -> Result<bool> {
    let (mut rigs, mut boots) = (Vec::new(), Vec::new());
    for &arch in &choice.archs {
        if choice.whole {
            rigs.push(whole::run(arch));
        }
        // The smallest gateways have ARM; x86_64 is here for cgroup v2.
        if arch == Arch::X86_64 {
            continue;
        }
        if choice.memory {
            rigs.extend(memory::run(arch));
        }
        if choice.boot {
            boots.push(boot::run(arch));
        }
    }
    let ok = rigs.iter().all(|rig| rig.ok) && boots.iter().all(|boot| boot.ok);
    if !rigs.is_empty() {
        write("qemu.json", &serde_json::json!({ "rigs": rigs }))?;
    }
    if !boots.is_empty() {
        write("boot.json", &serde_json::json!({ "boots": boots }))?;
    }
    let passed: usize = rigs.iter().map(|rig| rig.tests_passed).sum();
    println!(
        "{} machines, {passed} tests passed, {}",
        rigs.len(),
        if ok { "ok" } else { "FAILED" }
    );
    Ok(ok)
}

fn write(name: &str, value: &serde_json::Value) -> Result<()> {
    let path = Path::new(REPORTS).join(name);
    std::fs::create_dir_all(REPORTS)?;
    let text = serde_json::to_string_pretty(value)? + "\n";
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}
