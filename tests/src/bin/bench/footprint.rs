//! `footprint.json`: what the node takes from a gateway: flash, memory,
//! threads, and, while nothing happens, wake-ups, processor time and writes.
//!
//! `WHERRY_IDLE_SECONDS` shortens the idle watch from its ten minutes.

mod disk;
mod sizes;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use wherry_tests::host::Host;
use wherry_tests::package::{Component, Package};
use wherry_tests::templates::{EVERYWHERE, env, lion};
use wherry_tests::world::cloud;

use crate::gateway::Gateway;
use crate::process::{Activity, Memory};
use crate::program;
use disk::DataDisk;

/// Pods at which memory is measured.
const PODS: [usize; 5] = [0, 10, 20, 50, 100];
/// With so many pods the node is watched while nothing happens.
const IDLE_PODS: usize = 50;
const IDLE_SECONDS: u64 = 600;
/// After a rollout: the generation has become the last good one, which takes
/// a minute.
const SETTLE: Duration = Duration::from_secs(75);
/// Between two looks at a node that is watched: threads that live shorter
/// than this are missed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// All figures, as the report has them.
pub fn measure() -> Result<Value> {
    let program = program::wherry()?;
    let named = program::named(&program)?;
    let mut figures = node(&program)?;
    figures["program"] = named;
    figures["sizes"] = sizes::measure()?;
    Ok(figures)
}

/// Memory with ever more pods; in between, the idle watch.
fn node(program: &Path) -> Result<Value> {
    let host = Host::new("foot")?;
    let disk = DataDisk::mount(&host)?;
    let cloud = cloud(&host)?;
    let gateway = Gateway::start(&host, &cloud, program)?;
    cloud.wait_node("the gateway online", |node| node["online"] == true)?;
    let (mut memory, mut idle) = (BTreeMap::new(), Value::Null);
    for (round, pods) in (0..).zip(PODS) {
        if pods > 0 {
            let template = lion("many", &format!("replicas: {pods}"), "", &env(&[EVERYWHERE]));
            Package::new(
                &format!("{round}.0.0"),
                vec![Component::new("many", "lion:1.0.0", template)],
            )
            .roll_out(&cloud, &host)?;
            gateway.wait_running(round, pods)?;
        }
        if pods > 0 {
            std::thread::sleep(SETTLE);
        }
        gateway.wait_settled()?;
        memory.insert(pods, memory_of(&gateway, pods)?);
        if pods == IDLE_PODS {
            idle = watch_idle(&gateway, &disk)?;
        }
    }
    gateway.purge()?;
    disk.unmount()?;
    let memory: Vec<Value> = memory.into_values().collect();
    Ok(json!({ "memory": memory, "idle": idle }))
}

fn memory_of(gateway: &Gateway<'_>, pods: usize) -> Result<Value> {
    let mut processes = serde_json::Map::new();
    let mut total = 0;
    for (name, pid) in gateway.processes()? {
        let memory = Memory::of(pid)?;
        total += memory.pss_kib;
        processes.insert(name, memory.json());
    }
    ensure!(total > 0, "no PSS in /proc");
    println!("memory with {pods} pods: {total} KiB PSS, {} processes", processes.len());
    Ok(json!({ "pods": pods, "total_pss_kib": total, "processes": processes }))
}

/// What happens while nothing happens.
fn watch_idle(gateway: &Gateway<'_>, disk: &DataDisk) -> Result<Value> {
    let seconds = match std::env::var("WHERRY_IDLE_SECONDS") {
        Ok(text) => text.parse()?,
        Err(_) => IDLE_SECONDS,
    };
    let pids = gateway.processes()?;
    let mut watched: BTreeMap<String, Activity> = BTreeMap::new();
    for (name, pid) in &pids {
        watched.insert(name.clone(), Activity::begin(*pid)?);
    }
    let written_before = disk.written_bytes()?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds) {
        let left = Duration::from_secs(seconds).saturating_sub(start.elapsed());
        std::thread::sleep(LOOK_INTERVAL.min(left));
        watched.values_mut().try_for_each(Activity::look)?;
    }
    ensure!(gateway.processes()? == pids, "processes came or went while nothing happened");
    let minutes = start.elapsed().as_secs_f64() / 60.0;
    let written = disk.written_bytes()? - written_before;
    let sum = |of: fn(&Activity) -> u64| watched.values().map(of).sum::<u64>() as f64;
    let wake_ups = sum(Activity::switches) / minutes;
    let cpu_percent = sum(Activity::cpu_nanos) / (minutes * 60e9) * 100.0;
    let process_bytes = sum(Activity::written_bytes);
    println!(
        "idle with {IDLE_PODS} pods, {seconds} s: {wake_ups:.1} wake-ups a minute, {cpu_percent:.4} % of a core, \
         {written} bytes written to the data disk"
    );
    let processes: serde_json::Map<String, Value> =
        watched.iter().map(|(name, activity)| (name.clone(), activity.json(minutes))).collect();
    Ok(json!({
        "pods": IDLE_PODS,
        "seconds": seconds,
        "wake_ups_per_minute": wake_ups,
        "cpu_percent_of_a_core": cpu_percent,
        "data_disk_written_bytes": written,
        "processes_write_bytes": process_bytes,
        "processes": processes,
    }))
}
