//! `make bench`: what Wherry costs, with peers beside it. Figures go into
//! `target/reports/`; goals are in SPECIFICATION.md.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use wherry_bundle::Name;
use wherry_tests::host::{Host, binary};
use wherry_tests::images::Images;
use wherry_tests::launcher::{self, Launcher};
use wherry_tests::node::Node;
use wherry_tests::observe::pss_kib;
use wherry_tests::package::{Component, Package};
use wherry_tests::peers::{Peer, without_unified};
use wherry_tests::templates::{EVERYWHERE, env, lion};
use wherry_tests::world::bring_up;

/// After a while without work the kernel is slower: gateways are idle most of
/// the time, and back-to-back runs would hide it.
const GAP: Duration = Duration::from_millis(100);
const ROUNDS: usize = 40;
const WARM_UP: usize = 3;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some((role, rest)) = words.split_first()
        && role == launcher::ROLE
    {
        return launcher::serve(rest);
    }
    report("start.json", &start_latency()?)?;
    report("memory.json", &memory()?)?;
    report("size.json", &size()?)
}

/// A container into a pod that exists: Wherry's launcher, crun and runc in
/// turn.
fn start_latency() -> Result<Value> {
    let host = Host::new("bench")?;
    let folder = host.folder().join("images");
    std::fs::create_dir_all(&folder)?;
    let images = Images::new(&folder)?;
    images.build_lion("lion", "1")?;
    let rootfs = folder.join("lion");
    let mut launcher = Launcher::start(&host)?;
    let layer = launcher.add_layer(&rootfs)?;
    let pod = Name::new("bench-0")?;
    launcher.define_stamp(&pod, layer)?;
    let mut stdout = launcher.stdout(&pod)?;
    let netns = host.folder().join("run/pods/bench-0/ns/net");
    let [wherry, crun, runc] = without_unified(|| {
        let mut crun = Peer::new("crun", host.folder(), &rootfs, &netns)?;
        let mut runc = Peer::new("runc", host.folder(), &rootfs, &netns)?;
        let mut times = [vec![], vec![], vec![]];
        for round in 0..ROUNDS + WARM_UP {
            let mut took = [0; 3];
            std::thread::sleep(GAP);
            took[0] = launcher.time_start(&pod, &mut stdout)?;
            std::thread::sleep(GAP);
            took[1] = crun.start()?;
            std::thread::sleep(GAP);
            took[2] = runc.start()?;
            if round >= WARM_UP {
                times.iter_mut().zip(took).for_each(|(list, nanos)| list.push(nanos));
            }
        }
        Ok(times)
    })?;
    let (ours, crun, runc) = (Spread::of(wherry), Spread::of(crun), Spread::of(runc));
    println!(
        "start of a container in a pod, p50: {:.1} ms; crun {:.1} ms, runc {:.1} ms; {:.2} × crun",
        ours.p50,
        crun.p50,
        runc.p50,
        ours.p50 / crun.p50
    );
    Ok(json!({
        "rounds": ROUNDS,
        "gap_ms": GAP.as_millis(),
        "wherry_ms": ours.json(),
        "crun_ms": crun.json(),
        "runc_ms": runc.json(),
        "ratio_to_crun_p50": ours.p50 / crun.p50,
        "ratio_to_runc_p50": ours.p50 / runc.p50,
    }))
}

/// PSS of launcher and supervisor with no pod and with twenty.
fn memory() -> Result<Value> {
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

fn size() -> Result<Value> {
    let bytes = std::fs::metadata(binary("wherry")?)?.len();
    println!("size of the node's binary: {:.2} MB", bytes as f64 / 1e6);
    Ok(json!({ "wherry_bytes": bytes }))
}

/// Milliseconds.
struct Spread {
    p50: f64,
    p95: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(mut nanos: Vec<u64>) -> Self {
        nanos.sort_unstable();
        let at = |share: usize| {
            let index = (nanos.len() * share / 100).min(nanos.len().saturating_sub(1));
            nanos.get(index).map_or(0.0, |&nanos| nanos as f64 / 1e6)
        };
        Self { p50: at(50), p95: at(95), min: at(0), max: at(100) }
    }

    fn json(&self) -> Value {
        json!({ "p50": self.p50, "p95": self.p95, "min": self.min, "max": self.max })
    }
}

fn report(name: &str, figures: &Value) -> Result<()> {
    let path = Path::new("target/reports").join(name);
    std::fs::create_dir_all("target/reports")?;
    std::fs::write(&path, serde_json::to_string_pretty(figures)? + "\n")?;
    println!("  -> {}", path.display());
    Ok(())
}
