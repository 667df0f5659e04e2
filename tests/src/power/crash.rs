//! Hundreds of power cuts in one record of a disk's writes: for each, the
//! disk as it may be found is made, mounted and checked.
//!
//! Done by a process of its own, `wherry-crash`, in mounts of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};
use wherry_bundle::Name;
use wherry_rig::replay::{Image, Log, Random, Replay, Syncs};

use super::check::{Finding, Subject};
use super::disk::own_mounts;
use super::look::{Look, look};
use super::marks::{Known, Mark};
use crate::run::{run, tool};

/// Failed states that are told in full.
const TOLD_MAX: usize = 10;
/// How soon after something was told half of the cuts are, in writes and
/// flushes: what is lost then shows.
const SOON: usize = 24;
/// ext4 rewrites its superblock in place, and mounts nothing after half of
/// one, nor does `e2fsck -p` mend it: it counts on flash, which writes pages
/// of at least this size. All other writes may be torn.
pub const SUPERBLOCK: Range<u64> = 0..4096;
/// For all states of one run.
const SECONDS_MAX: &str = "420";

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub record: PathBuf,
    /// The disk before the first write.
    pub base: PathBuf,
    /// The node's data folder on the disk; empty if it is the disk.
    pub data: PathBuf,
    pub node: Name,
    pub marks: Vec<Mark>,
    pub states: usize,
    pub seed: u64,
    /// The control: the disk ignores flushes, and its cache holds so many
    /// writes.
    pub ignore_flushes: Option<usize>,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub states: usize,
    pub failures: usize,
    /// States in which something was wrong with this.
    pub subjects: BTreeMap<Subject, usize>,
    pub entries: usize,
    pub flushes: usize,
    /// Writes that a cut could take away, of all states.
    pub cached_writes: usize,
    pub millis: u64,
    pub told: Vec<Failure>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    pub state: usize,
    /// Entries of the record before the cut.
    pub entries: usize,
    pub findings: Vec<Finding>,
}

impl Plan {
    /// Has `wherry-crash` carry it out.
    ///
    /// # Errors
    /// The program is not built, fails, or takes too long.
    pub fn carry_out(&self, folder: &Path) -> Result<Outcome> {
        let file = folder.join(format!("plan-{}.json", self.seed));
        std::fs::write(&file, serde_json::to_vec(self)?)?;
        let program = crate::host::binary("wherry-crash")?;
        let printed = run(tool("timeout", [SECONDS_MAX]).arg(program).arg(&file))?;
        Ok(serde_json::from_str(printed.lines().last().context("no outcome")?)?)
    }

    fn replay<'a>(&self, log: &'a Log) -> Result<Replay<'a>> {
        let dropped = |cached_writes| Syncs::Dropped { cached_writes };
        let syncs = self.ignore_flushes.map_or(Syncs::Honoured, dropped);
        Ok(Replay::new(log, Image::read(&self.base)?, syncs).never_torn(SUPERBLOCK))
    }

    fn look(&self, point: &Path, known: Known) -> Look {
        Look { data: point.join(&self.data), node: self.node.clone(), known }
    }

    /// Each state has its own, so that one can be made without the others.
    fn random(&self, state: usize) -> Random {
        Random::new(self.seed ^ ((state as u64) << 32))
    }
}

/// Copies all that a failed plan was about to a folder that stays, where
/// `wherry-crash` can look at it again; says which.
///
/// # Errors
/// No room.
pub fn keep(mut plan: Plan) -> Result<PathBuf> {
    let folder = PathBuf::from(format!("/tmp/{}-logs-power-{}", crate::PREFIX, plan.seed));
    std::fs::create_dir_all(&folder)?;
    for (path, name) in [(&mut plan.record, "record"), (&mut plan.base, "base.img")] {
        let kept = folder.join(name);
        run(tool("cp", ["--sparse=always"]).args([&*path, &kept]))?;
        *path = kept;
    }
    std::fs::write(folder.join("plan.json"), serde_json::to_vec(&plan)?)?;
    Ok(folder)
}

/// Makes the disk of one state in `image`, as [`work`] would, prints what was
/// told by then, and checks a copy of it: the disk stays as the cut left it.
///
/// # Errors
/// The plan's files cannot be read, or `image` not written.
pub fn show(plan: &Plan, state: usize, image: &Path) -> Result<Failure> {
    own_mounts()?;
    let log = Log::read(&plan.record)?;
    let entries = *cuts(plan, &log).get(state).context("the plan has no such state")?;
    let mut replay = plan.replay(&log)?;
    replay.advance(entries);
    replay.cut(&File::create(image)?, &mut plan.random(state))?;
    let known = Known::at(&plan.marks, log.position(entries));
    println!("{known:#?}");
    let room = tempfile::Builder::new().prefix(crate::PREFIX).tempdir()?;
    let copy = room.path().join("image");
    run(tool("cp", ["--sparse=always"]).args([image, &copy]))?;
    let point = room.path().join("disk");
    std::fs::create_dir(&point)?;
    let findings = look(&copy, &point, &plan.look(&point, known))?;
    Ok(Failure { state, entries, findings })
}

/// What `wherry-crash` does.
///
/// # Errors
/// Whatever keeps it from checking; what it finds is no error.
pub fn work(plan: &Plan) -> Result<Outcome> {
    let start = Instant::now();
    own_mounts()?;
    let room = tempfile::Builder::new().prefix(crate::PREFIX).tempdir()?;
    // In RAM: the states of a disk need no disk.
    mount(Some("tmpfs"), room.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    let point = room.path().join("disk");
    std::fs::create_dir(&point)?;
    let log = Log::read(&plan.record)?;
    let mut replay = plan.replay(&log)?;
    let mut outcome = Outcome { entries: log.len(), flushes: log.flushes(), ..Outcome::default() };
    for (state, entries) in cuts(plan, &log).into_iter().enumerate() {
        replay.advance(entries);
        let image = room.path().join(format!("image-{state}"));
        replay.cut(&File::create(&image)?, &mut plan.random(state))?;
        let known = Known::at(&plan.marks, log.position(entries));
        let findings = look(&image, &point, &plan.look(&point, known))?;
        std::fs::remove_file(&image)?;
        outcome.cached_writes += replay.cached();
        outcome.add(Failure { state, entries, findings });
    }
    umount2(room.path(), MntFlags::MNT_DETACH)?;
    outcome.millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(outcome)
}

impl Outcome {
    fn add(&mut self, failure: Failure) {
        self.states += 1;
        if failure.findings.is_empty() {
            return;
        }
        self.failures += 1;
        let mut subjects: Vec<Subject> = failure.findings.iter().map(|f| f.subject).collect();
        subjects.sort_unstable();
        subjects.dedup();
        for subject in subjects {
            *self.subjects.entry(subject).or_default() += 1;
        }
        if self.told.len() < TOLD_MAX {
            self.told.push(failure);
        }
    }
}

/// How many entries there were before each cut, growing: half anywhere, half
/// soon after something was told. Each kind of it gets its share: there are
/// many batches of events, and few bundles.
fn cuts(plan: &Plan, log: &Log) -> Vec<usize> {
    let mut kinds: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
    for mark in &plan.marks {
        kinds.entry(mark.told.kind()).or_default().push(mark.position);
    }
    let kinds: Vec<Vec<u64>> = kinds.into_values().collect();
    let mut random = Random::new(plan.seed);
    let mut cuts: Vec<usize> = (0..plan.states)
        .map(|state| {
            let any = random.below(log.len() + 1);
            let kind = kinds.get(random.below(kinds.len())).filter(|_| state % 2 == 0);
            match kind.and_then(|positions| positions.get(random.below(positions.len()))) {
                Some(position) => log.count_at(*position) + random.below(SOON),
                None => any,
            }
        })
        .map(|entries| entries.min(log.len()))
        .collect();
    cuts.sort_unstable();
    cuts
}
