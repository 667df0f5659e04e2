//! The machine besides its kernel: configuration, clocks, watchdog, room.

use std::collections::BTreeSet;

use wherry_bundle::message::WallMillis;
use wherry_runtime::probe::{Obstacle, Trial};

use super::{bad, ok};
use crate::check::disk::{Disk, DiskState};
use crate::check::facts::Configuration;
use crate::check::host::{Memory, Rtc, Watchdog};
use crate::check::{Row, State};
use crate::cli::table::bytes;
use crate::clock::millis_text;

/// 2025: Wherry is younger than that.
const CLOCK_SECONDS_MIN: i64 = 1_735_689_600;
/// 2100: certificates end before.
const CLOCK_SECONDS_MAX: i64 = 4_102_444_800;
/// Between the two clocks: more than drift explains.
const RTC_SECONDS_OFF_MAX: u64 = 3600;
/// The store with its mirror files, and room to replace them.
const DATA_BYTES_MIN: u64 = 8 * 1024 * 1024;
/// One image of the smaller sort.
const DATA_BYTES_WANTED: u64 = 64 * 1024 * 1024;
/// Launcher and supervisor.
const MEMORY_BYTES_MIN: u64 = 8 * 1024 * 1024;
/// …with three small pods.
const MEMORY_BYTES_WANTED: u64 = 24 * 1024 * 1024;
/// What is written there is gone after a reboot.
const VOLATILE: [&str; 3] = ["tmpfs", "ramfs", "rootfs"];

pub fn configuration(configuration: &Configuration) -> Row {
    const NAME: &str = "configuration";
    match configuration {
        Configuration::Good { path, node } => ok(NAME, format!("{}, node {node}", path.display())),
        Configuration::None => bad(
            NAME,
            State::Unknown,
            format!("none at {}", crate::config::CONFIG_PATH),
            "the defaults were checked; `wherry-cloud node config NODE` prints this node's: put it \
             there",
        ),
        Configuration::Wrong(error) => {
            bad(NAME, State::Lacking, error, "`wherry run` refuses it too: correct it")
        }
    }
}

pub fn watchdog(watchdogs: &[Watchdog], modules: &BTreeSet<&'static str>) -> Row {
    const NAME: &str = "watchdog";
    let text = |one: &Watchdog| {
        let identity = if one.identity.is_empty() { "a device" } else { &one.identity };
        let timeout = one.timeout_seconds.map(|seconds| format!(", {seconds} s"));
        let active = if one.is_active { ", fed by somebody" } else { "" };
        format!("{identity}{}{active}", timeout.unwrap_or_default())
    };
    if !watchdogs.is_empty() {
        return ok(NAME, watchdogs.iter().map(text).collect::<Vec<_>>().join("; "));
    }
    let softdog = if modules.contains("softdog") {
        "; the module softdog is there, and better than nothing"
    } else {
        ""
    };
    let meaning = format!(
        "nothing resets this machine when its kernel hangs: enable its watchdog's driver{softdog}"
    );
    bad(NAME, State::Degraded, "none", &meaning)
}

pub fn clock(seconds: i64) -> Row {
    const NAME: &str = "clock";
    let found = match u64::try_from(seconds) {
        Ok(seconds) => millis_text(WallMillis(seconds.saturating_mul(1000))),
        Err(_) => format!("{seconds} s since 1970"),
    };
    if (CLOCK_SECONDS_MIN..CLOCK_SECONDS_MAX).contains(&seconds) {
        return ok(NAME, found);
    }
    let meaning = "log lines and events carry wrong times until the network sets the clock; pods \
        do not wait for it";
    bad(NAME, State::Degraded, found, meaning)
}

pub fn rtc(rtc: Option<&Rtc>, clock: i64) -> Row {
    const NAME: &str = "real-time-clock";
    let Some(rtc) = rtc else {
        let meaning = "after each power cut the clock is wrong until the network sets it; pods do \
            not wait for it";
        return bad(NAME, State::Degraded, "none", meaning);
    };
    match rtc.seconds {
        Some(seconds) if seconds.abs_diff(clock) <= RTC_SECONDS_OFF_MAX => ok(NAME, &rtc.name),
        Some(seconds) => {
            let found = format!("{}, {} s off the clock", rtc.name, seconds.abs_diff(clock));
            let meaning = "its battery may be empty, or nothing writes the time back to it \
                (`hwclock -w`)";
            bad(NAME, State::Degraded, found, meaning)
        }
        None => {
            bad(NAME, State::Degraded, format!("{}, not readable", rtc.name), "it was never set")
        }
    }
}

pub fn data(disk: &Disk, is_root: bool) -> Row {
    const NAME: &str = "data-folder";
    let found = |state: &DiskState| {
        format!(
            "{}, {} free ({})",
            disk.folder.display(),
            bytes(state.free_bytes),
            if state.kind.is_empty() { "of an unknown type" } else { &state.kind }
        )
    };
    let state = match written(NAME, disk, is_root, "nothing can be kept") {
        Ok(state) => state,
        Err(row) => return row,
    };
    if state.free_bytes < DATA_BYTES_MIN {
        let meaning = "the store needs 8 MiB: free some, or set data_dir elsewhere";
        return bad(NAME, State::Lacking, found(state), meaning);
    }
    if VOLATILE.contains(&state.kind.as_str()) {
        let meaning = "this lies in memory: after a reboot the node has nothing to run until the \
            cloud is there: set data_dir on flash";
        return bad(NAME, State::Degraded, found(state), meaning);
    }
    if state.free_bytes < DATA_BYTES_WANTED {
        let meaning = "less than 64 MiB: there may be no room for the next version's images";
        return bad(NAME, State::Degraded, found(state), meaning);
    }
    ok(NAME, found(state))
}

pub fn run(disk: &Disk, is_root: bool) -> Row {
    const NAME: &str = "run-folder";
    match written(NAME, disk, is_root, "the launcher mounts a tmpfs there") {
        Ok(state) => ok(NAME, format!("{} ({})", disk.folder.display(), state.kind)),
        Err(row) => row,
    }
}

/// The state of a folder that can be written, or the row that says why not.
fn written<'a>(
    name: &'static str,
    disk: &'a Disk,
    is_root: bool,
    why: &str,
) -> Result<&'a DiskState, Row> {
    let place = disk.folder.display();
    let is_user = |trial: &Trial<()>| {
        matches!(trial, Err(Obstacle::Refused { errno, .. })
            if [libc::EACCES, libc::EPERM].contains(errno))
    };
    match &disk.state {
        Ok(state) => match &state.write {
            Ok(()) => Ok(state),
            denied if !is_root && is_user(denied) => {
                let found = format!("{place}: not writable for this user");
                Err(bad(name, State::Unknown, found, "run `wherry check` as root to find out"))
            }
            Err(obstacle) => {
                let found = format!("{place}: {obstacle}");
                let meaning =
                    format!("{why}: make it writable, or set another in the configuration");
                Err(bad(name, State::Lacking, found, &meaning))
            }
        },
        Err(obstacle) => Err(bad(name, State::Unknown, format!("{place}: {obstacle}"), "")),
    }
}

pub fn memory(memory: Option<Memory>) -> Row {
    const NAME: &str = "memory";
    let Some(memory) = memory else {
        return bad(NAME, State::Unknown, "/proc/meminfo does not tell", "");
    };
    let swap = match memory.swap_bytes {
        0 => String::new(),
        swap => format!(", {} of swap", bytes(swap)),
    };
    let found = format!(
        "{} available of {}{swap}",
        bytes(memory.available_bytes),
        bytes(memory.total_bytes)
    );
    if memory.available_bytes < MEMORY_BYTES_MIN {
        let meaning = "launcher and supervisor alone need 8 MiB";
        return bad(NAME, State::Lacking, found, meaning);
    }
    if memory.available_bytes < MEMORY_BYTES_WANTED {
        return bad(NAME, State::Degraded, found, "enough for Wherry and one or two small pods");
    }
    ok(NAME, found)
}
