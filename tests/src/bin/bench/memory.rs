//! `memory.json`: PSS of launcher and supervisor with no pod and with twenty.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use wherry_tests::host::Host;
use wherry_tests::node::Node;
use wherry_tests::observe::pss_kib;
use wherry_tests::package::{Component, Package};
use wherry_tests::templates::{EVERYWHERE, env, lion};
use wherry_tests::world::bring_up;

pub fn measure() -> Result<Value> {
    let host = Host::new("bench")?;
    let (cloud, mut node) = bring_up(&host)?;
    cloud.wait_node("the gateway online", |node| node["online"] == true)?;
    let at_0 = pss(&node)?;
    let template = lion("many", "replicas: 20", "", &env(&[EVERYWHERE]));
    Package::new("1.0.0", vec![Component::new("many", "lion:1.0.0", template)])
        .roll_out(&cloud, &host)?;
    node.wait_running(1)?;
    std::thread::sleep(Duration::from_secs(3));
    let at_20 = pss(&node)?;
    node.purge()?;
    println!(
        "memory (PSS, both processes): {} KiB without pods, {} KiB with 20",
        at_0.total, at_20.total
    );
    Ok(json!({ "pods_0": at_0.json(), "pods_20": at_20.json() }))
}

struct Memory {
    launcher: u64,
    supervisor: u64,
    total: u64,
}

impl Memory {
    fn json(&self) -> Value {
        json!({
            "launcher_pss_kib": self.launcher,
            "supervisor_pss_kib": self.supervisor,
            "total_pss_kib": self.total,
        })
    }
}

fn pss(node: &Node<'_>) -> Result<Memory> {
    std::thread::sleep(Duration::from_secs(2));
    let (launcher, supervisor) = node.pids()?;
    let [launcher, supervisor] = [launcher, supervisor].map(|pid| pss_kib(pid).unwrap_or_default());
    ensure!(launcher > 0 && supervisor > 0, "no PSS in /proc");
    Ok(Memory { launcher, supervisor, total: launcher + supervisor })
}
