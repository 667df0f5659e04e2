//! When events go up: one batch at a time, again until the cloud itself has
//! confirmed it.
//!
//! The broker's confirmation does not count: it may lose what it holds.

use std::time::Duration;

use tokio::time::Instant;
use wherry_bundle::message::{Events, Message};

use crate::store::Store;

/// Events often come several at once; they share a message and a commit.
const GATHER: Duration = Duration::from_millis(300);
/// Bytes of one batch: some seconds on the slowest uplink.
const BATCH_BYTES_MAX: usize = 32 * 1024;
/// The first wait for the cloud's confirmation; it doubles up to the longest,
/// so that a cloud that is away does not find a heap of repetitions.
const RESEND_FIRST: Duration = Duration::from_secs(30);
const RESEND_LONGEST: Duration = Duration::from_secs(1800);
/// The store cannot be read: the disk is in trouble, and others say so.
const STORE_RETRY: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct EventSender {
    acked: u64,
    /// The last number of the batch that is under way.
    sent: Option<u64>,
    attempts: u32,
    /// When to look into the store, or to send again.
    due: Option<Instant>,
}

impl EventSender {
    pub fn connected(&mut self, now: Instant) {
        self.sent = None;
        self.attempts = 0;
        self.due = Some(now);
    }

    pub fn pending(&mut self, now: Instant) {
        // A batch under way is followed by the next one anyway.
        if self.sent.is_none() && self.due.is_none() {
            self.due = Some(now + GATHER);
        }
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The batch to send now, encoded.
    pub fn next_batch(&mut self, store: &Store, now: Instant) -> Option<Vec<u8>> {
        self.due.filter(|due| *due <= now)?;
        self.due = None;
        let events = match store.events_after(self.acked, BATCH_BYTES_MAX) {
            Ok(events) => events,
            Err(error) => {
                log::error!("events cannot be read: {error}");
                self.due = Some(now + STORE_RETRY);
                return None;
            }
        };
        self.sent = events.last().map(|event| event.seq);
        self.sent?;
        let wait = RESEND_FIRST.saturating_mul(1 << self.attempts.min(16)).min(RESEND_LONGEST);
        self.attempts += 1;
        self.due = Some(now + wait);
        Events(events).to_bytes().inspect_err(|error| log::error!("events: {error}")).ok()
    }

    /// The cloud has all up to `seq`.
    pub fn acked(&mut self, seq: u64, store: &Store, now: Instant) {
        match store.ack_events(seq) {
            Ok(true) => {
                log::warn!("the cloud knows events up to {seq} from before: numbered anew");
                self.acked = seq;
                self.connected(now);
            }
            Ok(false) => {
                self.acked = self.acked.max(seq);
                if self.sent.is_some_and(|sent| sent <= seq) {
                    self.connected(now);
                }
            }
            Err(error) => log::error!("a confirmation of events is not stored: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NewEvent;
    use wherry_bundle::Generation;
    use wherry_bundle::message::{EventKind, WallMillis};

    fn push(store: &Store, text: &str) -> u64 {
        store.push_event(&NewEvent {
            wall_time: WallMillis(1),
            boot_millis: 2,
            generation: Generation(3),
            kind: EventKind::PodAvailable,
            subject: "web-1".into(),
            text: text.into(),
        })
    }

    fn seqs(batch: Option<Vec<u8>>) -> Vec<u64> {
        let batch = batch.map(|bytes| Events::from_bytes(&bytes).unwrap().0);
        batch.unwrap_or_default().iter().map(|event| event.seq).collect()
    }

    #[test]
    fn a_batch_is_sent_again_ever_more_slowly_until_the_cloud_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path()).unwrap();
        let mut sender = EventSender::default();
        let start = Instant::now();
        sender.connected(start);
        assert_eq!(sender.next_batch(&store, start), None);
        push(&store, "one");
        push(&store, "two");
        sender.pending(start);
        assert_eq!(sender.next_batch(&store, start), None, "gathers first");
        assert_eq!(seqs(sender.next_batch(&store, start + GATHER)), [1, 2]);
        let later = start + GATHER;
        push(&store, "three");
        sender.pending(later);
        assert_eq!(sender.due(), Some(later + RESEND_FIRST));
        let again = later + RESEND_FIRST;
        assert_eq!(seqs(sender.next_batch(&store, again)), [1, 2, 3]);
        assert_eq!(sender.due(), Some(again + 2 * RESEND_FIRST));
        sender.acked(2, &store, again);
        assert_eq!(sender.due(), Some(again + 2 * RESEND_FIRST));
        sender.acked(3, &store, again);
        assert_eq!(sender.next_batch(&store, again), None);
        assert_eq!(sender.due(), None);
        assert_eq!(store.outbox_status().waiting, 0);
    }

    #[test]
    fn a_node_that_lost_its_state_catches_up_with_the_cloud() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path()).unwrap();
        let mut sender = EventSender::default();
        let now = Instant::now();
        push(&store, "one");
        push(&store, "two");
        sender.connected(now);
        assert_eq!(seqs(sender.next_batch(&store, now)), [1, 2]);
        push(&store, "three");
        sender.acked(5000, &store, now);
        assert_eq!(seqs(sender.next_batch(&store, now)), [5001, 5002, 5003]);
        sender.acked(5003, &store, now);
        assert_eq!(push(&store, "four"), 5004);
    }
}
