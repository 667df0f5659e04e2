//! The volatile cache of a machine under QEMU: its disk's writes are recorded
//! by QEMU itself, through an installation and upgrades.

use std::time::Duration;

use anyhow::{Context, Result};
use wherry_bundle::Name;
use wherry_rig::Arch;
use wherry_rig::machine::BINARY;

use super::crash::Plan;
use super::disk::is_told;
use super::machine::{DATA, OnMachine, Site, log};
use super::native::NODE;
use super::queue::fill;
use crate::host::Host;
use crate::run::{run, tool};

/// Each after the first an upgrade; after every second one the cloud is away
/// for a while.
const GENERATIONS: u64 = 4;
const POWER_OFF: Duration = Duration::from_secs(60);

/// What there is to be replayed after a machine went through its upgrades.
///
/// # Errors
/// Whatever does not work, or a record that does not tell all.
pub fn plan(host: &Host, arch: Arch, states: usize, seed: u64) -> Result<Plan> {
    let [record, base] = ["record", "base.img"].map(|name| host.folder().join(name));
    let mut site = Site::new(host, arch, &record)?;
    run(tool("cp", ["--sparse=always"]).args([&site.disk, &base]))?;
    let rig = site.boot(Some(&record), true)?;
    for generation in 1..=GENERATIONS {
        site.upgrade(&rig)?;
        if generation % 2 == 1 {
            continue;
        }
        fill(&site.tap, &record, &OnMachine(&rig)).with_context(|| log(&rig))?;
    }
    rig.start(&[BINARY, "poweroff"], "/tmp/poweroff")?;
    rig.wait_power_off(POWER_OFF)?;
    let marks = site.tap.marks();
    is_told(&base, &record, &site.disk)?;
    let node = Name::new(NODE)?;
    Ok(Plan { record, base, data: DATA.into(), node, marks, states, seed, ignore_flushes: None })
}
