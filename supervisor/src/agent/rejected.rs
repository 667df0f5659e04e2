//! Bad messages: counted, and logged at a bounded rate.

use std::time::Duration;

use tokio::time::Instant;

/// A broken or hostile sender must not fill the log.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Rejected {
    count: u64,
    logged: Option<Instant>,
}

impl Rejected {
    pub fn note(&mut self, topic: &str, why: &dyn std::fmt::Display) {
        self.count += 1;
        let now = Instant::now();
        if self.logged.is_none_or(|logged| now >= logged + LOG_INTERVAL) {
            self.logged = Some(now);
            let topic: String = topic.chars().take(120).collect();
            log::warn!("message on {topic:?} ignored ({} so far): {why}", self.count);
        }
    }
}
