//! The cloud of a test: `wherry-cloud serve` in the wan namespace.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use wherry_rig::Arch;

use crate::host::{Host, Process, Side, WAN_ADDRESS, binary};
use crate::images::oci_name;
use crate::node::PATIENCE;
use crate::observe::http_get;
use crate::run::wait_for;

/// How a machine in a rig sees this machine (QEMU's user-mode network).
const RIG_HOST_ADDRESS: &str = "10.0.2.2";
const API: &str = "127.0.0.1:8700";

/// `wherry-cloud serve`, and the command line that talks to it.
#[derive(Debug)]
pub struct Cloud<'a> {
    host: &'a Host,
    data: PathBuf,
    process: Option<Process>,
    /// Where its node finds the broker.
    public: &'static str,
    /// Its node's architecture.
    architecture: &'static str,
}

impl<'a> Cloud<'a> {
    #[must_use]
    pub fn new(host: &'a Host) -> Self {
        let data = host.folder().join("cloud");
        Self { host, data, process: None, public: WAN_ADDRESS, architecture: "amd64" }
    }

    /// A cloud whose node is a machine in a rig: QEMU leads it from one
    /// address to this machine's loopback.
    #[must_use]
    pub fn of_machine(host: &'a Host, arch: Arch) -> Self {
        Self { public: RIG_HOST_ADDRESS, architecture: oci_name(arch), ..Self::new(host) }
    }

    /// Starts it, with its embedded broker, and waits until it answers.
    ///
    /// # Errors
    /// It ends, or does not answer in time: with what it printed.
    pub fn start(&mut self) -> Result<()> {
        let mut command = Command::new(binary("wherry-cloud")?);
        command.arg("serve").arg("--data").arg(&self.data);
        command.args(["--api-listen", API]);
        command.args(["--mqtt-listen", "0.0.0.0:1883", "--mqtt-public", self.public]);
        self.process = Some(self.host.spawn(Side::Wan, &mut command, "cloud")?);
        wait_for("the cloud's answer", PATIENCE, || {
            let process = self.process.as_mut().context("started")?;
            if !process.is_running()? {
                bail!("the cloud ended:\n{}", process.output());
            }
            self.cli(&["customer", "list"]).map(Some)
        })?;
        Ok(())
    }

    /// Ends it by `signal`.
    ///
    /// # Errors
    /// It is not running, or does not end.
    pub fn end(&mut self, signal: Signal) -> Result<()> {
        self.process.take().context("the cloud is not started")?.end(signal)?;
        Ok(())
    }

    /// Runs `wherry-cloud WORDS`; what it prints.
    ///
    /// # Errors
    /// As [`crate::run::run`].
    pub fn cli(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(binary("wherry-cloud")?);
        command.args(["--api", &format!("http://{API}")]).args(words);
        self.host.run(Side::Wan, &mut command)
    }

    /// `wherry-cloud WORDS -o json`.
    ///
    /// # Errors
    /// As [`Self::cli`], or it is not JSON.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.cli(&[words, &["-o", "json"]].concat())?)?)
    }

    /// Its `/metrics`.
    ///
    /// # Errors
    /// As [`http_get`].
    pub fn metrics(&self) -> Result<String> {
        self.host.inside(Side::Wan, || http_get(API, "/metrics"))
    }

    /// A customer, a project, the node `gw-1` and the application `shop`.
    ///
    /// # Errors
    /// As [`Self::cli`].
    pub fn organise(&self) -> Result<()> {
        self.cli(&["customer", "add", "acme"])?;
        self.cli(&["project", "add", "plant", "--customer", "acme"])?;
        let mut node = vec!["node", "add", "gw-1", "--project", "plant"];
        node.extend(["--arch", self.architecture]);
        node.extend(["--product-type", "gateway-single-node", "--label", "site=berlin"]);
        self.cli(&node)?;
        self.cli(&["application", "add", "shop", "--project", "plant"])?;
        Ok(())
    }

    /// Waits until the cloud's picture of `gw-1` satisfies `wanted`.
    ///
    /// # Errors
    /// Not in time: with the last picture.
    pub fn wait_node(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        wait_for(what, PATIENCE, || {
            let node = self.json(&["node", "show", "gw-1"])?;
            if wanted(&node) {
                return Ok(Some(node));
            }
            bail!("{node}")
        })
    }
}
