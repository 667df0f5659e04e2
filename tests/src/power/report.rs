//! `target/reports/power.json`: what the power cuts came to. Each test puts
//! its own run in; the totals are over all of them.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::crash::Outcome;

/// Machines run side by side, and share the file.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
const PATH: &str = "../target/reports/power.json";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Report {
    /// Machines that were killed, and what was wrong afterwards.
    cuts: usize,
    /// States of a disk with a volatile cache, and what was wrong with them.
    states: usize,
    /// Of both.
    failures: usize,
    /// States of a disk or node that drops its syncs, and how many of them
    /// were found out.
    control_states: usize,
    control_failures: usize,
    runs: Vec<Run>,
}

/// One test's part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Whose it is; replaces an earlier one of that name.
    pub name: String,
    pub architecture: String,
    pub seed: u64,
    pub kind: Kind,
    pub count: usize,
    pub failures: usize,
    pub millis: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Cuts,
    States,
    Control,
}

impl Outcome {
    /// Prints what came of a plan, and puts it into the report.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn record(&self, name: &str, architecture: &str, seed: u64, kind: Kind) -> Result<()> {
        let Self { states, failures, subjects, entries, flushes, cached_writes, millis, .. } = self;
        println!(
            "{name}: {failures} of {states} states failed {subjects:?}; {entries} writes and \
             flushes, {flushes} of them flushes; {cached_writes} cached writes in all states; \
             {millis} ms"
        );
        let (name, architecture) = (name.to_owned(), architecture.to_owned());
        let (count, failures, millis) = (*states, *failures, *millis);
        Run { name, architecture, seed, kind, count, failures, millis }.record()
    }
}

impl Run {
    /// Puts it into the report.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn record(self) -> Result<()> {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PATH);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut report: Report = serde_json::from_str(&text).unwrap_or_default();
        report.runs.retain(|run| run.name != self.name);
        report.runs.push(self);
        report.runs.sort_by(|a, b| a.name.cmp(&b.name));
        let of = |kind: Kind| report.runs.iter().filter(move |run| run.kind == kind);
        report.cuts = of(Kind::Cuts).map(|run| run.count).sum();
        report.states = of(Kind::States).map(|run| run.count).sum();
        report.failures = of(Kind::Cuts).chain(of(Kind::States)).map(|run| run.failures).sum();
        report.control_states = of(Kind::Control).map(|run| run.count).sum();
        report.control_failures = of(Kind::Control).map(|run| run.failures).sum();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, serde_json::to_string_pretty(&report)? + "\n")?;
        Ok(())
    }
}
