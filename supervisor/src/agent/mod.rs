//! The agent: the node's only connection to the cloud, MQTT 3.1.1 on a thread
//! of its own.
//!
//! It brings the desired envelope, commands and layers down, and status,
//! events, logs, figures and replies up; `wherry/v1/NODE/…` are its topics. It decides
//! nothing and never touches a pod: without it all pods run on.
//! Everything received is size-checked and decoded; a bad message is counted,
//! logged at a bounded rate, and otherwise ignored.

mod acks;
mod backoff;
mod commands;
mod events;
mod fetch;
mod inbox;
mod options;
mod receive;
mod rejected;
mod session;
mod worker;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use wherry_bundle::message::{Command, LogChunk, Message, NodeStatus, Reply, Transfer};
use wherry_bundle::model::Layer;
use wherry_bundle::topic::Topic;
use wherry_bundle::wire::WireError;
use wherry_bundle::{Digest, Name};

use crate::layers::{Layers, WantedLayer};
use crate::store::Store;
use inbox::{Inbox, Uplink};
pub use inbox::{UPLINK_BYTES_MAX, UPLINK_MESSAGES_MAX};
use worker::Worker;

/// The thread reads and commits events in the store, and hashes layers.
const STACK_BYTES: usize = 384 * 1024;
/// More than a farewell takes; a thread that hangs on a disk or in its sink
/// is left behind then.
const END_TIMEOUT: Duration = session::SHUTDOWN_TIMEOUT.saturating_add(Duration::from_secs(1));
/// What runs in the runtime's own threads at the end is left alone.
const LOOKUP_END_TIMEOUT: Duration = Duration::from_millis(50);

/// Where to connect to, and as whom.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Also the user name; the client id is `wherry-NODE`.
    pub node: Name,
    /// A host name or an address.
    pub host: String,
    pub port: u16,
    /// Empty: no credentials are sent.
    pub password: String,
    pub layers: Layers,
    /// What a transfer may ask for; `None` is no limit.
    pub bytes_per_second_max: Option<u64>,
}

/// What the agent tells the supervisor. The sink that takes it may wait, but
/// not for the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentEvent {
    Connected,
    /// The connection was lost, or a first attempt failed; told once until
    /// the next [`Self::Connected`].
    Disconnected(String),
    /// An envelope, unchecked. Once it is committed or its refusal recorded,
    /// give `token` to [`AgentHandle::ack_desired`]: until then the broker
    /// keeps the message.
    Desired {
        bytes: Vec<u8>,
        token: AckToken,
    },
    /// Each id comes once while this process lives.
    Command(Command),
    /// It is known how the layer is cut, and how much of it is not on this
    /// node.
    LayerBegun {
        layer: Layer,
        bytes_missing: u64,
    },
    /// The bytes are those since it was begun last.
    LayerDone {
        layer: Digest,
        bytes_fetched: u64,
        bytes_copied: u64,
    },
    /// For people: the agent goes on trying while the layer is wanted.
    LayerFailed {
        layer: Digest,
        error: String,
        /// The disk is full.
        is_no_space: bool,
    },
    /// Of all wanted layers together; at most one a second.
    Progress(Transfer),
}

/// Names one received message of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckToken {
    connection: u64,
    packet_id: u16,
}

/// Why a message was not taken for sending.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("the uplink's queue is full: wait, or drop the message")]
    Full,
    #[error(transparent)]
    Encoding(#[from] WireError),
}

/// Gives work to the agent. No method waits.
#[derive(Debug)]
pub struct AgentHandle {
    inbox: Arc<Inbox>,
    /// Its sender lives as long as the thread does.
    ended: Receiver<()>,
}

impl AgentHandle {
    /// Starts the thread. It connects, again and again, until
    /// [`Self::shutdown`]; `sink` is called on it.
    ///
    /// # Errors
    /// The thread or its runtime cannot be made.
    pub fn spawn(
        config: AgentConfig,
        store: Arc<Store>,
        sink: Box<dyn Fn(AgentEvent) + Send>,
    ) -> io::Result<Self> {
        let inbox = Arc::new(Inbox::default());
        let worker = Worker::new(config, store, Arc::clone(&inbox), sink)?;
        let runtime = worker::runtime()?;
        let (alive, ended) = mpsc::channel();
        thread::Builder::new().name("wherry-agent".into()).stack_size(STACK_BYTES).spawn(
            move || {
                let _alive: mpsc::Sender<()> = alive;
                runtime.block_on(worker.run());
                runtime.shutdown_timeout(LOOKUP_END_TIMEOUT);
            },
        )?;
        Ok(Self { inbox, ended })
    }

    /// Only the newest status is kept and sent; the last one is sent again
    /// after each reconnection.
    pub fn publish_status(&self, status: NodeStatus) {
        self.inbox.put(|inputs| inputs.status = Some(Box::new(status)));
    }

    /// Of samples of figures only the newest is kept, and none longer than the
    /// connection lasts: it would be of another time.
    pub fn publish_metrics(&self, sample: Vec<u8>) {
        self.inbox.put(|inputs| inputs.metrics = Some(sample));
    }

    /// There may be new events in the store's outbox.
    pub fn events_pending(&self) {
        self.inbox.put(|inputs| inputs.events_pending = true);
    }

    /// The layers to fetch, in order of urgency; replaces the list before.
    /// Layers that are already whole are skipped, without an event.
    pub fn want(&self, layers: Vec<WantedLayer>) {
        self.inbox.put(|inputs| inputs.want = Some(layers));
    }

    /// The broker may forget this message. A token of a former connection is
    /// ignored: the broker sends that message again.
    pub fn ack_desired(&self, token: AckToken) {
        self.inbox.put(|inputs| inputs.confirmed.push(token));
    }

    /// For threads that send log lines and replies.
    #[must_use]
    pub fn uplink(&self) -> AgentUplink {
        AgentUplink { inbox: Arc::clone(&self.inbox) }
    }

    /// Publishes the status `Offline`, disconnects and ends the thread.
    /// Waits for that, but never longer than a few seconds. Dropping the
    /// handle does the same.
    pub fn shutdown(self) {}
}

/// Sends what is sent once. After the agent's end, messages are taken until
/// the queue is full, and go nowhere.
#[derive(Clone, Debug)]
pub struct AgentUplink {
    inbox: Arc<Inbox>,
}

impl AgentUplink {
    /// # Errors
    /// [`SendError::Full`]: try again later, the cloud sees no gap then.
    pub fn log(&self, chunk: &LogChunk) -> Result<(), SendError> {
        self.push(Topic::Log, chunk.to_bytes()?)
    }

    /// Room is kept for a few replies, whatever the logs do.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn reply(&self, reply: &Reply) -> Result<(), SendError> {
        self.push(Topic::Reply, reply.to_bytes()?)
    }

    fn push(&self, topic: Topic, payload: Vec<u8>) -> Result<(), SendError> {
        let fits = self.inbox.put(|inputs| inputs.push(Uplink { topic, payload }));
        if fits { Ok(()) } else { Err(SendError::Full) }
    }
}

impl Drop for AgentHandle {
    fn drop(&mut self) {
        self.inbox.put(|inputs| inputs.shutdown = true);
        if let Err(mpsc::RecvTimeoutError::Timeout) = self.ended.recv_timeout(END_TIMEOUT) {
            log::warn!("the agent's thread did not end in time, it is left behind");
        }
    }
}
