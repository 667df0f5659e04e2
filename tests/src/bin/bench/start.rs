//! `start.json`: how long containers and pods take to start and to go: Wherry's
//! launcher, static as it ships, crun and runc in turn, on the same program and
//! limits.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use wherry_bundle::{Digest, Name};
use wherry_runtime::proto::Request;
use wherry_tests::host::Host;
use wherry_tests::images::Images;
use wherry_tests::launcher::Launcher;
use wherry_tests::observe::monotonic_nanos;
use wherry_tests::peers::{Peer, without_unified};

use crate::program;
use crate::spread::Spread;

/// After a while without work the kernel is slower: gateways are idle most of
/// the time, and back-to-back runs would hide it.
const GAP: Duration = Duration::from_millis(100);
const ROUNDS: usize = 40;
const WARM_UP: usize = 3;
/// Containers of a new pod.
const POD_CONTAINERS: usize = 3;

/// Who is measured. All results are nanoseconds.
trait Runtime {
    /// A container into a pod that exists, until its first instruction.
    fn start_container(&mut self) -> Result<u64>;
    /// Kills that container, until nothing of it runs and that is known.
    fn end_container(&mut self) -> Result<u64>;
    /// A new pod, until the first instruction of its last container.
    fn start_pod(&mut self) -> Result<u64>;
    /// Kills that pod, until nothing of it is left.
    fn remove_pod(&mut self) -> Result<u64>;
}

type Measure = fn(&mut dyn Runtime) -> Result<u64>;
/// In an order in which each leaves what the next one needs.
const MEASURES: [(&str, Measure); 4] = [
    ("container_start", |runtime| runtime.start_container()),
    ("container_end", |runtime| runtime.end_container()),
    ("pod_start", |runtime| runtime.start_pod()),
    ("pod_removal", |runtime| runtime.remove_pod()),
];

/// Nanoseconds: for each measure Wherry's, crun's and runc's.
type Times = [[Vec<u64>; 3]; MEASURES.len()];

pub fn measure() -> Result<Value> {
    let program = program::launcher()?;
    let host = Host::new("bench")?;
    let folder = host.folder().join("images");
    std::fs::create_dir_all(&folder)?;
    let images = Images::new(&folder)?;
    images.build_lion("lion", "1")?;
    let rootfs = folder.join("lion");
    let mut ours = Ours::new(&host, &program, &rootfs)?;
    let netns = ours.launcher.netns(&ours.pod);
    let times = without_unified(|| {
        let peer = |program| Beside {
            peer: Peer::new(program, host.folder(), &rootfs),
            netns: netns.clone(),
        };
        let (mut crun, mut runc) = (peer("crun"), peer("runc"));
        let mut times = Times::default();
        for round in 0..ROUNDS + WARM_UP {
            for ((_, measure), times) in MEASURES.iter().zip(&mut times) {
                let runtimes: [&mut dyn Runtime; 3] = [&mut ours, &mut crun, &mut runc];
                for (runtime, times) in runtimes.into_iter().zip(times) {
                    std::thread::sleep(GAP);
                    let nanos = measure(runtime)?;
                    if round >= WARM_UP {
                        times.push(nanos);
                    }
                }
            }
        }
        Ok(times)
    })?;
    let mut report = json!({
        "launcher": program::named(&program)?,
        "rounds": ROUNDS,
        "gap_ms": GAP.as_millis(),
        "pod_containers": POD_CONTAINERS,
    });
    for ((name, _), times) in MEASURES.iter().zip(times) {
        report[name] = summary(name, times);
    }
    Ok(report)
}

fn summary(name: &str, times: [Vec<u64>; 3]) -> Value {
    let [ours, crun, runc] = times.map(Spread::of);
    println!(
        "{name}, p50: {:.1} ms; crun {:.1} ms, runc {:.1} ms; {:.2} × crun",
        ours.p50,
        crun.p50,
        runc.p50,
        ours.p50 / crun.p50
    );
    json!({
        "wherry_ms": ours.json(),
        "crun_ms": crun.json(),
        "runc_ms": runc.json(),
        "ratio_to_crun": { "p50": ours.p50 / crun.p50, "p95": ours.p95 / crun.p95 },
        "ratio_to_runc": { "p50": ours.p50 / runc.p50, "p95": ours.p95 / runc.p95 },
    })
}

struct Ours {
    launcher: Launcher,
    layer: Digest,
    pod: Name,
    stdout: BufReader<File>,
    /// The pod that is measured as a whole.
    second: Option<Name>,
}

impl Ours {
    fn new(host: &Host, program: &Path, rootfs: &Path) -> Result<Self> {
        let mut launcher = Launcher::start(host, program)?;
        let layer = launcher.add_layer(rootfs)?;
        let container = Name::new("main")?;
        let pod = launcher.define(1, std::slice::from_ref(&container), layer)?;
        let stdout = launcher.stdout(&pod, &container)?;
        Ok(Self { launcher, layer, pod, stdout, second: None })
    }
}

impl Runtime for Ours {
    fn start_container(&mut self) -> Result<u64> {
        let begin = monotonic_nanos();
        let (pod, container) = (self.pod.clone(), Name::new("main")?);
        self.launcher.ask(Request::StartContainer { pod, container })?;
        Ok(stamp(&mut self.stdout)?.saturating_sub(begin))
    }

    fn end_container(&mut self) -> Result<u64> {
        let begin = monotonic_nanos();
        self.launcher.ask(Request::KillPod { pod: self.pod.clone() })?;
        self.launcher.wait_exit()?;
        Ok(monotonic_nanos().saturating_sub(begin))
    }

    fn start_pod(&mut self) -> Result<u64> {
        let name = |index| Ok(Name::new(&format!("main-{index}"))?);
        let names: Vec<Name> = (0..POD_CONTAINERS).map(name).collect::<Result<_>>()?;
        let begin = monotonic_nanos();
        let pod = self.launcher.define(2, &names, self.layer)?;
        let mut outputs = Vec::new();
        for name in &names {
            outputs.push(self.launcher.stdout(&pod, name)?);
        }
        let start = |container| Request::StartContainer { pod: pod.clone(), container };
        self.launcher.ask_all(names.into_iter().map(start))?;
        self.second = Some(pod.clone());
        let stamps = outputs.iter_mut().map(stamp).collect::<Result<Vec<u64>>>()?;
        Ok(stamps.into_iter().max().unwrap_or(begin).saturating_sub(begin))
    }

    fn remove_pod(&mut self) -> Result<u64> {
        let begin = monotonic_nanos();
        if let Some(pod) = self.second.take() {
            self.launcher.ask(Request::RemovePod { pod })?;
        }
        Ok(monotonic_nanos().saturating_sub(begin))
    }
}

fn stamp(stdout: &mut BufReader<File>) -> Result<u64> {
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    Ok(line.trim().parse()?)
}

/// crun or runc, whose single containers join Wherry's pod.
struct Beside {
    peer: Peer,
    netns: PathBuf,
}

impl Runtime for Beside {
    fn start_container(&mut self) -> Result<u64> {
        self.peer.start(&self.netns)
    }

    fn end_container(&mut self) -> Result<u64> {
        self.peer.delete()
    }

    fn start_pod(&mut self) -> Result<u64> {
        self.peer.start_pod(POD_CONTAINERS)
    }

    fn remove_pod(&mut self) -> Result<u64> {
        self.peer.delete()
    }
}
