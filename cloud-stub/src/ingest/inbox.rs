//! Messages as they come, sorted by kind, without ever waiting.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rumqttc::Publish;
use tokio::sync::{Notify, mpsc};
use wherry_bundle::Name;
use wherry_bundle::message::{ChunkGet, Events, LogChunk, Message, Reply, Status};
use wherry_bundle::topic::Topic;
use wherry_bundle::wire::WireError;

use super::replies::Replies;
use crate::limits::{CHUNK_QUEUE_MAX, EVENT_QUEUE_MAX};
use crate::metrics::Fleet;
use crate::mqtt::Listener;

/// Nodes whose newest status waits for the database. With a broker that lets
/// anybody in, names could be made up without end.
const STATUSES_MAX: usize = 20_000;

/// The newest status of a node, and whether it was a retained message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    pub status: Status,
    pub retained: bool,
}

#[derive(Debug)]
pub struct Inbox {
    /// Only the newest of each node counts.
    statuses: Mutex<BTreeMap<Name, Arrived>>,
    pub(super) status_came: Notify,
    events: mpsc::Sender<(Name, Events)>,
    chunks: mpsc::Sender<(Name, ChunkGet)>,
    replies: Arc<Replies>,
    fleet: Arc<Fleet>,
    /// Connected and subscribed.
    pub(crate) ready: Notify,
}

/// The other ends, for the workers.
#[derive(Debug)]
pub struct Queues {
    pub(super) events: mpsc::Receiver<(Name, Events)>,
    pub(super) chunks: mpsc::Receiver<(Name, ChunkGet)>,
}

impl Inbox {
    #[must_use]
    pub fn new(replies: Arc<Replies>, fleet: Arc<Fleet>) -> (Arc<Self>, Queues) {
        let (events, events_out) = mpsc::channel(EVENT_QUEUE_MAX);
        let (chunks, chunks_out) = mpsc::channel(CHUNK_QUEUE_MAX);
        let inbox = Self {
            statuses: Mutex::default(),
            status_came: Notify::new(),
            events,
            chunks,
            replies,
            fleet,
            ready: Notify::new(),
        };
        (Arc::new(inbox), Queues { events: events_out, chunks: chunks_out })
    }

    /// Takes all that wait.
    pub(super) fn take_statuses(&self) -> BTreeMap<Name, Arrived> {
        std::mem::take(&mut *self.statuses.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put_status(&self, node: Name, arrived: Arrived) {
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        if statuses.len() < STATUSES_MAX || statuses.contains_key(&node) {
            statuses.insert(node, arrived);
        }
        self.status_came.notify_one();
    }

    fn sort(&self, node: Name, topic: Topic, publish: &Publish) -> Result<(), WireError> {
        let payload = &publish.payload;
        match topic {
            // Empty: a retained status was taken back.
            Topic::Status if payload.is_empty() => {}
            Topic::Status => {
                let status = Status::from_bytes(payload)?;
                self.put_status(node, Arrived { status, retained: publish.retain });
            }
            Topic::Event => {
                let events = Events::from_bytes(payload)?;
                if self.events.try_send((node, events)).is_err() {
                    log::warn!(
                        "events of a node dropped, the database is slow: it sends them again"
                    );
                }
            }
            Topic::ChunkGet => {
                let get = ChunkGet::from_bytes(payload)?;
                if self.chunks.try_send((node, get)).is_err() {
                    log::warn!("a chunk request dropped, the disk is slow: the node asks again");
                }
            }
            Topic::Log => self.replies.log(&node, LogChunk::from_bytes(payload)?),
            Topic::Reply => self.replies.reply(&node, Reply::from_bytes(payload)?),
            Topic::Metrics => self.fleet.put(node, payload, Instant::now())?,
            Topic::Desired | Topic::Command | Topic::EventAck | Topic::ChunkData => {
                log::debug!("not subscribed to: {}", publish.topic);
            }
        }
        Ok(())
    }
}

impl Listener for Inbox {
    fn receive(&self, publish: Publish) {
        let Some((node, topic)) = Topic::parse(&publish.topic) else {
            return log::warn!("a message on the topic `{}`, which is not ours", publish.topic);
        };
        self.fleet.count(topic);
        if let Err(error) = self.sort(node, topic, &publish) {
            self.fleet.count_refused();
            log::warn!("a message on {} is dropped: {error}", publish.topic);
        }
    }

    fn ready(&self) {
        self.ready.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::QoS;

    use super::*;

    #[test]
    fn the_newest_status_counts_and_rubbish_does_not() {
        let (inbox, _queues) = Inbox::new(Arc::default(), Arc::default());
        let online = crate::db::node::tests::online(3, wherry_bundle::message::Phase::Good);
        let send = |payload: Vec<u8>| {
            inbox.receive(Publish::new("wherry/v1/gw-1/status", QoS::AtLeastOnce, payload));
        };
        send(online.to_bytes().unwrap());
        send(b"\x01rubbish".to_vec());
        send(Vec::new());
        send(Status::Offline.to_bytes().unwrap());
        send(vec![9; 40]);
        let statuses = inbox.take_statuses();
        let expected = Arrived { status: Status::Offline, retained: false };
        assert_eq!(statuses, [("gw-1".parse().unwrap(), expected)].into());
        assert!(inbox.take_statuses().is_empty());
        assert!(inbox.fleet.messages().contains(&(Topic::Status, 5)));
        assert_eq!(inbox.fleet.refused(), 2);
    }
}
