//! What the simulated supervisor keeps over restarts and reboots, and how it
//! goes back: as the real one does, by the real judge.

use std::collections::BTreeSet;

use wherry_bundle::Generation;
use wherry_bundle::health::UpgradePolicy;
use wherry_core::upgrade::{Facts, Verdict, Watch};
use wherry_core::{Desired, Ledger, Millis, Observed};

use crate::bugs::Bug;
use crate::promise::keeps;

const POLICY: UpgradePolicy =
    UpgradePolicy { stable_seconds: 20, boots_max: 2, hold_seconds_max: 0 };

#[derive(Debug, Default)]
pub struct Store {
    highest_seen: u64,
    last_good: Option<Desired>,
    boots: u32,
    watch: Watch,
    /// All that were ever good, and all that failed: for the checks.
    good: BTreeSet<Generation>,
    failed: BTreeSet<Generation>,
    /// For bugs: what came before the last good one.
    abandoned: Option<Desired>,
}

impl Store {
    pub fn next_generation(&mut self) -> u64 {
        self.highest_seen += 1;
        self.highest_seen
    }

    pub fn taken_up(&mut self, desired: &Desired) {
        keeps!(
            NotAgain,
            !self.failed.contains(&desired.generation),
            "one that failed is tried again"
        );
        self.boots = 0;
        if !self.good.contains(&desired.generation) {
            self.abandoned = Some(desired.clone());
        }
    }

    pub fn restarted(&mut self) {
        self.watch = Watch::default();
    }

    pub fn rebooted(&mut self) {
        self.watch = Watch::default();
        self.boots += 1;
    }

    pub fn judge(
        &mut self,
        desired: &Desired,
        observed: &Observed,
        ledger: &Ledger,
        online: bool,
        now: Millis,
    ) -> Verdict {
        let layers: BTreeSet<_> = desired.workloads.values().flat_map(|w| &w.layers).collect();
        let whole = layers.iter().filter(|layer| observed.layers.contains(&layer.digest));
        let facts = Facts {
            policy: POLICY,
            last_good: self.last_good(),
            boots: self.boots,
            fetched_bytes: whole.map(|layer| layer.size_bytes).sum(),
            online,
        };
        self.watch.judge(facts, desired, observed, ledger, now)
    }

    pub fn last_good(&self) -> Generation {
        self.last_good.as_ref().map(|desired| desired.generation).unwrap_or_default()
    }

    pub fn good(&mut self, desired: &Desired) {
        keeps!(Judged, desired.generation > self.last_good(), "good twice, or older");
        self.good.insert(desired.generation);
        self.last_good = Some(desired.clone());
        self.boots = 0;
    }

    /// What the node goes back to, if there is anything.
    pub fn failed(&mut self, desired: &Desired, bug: Option<Bug>) -> Option<Desired> {
        self.failed.insert(desired.generation);
        let back = match bug {
            Some(Bug::GoesBackTooFar) => self.abandoned.clone(),
            Some(Bug::TriesAgain) => Some(desired.clone()),
            Some(_) | None => self.last_good.clone(),
        }?;
        if bug == Some(Bug::TriesAgain) {
            self.taken_up(&back);
        }
        keeps!(WayBack, self.good.contains(&back.generation), "back to one that never was good");
        self.boots = 0;
        Some(back)
    }
}
