//! Exponential back-off: how long to wait after a container ended, or after a
//! request failed.
//!
//! 1 s, doubling, at most five minutes; a run of ten minutes starts the row
//! over. Kubernetes begins at 10 s; a gateway has no neighbour to serve in its
//! place meanwhile. No jitter: one node has nobody to collide with, and the
//! same inputs must give the same plan.

use crate::ledger::Attempts;
use crate::model::Millis;

/// The delay after the first failure.
pub const RETRY_FIRST: Millis = Millis(1_000);
/// No delay is longer: someone may be standing beside the gateway.
pub const RETRY_MAX: Millis = Millis(300_000);
/// A container that ran this long was healthy: what ends it is a new story.
pub const STABLE_RUN: Millis = Millis(600_000);
/// Enough doublings to pass [`RETRY_MAX`]; keeps the shift in range.
const DOUBLINGS_MAX: u32 = 9;

/// How long to wait after attempt number `count`, counted from 1.
#[must_use]
pub fn delay(count: u32) -> Millis {
    let doublings = count.saturating_sub(1).min(DOUBLINGS_MAX);
    Millis(RETRY_FIRST.0 << doublings).min(RETRY_MAX)
}

impl Attempts {
    /// Counts a try that begins now. Should its answer be lost, it is repeated
    /// no sooner than if it had failed at once.
    pub(crate) fn begin(&mut self, now: Millis) {
        self.count = self.count.saturating_add(1);
        self.failed = false;
        self.not_before = now.saturating_add(delay(self.count));
    }

    /// The try failed: the wait is counted from here.
    pub(crate) fn failed(&mut self, now: Millis) {
        self.count = self.count.max(1);
        self.failed = true;
        self.not_before = now.saturating_add(delay(self.count));
    }

    /// The container that this try started ran for `ran` and ended at `at`.
    pub(crate) fn ended(&mut self, ran: Millis, at: Millis) {
        self.count = if ran >= STABLE_RUN { 1 } else { self.count.max(1) };
        self.not_before = at.saturating_add(delay(self.count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let seconds = |count| delay(count).0 / 1_000;
        let delays: Vec<u64> = (0..12).map(seconds).collect();
        assert_eq!(delays, [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(seconds(u32::MAX), 300);
    }

    #[test]
    fn a_stable_run_starts_the_row_over() {
        let mut attempts = Attempts { count: 7, ..Attempts::default() };
        attempts.ended(Millis(STABLE_RUN.0 - 1), Millis(10));
        assert_eq!(attempts, Attempts { count: 7, failed: false, not_before: Millis(64_010) });
        attempts.ended(STABLE_RUN, Millis(20));
        assert_eq!(attempts, Attempts { count: 1, failed: false, not_before: Millis(1_020) });
    }

    #[test]
    fn nothing_overflows_at_the_end_of_time() {
        let mut attempts = Attempts { count: u32::MAX, ..Attempts::default() };
        attempts.begin(Millis(u64::MAX));
        assert_eq!(
            attempts,
            Attempts { count: u32::MAX, failed: false, not_before: Millis(u64::MAX) }
        );
    }
}
