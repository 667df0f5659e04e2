//! The agent's thread: connects for ever, and keeps what outlives a
//! connection.
//!
//! Each connection gets a fresh client. rumqttc can carry its state over, but
//! a session lost at the wrong moment leaves it reconnecting for ever (rumqtt
//! issue 1056); and nothing is lost by that, since each kind of message is
//! repeated by rules of its own.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{AsyncClient, MqttOptions};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;
use wherry_bundle::message::{Message, NodeStatus, Status};

use super::backoff::BackOff;
use super::commands::SeenCommands;
use super::events::EventSender;
use super::fetch::Fetcher;
use super::inbox::{Inbox, Uplink};
use super::options::{QUEUE_MAX, mqtt_options, network_options};
use super::rejected::Rejected;
use super::session::{End, Session};
use super::{AckToken, AgentConfig, AgentEvent};
use crate::store::Store;

/// A connection that held for so long was a good one: the next loss begins
/// with a short wait again.
const GOOD_CONNECTION: Duration = Duration::from_secs(20);
/// Stack of the thread that looks names up.
const LOOKUP_STACK_BYTES: usize = 128 * 1024;
/// That thread ends when it was idle for this long.
const LOOKUP_IDLE: Duration = Duration::from_secs(2);
/// Uplink messages that are taken out of the inbox ahead.
const UPLINKS_AHEAD: usize = 4;

pub(super) type Sink = Box<dyn Fn(AgentEvent) + Send>;

/// Everything that outlives a connection.
pub(super) struct Worker {
    pub config: AgentConfig,
    pub store: Arc<Store>,
    pub inbox: Arc<Inbox>,
    pub sink: Sink,
    pub fetcher: Fetcher,
    pub events: EventSender,
    /// The newest status, encoded.
    pub status: Option<Vec<u8>>,
    /// Changed since the session saw it last.
    pub status_changed: bool,
    /// The newest sample of figures, encoded, until it is sent.
    pub metrics: Option<Vec<u8>>,
    pub uplinks: VecDeque<Uplink>,
    /// Desired envelopes that the supervisor has dealt with.
    pub confirmed: Vec<AckToken>,
    pub seen: SeenCommands,
    pub rejected: Rejected,
    pub shutdown: bool,
    /// Counts connections; part of an [`AckToken`].
    pub connection: u64,
    options: MqttOptions,
}

impl Worker {
    pub fn new(
        config: AgentConfig,
        store: Arc<Store>,
        inbox: Arc<Inbox>,
        sink: Sink,
    ) -> io::Result<Self> {
        let options = mqtt_options(&config).map_err(io::Error::other)?;
        let fetcher = Fetcher::new(config.layers.clone(), config.bytes_per_second_max);
        Ok(Self {
            config,
            store,
            inbox,
            sink,
            fetcher,
            events: EventSender::default(),
            status: None,
            status_changed: false,
            metrics: None,
            uplinks: VecDeque::new(),
            confirmed: Vec::new(),
            seen: SeenCommands::default(),
            rejected: Rejected::default(),
            shutdown: false,
            connection: 0,
            options,
        })
    }

    /// Returns after a shutdown only.
    pub async fn run(mut self) {
        let mut back_off = BackOff::default();
        let mut told_disconnected = false;
        loop {
            let started = Instant::now();
            self.connection += 1;
            let (client, mut eventloop) = AsyncClient::new(self.options.clone(), QUEUE_MAX);
            eventloop.set_network_options(network_options());
            let (end, was_connected) = Session::new(&mut self, client).run(&mut eventloop).await;
            drop(eventloop);
            let reason = match end {
                End::Shutdown => return,
                End::Lost(reason) => reason,
            };
            if was_connected && started.elapsed() >= GOOD_CONNECTION {
                back_off.reset();
            }
            let wait = back_off.next();
            log::info!("not connected, next try in {} ms: {reason}", wait.as_millis());
            if was_connected || !told_disconnected {
                (self.sink)(AgentEvent::Disconnected(reason));
                told_disconnected = true;
            }
            if !self.pause(wait).await {
                return;
            }
        }
    }

    /// Takes over what the supervisor handed in.
    pub fn take_inputs(&mut self, now: Instant) {
        let room = UPLINKS_AHEAD.saturating_sub(self.uplinks.len());
        let inputs = self.inbox.take(room);
        if let Some(status) = inputs.status {
            self.set_status(status);
        }
        if inputs.metrics.is_some() {
            self.metrics = inputs.metrics;
        }
        if let Some(layers) = inputs.want {
            self.fetcher.want(layers);
        }
        if inputs.events_pending {
            self.events.pending(now);
        }
        self.uplinks.extend(inputs.uplinks);
        self.confirmed.extend(inputs.confirmed);
        self.shutdown |= inputs.shutdown;
    }

    pub fn work_on_layers(&mut self, now: Instant) {
        let mut news = Vec::new();
        self.fetcher.work(now, &mut news);
        news.into_iter().for_each(|event| (self.sink)(event));
    }

    /// False if it was cut short by a shutdown.
    async fn pause(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let inbox = Arc::clone(&self.inbox);
        loop {
            self.take_inputs(Instant::now());
            // They are of a connection that is gone.
            self.confirmed.clear();
            self.metrics = None;
            if self.shutdown {
                return false;
            }
            // What is on this node needs no line.
            self.work_on_layers(Instant::now());
            let wake_at = self.fetcher.wake_at(Instant::now()).map_or(until, |at| at.min(until));
            tokio::select! {
                () = inbox.changed() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
            if Instant::now() >= until {
                return true;
            }
        }
    }

    fn set_status(&mut self, status: Box<NodeStatus>) {
        match Status::Online(status).to_bytes() {
            Ok(bytes) => {
                self.status = Some(bytes);
                self.status_changed = true;
            }
            Err(error) => log::error!("the status cannot be sent: {error}"),
        }
    }
}

/// Everything on one thread, but for name lookups.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(1)
        .thread_name("wherry-lookup")
        .thread_stack_size(LOOKUP_STACK_BYTES)
        .thread_keep_alive(LOOKUP_IDLE)
        .build()
}
