//! What a container is, seen from `/proc` and the kernel's tables.

use std::fmt::Display;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::node::{Node, pid};
use crate::place::Place;

/// Of a node that runs two web pods of the shop: they share nothing with each
/// other or the machine, their containers share what a pod shares, and none
/// may do more than its template says.
///
/// # Errors
/// What is not so.
pub fn pods_are_isolated(node: &Node<'_>) -> Result<()> {
    let place = node.place();
    let pods = node.pods()?;
    let web: Vec<&Value> = pods.iter().filter(|pod| pod["deployment"] == "web").collect();
    let [first, second] = web[..] else { bail!("two pods of web, not {web:?}") };
    let [nginx, lion] = [pid(first, "nginx")?, pid(first, "lion")?];
    let namespace = |process: &dyn Display, kind: &str| -> Result<String> {
        place.link(&format!("/proc/{process}/ns/{kind}"))
    };
    for shared in ["net", "ipc", "uts"] {
        let own = namespace(&lion, shared)?;
        ensure!(namespace(&nginx, shared)? == own, "{shared} differs");
        let other = pid(second, "lion")?;
        ensure!(namespace(&other, shared)? != own, "{shared} is shared");
        ensure!(namespace(&"self", shared)? != own, "{shared} of the machine");
    }
    for own in ["pid", "mnt", "cgroup"] {
        ensure!(namespace(&nginx, own)? != namespace(&lion, own)?, "{own} is shared");
    }
    privileges(place, lion, "1000")?;
    privileges(place, nginx, "101")?;
    for process in [lion, nginx] {
        mounts(place, process)?;
        masked(place, process)?;
        devices(place, process)?;
    }
    limits(place, lion, 32 << 20)?;
    files(place, lion, first)
}

fn privileges(place: &dyn Place, pid: i32, uid: &str) -> Result<()> {
    let status = place.text(&format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()).unwrap_or_default().to_owned()
    };
    ensure!(field("NoNewPrivs:") == "1", "{pid} may gain privileges");
    ensure!(field("Seccomp:") == "2", "{pid} may make any system call");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        ensure!(field(set) == "0000000000000000", "{pid} has {set} {}", field(set));
    }
    ensure!(field("Uid:") == uid, "{pid} is user {}", field("Uid:"));
    Ok(())
}

fn mounts(place: &dyn Place, pid: i32) -> Result<()> {
    let mounts = place.text(&format!("/proc/{pid}/mountinfo"))?;
    let options = |point: &str| {
        let line = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some(point));
        line.and_then(|line| line.split(' ').nth(5)).unwrap_or_default().to_owned()
    };
    for (point, wanted) in [
        ("/", "nodev"),
        ("/sys", "ro"),
        ("/proc/sys", "ro"),
        ("/proc/sysrq-trigger", "ro"),
        ("/dev/shm", "nosuid"),
    ] {
        // Not every kernel is built with all of them.
        if point.starts_with("/proc") && place.run(&["test", "-e", point]).is_err() {
            continue;
        }
        let found = options(point);
        ensure!(found.split(',').any(|option| option == wanted), "{point} is {found:?}\n{mounts}");
    }
    Ok(())
}

fn masked(place: &dyn Place, pid: i32) -> Result<()> {
    for masked in ["/proc/kcore", "/proc/keys", "/proc/timer_list"] {
        let inside = format!("/proc/{pid}/root{masked}");
        // /proc/kcore would be the machine's memory: one byte tells enough.
        let byte = place.run(&["head", "-c", "1", &inside]).unwrap_or_default();
        ensure!(byte.is_empty(), "{masked} can be read");
    }
    Ok(())
}

fn devices(place: &dyn Place, pid: i32) -> Result<()> {
    let usual = [
        "console", "core", "fd", "full", "kcore", "mqueue", "null", "ptmx", "pts", "random", "shm",
        "stderr", "stdin", "stdout", "tty", "urandom", "zero",
    ];
    let devices = place.names(&format!("/proc/{pid}/root/dev"))?;
    let strange: Vec<_> = devices.iter().filter(|name| !usual.contains(&name.as_str())).collect();
    ensure!(strange.is_empty(), "devices: {strange:?}");
    ensure!(devices.iter().any(|name| name == "null"), "no device at all: {devices:?}");
    Ok(())
}

fn limits(place: &dyn Place, pid: i32, memory_bytes: u64) -> Result<()> {
    let own = place.text(&format!("/proc/{pid}/cgroup"))?;
    let path = |controller: &str| {
        let line = own.lines().find(|line| line.split(':').nth(1) == Some(controller));
        line.and_then(|line| line.split(':').nth(2)).unwrap_or_default().to_owned()
    };
    let v1 = format!("/sys/fs/cgroup/memory{}/memory.limit_in_bytes", path("memory"));
    let v2 = format!("/sys/fs/cgroup{}/memory.max", path(""));
    let text = place.text(&v1).or_else(|_| place.text(&v2)).context(v1)?;
    ensure!(text.trim() == memory_bytes.to_string(), "the memory limit is {text}");
    let v1 = format!("/sys/fs/cgroup/cpu{}/cpu.cfs_quota_us", path("cpu"));
    let v2 = format!("/sys/fs/cgroup{}/cpu.max", path(""));
    let text = place.text(&v1).or_else(|_| place.text(&v2)).context(v1)?;
    ensure!(text.split_whitespace().next() == Some("50000"), "the cpu limit is {text}");
    Ok(())
}

fn files(place: &dyn Place, pid: i32, pod: &Value) -> Result<()> {
    let read = |path: &str| place.text(&format!("/proc/{pid}/root{path}"));
    let hosts = read("/etc/hosts")?;
    for name in ["localhost", "bus", "web", pod["name"].as_str().unwrap_or("?")] {
        let known = hosts.lines().any(|line| line.split_whitespace().skip(1).any(|w| w == name));
        ensure!(known, "{name} is not in /etc/hosts:\n{hosts}");
    }
    ensure!(read("/etc/hostname")?.trim() == pod["name"], "hostname");
    read("/etc/resolv.conf")?;
    ensure!(read("/etc/lion/lion.properties")? == "mane=long\n", "the configuration file");
    Ok(())
}
