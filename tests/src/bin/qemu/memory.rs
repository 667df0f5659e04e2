//! Small machines: how much runs in how little, and what a container that
//! wants more than its share does to the others.

use std::cell::RefCell;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::json;
use wherry_rig::Arch;
use wherry_tests::host::Host;
use wherry_tests::node::Node;
use wherry_tests::package::{Component, Package};
use wherry_tests::place::{Place, children};
use wherry_tests::report::Report;
use wherry_tests::rig::Board;
use wherry_tests::run::wait_for;
use wherry_tests::templates::{EVERYWHERE, env, lion};

use crate::RigReport;
use crate::site::{Site, Steps};

/// What is left of a machine's memory, in KiB.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    /// What the kernel leaves of the machine's memory.
    total_kib: u64,
    available_kib: u64,
    wherry_pss_kib: u64,
}

impl Figures {
    /// # Errors
    /// What cannot be read.
    pub fn of(node: &Node<'_>) -> Result<Self> {
        let place = node.place();
        let info = place.text("/proc/meminfo")?;
        let (launcher, _) = node.pids()?;
        let containers = node.processes()?;
        let mut wherry_pss_kib = 0;
        let mut own = vec![launcher];
        while let Some(pid) = own.pop() {
            if !containers.contains_key(&pid) {
                wherry_pss_kib +=
                    field(&place.text(&format!("/proc/{pid}/smaps_rollup"))?, "Pss:")?;
                own.extend(children(place, pid)?);
            }
        }
        let (total_kib, available_kib) =
            (field(&info, "MemTotal:")?, field(&info, "MemAvailable:")?);
        Ok(Self { total_kib, available_kib, wherry_pss_kib })
    }
}

/// The number of a line `NAME   N kB`.
fn field(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.with_context(|| format!("no {name}"))?.parse()?)
}

/// A smaller machine, with its root in RAM too, runs out of memory itself
/// before a hog reaches its limit.
const HOG_MIB_MIN: u32 = 96;

/// The machines of an architecture: memory in MiB, and how many pods run in it.
pub fn machines(arch: Arch) -> &'static [(u32, u16)] {
    match arch {
        // Debian's 64-bit kernel leaves 38 of 64 MiB, 12 of them free.
        Arch::Aarch64 => &[(96, 3), (128, 10)],
        Arch::Armv7 => &[(64, 3), (128, 10)],
        // The smallest gateways have ARM; x86_64 is here for cgroup v2.
        Arch::X86_64 => &[],
    }
}

pub fn run(id: &str, arch: Arch, memory_mib: u32, pods: u16) -> RigReport {
    println!("== {arch}, {memory_mib} MiB: {pods} pods");
    let steps = RefCell::new(Report::of(&format!("{arch} {memory_mib} MiB ")));
    let result = small(id, arch, memory_mib, pods, &steps);
    if let Err(error) = &result {
        eprintln!("{arch}: {error:#}");
    }
    let tests_passed = steps.borrow().passed();
    let ok = result.is_ok();
    let (boot_to_pods_ms, memory) = result.map_or((None, None), |(a, b)| (Some(a), Some(b)));
    let (arch, memory_mb, test) = (arch.name(), memory_mib, "memory");
    RigReport { arch, memory_mb, test, ok, boot_to_pods_ms, tests_passed, memory }
}

fn small(
    id: &str,
    arch: Arch,
    memory_mib: u32,
    pods: u16,
    steps: Steps<'_>,
) -> Result<(u64, Figures)> {
    let host = Host::new(id)?;
    let mut site = Site::new(&host, arch)?;
    let step =
        |name: &str, work: &mut dyn FnMut() -> Result<()>| steps.borrow_mut().step(name, work);
    site.boot(memory_mib, |site, board, node| {
        step(&format!("{pods} pods run"), &mut || {
            Package::new("1.0.0", vec![component(pods)]).roll_out(&site.cloud, site.host)?;
            node.wait_running(1)?;
            ensure!(node.pods()?.len() == usize::from(pods), "{:?}", node.pods()?);
            board.is_well()
        })?;
        if memory_mib < HOG_MIB_MIN {
            return Ok(());
        }
        step("a hog is killed by its own limit, and nothing else is", &mut || {
            hog(site, board, node, pods)
        })
    })?;
    site.go_offline()?;
    site.boot(memory_mib, |_, board, node| {
        let newest = if memory_mib < HOG_MIB_MIN { 1 } else { 3 };
        step("booted again without a cloud: every pod runs", &mut || node.wait_running(newest))?;
        let ms = u64::try_from(board.rig().started().elapsed().as_millis())?;
        let figures = Figures::of(node)?;
        steps.borrow().say(&format!("{figures:?}"));
        Ok((ms, figures))
    })
}

fn component(replicas: u16) -> Component {
    let container = format!("resources: {{ limits: {{ memory: 8Mi }} }}\n{}", env(&[EVERYWHERE]));
    let template = lion("small", &format!("replicas: {replicas}"), "", &container);
    Component::new("small", "lion:1.0.0", template)
}

/// One that takes more than its limit again and again, beside the others.
fn hog(site: &Site<'_>, board: &Board, node: &Node<'_>, pods: u16) -> Result<()> {
    let wanted = env(&[("LION_HOG_MB", "32")]);
    let container = format!("resources: {{ limits: {{ memory: 8Mi }} }}\n{wanted}");
    let hog = Component::new("hog", "lion:1.0.0", lion("hog", "", "", &container));
    let (small, own) = (node.processes_of("small")?, node.pids()?);
    Package::new("2.0.0", vec![component(pods), hog]).roll_out(&site.cloud, site.host)?;
    wait_for("the hog's third end", board.patience(), || {
        let container = node.pod("hog")?["containers"][0].clone();
        let ended = container["last_exit"] == json!("out-of-memory");
        ensure!(ended && container["restarts"].as_u64() >= Some(2), "{container}");
        Ok(Some(()))
    })?;
    ensure!(small == node.processes_of("small")?, "another container was restarted");
    ensure!(own == node.pids()?, "Wherry was restarted");
    site.cloud.wait_node("the hog's end in the cloud", |node| {
        node.to_string().contains("out-of-memory") || node.to_string().contains("out of memory")
    })?;
    // Without the hog, so that the node has all that it wants.
    Package::new("3.0.0", vec![component(pods)]).roll_out(&site.cloud, site.host)?;
    node.wait_running(3)?;
    board.is_well()
}
