//! How soon pods run: from the start of userspace to the first instruction of
//! the last of five, on a machine whose cloud is away.

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use wherry_rig::Arch;
use wherry_tests::host::Host;
use wherry_tests::node::Node;
use wherry_tests::package::{Component, Package};
use wherry_tests::templates::lion;

use crate::site::Site;

const MEMORY_MIB: u32 = 128;
const PODS: u16 = 5;
/// The median of these is reported.
const ROUNDS: usize = 5;

#[derive(Debug, Serialize)]
pub struct BootReport {
    arch: &'static str,
    memory_mb: u32,
    pods: u16,
    pub ok: bool,
    /// From the kernel's `Run … as init process` to the first line of the
    /// last pod: the median, and each round.
    userspace_to_pods_ms: Option<u64>,
    rounds_ms: Vec<u64>,
}

pub fn run(id: &str, arch: Arch) -> BootReport {
    println!("== {arch}, {MEMORY_MIB} MiB: from userspace to {PODS} pods");
    let result = measure(id, arch);
    match &result {
        Ok(rounds) => println!("             {rounds:?} ms"),
        Err(error) => eprintln!("{arch}: {error:#}"),
    }
    let (ok, rounds_ms) = (result.is_ok(), result.unwrap_or_default());
    let mut sorted = rounds_ms.clone();
    sorted.sort_unstable();
    BootReport {
        arch: arch.name(),
        memory_mb: MEMORY_MIB,
        pods: PODS,
        ok,
        userspace_to_pods_ms: sorted.get(sorted.len() / 2).copied(),
        rounds_ms,
    }
}

fn measure(id: &str, arch: Arch) -> Result<Vec<u64>> {
    let host = Host::new(id)?;
    let mut site = Site::new(&host, arch)?;
    site.boot(MEMORY_MIB, |site, _, node| {
        Package::new("1.0.0", vec![component()]).roll_out(&site.cloud, site.host)?;
        node.wait_running(1)
    })?;
    site.go_offline()?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let ms = site.boot(MEMORY_MIB, |_, _, node| {
            node.wait_running(1)?;
            since_userspace(node)
        })?;
        rounds.push(ms);
    }
    Ok(rounds)
}

/// A program that says when it runs, in seconds since the machine started.
fn component() -> Component {
    let script = "read -r up rest </proc/uptime; echo \\\"up $up\\\"; exec /bin/wherry-lion";
    let container = format!("command: [/bin/busybox, sh, -c, \"{script}\"]\n");
    let template = lion("small", &format!("replicas: {PODS}"), "", &container);
    Component::new("small", "lion:1.0.0", template)
}

fn since_userspace(node: &Node<'_>) -> Result<u64> {
    let log = node.cli(&["logs", "small"])?;
    let ups: Vec<u64> = log
        .lines()
        .filter_map(|line| line.rsplit_once("up ")?.1.parse::<f64>().ok())
        .map(milliseconds)
        .collect();
    ensure!(ups.len() == usize::from(PODS), "{} pods said when: {log}", ups.len());
    let last = ups.into_iter().max().context("some")?;
    Ok(last.saturating_sub(userspace(node)?))
}

/// When the first program was started, on the clock of `/proc/uptime`. The
/// kernel's messages have a clock of their own: a message of now tells how
/// far apart they are.
fn userspace(node: &Node<'_>) -> Result<u64> {
    let script = "echo rig-clock >/dev/kmsg; cat /proc/uptime; dmesg";
    let text = node.place().run(&["sh", "-c", script])?;
    let (up, messages) = text.split_once('\n').context("two clocks")?;
    let up = milliseconds(up.split(' ').next().unwrap_or_default().parse()?);
    let message = |what: &str| -> Result<u64> {
        let line = messages.lines().rfind(|line| line.contains(what)).context(what.to_owned())?;
        let time = line.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        Ok(milliseconds(time.context("a time")?.0.trim().parse()?))
    };
    let (now, first) = (message("rig-clock")?, message("as init process")?);
    Ok((up + first).saturating_sub(now))
}

/// Of seconds.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // bounded by the first line
fn milliseconds(seconds: f64) -> u64 {
    (seconds.clamp(0.0, 1e9) * 1000.0) as u64
}
