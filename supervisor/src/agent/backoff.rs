//! How long to wait before the next attempt to connect.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// A short loss of the link is over soon.
const FIRST: Duration = Duration::from_millis(500);
/// A node that is back within half a minute after its broker is soon enough,
/// and one attempt in half a minute costs next to nothing.
const LONGEST: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct BackOff {
    attempts: u32,
}

impl BackOff {
    /// Doubles with each call, less up to half of it by chance: a fleet that
    /// lost its broker at one moment must not come back at one moment.
    pub fn next(&mut self) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.attempts.min(16)).min(LONGEST);
        self.attempts += 1;
        // Each `RandomState` has keys of its own; quality enough for this.
        let chance = RandomState::new().build_hasher().finish() % 1024;
        whole - whole.mul_f64(chance as f64 / 2048.0)
    }

    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_a_limit_and_differs() {
        let mut back_off = BackOff::default();
        let waits: Vec<Duration> = (0..40).map(|_| back_off.next()).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST / 2);
        assert!(waits[30..].iter().all(|wait| *wait <= LONGEST && *wait >= LONGEST / 2));
        assert!(waits[30..].windows(2).any(|pair| pair[0] != pair[1]));
        back_off.reset();
        assert!(back_off.next() <= FIRST);
    }
}
