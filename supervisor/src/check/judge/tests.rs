//! One lack at a time, from a host that has everything.

use std::path::PathBuf;

use wherry_runtime::probe::cgroups::{Cgroups, Kind};
use wherry_runtime::probe::filesystems::Filesystems;
use wherry_runtime::probe::namespaces::Namespaces;
use wherry_runtime::probe::network::Network;
use wherry_runtime::probe::process::Process;
use wherry_runtime::probe::{Obstacle, Tried};

use super::*;
use crate::check::disk::{Disk, DiskState};
use crate::check::facts::Configuration;
use crate::check::host::{Memory, Rtc, Watchdog};

const NOW: i64 = 1_800_000_000;
const ALL_CAPABILITIES: u64 = (1 << 41) - 1;

/// What, how it comes about, and the rows that then are not `ok`.
type Case<'a> = (&'a str, fn(&mut Facts), &'a [(&'a str, State)]);

fn disk(kind: &str, free_bytes: u64) -> Disk {
    let state = DiskState { kind: kind.into(), free_bytes, write: Ok(()) };
    Disk { folder: "/d".into(), state: Ok(state) }
}

fn good() -> Facts {
    let each = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), Ok(()))).collect();
    Facts {
        configuration: Configuration::Good { path: "/w.toml".into(), node: "gw-1".into() },
        user: Some((0, ALL_CAPABILITIES)),
        kernel: ("6.18.0-rc1".into(), "armv7l".into()),
        tried: Tried {
            process: Ok(Process {
                pidfd: Ok(()),
                exit_status: true,
                openat2: Ok(()),
                sealed_memory: Ok(()),
                seccomp: Ok(()),
            }),
            namespaces: Ok(Namespaces {
                kinds: each(&["mount", "pid"]),
                pin: Ok(()),
                mounts: each(&["proc", "mqueue"]),
            }),
            filesystems: Ok(Filesystems {
                loop_device: Ok(()),
                zstd: Ok(()),
                others: vec!["gzip".into()],
                overlay: Ok(()),
                opaque: Ok(()),
            }),
            network: Ok(Network {
                settings: Ok(()),
                bridge: Ok(()),
                veth: Ok(()),
                nftables: Ok(()),
                nat: Ok(()),
                balancing: Ok(()),
                conntrack: Ok(()),
            }),
            cgroups: Ok(Cgroups {
                layout: Some(Kind::V2),
                mounts: vec![PathBuf::from("/sys/fs/cgroup")],
                create: Ok(()),
                limits: vec!["cpu".into(), "memory".into(), "pids".into()],
                fork_into: Ok(()),
                kill: true,
            }),
        },
        modules: BTreeSet::new(),
        watchdogs: vec![Watchdog {
            identity: "wdt".into(),
            timeout_seconds: Some(30),
            is_active: false,
        }],
        clock: NOW,
        rtc: Some(Rtc { name: "rtc".into(), seconds: Some(NOW - 2) }),
        data: disk("ext4", 1 << 30),
        run: disk("tmpfs", 1 << 20),
        memory: Some(Memory { total_bytes: 64 << 20, available_bytes: 40 << 20, swap_bytes: 0 }),
    }
}

fn refused(errno: i32) -> Obstacle {
    Obstacle::Refused { what: "trying it".into(), errno }
}

/// After `change`, exactly these rows are not `ok`.
#[track_caller]
fn check(what: &str, change: impl FnOnce(&mut Facts), expected: &[(&str, State)]) -> Report {
    let mut facts = good();
    change(&mut facts);
    let report = judge(&facts);
    let bad = report.rows.iter().filter(|row| row.state != State::Ok);
    let found: Vec<_> = bad.map(|row| (row.name, row.state)).collect();
    assert_eq!(found, expected, "{what}");
    let lacking = expected.iter().any(|(_, state)| *state == State::Lacking);
    assert_eq!(report.can_run(), !lacking, "{what}");
    for row in &report.rows {
        let explains = matches!(row.state, State::Degraded | State::Lacking);
        assert!(!explains || !row.meaning.is_empty(), "{what}: {row:?}");
        assert!(row.state != State::Ok || row.meaning.is_empty(), "{what}: {row:?}");
    }
    report
}

#[test]
fn a_good_host_has_nothing_to_say_and_no_row_twice() {
    let report = check("good", |_| {}, &[]);
    let mut names: Vec<_> = report.rows.iter().map(|row| row.name).collect();
    assert!(names.len() >= 25, "{names:?}");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), report.rows.len());
}

#[test]
fn what_is_needed_is_lacking() {
    use State::{Lacking, Unknown};
    let cases: [Case<'_>; 15] = [
        ("user", |f| f.user = Some((1000, 0)), &[("privileges", Lacking)]),
        ("CAP_SYS_ADMIN", |f| f.user = Some((0, !(1 << 21))), &[("privileges", Lacking)]),
        (
            "configuration",
            |f| f.configuration = Configuration::Wrong("line 3".into()),
            &[("configuration", Lacking)],
        ),
        (
            "openat2",
            |f| process(f).openat2 = Err(refused(libc::ENOSYS)),
            &[("system-calls", Lacking)],
        ),
        (
            "memfd",
            |f| process(f).sealed_memory = Err(refused(libc::EACCES)),
            &[("sealed-memory", Lacking)],
        ),
        (
            "a namespace",
            |f| namespaces(f).kinds[1].1 = Err(refused(libc::EINVAL)),
            &[("namespaces", Lacking)],
        ),
        (
            "mqueue",
            |f| namespaces(f).mounts[1].1 = Err(refused(libc::ENODEV)),
            &[("container-mounts", Lacking)],
        ),
        ("seccomp", |f| process(f).seccomp = Err(refused(libc::EINVAL)), &[("seccomp", Lacking)]),
        ("no cgroups", |f| cgroups(f).layout = None, &[("cgroups", Lacking)]),
        (
            "read-only cgroups",
            |f| cgroups(f).create = Err(refused(libc::EROFS)),
            &[("cgroups", Lacking)],
        ),
        (
            "overlay",
            |f| {
                filesystems_of(f).overlay = Err(refused(libc::ENODEV));
                filesystems_of(f).opaque = Err(Obstacle::NotTried("overlay".into()));
            },
            &[("overlay", Lacking), ("overlay-attributes", Unknown)],
        ),
        (
            "squashfs",
            |f| {
                filesystems_of(f).zstd = Err(refused(libc::ENODEV));
                filesystems_of(f).others.clear();
            },
            &[("squashfs", Lacking), ("squashfs-zstd", Unknown)],
        ),
        (
            "zstd only",
            |f| filesystems_of(f).zstd = Err(refused(libc::EINVAL)),
            &[("squashfs-zstd", Lacking)],
        ),
        (
            "nftables",
            |f| {
                network(f).nftables = Err(Obstacle::Wrong("cannot add table".into()));
                network(f).nat = Err(Obstacle::NotTried("nftables".into()));
            },
            &[("nftables", Lacking), ("nftables-nat", Unknown)],
        ),
        (
            "numgen",
            |f| network(f).balancing = Err(Obstacle::Wrong("cannot add rule".into())),
            &[("nftables-balancing", Lacking)],
        ),
    ];
    for (what, change, expected) in cases {
        check(what, change, expected);
    }
}

#[test]
fn what_is_wanted_is_degraded() {
    use State::{Degraded, Unknown};
    let cases: [Case<'_>; 12] = [
        ("CAP_SYS_RESOURCE", |f| f.user = Some((0, !(1 << 24))), &[("privileges", Degraded)]),
        ("Linux 5.4", |f| f.kernel.0 = "5.4.0-42-generic".into(), &[("kernel", Degraded)]),
        ("a riddle of a kernel", |f| f.kernel.0 = "next".into(), &[("kernel", Unknown)]),
        ("exit status", |f| process(f).exit_status = false, &[("exit-status", Degraded)]),
        (
            "memory controller",
            |f| cgroups(f).limits.retain(|l| l != "memory"),
            &[("cgroup-controllers", Degraded)],
        ),
        ("v1", |f| cgroups(f).layout = Some(Kind::V1), &[("cgroup-v2", Degraded)]),
        ("cgroup.kill", |f| cgroups(f).kill = false, &[("cgroup-v2", Degraded)]),
        (
            "xattr",
            |f| filesystems_of(f).opaque = Err(refused(libc::EIO)),
            &[("overlay-attributes", Degraded)],
        ),
        (
            "conntrack",
            |f| network(f).conntrack = Err(Obstacle::Wrong("cannot list".into())),
            &[("conntrack", Degraded)],
        ),
        ("watchdog", |f| f.watchdogs.clear(), &[("watchdog", Degraded)]),
        ("1970", |f| f.clock = 90, &[("clock", Degraded), ("real-time-clock", Degraded)]),
        ("no clock", |f| f.rtc = None, &[("real-time-clock", Degraded)]),
    ];
    for (what, change, expected) in cases {
        check(what, change, expected);
    }
}

#[test]
fn room_on_flash_and_in_memory_is_judged_by_amount() {
    use State::{Degraded, Lacking, Unknown};
    for (kind, free, expected) in [
        ("ext4", 7 << 20, &[("data-folder", Lacking)][..]),
        ("f2fs", 63 << 20, &[("data-folder", Degraded)]),
        ("f2fs", 64 << 20, &[]),
        ("tmpfs", 1 << 30, &[("data-folder", Degraded)]),
    ] {
        check(kind, |f| f.data = disk(kind, free), expected);
    }
    for (errno, user, expected) in [
        (libc::EROFS, 0, &[("data-folder", Lacking)][..]),
        (libc::EPERM, 0, &[("data-folder", Lacking)]),
        (libc::EACCES, 1000, &[("privileges", Lacking), ("data-folder", Unknown)]),
    ] {
        let change = |f: &mut Facts| {
            f.user = Some((user, ALL_CAPABILITIES));
            f.data.state.as_mut().unwrap().write = Err(refused(errno));
        };
        check("a disk that refuses", change, expected);
    }
    for (available, expected) in [
        (7 << 20, &[("memory", Lacking)][..]),
        (23 << 20, &[("memory", Degraded)]),
        (24 << 20, &[]),
    ] {
        check("memory", |f| f.memory.as_mut().unwrap().available_bytes = available, expected);
    }
}

#[test]
fn what_hangs_or_may_not_be_asked_is_unknown() {
    let names = ["bridge", "veth", "nftables", "nftables-nat", "nftables-balancing", "conntrack"];
    let unknown: Vec<_> = std::iter::once("network-settings")
        .chain(names)
        .map(|name| (name, State::Unknown))
        .collect();
    check("hangs", |f| f.tried.network = Err(Obstacle::TimedOut), &unknown);

    let mut with_user = vec![("privileges", State::Lacking)];
    with_user.extend(&unknown);
    let change = |f: &mut Facts| {
        f.user = Some((1000, 0));
        f.tried.network = Err(refused(libc::EPERM));
    };
    let report = check("a user", change, &with_user);
    let row = report.rows.iter().find(|row| row.name == "bridge").unwrap();
    assert!(row.meaning.contains("as root"), "{row:?}");

    let change = |f: &mut Facts| {
        f.user = Some((1000, 0));
        cgroups(f).create = Err(refused(libc::EACCES));
    };
    check("cgroups", change, &[("privileges", State::Lacking), ("cgroups", State::Unknown)]);

    // Root gets no further: what is forbidden is not there.
    let mut facts = good();
    facts.tried.network = Err(refused(libc::EPERM));
    assert!(judge(&facts).lacking().any(|row| row.name == "bridge"));
}

#[test]
fn a_module_that_is_not_loaded_is_named() {
    let change = |f: &mut Facts| {
        f.modules = BTreeSet::from(["overlay", "softdog"]);
        filesystems_of(f).overlay = Err(refused(libc::ENODEV));
        f.watchdogs.clear();
    };
    let expected = [("overlay", State::Lacking), ("watchdog", State::Degraded)];
    let report = check("modules", change, &expected);
    for (name, module) in [("overlay", "modules: overlay"), ("watchdog", "softdog")] {
        let row = report.rows.iter().find(|row| row.name == name).unwrap();
        assert!(row.meaning.contains(module), "{row:?}");
    }
}

fn process(facts: &mut Facts) -> &mut Process {
    facts.tried.process.as_mut().unwrap()
}

fn namespaces(facts: &mut Facts) -> &mut Namespaces {
    facts.tried.namespaces.as_mut().unwrap()
}

fn cgroups(facts: &mut Facts) -> &mut Cgroups {
    facts.tried.cgroups.as_mut().unwrap()
}

fn filesystems_of(facts: &mut Facts) -> &mut Filesystems {
    facts.tried.filesystems.as_mut().unwrap()
}

fn network(facts: &mut Facts) -> &mut Network {
    facts.tried.network.as_mut().unwrap()
}
