//! A gateway in a rig: a machine under QEMU whose network ends in the test's
//! wan namespace, where the cloud is.
//!
//! Never here: what is tested.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use wherry_rig::machine::{BINARY, CONFIGURATION};
use wherry_rig::{Arch, File, Forward, Init, Machine, Rig};

use crate::host::Host;
use crate::images::static_binary;
use crate::node::configuration;
use crate::place::Place;
use crate::scenario::ends::OPEN_PORT;
use crate::shop::{BUS_PORT, WEB_PORT};

/// The node's data folder, on the machine's own disk.
pub const DATA: &str = "/data/wherry";
/// How long anything may take on an emulated machine, while the other core
/// builds something.
const PATIENCE: Duration = Duration::from_secs(180);
/// An emulated nginx with half a core takes three; ten on 32 bits, while another
/// one starts beside it.
const SETTLE_SECONDS: u16 = 8;
const SETTLE_SECONDS_ARMV7: u16 = 20;
/// A day.
const NEVER_STABLE_SECONDS: u32 = 86_400;
/// How long one command may take there.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// How long one machine may run: the longest scenario takes half of it.
const MACHINE_LIMIT: Duration = Duration::from_secs(1800);

/// Prints a line for each process of the cgroups below `$1`: its number, and
/// what its `stat` says.
const PROCESSES: &str = "find \"/sys/fs/cgroup/$1\" -name cgroup.procs -exec cat {} + |
while read -r pid; do
    { read -r stat <\"/proc/$pid/stat\"; } 2>/dev/null && echo \"$stat\"
done
true";

/// What a machine is to be.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    pub arch: Arch,
    pub memory_mib: u32,
    /// Its data disk, which outlives it.
    pub disk: &'a Path,
    /// What the cloud printed for its node.
    pub cloud_part: &'a str,
}

/// The machine of a plan, Wherry as its first program; it can be changed
/// before it boots.
///
/// # Errors
/// No static build.
pub fn machine(host: &Host, plan: &Plan<'_>) -> Result<Machine> {
    let mut machine = Machine::new(plan.arch);
    machine.memory_mib = plan.memory_mib;
    machine.init = Init::Wherry;
    machine.disk = Some(plan.disk.to_owned());
    machine.enter = host.enter_wan().map(OsString::from).to_vec();
    machine.time_limit = MACHINE_LIMIT;
    machine.boot_limit = PATIENCE;
    let ports = [WEB_PORT, BUS_PORT, OPEN_PORT];
    machine.forwards = ports.map(|port| Forward { host: port, guest: port }).to_vec();
    let wherry = static_binary(plan.arch, "wherry")?;
    let wherry = fs::read(&wherry).with_context(|| wherry.display().to_string())?;
    let config = configuration(plan.cloud_part, &format!("data_dir = \"{DATA}\"\n"), "");
    machine.files = vec![File::new(BINARY, 0o755, wherry), File::new(CONFIGURATION, 0o600, config)];
    Ok(machine)
}

/// A machine that runs.
#[derive(Debug)]
pub struct Board {
    rig: Rig,
    arch: Arch,
}

impl Board {
    /// Boots it; returns when its shell answers.
    ///
    /// # Errors
    /// It does not come up: with its transcript.
    pub fn boot(machine: &Machine) -> Result<Self> {
        Ok(Self { rig: machine.boot()?, arch: machine.arch })
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// It does not end, or not in order.
    pub fn power_off(self) -> Result<()> {
        self.is_well()?;
        self.rig.start(&[BINARY, "poweroff"], "/tmp/poweroff")?;
        self.rig.wait_power_off(PATIENCE)?;
        self.is_well()
    }

    /// What the kernel and the node logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.run(&["dmesg"]).unwrap_or_else(|error| format!("{error:#}"))
    }

    #[must_use]
    pub fn rig(&self) -> &Rig {
        &self.rig
    }

    /// The kernel neither panicked nor ran out of memory.
    ///
    /// # Errors
    /// It did: with what it said.
    pub fn is_well(&self) -> Result<()> {
        match self.rig.trouble() {
            None => Ok(()),
            Some(trouble) => bail!("the machine: {trouble}"),
        }
    }
}

impl Place for Board {
    fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        let output = self.rig.run(&["cat", path], COMMAND_LIMIT)?;
        ensure!(output.status == 0, "{path}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(output.stdout)
    }

    fn link(&self, path: &str) -> Result<String> {
        Ok(self.run(&["readlink", path])?.trim_end().to_owned())
    }

    fn names(&self, folder: &str) -> Result<Vec<String>> {
        Ok(self.run(&["ls", "-1A", folder])?.lines().map(str::to_owned).collect())
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.rig.run(words, COMMAND_LIMIT)?;
        if output.status != 0 {
            let said = [&output.stdout[..], &output.stderr].concat();
            bail!("`{}`: {}\n{}", words.join(" "), output.status, String::from_utf8_lossy(&said));
        }
        Ok(output.text())
    }

    fn kill(&self, pid: i32, signal: Signal) -> Result<()> {
        let signal = format!("-{}", signal.as_str().trim_start_matches("SIG"));
        self.run(&["kill", &signal, &pid.to_string()]).map(drop)
    }

    fn processes(&self, cgroup: &str) -> Result<BTreeMap<i32, u64>> {
        let lines = self.run(&["sh", "-c", PROCESSES, "processes", cgroup])?;
        // proc(5): field 22 is the start time; a name may hold spaces.
        let process = |line: &str| {
            let (pid, _) = line.split_once(' ')?;
            let (_, rest) = line.rsplit_once(')')?;
            Some((pid.parse().ok()?, rest.split_whitespace().nth(19)?.parse().ok()?))
        };
        Ok(lines.lines().filter_map(process).collect())
    }

    fn uplink(&self, up: bool) -> Result<()> {
        Ok(self.rig.link(up)?)
    }

    fn address(&self, port: u16) -> String {
        format!("127.0.0.1:{port}")
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn settle_seconds(&self) -> u16 {
        match self.arch {
            Arch::Armv7 => SETTLE_SECONDS_ARMV7,
            Arch::Aarch64 | Arch::X86_64 => SETTLE_SECONDS,
        }
    }

    fn stable_seconds(&self) -> u32 {
        // What is to crash later must not be left for it; `rollback` has a
        // version of its own that becomes good.
        NEVER_STABLE_SECONDS
    }
}
