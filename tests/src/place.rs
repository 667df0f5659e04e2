//! Where a gateway is: this machine, or one in a rig. Tests look at a node
//! through this, so that they are written once.
//!
//! Never here: anything that asks Wherry.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::host::{GATEWAY_ADDRESS, Host};
use crate::observe::start_time;
use crate::run::run;

/// A gateway's machine, as its root user and its neighbours see it.
pub trait Place: Debug + Sync {
    /// The contents of a file; the machine's own `/proc` and `/sys` too.
    ///
    /// # Errors
    /// It cannot be read.
    fn bytes(&self, path: &str) -> Result<Vec<u8>>;

    /// Where a symbolic link points.
    ///
    /// # Errors
    /// It is none.
    fn link(&self, path: &str) -> Result<String>;

    /// The names in a folder.
    ///
    /// # Errors
    /// It cannot be read.
    fn names(&self, folder: &str) -> Result<Vec<String>>;

    /// Runs a program to its end; what it prints on standard output.
    ///
    /// # Errors
    /// It exits with another status than 0: with both outputs.
    fn run(&self, words: &[&str]) -> Result<String>;

    /// Sends `signal`.
    ///
    /// # Errors
    /// There is no such process.
    fn kill(&self, pid: i32, signal: Signal) -> Result<()>;

    /// Every process in the cgroups below `cgroup`: pid and start time, which
    /// together name a process for ever.
    ///
    /// # Errors
    /// What cannot be read.
    fn processes(&self, cgroup: &str) -> Result<BTreeMap<i32, u64>>;

    /// Cuts or mends the line between gateway and cloud.
    ///
    /// # Errors
    /// There is no such line.
    fn uplink(&self, up: bool) -> Result<()>;

    /// Where clients in the wan namespace find a port of the gateway.
    fn address(&self, port: u16) -> String;

    /// How long anything may take before a test gives up.
    fn patience(&self) -> Duration;

    /// How long its programs may take from their start to their first answer,
    /// in seconds.
    fn settle_seconds(&self) -> u16 {
        1
    }

    /// How long a version of the shop has to run to be good, in seconds.
    fn stable_seconds(&self) -> u32 {
        2
    }

    /// The contents of a text file.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    fn text(&self, path: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(path)?).into_owned())
    }
}

impl Place for Host {
    fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        fs::read(path).with_context(|| path.to_owned())
    }

    fn link(&self, path: &str) -> Result<String> {
        let target = fs::read_link(path).with_context(|| path.to_owned())?;
        Ok(target.to_string_lossy().into_owned())
    }

    fn names(&self, folder: &str) -> Result<Vec<String>> {
        let entries = fs::read_dir(folder).with_context(|| folder.to_owned())?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let (program, words) = words.split_first().context("a program")?;
        run(Command::new(Path::new(program)).args(words))
    }

    fn kill(&self, pid: i32, signal: Signal) -> Result<()> {
        signal::kill(Pid::from_raw(pid), signal).with_context(|| format!("process {pid}"))
    }

    fn processes(&self, cgroup: &str) -> Result<BTreeMap<i32, u64>> {
        let pids = crate::host::pids_below(cgroup);
        Ok(pids.into_iter().filter_map(|pid| Some((pid, start_time(pid)?))).collect())
    }

    fn uplink(&self, up: bool) -> Result<()> {
        Self::uplink(self, up)
    }

    fn address(&self, port: u16) -> String {
        format!("{GATEWAY_ADDRESS}:{port}")
    }

    fn patience(&self) -> Duration {
        crate::node::PATIENCE
    }
}

/// The children of a process, all threads'.
///
/// # Errors
/// There is no such process.
pub fn children(place: &dyn Place, pid: i32) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for thread in place.names(&format!("/proc/{pid}/task"))? {
        let list = place.text(&format!("/proc/{pid}/task/{thread}/children")).unwrap_or_default();
        found.extend(list.split_whitespace().filter_map(|word| word.parse::<i32>().ok()));
    }
    Ok(found)
}

/// Children of `pid` that have ended and were not reaped.
///
/// # Errors
/// There is no such process.
pub fn zombies_of(place: &dyn Place, pid: i32) -> Result<Vec<i32>> {
    let dead = |child: &i32| {
        let stat = place.text(&format!("/proc/{child}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
    };
    Ok(children(place, pid)?.into_iter().filter(dead).collect())
}
