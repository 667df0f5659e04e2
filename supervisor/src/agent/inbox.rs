//! What the supervisor hands to the agent's thread: bounded, never waiting.
//!
//! Where only the newest counts (status, figures, wanted layers) there is one slot;
//! where each counts (log chunks, replies, confirmations) there is a bounded
//! queue. Never here: MQTT.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use wherry_bundle::message::NodeStatus;
use wherry_bundle::topic::Topic;

use super::AckToken;
use crate::layers::WantedLayer;

/// Log chunks and replies that wait for the uplink.
pub const UPLINK_MESSAGES_MAX: usize = 32;
/// Bytes of all of them: a few seconds of a chatty log, and no more RAM than
/// the transfer window takes.
pub const UPLINK_BYTES_MAX: usize = 512 * 1024;
/// Part of the queue that log chunks must leave free, so that a reply always
/// finds room.
const REPLY_MESSAGES_RESERVE: usize = 8;

/// One encoded message that has to go up once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Uplink {
    pub topic: Topic,
    pub payload: Vec<u8>,
}

/// Everything that was handed over since the last look.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    pub status: Option<Box<NodeStatus>>,
    /// Encoded.
    pub metrics: Option<Vec<u8>>,
    pub want: Option<Vec<WantedLayer>>,
    pub events_pending: bool,
    pub confirmed: Vec<AckToken>,
    pub uplinks: VecDeque<Uplink>,
    pub shutdown: bool,
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    inputs: Mutex<Inputs>,
    notify: Notify,
}

impl Inbox {
    /// Changes the inputs and wakes the agent.
    pub fn put<T>(&self, change: impl FnOnce(&mut Inputs) -> T) -> T {
        let result = change(&mut self.lock());
        self.notify.notify_one();
        result
    }

    /// Takes all that is there, but of the queue only as much as `room`
    /// messages.
    pub fn take(&self, room: usize) -> Inputs {
        let mut inputs = self.lock();
        let uplinks = if inputs.uplinks.len() <= room {
            VecDeque::new()
        } else {
            inputs.uplinks.split_off(room)
        };
        std::mem::replace(&mut *inputs, Inputs { uplinks, ..Inputs::default() })
    }

    /// Returns once something was put in since the last call.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inputs> {
        // Nothing panics while it holds the lock; were it so, plain data is
        // still plain data.
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inputs {
    /// False if there is no room: the caller waits or drops.
    pub fn push(&mut self, uplink: Uplink) -> bool {
        let reserve = if uplink.topic == Topic::Reply { 0 } else { REPLY_MESSAGES_RESERVE };
        let messages_max = UPLINK_MESSAGES_MAX - reserve;
        let bytes: usize = self.uplinks.iter().map(|uplink| uplink.payload.len()).sum();
        let fits =
            self.uplinks.len() < messages_max && bytes + uplink.payload.len() <= UPLINK_BYTES_MAX;
        if fits {
            self.uplinks.push_back(uplink);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uplink(topic: Topic, bytes: usize) -> Uplink {
        Uplink { topic, payload: vec![0; bytes] }
    }

    #[test]
    fn logs_leave_room_for_replies() {
        let inbox = Inbox::default();
        let mut logs = 0;
        while inbox.put(|inputs| inputs.push(uplink(Topic::Log, 10))) {
            logs += 1;
        }
        assert_eq!(logs, UPLINK_MESSAGES_MAX - REPLY_MESSAGES_RESERVE);
        for _ in 0..REPLY_MESSAGES_RESERVE {
            assert!(inbox.put(|inputs| inputs.push(uplink(Topic::Reply, 10))));
        }
        assert!(!inbox.put(|inputs| inputs.push(uplink(Topic::Reply, 10))));
    }

    #[test]
    fn bytes_are_bounded_and_taking_makes_room() {
        let inbox = Inbox::default();
        assert!(inbox.put(|inputs| inputs.push(uplink(Topic::Log, UPLINK_BYTES_MAX - 1))));
        assert!(!inbox.put(|inputs| inputs.push(uplink(Topic::Log, 2))));
        assert!(inbox.put(|inputs| inputs.push(uplink(Topic::Log, 1))));
        assert_eq!(inbox.take(1).uplinks.len(), 1);
        assert!(inbox.put(|inputs| inputs.push(uplink(Topic::Log, 2))));
        assert_eq!(inbox.take(9).uplinks.len(), 2);
    }
}
