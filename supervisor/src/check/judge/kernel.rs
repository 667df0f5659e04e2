//! Who we are, and the system calls that the launcher is built on.

use wherry_runtime::probe::Trial;
use wherry_runtime::probe::process::Process;

use super::{Case, Context, Weight, bad, ok, part};
use crate::check::{Row, State};

/// The oldest kernel that has every system call the launcher makes
/// (`LOOP_CONFIGURE`).
const RELEASE_MIN: (u32, u32) = (5, 8);
/// Without these the launcher cannot make a container; numbers of
/// `linux/capability.h`.
const NEEDED: [(&str, u32); 10] = [
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_FOWNER", 3),
    ("CAP_KILL", 5),
    ("CAP_SETGID", 6),
    ("CAP_SETUID", 7),
    ("CAP_SETPCAP", 8),
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_MKNOD", 27),
];
const CAP_SYS_RESOURCE: u32 = 24;

pub fn privileges(user: Option<(u32, u64)>) -> Row {
    const NAME: &str = "privileges";
    let Some((user, capabilities)) = user else {
        return bad(NAME, State::Lacking, "no /proc", "nothing works without: mount proc at /proc");
    };
    if user != 0 {
        let found = format!("user {user}");
        return bad(NAME, State::Lacking, found, "containers need root: run Wherry as root");
    }
    let has = |number: u32| capabilities & (1 << number) != 0;
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(_, number)| !has(*number)).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        let found = format!("root without {}", missing.join(" "));
        let meaning = "containers cannot be made: start Wherry with these capabilities";
        return bad(NAME, State::Lacking, found, meaning);
    }
    if !has(CAP_SYS_RESOURCE) {
        let meaning = "when memory runs out the kernel may kill the launcher as early as any \
            other process: start Wherry with this capability";
        return bad(NAME, State::Degraded, "root without CAP_SYS_RESOURCE", meaning);
    }
    ok(NAME, "root")
}

pub fn version((release, machine): &(String, String)) -> Row {
    const NAME: &str = "kernel";
    let found = format!("Linux {release} on {machine}");
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= RELEASE_MIN => ok(NAME, found),
        (Some(_), Some(_)) => {
            let meaning = "older than Linux 5.8, the oldest that has all Wherry uses: what is \
                missing is in the rows below";
            bad(NAME, State::Degraded, found, meaning)
        }
        _ => bad(NAME, State::Unknown, found, ""),
    }
}

pub fn process(context: &Context, tried: &Trial<Process>) -> Vec<Row> {
    let calls = part(tried, |found| found.pidfd.clone().and_then(|()| found.openat2.clone()));
    let told = match tried {
        Ok(found) if found.pidfd.is_ok() && !found.exit_status => bad(
            "exit-status",
            State::Degraded,
            "pidfds do not tell it",
            "how a container ended is not known if the launcher died while it ran: Linux 6.15 \
             keeps it",
        ),
        Ok(_) | Err(_) => context.row(Case {
            name: "exit-status",
            weight: Weight::Wanted,
            trial: &part(tried, |found| found.pidfd.clone()),
            found: "told by pidfds, whoever reaped".into(),
            meaning: "",
            modules: &[],
        }),
    };
    vec![
        context.row(Case {
            name: "system-calls",
            weight: Weight::Needed,
            trial: &calls,
            found: "pidfd, openat2".into(),
            meaning: "containers cannot be watched, or their files not be opened safely: a newer \
                kernel is needed (5.8)",
            modules: &[],
        }),
        told,
        context.row(Case {
            name: "sealed-memory",
            weight: Weight::Needed,
            trial: &part(tried, |found| found.sealed_memory.clone()),
            found: "executable, and cannot be written".into(),
            meaning: "the launcher runs from a sealed copy, which no container can overwrite: \
                enable MEMFD_CREATE and TMPFS, and keep the sysctl vm.memfd_noexec below 2",
            modules: &[],
        }),
        context.row(Case {
            name: "seccomp",
            weight: Weight::Needed,
            trial: &part(tried, |found| found.seccomp.clone()),
            found: "filters".into(),
            meaning: "no container can be started with fewer system calls than the kernel has: \
                enable SECCOMP_FILTER",
            modules: &[],
        }),
    ]
}
