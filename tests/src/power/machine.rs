//! A gateway under QEMU whose power can go away: its cloud, the tap between
//! the two, its disk, and the versions that it is given one after another.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use wherry_rig::machine::{BINARY, CONFIGURATION};
use wherry_rig::{Arch, File, Init, Machine, Rig, disk};

use super::native::NODE;
use super::queue::Ask;
use super::tap::{PORT, Tap};
use crate::cloud::Cloud;
use crate::host::Host;
use crate::images::{Source, import_of, static_binary};
use crate::node::configuration;
use crate::package::{Component, Package, start_rollout};
use crate::run::wait_for;
use crate::templates::{EVERYWHERE, env, lion};

/// The node's data folder, below the disk's root.
pub const DATA: &str = "wherry";
/// Pods of each version that must run.
pub const PODS: usize = 2;
/// Versions take turns, and upgrades to them not the same time.
pub const KINDS_OF_VERSION: usize = 3;
const DISK_MIB: u64 = 64;
/// For anything on an emulated machine beside a busy core.
const PATIENCE: Duration = Duration::from_secs(120);
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// For all that one machine does between two cuts.
const MACHINE_LIMIT: Duration = Duration::from_secs(300);

/// Everything but the machine.
#[derive(Debug)]
pub struct Site<'a> {
    host: &'a Host,
    pub cloud: Cloud<'a>,
    pub tap: Tap,
    pub arch: Arch,
    config: String,
    pub disk: PathBuf,
    /// The newest generation.
    pub issued: u64,
}

impl<'a> Site<'a> {
    /// With an empty disk, and a node that was told nothing yet.
    ///
    /// # Errors
    /// Whatever cannot be made; no static build.
    pub fn new(host: &'a Host, arch: Arch, record: &Path) -> Result<Self> {
        let mut cloud = Cloud::of_machine(host, arch);
        cloud.start()?;
        import_of(&cloud, Source::of(arch)?)?;
        cloud.organise()?;
        let tap = Tap::open(host, NODE, record)?;
        let config = cloud.cli(&["node", "config", NODE])?;
        let config = config.replace("port = 1883", &format!("port = {PORT}"));
        let config = configuration(&config, &format!("data_dir = \"/data/{DATA}\"\n"), "");
        let image = host.folder().join("disk.img");
        disk::make(&image, DISK_MIB, None)?;
        Ok(Self { host, cloud, tap, arch, config, disk: image, issued: 0 })
    }

    /// Boots a machine with the disk, Wherry as its first program; with its
    /// cable in or out from the start.
    ///
    /// # Errors
    /// It does not come up: with its transcript.
    pub fn boot(&self, record: Option<&Path>, cable: bool) -> Result<Rig> {
        let wherry = static_binary(self.arch, "wherry")?;
        let mut machine = Machine::new(self.arch);
        machine.init = Init::Wherry;
        machine.cable = cable;
        machine.disk = Some(self.disk.clone());
        machine.log_writes = record.map(Path::to_owned);
        machine.enter = self.host.enter_wan().map(OsString::from).to_vec();
        machine.boot_limit = PATIENCE;
        machine.time_limit = MACHINE_LIMIT;
        machine.files = vec![
            File::new(BINARY, 0o755, fs::read(wherry)?),
            File::new(CONFIGURATION, 0o600, self.config.clone()),
        ];
        Ok(machine.boot()?)
    }

    /// Makes the next version, and returns what has to be called to roll it
    /// out. Every second one has another lion. Two of three have a pod with
    /// layers of its own, which were removed since that image was last there:
    /// they are fetched.
    ///
    /// # Errors
    /// What the cloud says.
    pub fn next_version(&mut self) -> Result<String> {
        let number = self.issued + 1;
        let text = number.to_string();
        let image = if number.is_multiple_of(2) { "lion:2.0.0" } else { "lion:1.0.0" };
        let web =
            lion("web", &format!("replicas: {PODS}"), "", &env(&[EVERYWHERE, ("TEXT", &text)]));
        let mut components = vec![Component::new("web", image, web)];
        match number % KINDS_OF_VERSION as u64 {
            0 => components.push(Component::new("extra", "nginx:1.22", EXTRA)),
            2 => components.push(Component::new("extra", "mosquitto:2.0", EXTRA)),
            _ => {}
        }
        let version =
            Package::new(&format!("{number}.0.0"), components).create(&self.cloud, self.host)?;
        self.issued = number;
        Ok(version)
    }

    /// Rolls the next version out and waits until the node told that it runs.
    ///
    /// # Errors
    /// It does not: with what the node logged.
    pub fn upgrade(&mut self, rig: &Rig) -> Result<()> {
        let version = self.next_version()?;
        start_rollout(&self.cloud, &version)?;
        self.wait_running(rig)
    }

    /// Until the node told that the newest generation runs.
    ///
    /// # Errors
    /// Not in time: with what the node logged.
    pub fn wait_running(&self, rig: &Rig) -> Result<()> {
        wait_for(&format!("generation {} running", self.issued), PATIENCE, || {
            ensure!(rig.is_running(), "the machine ended");
            Ok(self.tap.has_run(self.issued).then_some(()))
        })
        .with_context(|| log(rig))
    }
}

/// What kernel and node logged.
#[must_use]
pub fn log(rig: &Rig) -> String {
    rig.run(&["dmesg"], COMMAND_LIMIT).map_or_else(|error| error.to_string(), |log| log.text())
}

/// The node of a machine.
#[derive(Debug)]
pub struct OnMachine<'a>(pub &'a Rig);

impl Ask for OnMachine<'_> {
    fn json(&self, words: &[&str]) -> Result<Value> {
        let words = [&[BINARY], words, &["-o", "json"]].concat();
        let output = self.0.run(&words, COMMAND_LIMIT)?;
        if output.status != 0 {
            bail!("{}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn kill(&self, pid: i32) -> Result<()> {
        self.0.check(&["kill", "-KILL", &pid.to_string()], COMMAND_LIMIT)?;
        Ok(())
    }
}

/// A pod whose image has layers of its own.
const EXTRA: &str = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: extra
spec:
  selector:
    matchLabels: { app: extra }
  template:
    metadata:
      labels: { app: extra }
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: sleep
          command: [/bin/busybox, sleep, \"1000000\"]
";
