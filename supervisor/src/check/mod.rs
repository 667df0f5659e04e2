//! `wherry check`: what this host offers and lacks, and what that means.
//!
//! [`Facts`] are gathered, mostly by trying ([`wherry_runtime::probe`]); the
//! modules below `judge` make [`Row`]s of them, which is pure.
//! Never here: mending what is found; the configuration may be missing.

mod disk;
mod facts;
mod host;
mod judge;
mod preflight;

use serde::Serialize;

pub use facts::{Facts, Subject};
pub use judge::judge;
pub use preflight::{ForBundles, explain, for_bundles, preflight};

/// One thing that Wherry needs or would like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Words joined by `-`; the same in every version.
    pub name: &'static str,
    pub state: State,
    /// What is there, in the kernel's words where it refused.
    pub found: String,
    /// What a lack means and what to do; empty when there is none.
    pub meaning: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// Wherry runs, with something missing.
    Degraded,
    /// Wherry cannot run.
    Lacking,
    /// It could not be found out.
    Unknown,
}

/// All rows, in the order of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub rows: Vec<Row>,
}

impl Report {
    /// Whether nothing that Wherry needs is known to be missing.
    #[must_use]
    pub fn can_run(&self) -> bool {
        self.lacking().next().is_none()
    }

    pub fn lacking(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.state == State::Lacking)
    }
}

/// Tries everything: a few tenths of a second. The caller must be
/// single-threaded, since this forks.
#[must_use]
pub fn check(subject: Subject) -> Report {
    judge(&Facts::gather(subject))
}
