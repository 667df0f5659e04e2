//! QEMU killed at random moments of upgrades, and again before the cloud is
//! back: what the node does then without its cloud, what it told its cloud
//! before, and what it had in its queue for it.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use wherry_bundle::message::{Event, EventKind};
use wherry_rig::replay::Random;
use wherry_rig::{Arch, Rig};

use super::machine::{KINDS_OF_VERSION, OnMachine, PODS, Site, log};
use super::marks::{Known, Mark};
use super::queue::{Ask, settled};
use crate::host::Host;
use crate::node::is_running;
use crate::package::start_rollout;
use crate::run::wait_for;

/// For a node that starts its pods.
const PATIENCE: Duration = Duration::from_secs(90);
/// What QEMU sent before it was killed arrives within this.
const DRAIN: Duration = Duration::from_millis(300);
/// A generation is good after a minute.
const GOOD_PATIENCE: Duration = Duration::from_secs(150);
const GOOD_POLL: Duration = Duration::from_secs(2);
/// Some of the moments are after the node said that it runs: those cuts are
/// checked too, and do not count. Of few, more may be.
const ATTEMPTS_PER_CUT: usize = 2;
const ATTEMPTS_MORE: usize = 4;
/// After each of so many cuts there is another one, before the cloud is back.
const OFFLINE_EVERY: usize = 3;
/// Fields of it change with each write to the disk (the kernel's
/// `Documentation/block/stat.rst`).
const DISK_STAT: &str = "/sys/block/vda/stat";

/// What came of it.
#[derive(Debug, Default)]
pub struct Cuts {
    pub count: usize,
    /// Cuts while the newest generation was issued and did not run yet.
    pub inside: usize,
    pub failures: Vec<String>,
    /// Cuts after which the new generation was held, and those after which
    /// its layers were missing, so that the last good one ran.
    pub new: usize,
    pub stood_in: usize,
    /// Cuts while the node had events for a cloud that was away.
    pub offline: usize,
}

/// Installs a first generation, waits until it is good, and then cuts the
/// power until it was gone `inside` times in the middle of an upgrade.
///
/// # Errors
/// What keeps it from going on; what a cut did is in the outcome.
pub fn cuts(host: &Host, arch: Arch, inside: usize, seed: u64) -> Result<Cuts> {
    let mut site = Site::new(host, arch, Path::new(""))?;
    let mut rig = site.boot(None, true)?;
    let mut boots = 1;
    site.upgrade(&rig)?;
    wait_for("the first generation to be good", GOOD_PATIENCE, || {
        thread::sleep(GOOD_POLL);
        Ok(log(&rig).contains("is good").then_some(()))
    })?;
    let start = Instant::now();
    site.upgrade(&rig)?;
    let whole = usize::try_from(start.elapsed().as_millis())?;
    println!("{arch}: an upgrade takes {whole} ms");
    let mut random = Random::new(seed);
    let mut cuts = Cuts::default();
    let mut spans = [whole; KINDS_OF_VERSION];
    for number in 1..=inside * ATTEMPTS_PER_CUT + ATTEMPTS_MORE {
        if cuts.inside == inside {
            break;
        }
        let span = &mut spans[usize::try_from(site.issued)? % KINDS_OF_VERSION];
        let after = random.below(*span);
        let moment = Duration::from_millis(after as u64);
        if cut(&mut site, &rig, moment)? {
            cuts.inside += 1;
        } else {
            *span = after.max(1);
        }
        drop(rig);
        rig = site.boot(None, false)?;
        boots += 1;
        let title = format!("{arch}: cut {number}, after {} ms", moment.as_millis());
        cuts.note(&title, &site, &rig, look(&rig, &site));
        if number % OFFLINE_EVERY == 0 {
            let waiting = cut_offline(&rig)?;
            drop(rig);
            rig = site.boot(None, false)?;
            boots += 1;
            let title = format!("{arch}: again, with {waiting} events in the queue");
            cuts.note(&title, &site, &rig, look(&rig, &site).and_then(|f| f.holds(waiting)));
            cuts.offline += 1;
        }
        rig.link(true)?;
        site.wait_running(&rig)?;
    }
    if cuts.inside < inside {
        cuts.failures.push(format!("only {} cuts were in an upgrade", cuts.inside));
    }
    if let Err(error) = nothing_is_lost(&site, &rig, boots) {
        cuts.failures.push(format!("{error:#}"));
    }
    Ok(cuts)
}

impl Cuts {
    fn note(&mut self, title: &str, site: &Site<'_>, rig: &Rig, found: Result<Found>) {
        self.count += 1;
        match found {
            Ok(found) => {
                println!("{title}: {found:?}");
                self.new += usize::from(found.generation == site.issued);
                self.stood_in += usize::from(found.stood_in);
            }
            Err(error) => {
                let text = format!("{title}: {error:#}\n{}", log(rig));
                println!("{text}");
                self.failures.push(text);
            }
        }
    }
}

/// Begins an upgrade, and takes the power away `moment` after it went to the
/// node; whether that was in the middle of it.
fn cut(site: &mut Site<'_>, rig: &Rig, moment: Duration) -> Result<bool> {
    let version = site.next_version()?;
    let site = &*site;
    thread::scope(|scope| {
        let rollout = scope.spawn(|| start_rollout(&site.cloud, &version));
        wait_for("the bundle on its way", PATIENCE, || {
            let issued = Known::at(&site.tap.marks(), u64::MAX).issued;
            Ok((issued == site.issued).then_some(()))
        })?;
        thread::sleep(moment);
        rig.cut_power()?;
        rollout.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    thread::sleep(DRAIN);
    Ok(!site.tap.has_run(site.issued))
}

/// Waits until what the node has to tell is on its disk, and takes the power
/// away; how many events there were.
fn cut_offline(rig: &Rig) -> Result<u64> {
    let node = OnMachine(rig);
    let waiting = settled(|| Ok((node.waiting()?, rig.get(DISK_STAT)?)))?;
    rig.cut_power()?;
    Ok(waiting)
}

#[derive(Debug)]
struct Found {
    generation: u64,
    stood_in: bool,
    /// Events that wait for the cloud.
    waiting: u64,
}

impl Found {
    /// All `before` are there, and what this start has made.
    fn holds(self, before: u64) -> Result<Self> {
        ensure!(self.waiting > before, "{} events are in the queue", self.waiting);
        Ok(self)
    }
}

/// The node without its cloud: it holds what it told of or what it was given
/// since, and pods run.
fn look(rig: &Rig, site: &Site<'_>) -> Result<Found> {
    let known = Known::at(&site.tap.marks(), u64::MAX);
    let node = OnMachine(rig);
    let found = wait_for("pods without the cloud", PATIENCE, || {
        let status = node.json(&["status"])?;
        let generation = status["generation"].as_u64().context("a generation")?;
        let pods = node.json(&["ps"])?;
        let pods = pods.as_array().context("a list of pods")?;
        let available = pods
            .iter()
            .filter(|pod| pod["deployment"] == "web" && pod["phase"] == "available")
            .count();
        let text = log(rig);
        let stood_in = text.contains("the last good one");
        let settled = is_running(&status["phase"]) || text.contains("going on with generation");
        if available < PODS || !settled || generation < known.taken_up {
            bail!("{available} pods are available: {status}");
        }
        ensure!(status["events_dropped"] == 0, "events were dropped: {status}");
        Ok(Some(Found { generation, stood_in, waiting: node.waiting()? }))
    })?;
    let Found { generation, .. } = found;
    ensure!(generation <= known.issued, "holds {generation}, {} was issued", known.issued);
    let lions = rig.run(&["busybox", "pidof", "wherry-lion"], PATIENCE)?.text();
    let lions = lions.split_whitespace().count();
    ensure!(lions >= PODS, "{lions} lions run, {PODS} pods are told of");
    Ok(found)
}

/// Over all cuts: each number tells of one event only, the cloud has all of
/// them, of each start too, and the store never had to be mended.
fn nothing_is_lost(site: &Site<'_>, rig: &Rig, boots: usize) -> Result<()> {
    wait_for("an empty outbox", PATIENCE, || Ok((OnMachine(rig).waiting()? == 0).then_some(())))?;
    let mut told: BTreeMap<u64, Event> = BTreeMap::new();
    for event in site.tap.marks().iter().flat_map(Mark::events) {
        ensure!(event.kind != EventKind::StoreRecovered, "{}", event.text);
        if let Some(before) = told.insert(event.seq, event.clone()) {
            ensure!(before == *event, "number {} is {before:?} and {event:?}", event.seq);
        }
    }
    let listed = site.cloud.json(&["events", "gw-1", "--tail", "100000"])?;
    let listed = listed.as_array().context("a list of events")?;
    let seqs: Vec<u64> = listed.iter().filter_map(|event| event["seq"].as_u64()).collect();
    let (first, last) = (seqs.iter().min().context("none")?, seqs.iter().max().context("none")?);
    ensure!(seqs.len() as u64 == last - first + 1, "gaps or doubles: {seqs:?}");
    let starts = listed.iter().filter(|event| event["kind"] == "started").count();
    ensure!(starts == boots, "the node booted {boots} times, and told of {starts} starts");
    let last_told = told.keys().last().context("nothing was told")?;
    ensure!(last >= last_told, "the cloud has events up to {last}, {last_told} was told");
    Ok(())
}
