//! Figures of the whole fleet: the newest sample of each node, kept in memory
//! for as long as it is of now, and the page that shows them ([`page`]).
//!
//! Never here: history. That is what scrapes this is for.

#[cfg(test)]
mod dashboard;
pub mod page;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wherry_bundle::Name;
use wherry_bundle::message::Message;
use wherry_bundle::metrics::Metrics;
use wherry_bundle::topic::Topic;
use wherry_bundle::wire::WireError;

/// With a broker that lets anybody in, names could be made up without end.
const SAMPLES_MAX: usize = 20_000;
/// Of all samples as they came: three thousand bytes for each of so many.
const SAMPLES_BYTES_MAX: usize = 64 << 20;
/// A sample counts until so many others should have come.
const PERIODS: u32 = 3;
/// At least so long: a thin uplink may be busy.
const FRESH_MIN: Duration = Duration::from_secs(180);
/// And no longer, whatever a node says of its period.
const FRESH_MAX: Duration = Duration::from_secs(3 * 86_400);

/// What nodes said of late.
#[derive(Debug, Default)]
pub struct Fleet {
    samples: Mutex<Samples>,
    /// Messages of nodes, by the place of their topic in [`Topic::TO_CLOUD`].
    messages: [AtomicU64; Topic::TO_CLOUD.len()],
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Samples {
    of: BTreeMap<Name, Sample>,
    /// Of all of them.
    bytes: usize,
}

/// Encoded: that is a tenth of what it takes otherwise.
#[derive(Debug)]
struct Sample {
    bytes: Vec<u8>,
    until: Instant,
}

impl Fleet {
    /// Keeps a sample in place of the node's one before; nothing if there is no
    /// room.
    ///
    /// # Errors
    /// It is no sample.
    pub fn put(&self, node: Name, bytes: &[u8], now: Instant) -> Result<(), WireError> {
        let metrics = Metrics::from_bytes(bytes)?;
        let period = Duration::from_secs(metrics.push_seconds.into());
        let fresh = period.saturating_mul(PERIODS).clamp(FRESH_MIN, FRESH_MAX);
        let sample = Sample { bytes: bytes.to_vec(), until: now + fresh };
        let mut samples = self.samples();
        samples.remove(&node);
        if !samples.has_room(&sample) {
            samples.retain(|_, other| other.until > now);
        }
        if samples.has_room(&sample) {
            samples.bytes += sample.bytes.len();
            samples.of.insert(node, sample);
        }
        Ok(())
    }

    /// The samples that are of now, of nodes that `is_wanted`; all others are
    /// forgotten.
    pub fn fresh(
        &self,
        is_wanted: impl Fn(&Name) -> bool,
        now: Instant,
    ) -> BTreeMap<Name, Metrics> {
        let mut samples = self.samples();
        samples.retain(|node, sample| sample.until > now && is_wanted(node));
        let read = |(node, sample): (&Name, &Sample)| {
            // It was read when it came.
            let metrics = Metrics::from_bytes(&sample.bytes).ok()?;
            Some((node.clone(), metrics.tidy()))
        };
        samples.of.iter().filter_map(read).collect()
    }

    /// A message of a node came.
    pub fn count(&self, topic: Topic) {
        if let Some(index) = Topic::TO_CLOUD.iter().position(|known| *known == topic) {
            self.messages[index].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It was not what it should be.
    pub fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    #[must_use]
    pub fn messages(&self) -> Vec<(Topic, u64)> {
        let counts = self.messages.iter().map(|count| count.load(Ordering::Relaxed));
        Topic::TO_CLOUD.into_iter().zip(counts).collect()
    }

    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Samples {
    fn has_room(&self, sample: &Sample) -> bool {
        self.of.len() < SAMPLES_MAX && self.bytes + sample.bytes.len() <= SAMPLES_BYTES_MAX
    }

    fn remove(&mut self, node: &Name) {
        if let Some(sample) = self.of.remove(node) {
            self.bytes -= sample.bytes.len();
        }
    }

    fn retain(&mut self, stays: impl Fn(&Name, &Sample) -> bool) {
        self.of.retain(|node, sample| stays(node, sample));
        self.bytes = self.of.values().map(|sample| sample.bytes.len()).sum();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use wherry_bundle::Generation;
    use wherry_bundle::message::{FlashUse, Phase};
    use wherry_bundle::metrics::{Machine, Wherry};

    use super::*;
    use crate::db::node::tests::name;

    pub(crate) fn sample(push_seconds: u32, generation: u64) -> Metrics {
        Metrics {
            push_seconds,
            machine: Machine { cpus: 2, uptime_seconds: 60, ..Machine::default() },
            wherry: Wherry {
                version: "0.1.0".into(),
                architecture: "arm64".into(),
                kernel: "6.1".into(),
                generation: Generation(generation),
                phase: Phase::Good,
                applications: Vec::new(),
                refused: false,
                failed: false,
                held: false,
                cloud_connected: true,
                events_waiting: 0,
                events_dropped: 0,
                flash: FlashUse::default(),
                launcher: None,
                supervisor: None,
            },
            pods: Vec::new(),
        }
    }

    #[test]
    fn a_sample_counts_for_three_periods() {
        let (fleet, now) = (Fleet::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        let put = |node: &str, sample: &Metrics, at| {
            fleet.put(name(node), &sample.to_bytes().unwrap(), at).unwrap();
        };
        let nodes = |at| -> Vec<String> {
            fleet.fresh(|_| true, at).keys().map(ToString::to_string).collect()
        };
        put("gw-1", &sample(10, 1), now);
        put("gw-2", &sample(300, 1), now);
        put("gw-3", &sample(u32::MAX, 1), now);
        assert_eq!(nodes(after(179)), ["gw-1", "gw-2", "gw-3"]);
        assert_eq!(nodes(after(180)), ["gw-2", "gw-3"]);
        assert_eq!(nodes(after(899)), ["gw-2", "gw-3"]);
        assert_eq!(nodes(after(900)), ["gw-3"]);
        put("gw-2", &sample(300, 1), after(900));
        put("gw-2", &sample(300, 2), after(950));
        let newest = &fleet.fresh(|_| true, after(1_849))[&name("gw-2")];
        assert_eq!(newest.wherry.generation, Generation(2));
        assert_eq!(nodes(after(3 * 86_400)), Vec::<String>::new());
    }

    #[test]
    fn nodes_that_are_gone_are_forgotten_and_rubbish_is_refused() {
        let (fleet, now) = (Fleet::default(), Instant::now());
        let bytes = sample(60, 1).to_bytes().unwrap();
        fleet.put(name("gw-1"), &bytes, now).unwrap();
        assert!(fleet.put(name("gw-1"), b"\x01rubbish", now).is_err());
        assert!(fleet.put(name("gw-1"), &vec![1; Metrics::BYTES_MAX + 1], now).is_err());
        assert_eq!(fleet.fresh(|node| *node == name("gw-1"), now).len(), 1);
        assert!(fleet.fresh(|_| false, now).is_empty());
        assert!(fleet.samples().of.is_empty() && fleet.samples().bytes == 0);
    }

    #[test]
    fn memory_is_bounded() {
        let (fleet, now) = (Fleet::default(), Instant::now());
        let mut large = sample(60, 1);
        large.wherry.kernel = "k".repeat(Metrics::BYTES_MAX - 200);
        let bytes = large.to_bytes().unwrap();
        for number in 0..2_000 {
            fleet.put(name(&format!("n-{number}")), &bytes, now).unwrap();
        }
        let samples = fleet.samples();
        let bytes_all: usize = samples.of.values().map(|sample| sample.bytes.len()).sum();
        assert!(bytes_all == samples.bytes && bytes_all <= SAMPLES_BYTES_MAX);
        assert!(samples.of.len() > 900);
        drop(samples);
        // Once they are old there is room for others.
        let later = now + FRESH_MIN;
        fleet.put(name("newest"), &bytes, later).unwrap();
        assert_eq!(fleet.fresh(|_| true, later).len(), 1);
    }

    #[test]
    fn messages_are_counted_by_topic() {
        let fleet = Fleet::default();
        for topic in [Topic::Log, Topic::Log, Topic::Metrics, Topic::Desired] {
            fleet.count(topic);
        }
        let counts = fleet.messages();
        assert!(counts.contains(&(Topic::Log, 2)) && counts.contains(&(Topic::Metrics, 1)));
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 3);
    }
}
