//! Power cuts on this machine: a disk with a volatile cache, cut at hundreds
//! of moments of an installation and three upgrades, and soon after starts
//! that follow a kill.

use std::env::consts::ARCH;

use anyhow::{Result, bail, ensure};
use wherry_bundle::Name;
use wherry_tests::host::Host;
use wherry_tests::power::check::Subject;
use wherry_tests::power::crash::{Plan, keep};
use wherry_tests::power::disk::own_mounts;
use wherry_tests::power::native::{NODE, NodeSyncs, upgrades};
use wherry_tests::power::report::Kind;
use wherry_tests::power::seed;

const STATES: usize = 300;
const CONTROL_STATES: usize = 60;
/// The same draws in each run; another seed by `WHERRY_SEED`.
const SEED: u64 = 1;
/// A small cache, so that what goes wrong is more than that nothing mounts.
const CACHED_WRITES: usize = 64;

#[test]
fn a_volatile_cache_loses_nothing_that_was_told() {
    with_host("powvol", |host| {
        let seed = seed("volatile cache", Some(SEED));
        let (disk, marks) = upgrades(host, NodeSyncs::Honoured)?;
        let mut plan = Plan {
            record: disk.record.clone(),
            base: disk.base.clone(),
            data: "".into(),
            node: Name::new(NODE)?,
            marks,
            states: STATES,
            seed,
            ignore_flushes: None,
        };
        let honoured = plan.carry_out(host.folder())?;
        honoured.record("native", ARCH, seed, Kind::States)?;
        plan.states = CONTROL_STATES;
        plan.ignore_flushes = Some(CACHED_WRITES);
        let ignored = plan.carry_out(host.folder())?;
        ignored.record("native: flushes ignored", ARCH, seed, Kind::Control)?;
        plan.ignore_flushes = None;
        plan.states = STATES;
        if honoured.failures > 0 {
            bail!("{:#?}\nkept in {}", honoured.told, keep(plan)?.display());
        }
        ensure!(ignored.failures > 0, "a disk that ignores flushes was not found out");
        Ok(())
    });
}

#[test]
fn a_node_whose_syncs_do_nothing_is_found_out() {
    with_host("powctl", |host| {
        let seed = seed("syncs dropped", Some(SEED));
        let (disk, marks) = upgrades(host, NodeSyncs::Dropped)?;
        let plan = Plan {
            record: disk.record.clone(),
            base: disk.base.clone(),
            data: "".into(),
            node: Name::new(NODE)?,
            marks,
            states: CONTROL_STATES,
            seed,
            ignore_flushes: None,
        };
        let outcome = plan.carry_out(host.folder())?;
        outcome.record("native: syncs dropped", ARCH, seed, Kind::Control)?;
        // The file system is sound: what is missing is what was told.
        ensure!(!outcome.subjects.contains_key(&Subject::Mount), "{:#?}", outcome.told);
        let lost = outcome.subjects.get(&Subject::Generation).copied().unwrap_or(0);
        ensure!(lost > 0, "no lost generation was found: {:?}", outcome.subjects);
        Ok(())
    });
}

fn with_host(id: &str, test: impl FnOnce(&Host) -> Result<()>) {
    let outcome = own_mounts().and_then(|()| {
        let host = Host::new(id)?;
        test(&host)
    });
    if let Err(error) = outcome {
        panic!("{error:#}");
    }
}
