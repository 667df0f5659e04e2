//! How fast a transfer goes, and how fast it may.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Between two marks.
const MARK_INTERVAL: Duration = Duration::from_secs(1);
/// An estimate should not jump with every chunk.
const WINDOW: Duration = Duration::from_secs(10);

/// Bytes that came, over the last ten seconds.
#[derive(Debug, Default)]
pub(super) struct Rate {
    marks: VecDeque<(Instant, u64)>,
    bytes: u64,
}

impl Rate {
    pub fn add(&mut self, bytes: u64, now: Instant) {
        self.mark(now);
        self.bytes += bytes;
    }

    pub fn bytes_per_second(&mut self, now: Instant) -> u64 {
        self.mark(now);
        let Some((since, before)) = self.marks.front() else { return 0 };
        let millis = now.duration_since(*since).max(MARK_INTERVAL).as_millis();
        let rate = u128::from(self.bytes - before) * 1000 / millis;
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    fn mark(&mut self, now: Instant) {
        if self.marks.back().is_none_or(|(at, _)| now >= *at + MARK_INTERVAL) {
            self.marks.push_back((now, self.bytes));
            while self.marks.get(1).is_some_and(|(at, _)| *at + WINDOW <= now) {
                self.marks.pop_front();
            }
        }
    }
}

/// Keeps requests below a rate.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: Option<u64>,
    /// From then on more may be asked for.
    free_at: Option<Instant>,
}

impl Pace {
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, free_at: None }
    }

    /// How much may be asked for at once: what one second carries.
    pub fn burst_bytes(&self) -> usize {
        let bytes = self.bytes_per_second.unwrap_or(u64::MAX);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// When the next bytes may be asked for; absent for "now".
    pub fn free_at(&self, now: Instant) -> Option<Instant> {
        self.free_at.filter(|at| *at > now)
    }

    pub fn spend(&mut self, bytes: usize, now: Instant) {
        let Some(rate) = self.bytes_per_second else { return };
        let micros = bytes as u64 * 1_000_000 / rate.max(1);
        let start = self.free_at(now).unwrap_or(now);
        self.free_at = Some(start + Duration::from_micros(micros));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_last_seconds() {
        let mut rate = Rate::default();
        let start = Instant::now();
        assert_eq!(rate.bytes_per_second(start), 0);
        for second in 0..20 {
            rate.add(1000, start + Duration::from_secs(second));
        }
        assert_eq!(rate.bytes_per_second(start + Duration::from_secs(20)), 1000);
        assert_eq!(rate.bytes_per_second(start + Duration::from_secs(60)), 0);
    }

    #[test]
    fn a_pace_is_kept_and_nothing_is_saved_up() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(Some(1000));
        pace.spend(3000, start);
        assert_eq!(pace.free_at(start), Some(start + 3 * second));
        assert_eq!(pace.free_at(start + 3 * second), None);
        pace.spend(1000, start + 60 * second);
        assert_eq!(pace.free_at(start + 60 * second), Some(start + 61 * second));
        let mut free = Pace::new(None);
        free.spend(usize::MAX, start);
        assert_eq!(free.free_at(start), None);
    }
}
