//! The node of a test, and the command line that talks to it: `wherry run` in
//! the gateway's namespace, or the node that a rig's machine has booted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use wherry_rig::machine;

use crate::host::{Host, Process, Side, binary};
use crate::observe::http_get;
use crate::place::{self, Place};
use crate::run::wait_for;

/// How long anything on a node of this machine may take before a test gives
/// up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// `wherry run`, wherever it is.
#[derive(Debug)]
pub struct Node<'a> {
    host: &'a Host,
    place: &'a dyn Place,
    life: Life,
    program: String,
    config: PathBuf,
    /// Its data and run folders, on its own machine.
    data: String,
    run: String,
    cgroup: String,
}

/// Who starts the launcher.
#[derive(Debug)]
enum Life {
    /// The test.
    Test(Option<Process>),
    /// The process of this number, again and again.
    Parent(i32),
}

impl<'a> Node<'a> {
    /// A node of this machine. Writes the configuration: what the cloud
    /// printed for this node, and the folders of this test.
    ///
    /// # Errors
    /// The folder cannot be written, or the program is not built.
    pub fn new(host: &'a Host, cloud_part: &str) -> Result<Self> {
        let config = host.folder().join("wherry.toml");
        let folder = host.folder().display();
        let own = format!(
            "data_dir = \"{folder}/data\"\nrun_dir = \"{folder}/run\"\ncgroup = \"{}\"\n",
            host.name(),
        );
        let network =
            format!("[network]\nbridge = \"{}\"\nsubnet = \"10.87.0.0/16\"\n", host.bridge());
        std::fs::write(&config, configuration(cloud_part, &own, &network))?;
        Ok(Self {
            host,
            place: host,
            life: Life::Test(None),
            program: binary("wherry")?.to_str().context("a plain path")?.to_owned(),
            config,
            data: format!("{folder}/data"),
            run: format!("{folder}/run"),
            cgroup: host.name(),
        })
    }

    /// The node of another machine, where process `parent` keeps it running.
    #[must_use]
    pub fn of_machine(host: &'a Host, place: &'a dyn Place, parent: i32) -> Self {
        Self {
            host,
            place,
            life: Life::Parent(parent),
            program: machine::BINARY.into(),
            config: machine::CONFIGURATION.into(),
            data: crate::rig::DATA.into(),
            run: "/run/wherry".into(),
            cgroup: "wherry".into(),
        }
    }

    /// The machine that it is on.
    #[must_use]
    pub fn place(&self) -> &'a dyn Place {
        self.place
    }

    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its data folder, on its own machine.
    #[must_use]
    pub fn data(&self) -> &str {
        &self.data
    }

    /// Its run folder, on its own machine.
    #[must_use]
    pub fn run_dir(&self) -> &str {
        &self.run
    }

    /// Starts it, or waits for whom it belongs to start it, until it answers.
    ///
    /// # Errors
    /// It ends, or does not answer in time: with what it printed.
    pub fn start(&mut self) -> Result<()> {
        if let Life::Test(process) = &mut self.life {
            let mut command = Command::new(&self.program);
            command.args(["run", "--config"]).arg(&self.config);
            command.env("WHERRY_LOG", "debug").env("RUST_BACKTRACE", "1");
            *process = Some(self.host.spawn(Side::Gateway, &mut command, "node")?);
        }
        wait_for("the node's answer", self.place.patience(), || {
            if let Life::Test(process) = &mut self.life {
                let process = process.as_mut().context("started")?;
                if !process.is_running()? {
                    bail!("the node ended:\n{}", process.output());
                }
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
        let launcher = match &self.life {
            Life::Test(process) => {
                process.as_ref().context("the node is not started")?.pid().as_raw()
            }
            Life::Parent(parent) => self.launcher_below(*parent)?,
        };
        let supervisor = self.child(launcher, "supervisor")?;
        Ok((launcher, supervisor.context("the launcher has no supervisor")?))
    }

    /// The launcher of a machine, which is `parent` itself where that has a
    /// supervisor.
    fn launcher_below(&self, parent: i32) -> Result<i32> {
        if self.child(parent, "supervisor")?.is_some() {
            return Ok(parent);
        }
        self.child(parent, "run")?.context("no launcher runs")
    }

    /// The child of `parent` whose first argument is `word`.
    fn child(&self, parent: i32, word: &str) -> Result<Option<i32>> {
        Ok(place::children(self.place, parent)?.into_iter().find(|pid| {
            let words = self.place.bytes(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|&byte| byte == 0).nth(1) == Some(word.as_bytes())
        }))
    }

    /// Ends the launcher of this machine by `signal`; [`Self::start`] starts
    /// the next.
    ///
    /// # Errors
    /// It is not running, or does not end.
    pub fn end(&mut self, signal: Signal) -> Result<()> {
        let Life::Test(process) = &mut self.life else {
            bail!("the machine's init would start it again: restart it instead");
        };
        process.take().context("the node is not started")?.end(signal)?;
        Ok(())
    }

    /// Ends the launcher by `signal` and waits for the next one's answer.
    ///
    /// # Errors
    /// As [`Self::end`] and [`Self::start`].
    pub fn restart(&mut self, signal: Signal) -> Result<()> {
        match self.life {
            Life::Test(_) => self.end(signal)?,
            Life::Parent(_) => {
                let (launcher, _) = self.pids()?;
                self.place.kill(launcher, signal)?;
                wait_for("another launcher", self.place.patience(), || {
                    let (now, _) = self.pids()?;
                    Ok((now != launcher).then_some(()))
                })?;
            }
        }
        self.start()
    }

    /// Kills the supervisor and waits until its successor answers.
    ///
    /// # Errors
    /// No other comes in time.
    pub fn kill_supervisor(&self) -> Result<()> {
        let (_, supervisor) = self.pids()?;
        self.place.kill(supervisor, Signal::SIGKILL)?;
        wait_for("a new supervisor", self.place.patience(), || {
            let (_, now) = self.pids()?;
            Ok((now != supervisor && self.cli(&["status"]).is_ok()).then_some(()))
        })
    }

    /// Every process in its cgroups: pid and start time.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn processes(&self) -> Result<BTreeMap<i32, u64>> {
        self.place.processes(&self.cgroup)
    }

    /// What a client outside gets from a port of the gateway.
    ///
    /// # Errors
    /// As [`http_get`].
    pub fn http(&self, port: u16) -> Result<String> {
        self.host.inside(Side::Wan, || http_get(&self.place.address(port), "/"))
    }

    /// Runs `wherry WORDS`; what it prints.
    ///
    /// # Errors
    /// As [`Place::run`].
    pub fn cli(&self, words: &[&str]) -> Result<String> {
        let config = self.config.to_str().context("a plain path")?;
        self.place.run(&[&[self.program.as_str()], words, &["--config", config]].concat())
    }

    /// `wherry WORDS -o json`.
    ///
    /// # Errors
    /// As [`Self::cli`], or it is not JSON.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.cli(&[words, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("`wherry {words:?}` printed {text:?}"))
    }

    /// Waits until the node says that `generation` runs, be it good already or
    /// not yet.
    ///
    /// # Errors
    /// Not in time: with the last status.
    pub fn wait_running(&self, generation: u64) -> Result<()> {
        wait_for(&format!("generation {generation} running"), self.place.patience(), || {
            let status = self.json(&["status"])?;
            if status["generation"] == generation && is_running(&status["phase"]) {
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

    /// The first pod of a deployment.
    ///
    /// # Errors
    /// There is none.
    pub fn pod(&self, deployment: &str) -> Result<Value> {
        let mut pods = self.pods()?.into_iter();
        pods.find(|pod| pod["deployment"] == deployment)
            .with_context(|| format!("no pod of {deployment}"))
    }

    /// The running containers of a deployment: pid and start time.
    ///
    /// # Errors
    /// Nothing of it runs.
    pub fn processes_of(&self, deployment: &str) -> Result<BTreeMap<i32, u64>> {
        let all = self.processes()?;
        let pods = self.pods()?;
        let found: BTreeMap<i32, u64> = pods
            .iter()
            .filter(|pod| pod["deployment"] == deployment)
            .flat_map(|pod| pod["containers"].as_array().cloned().unwrap_or_default())
            .filter_map(|container| container["state"]["running"]["pid"].as_i64())
            .filter_map(|pid| i32::try_from(pid).ok())
            .filter_map(|pid| Some((pid, *all.get(&pid)?)))
            .collect();
        ensure!(!found.is_empty(), "nothing of `{deployment}` runs");
        Ok(found)
    }

    /// Removes everything that the node made, as `wherry stop --all` does.
    ///
    /// # Errors
    /// As [`Self::cli`].
    pub fn purge(&mut self) -> Result<()> {
        self.cli(&["stop", "--all"])?;
        if let Life::Test(process) = &mut self.life {
            if let Some(process) = process {
                let gone = || Ok((!process.is_running()?).then_some(()));
                wait_for("the node's end", PATIENCE, gone)?;
            }
            *process = None;
        }
        Ok(())
    }

    /// What a node of this machine logged.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.host.folder().join("node.log")).unwrap_or_default()
    }
}

/// A node's whole configuration: what the cloud printed, keys of one's own,
/// tables of one's own.
#[must_use]
pub fn configuration(cloud_part: &str, keys: &str, tables: &str) -> String {
    let (top, rest) = cloud_part.split_at(cloud_part.find("\n[").map_or(0, |at| at + 1));
    format!("{top}{keys}{rest}\n{tables}")
}

/// The pid of a running container of a pod.
///
/// # Errors
/// It does not run.
pub fn pid(pod: &Value, container: &str) -> Result<i32> {
    let containers = pod["containers"].as_array().context("containers")?;
    let found = containers.iter().find(|c| c["name"] == container);
    let pid = found.and_then(|c| c["state"]["running"]["pid"].as_i64());
    Ok(i32::try_from(pid.with_context(|| format!("{container} does not run: {pod}"))?)?)
}

/// Whether a status' phase says that all pods are available.
#[must_use]
pub fn is_running(phase: &Value) -> bool {
    phase == "stabilising" || phase == "good"
}
