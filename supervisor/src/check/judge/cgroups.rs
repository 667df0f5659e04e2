//! Limits, and the ways to kill what is limited.

use wherry_runtime::probe::cgroups::{Cgroups, Kind};
use wherry_runtime::probe::{Obstacle, Trial};

use super::{Case, Context, Weight, bad, ok, part};
use crate::check::{Row, State};

const LIMITS: [&str; 3] = ["cpu", "memory", "pids"];

pub fn cgroups(context: &Context, tried: &Trial<Cgroups>) -> Vec<Row> {
    let mounted = match tried {
        Ok(found) => match found.layout {
            Some(layout) => Some((layout, found)),
            None => {
                return vec![bad(
                    "cgroups",
                    State::Lacking,
                    "no hierarchy is mounted",
                    "no container can be held or limited: mount cgroup2 at /sys/fs/cgroup (enable \
                     CGROUPS)",
                )];
            }
        },
        Err(_) => None,
    };
    let found = mounted.map(|(layout, found)| {
        let first = found.mounts.first().map(|path| path.display().to_string());
        format!("{}, at {}", name(layout), first.unwrap_or_default())
    });
    let mut rows = vec![context.row(Case {
        name: "cgroups",
        weight: Weight::Needed,
        trial: &part(tried, |found| found.create.clone()),
        found: found.unwrap_or_default(),
        meaning: "no container can be held or limited: the cgroup file systems have to be \
            writable, and at their root no process may be in the way",
        modules: &[],
    })];
    if let Some((layout, found)) = mounted.filter(|(_, found)| found.create.is_ok()) {
        rows.push(controllers(found));
        rows.push(version2(context, layout, found));
    }
    rows
}

fn controllers(found: &Cgroups) -> Row {
    const NAME: &str = "cgroup-controllers";
    let missing = missing(found);
    let text = if found.limits.is_empty() { "none".into() } else { found.limits.join(" ") };
    if missing.is_empty() {
        return ok(NAME, text);
    }
    let meaning = if missing.contains(&"memory") {
        "a container with a memory limit is refused; other missing limits have no effect: enable \
         MEMCG (on some boards: cgroup_enable=memory on the kernel's command line)"
    } else {
        "these limits have no effect: enable CFS_BANDWIDTH and CGROUP_PIDS"
    };
    bad(NAME, State::Degraded, format!("{text}; no {}", missing.join(" ")), meaning)
}

/// Controllers whose limits have no effect.
#[must_use]
pub fn missing(found: &Cgroups) -> Vec<&'static str> {
    LIMITS.into_iter().filter(|limit| !found.limits.iter().any(|l| l == limit)).collect()
}

fn version2(context: &Context, layout: Kind, found: &Cgroups) -> Row {
    const NAME: &str = "cgroup-v2";
    if layout == Kind::V1 {
        let meaning = "containers start some milliseconds later and are killed by freezing them \
            first: mount cgroup2 where the kernel has it";
        return bad(NAME, State::Degraded, "not mounted", meaning);
    }
    let meaning = "containers start some milliseconds later, or are killed by freezing them \
        first: Linux 5.14 has both";
    let trial = match (&found.fork_into, found.kill) {
        (Ok(()), false) => Err(Obstacle::Wrong("no cgroup.kill".into())),
        (forked, _) => forked.clone(),
    };
    context.row(Case {
        name: NAME,
        weight: Weight::Wanted,
        trial: &trial,
        found: "forking into one, killing one".into(),
        meaning,
        modules: &[],
    })
}

fn name(layout: Kind) -> &'static str {
    match layout {
        Kind::V1 => "v1",
        Kind::V2 => "v2",
        Kind::Hybrid => "hybrid (v1 and v2)",
    }
}
