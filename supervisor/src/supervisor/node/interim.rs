//! After a power cut in the middle of a transfer: what the current bundle
//! asks for cannot run yet, and what ran before is gone from RAM. So the pods
//! of the last good bundle are started first; then the node works towards
//! the current one, as it did before the cut, and replaces them as the
//! strategy says.
//!
//! Never here: a step back in the store; the current bundle stays current.

use wherry_bundle::Bundle;
use wherry_core::Millis;

use super::Node;

/// How long the last good pods may take to run: then they count as no help.
const INTERIM_MAX: Millis = Millis(60_000);

/// The current bundle, which waits until the last good one runs.
#[derive(Debug)]
pub(super) struct Interim {
    current: Bundle,
    until: Millis,
}

impl Interim {
    pub fn current(&self) -> &Bundle {
        &self.current
    }
}

impl Node {
    /// To be called when the launcher told that no pod is there: running pods
    /// are never replaced by older ones.
    pub(super) fn begin_interim(&mut self, now: Millis) {
        let Some(good) = self.bundle.as_ref().and_then(|current| self.durable.stand_in(current))
        else {
            return;
        };
        log::warn!(
            "layers of generation {} are missing: the last good one, {}, runs meanwhile",
            self.desired.generation,
            good.generation
        );
        let current = self.bundle.take();
        self.desire(good);
        let until = now.saturating_add(INTERIM_MAX);
        self.interim = current.map(|current| Interim { current, until });
    }

    /// Goes on with the current bundle once the last good one runs; when to
    /// look again at the latest.
    pub(super) fn end_interim(&mut self, now: Millis) -> Option<Millis> {
        let until = self.interim.as_ref()?.until;
        let view = wherry_core::status(&self.desired, &self.observed, &self.ledger);
        if !view.phase.is_running() && now < until {
            return Some(until);
        }
        let interim = self.interim.take()?;
        log::info!("going on with generation {}", interim.current.generation);
        self.desire(interim.current);
        None
    }
}
