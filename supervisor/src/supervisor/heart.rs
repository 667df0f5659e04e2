//! The loop's proof that it goes on, for whoever watches over the node
//! (`wherry init`, systemd): only where somebody does, since it wakes three
//! processes. Never here: a thread, which would beat for a loop that hangs.

use wherry_core::Millis;
use wherry_runtime::notify;

#[derive(Debug)]
pub struct Heart {
    interval: Option<Millis>,
    next: Millis,
}

impl Heart {
    /// As the environment of the launcher, this process's parent, asks.
    #[must_use]
    pub fn from_environment() -> Self {
        let interval = notify::beat_interval(std::os::unix::process::parent_id());
        let millis = interval.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        Self { interval: millis.map(Millis), next: Millis(0) }
    }

    /// When the loop has to come round again.
    #[must_use]
    pub fn next(&self) -> Option<Millis> {
        self.interval.map(|_| self.next)
    }

    /// Whether to beat now.
    pub fn is_due(&mut self, now: Millis) -> bool {
        let Some(interval) = self.interval.filter(|_| now >= self.next) else { return false };
        self.next = now.saturating_add(interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_beats_only_if_somebody_listens() {
        let mut heart = Heart { interval: None, next: Millis(0) };
        assert!(heart.next().is_none() && !heart.is_due(Millis(1)));
        let mut heart = Heart { interval: Some(Millis(10)), next: Millis(0) };
        let beats: Vec<u64> = (0..35).filter(|now| heart.is_due(Millis(*now))).collect();
        assert_eq!(beats, [0, 10, 20, 30]);
        assert_eq!(heart.next(), Some(Millis(40)));
    }
}
