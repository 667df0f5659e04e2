//! A node run by the program that is to be measured, as quietly as a real
//! one: without the logs of a test.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use wherry_tests::cloud::Cloud;
use wherry_tests::host::{Host, Process, Side};
use wherry_tests::node::{Node, is_running};
use wherry_tests::run::wait_for;

use crate::process::children;

/// A hundred pods, one after the other, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(240);

#[derive(Debug)]
pub struct Gateway<'a> {
    /// For configuration and command line; it does not run itself.
    node: Node<'a>,
    process: Process,
}

impl<'a> Gateway<'a> {
    pub fn start(host: &'a Host, cloud: &Cloud<'_>, program: &Path) -> Result<Self> {
        let node = Node::new(host, &cloud.cli(&["node", "config", "gw-1"])?)?;
        let mut command = Command::new(program.canonicalize()?);
        command.args(["run", "--config"]).arg(node.config());
        let mut process = host.spawn(Side::Gateway, &mut command, "node")?;
        wait_for("the node's answer", PATIENCE, || {
            ensure!(process.is_running()?, "the node ended:\n{}", process.output());
            node.json(&["status"]).map(Some)
        })?;
        Ok(Self { node, process })
    }

    /// Its command line.
    pub fn node(&self) -> &Node<'a> {
        &self.node
    }

    pub fn wait_running(&self, generation: u64, pods: usize) -> Result<()> {
        wait_for(&format!("{pods} pods running"), PATIENCE, || {
            let status = self.node.json(&["status"])?;
            if status["generation"] == generation && is_running(&status["phase"]) {
                let running = self.node.pods()?.len();
                ensure!(running == pods, "{running} pods, not {pods}");
                return Ok(Some(()));
            }
            bail!("phase {} of generation {}", status["phase"], status["generation"])
        })
    }

    /// Waits until only launcher and supervisor are there: what was to be
    /// committed is, and the database is closed.
    pub fn wait_settled(&self) -> Result<()> {
        wait_for("the node's rest", PATIENCE, || {
            let processes = self.processes()?;
            Ok((processes.len() == 2).then_some(()))
        })
    }

    /// All processes of Wherry itself, by what they are called on their
    /// command line: the launcher and those of its children, and theirs, that
    /// are the same program.
    pub fn processes(&self) -> Result<Vec<(String, i32)>> {
        let launcher = self.process.pid().as_raw();
        let program = program(launcher).context("the launcher is gone")?;
        let mut found = vec![("launcher".to_owned(), launcher)];
        let mut parents = vec![launcher];
        while let Some(parent) = parents.pop() {
            for child in children(parent) {
                if let Some(role) = role(child, program) {
                    found.push((role, child));
                    parents.push(child);
                }
            }
        }
        ensure!(found.iter().any(|(role, _)| role == "supervisor"), "there is no supervisor");
        Ok(found)
    }

    pub fn purge(mut self) -> Result<()> {
        self.node.cli(&["stop", "--all"])?;
        let process = &mut self.process;
        wait_for("the node's end", PATIENCE, || Ok((!process.is_running()?).then_some(())))
            .with_context(|| self.process.output())
    }
}

/// The command of a process that runs `program`; `None` for all others, such
/// as those of containers.
fn role(pid: i32, program: (u64, u64)) -> Option<String> {
    (self::program(pid)? == program).then_some(())?;
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let word = words.split(|&byte| byte == 0).nth(1)?;
    Some(String::from_utf8_lossy(word).into_owned())
}

/// Device and inode of what a process runs, be it a file or sealed memory.
fn program(pid: i32) -> Option<(u64, u64)> {
    let file = std::fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    Some((file.dev(), file.ino()))
}
