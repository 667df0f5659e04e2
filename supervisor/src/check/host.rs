//! Facts that the kernel writes into files: `/proc`, `/sys`, `/lib/modules`.
//!
//! A watchdog's device is never opened: that would start it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// More than any file that is read here: a list of all modules has 1 MB.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Machines have one or two.
const WATCHDOGS_MAX: usize = 8;
/// Modules whose lack is otherwise a riddle.
const MODULES: [&str; 17] = [
    "bridge",
    "loop",
    "nf_conntrack_netlink",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib_ipv4",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_reject_ipv4",
    "overlay",
    "softdog",
    "squashfs",
    "veth",
    "xxhash_generic",
    "zstd_decompress",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchdog {
    /// The driver's name for it; empty where the kernel does not tell.
    pub identity: String,
    pub timeout_seconds: Option<u32>,
    pub is_active: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rtc {
    pub name: String,
    /// Since 1970; `None` when it cannot be read.
    pub seconds: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub total_bytes: u64,
    pub available_bytes: u64,
    pub swap_bytes: u64,
}

pub fn kernel() -> (String, String) {
    match nix::sys::utsname::uname() {
        Ok(name) => (
            name.release().to_string_lossy().into_owned(),
            name.machine().to_string_lossy().into_owned(),
        ),
        Err(_) => (String::new(), String::new()),
    }
}

/// Effective user and capabilities.
pub fn user() -> Option<(u32, u64)> {
    parse_user(&read("/proc/self/status")?)
}

fn parse_user(status: &str) -> Option<(u32, u64)> {
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
    let user = field("Uid:")?.split_whitespace().nth(1)?.parse().ok()?;
    Some((user, u64::from_str_radix(field("CapEff:")?.trim(), 16).ok()?))
}

pub fn memory() -> Option<Memory> {
    parse_memory(&read("/proc/meminfo")?)
}

/// proc_meminfo(5): kilobytes, which are 1024 bytes.
fn parse_memory(text: &str) -> Option<Memory> {
    let field = |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Memory {
        total_bytes: field("MemTotal:")?,
        available_bytes: field("MemAvailable:")?,
        swap_bytes: field("SwapTotal:").unwrap_or(0),
    })
}

/// Of the modules that matter here, those that could be loaded.
pub fn modules(release: &str) -> BTreeSet<&'static str> {
    let all = read(&format!("/lib/modules/{release}/modules.dep")).unwrap_or_default();
    let loaded = read("/proc/modules").unwrap_or_default();
    not_loaded(&all, &loaded)
}

/// modules.dep(5): `path/name.ko[.xz]: paths…`; names are written with `-` or
/// `_` there, with `_` only where the kernel lists what is loaded.
fn not_loaded(all: &str, loaded: &str) -> BTreeSet<&'static str> {
    let loaded: BTreeSet<&str> = loaded.lines().filter_map(|line| line.split(' ').next()).collect();
    let there: BTreeSet<String> = all
        .lines()
        .filter_map(|line| line.split(':').next()?.rsplit('/').next()?.split(".ko").next())
        .map(|name| name.replace('-', "_"))
        .collect();
    MODULES.into_iter().filter(|name| there.contains(*name) && !loaded.contains(name)).collect()
}

/// `Documentation/ABI/testing/sysfs-class-watchdog`; without that, whether
/// there is a device.
pub fn watchdogs() -> Vec<Watchdog> {
    let folders = fs::read_dir("/sys/class/watchdog").into_iter().flatten().flatten();
    let found: Vec<_> = folders.take(WATCHDOGS_MAX).map(|entry| watchdog(&entry.path())).collect();
    if found.is_empty() && Path::new("/dev/watchdog").exists() {
        return vec![Watchdog { identity: String::new(), timeout_seconds: None, is_active: false }];
    }
    found
}

fn watchdog(folder: &Path) -> Watchdog {
    let field = |name: &str| read(&folder.join(name).display().to_string()).unwrap_or_default();
    Watchdog {
        identity: field("identity").trim().to_owned(),
        timeout_seconds: field("timeout").trim().parse().ok(),
        is_active: field("state").trim() == "active",
    }
}

/// Seconds since 1970, as this machine believes.
pub fn clock() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |s| -s),
    }
}

/// The clock that the kernel sets itself by when it starts.
pub fn rtc() -> Option<Rtc> {
    let folder = "/sys/class/rtc/rtc0";
    let name = read(&format!("{folder}/name"))?.trim().to_owned();
    let seconds = read(&format!("{folder}/since_epoch")).and_then(|t| t.trim().parse().ok());
    Some(Rtc { name, seconds })
}

fn read(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let status = "Name:\tw\nUid:\t1000\t0\t0\t0\nCapEff:\t000001fffeffffff\n";
        assert_eq!(parse_user(status), Some((0, 0x1ff_feff_ffff)));
        assert_eq!(parse_user("Name:\tw\n"), None);
        let memory = "MemTotal:  65536 kB\nMemFree: 1 kB\nMemAvailable:   20480 kB\n";
        let wanted = Memory { total_bytes: 64 << 20, available_bytes: 20 << 20, swap_bytes: 0 };
        assert_eq!(parse_memory(memory), Some(wanted));
        assert_eq!(parse_memory("MemTotal: x kB\n"), None);
        assert!(user().is_some() && self::memory().is_some());
    }

    #[test]
    fn only_modules_that_could_be_loaded_are_named() {
        let all = "kernel/fs/overlayfs/overlay.ko.xz:\nkernel/fs/squashfs/squashfs.ko:\n\
            kernel/net/netfilter/nft_masq.ko.zst: kernel/net/netfilter/nf_tables.ko.zst\n\
            kernel/net/netfilter/nf-tables.ko.zst:\nkernel/x/other.ko:\n";
        let loaded = "overlay 163840 3 - Live 0x0\nother 1 0 - Live 0x0\n";
        let found: Vec<_> = not_loaded(all, loaded).into_iter().collect();
        assert_eq!(found, ["nf_tables", "nft_masq", "squashfs"]);
    }

    #[test]
    fn a_watchdogs_folder_is_read() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("identity", "softdog\n"), ("timeout", "30\n"), ("state", "active\n")]
        {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let wanted =
            Watchdog { identity: "softdog".into(), timeout_seconds: Some(30), is_active: true };
        assert_eq!(watchdog(folder.path()), wanted);
    }
}
