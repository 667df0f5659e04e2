//! The node of a test: `wherry run` in the gateway's namespace.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::host::{Host, Process, Side, binary};
use crate::observe;
use crate::run::{run, wait_for};

/// How long anything on a node may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// `wherry run`, and the command line that talks to it.
#[derive(Debug)]
pub struct Node<'a> {
    host: &'a Host,
    config: PathBuf,
    process: Option<Process>,
}

impl<'a> Node<'a> {
    /// Writes the configuration: what the cloud printed for this node, and
    /// the folders of this test.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn new(host: &'a Host, cloud_part: &str) -> Result<Self> {
        let config = host.folder().join("wherry.toml");
        let (top, tables) = cloud_part.split_at(cloud_part.find("\n[").map_or(0, |at| at + 1));
        let folder = host.folder().display();
        let text = format!(
            "{top}data_dir = \"{folder}/data\"\nrun_dir = \"{folder}/run\"\ncgroup = \"{}\"\n\
             {tables}\n[network]\nbridge = \"{}\"\nsubnet = \"10.87.0.0/16\"\n",
            host.name(),
            host.bridge(),
        );
        std::fs::write(&config, text)?;
        Ok(Self { host, config, process: None })
    }

    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// It ends, or does not answer in time: with what it printed.
    pub fn start(&mut self) -> Result<()> {
        let mut command = Command::new(binary("wherry")?);
        command.args(["run", "--config"]).arg(&self.config);
        command.env("WHERRY_LOG", "debug").env("RUST_BACKTRACE", "1");
        let process = self.host.spawn(Side::Gateway, &mut command, "node")?;
        self.process = Some(process);
        wait_for("the node's answer", PATIENCE, || {
            let process = self.process.as_mut().context("started")?;
            if !process.is_running()? {
                bail!("the node ended:\n{}", process.output());
            }
            self.json(&["status"]).map(Some)
        })?;
        Ok(())
    }

    /// The launcher's pid, and its supervisor's.
    ///
    /// # Errors
    /// One of them does not run.
    pub fn pids(&self) -> Result<(i32, i32)> {
        let launcher = self.process.as_ref().context("the node is not started")?.pid().as_raw();
        let supervisor = observe::children(launcher)
            .into_iter()
            .find(|pid| {
                let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                words.split(|&byte| byte == 0).nth(1) == Some(b"supervisor")
            })
            .context("the launcher has no supervisor")?;
        Ok((launcher, supervisor))
    }

    /// Ends the launcher by `signal`.
    ///
    /// # Errors
    /// It is not running, or does not end.
    pub fn end(&mut self, signal: Signal) -> Result<()> {
        self.process.take().context("the node is not started")?.end(signal)?;
        Ok(())
    }

    /// Runs `wherry WORDS`; what it prints.
    ///
    /// # Errors
    /// As [`run`].
    pub fn cli(&self, words: &[&str]) -> Result<String> {
        run(&mut self.command(words)?)
    }

    /// `wherry WORDS`, ready to be run.
    ///
    /// # Errors
    /// The binary is not built.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary("wherry")?);
        command.args(words).arg("--config").arg(&self.config);
        Ok(command)
    }

    /// `wherry WORDS -o json`.
    ///
    /// # Errors
    /// As [`run`], or it is not JSON.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.cli(&[words, &["-o", "json"]].concat())?)?)
    }

    /// Waits until the node says that `generation` runs.
    ///
    /// # Errors
    /// Not in time: with the last status.
    pub fn wait_running(&self, generation: u64) -> Result<()> {
        wait_for(&format!("generation {generation} running"), PATIENCE, || {
            let status = self.json(&["status"])?;
            if status["generation"] == generation && status["phase"] == "running" {
                return Ok(Some(()));
            }
            bail!("{status}")
        })
    }

    /// The pods as the node reports them, by name.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn pods(&self) -> Result<Vec<Value>> {
        match self.json(&["ps"])? {
            Value::Array(pods) => Ok(pods),
            other => bail!("`wherry ps -o json` printed {other}"),
        }
    }

    /// Removes everything that the node made, as `wherry stop --all` does.
    ///
    /// # Errors
    /// As [`run`].
    pub fn purge(&mut self) -> Result<()> {
        self.cli(&["stop", "--all"])?;
        if let Some(process) = &mut self.process {
            wait_for("the node's end", PATIENCE, || Ok((!process.is_running()?).then_some(())))?;
        }
        self.process = None;
        Ok(())
    }

    /// What it logged.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.host.folder().join("node.log")).unwrap_or_default()
    }
}
