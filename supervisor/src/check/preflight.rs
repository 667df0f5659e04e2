//! What `wherry run` looks at: little before it starts, everything when it
//! cannot start.

use std::fs;

use wherry_runtime::launcher::LauncherError;
use wherry_runtime::probe::filesystems;

use super::judge::Context;
use super::{Row, State, Subject, check, host, judge};

/// Without these two no container can be made. Whether they are listed costs
/// one read; a module that is not loaded yet is not listed.
const FILESYSTEMS: [&str; 2] = ["overlay", "squashfs"];

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
