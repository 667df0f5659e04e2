//! What `wherry run` looks at: little before it starts, everything when it
//! cannot start; and what a bundle may need of the kernel.

use std::fs;

use wherry_runtime::launcher::LauncherError;
use wherry_runtime::probe::{cgroups, filesystems, network, process};

use super::judge::Context;
use super::{Row, State, Subject, check, host, judge};

/// Without these two no container can be made. Whether they are listed costs
/// one read; a module that is not loaded yet is not listed.
const FILESYSTEMS: [&str; 2] = ["overlay", "squashfs"];
/// Rows without which nothing leads from a host port to a pod.
const PUBLISHING: [&str; 2] = ["nftables", "nftables-nat"];

/// What is lacking for every container on this host: the rows that say so.
/// Only what the kernel does not list is tried. The caller must be
/// single-threaded.
#[must_use]
pub fn preflight() -> Vec<Row> {
    let listed = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has =
        |name: &str| listed.lines().any(|line| line.trim_start_matches("nodev").trim() == name);
    if FILESYSTEMS.iter().all(|name| has(name)) {
        return Vec::new();
    }
    let context = Context { is_root: true, modules: host::modules(&host::kernel().0) };
    let mut rows = judge::filesystems(&context, &filesystems::attempt());
    rows.retain(|row| row.state == State::Lacking);
    rows
}

/// What a bundle may need, as found by trying.
#[derive(Clone, Debug)]
pub struct ForBundles {
    /// By which containers are made.
    pub containers: Vec<Row>,
    /// By which host ports lead to pods.
    pub ports: Vec<Row>,
    /// Controllers whose limits have no effect.
    pub controllers: Vec<&'static str>,
}

/// Tries that: a few tenths of a second. The caller must be single-threaded.
#[must_use]
pub fn for_bundles(cgroup: &str) -> ForBundles {
    let context = Context { is_root: true, modules: host::modules(&host::kernel().0) };
    let mut ports = judge::network(&context, &network::attempt());
    ports.retain(|row| PUBLISHING.contains(&row.name));
    let mut containers = judge::process(&context, &process::attempt());
    containers.extend(judge::filesystems(&context, &filesystems::attempt()));
    ForBundles {
        containers,
        ports,
        controllers: cgroups::attempt(cgroup).map_or(Vec::new(), |found| judge::missing(&found)),
    }
}

/// The rows that explain why the launcher could not start, if any does.
#[must_use]
pub fn explain(error: &LauncherError, subject: Subject) -> Vec<Row> {
    match error {
        // Not the host's fault.
        LauncherError::Locked { .. } | LauncherError::RunFolder(_) | LauncherError::NotSealed => {
            Vec::new()
        }
        LauncherError::Io { .. }
        | LauncherError::System { .. }
        | LauncherError::Seal(_)
        | LauncherError::Mount(_)
        | LauncherError::Layers(_)
        | LauncherError::Cgroups(_)
        | LauncherError::Network(_) => {
            check(subject).rows.into_iter().filter(|row| row.state == State::Lacking).collect()
        }
    }
}
