//! `logs.json`: what a container that prints without end costs the supervisor,
//! in percent of one core: with lines of one character, which cost most for
//! what they are, and of a thousand. It is slowed down to what
//! `logs::collector` lets through.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use wherry_tests::host::Host;
use wherry_tests::package::{Component, Package};
use wherry_tests::templates::lion;
use wherry_tests::world::cloud;

use crate::gateway::Gateway;
use crate::process::Activity;
use crate::program;

const LINE_BYTES: [usize; 2] = [1, 1000];
const SPAN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(500);

pub fn measure() -> Result<Value> {
    let program = program::wherry()?;
    let named = program::named(&program)?;
    let host = Host::new("bench")?;
    let cloud = cloud(&host)?;
    let gateway = Gateway::start(&host, &cloud, &program)?;
    let mut shares = Map::new();
    for (generation, bytes) in (1..).zip(LINE_BYTES) {
        let script = format!("exec /bin/busybox yes $(printf %0{bytes}d 1)");
        let command = format!("command: [/bin/sh, -c, \"{script}\"]\n");
        let components =
            vec![Component::new("flood", "lion:1.0.0", lion("flood", "", "", &command))];
        Package::new(&format!("1.0.{generation}"), components).roll_out(&cloud, &host)?;
        gateway.wait_running(generation, 1)?;
        gateway.wait_settled()?;
        let percent = percent(&gateway)?;
        println!("a flood of lines of {bytes} bytes: {percent:.1} % of a core");
        shares.insert(format!("lines_of_{bytes}_percent"), json!(percent));
    }
    gateway.purge()?;
    Ok(json!({ "program": named, "seconds": SPAN.as_secs(), "supervisor": shares }))
}

fn percent(gateway: &Gateway<'_>) -> Result<f64> {
    let processes = gateway.processes()?;
    let supervisor = processes.iter().find(|(role, _)| role == "supervisor");
    let (begin, mut activity) =
        (Instant::now(), Activity::begin(supervisor.context("no supervisor")?.1)?);
    while begin.elapsed() < SPAN {
        std::thread::sleep(LOOK);
        activity.look()?;
    }
    Ok(activity.cpu_nanos() as f64 / begin.elapsed().as_nanos() as f64 * 100.0)
}
