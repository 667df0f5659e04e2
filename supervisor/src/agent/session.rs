//! One connection to the broker, from its first packet to its last.
//!
//! A single loop: what the supervisor handed in, what the broker sent, and
//! deadlines lead to messages, as long as the window has room.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{AsyncClient, ConnectionError, Event, EventLoop, Outgoing, Publish, QoS};
use tokio::time::Instant;
use wherry_bundle::message::{Message, Status};
use wherry_bundle::topic::Topic;

use super::AgentEvent;
use super::acks::Acks;
use super::inbox::Uplink;
use super::options::{ACK_WINDOW, SEND_WINDOW};
use super::worker::Worker;

/// The broker has to confirm a subscription or a message within this, else
/// the connection counts as dead, whatever its pings say.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(60);
/// A farewell takes no longer.
pub(super) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);
/// When there is nothing to wait for.
const IDLE: Duration = Duration::from_secs(3600);

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    Shutdown,
    Lost(String),
}

pub(super) struct Session<'a> {
    pub(super) worker: &'a mut Worker,
    pub(super) client: AsyncClient,
    pub(super) stage: Stage,
    pub(super) acks: Acks,
    /// Confirmations in rumqttc's queue.
    acks_queued: usize,
    /// Given to rumqttc, without a packet id as yet.
    queued: VecDeque<Sent>,
    /// By packet id: sent, and not confirmed.
    sent: BTreeMap<u16, (Sent, Instant)>,
    status_under_way: bool,
    status_due: bool,
}

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Connecting,
    Subscribing {
        since: Instant,
    },
    Online,
    /// `Offline` is published, then the connection closed.
    Leaving {
        until: Instant,
        told: bool,
    },
}

/// What a message was, for when it is confirmed or lost.
#[derive(Debug)]
enum Sent {
    Status,
    Offline,
    Events,
    ChunkGet,
    Metrics,
    Uplink(Uplink),
}

impl<'a> Session<'a> {
    pub fn new(worker: &'a mut Worker, client: AsyncClient) -> Self {
        Self {
            worker,
            client,
            stage: Stage::Connecting,
            acks: Acks::default(),
            acks_queued: 0,
            queued: VecDeque::new(),
            sent: BTreeMap::new(),
            status_under_way: false,
            status_due: true,
        }
    }

    /// Until the connection ends; says too whether there was one.
    pub async fn run(mut self, eventloop: &mut EventLoop) -> (End, bool) {
        let end = loop {
            match self.next_event(eventloop).await {
                Ok(Ok(Event::Incoming(packet))) => {
                    if let Err(reason) = self.receive(packet) {
                        break End::Lost(reason);
                    }
                }
                Ok(Ok(Event::Outgoing(outgoing))) => match self.note_outgoing(&outgoing) {
                    Ok(()) => {}
                    Err(end) => break end,
                },
                Ok(Err(error)) if self.worker.shutdown => {
                    log::debug!("the connection ended while leaving: {error}");
                    break End::Shutdown;
                }
                Ok(Err(error)) => break End::Lost(describe(&error)),
                Err(end) => break end,
            }
        };
        let was_connected = self.was_connected();
        self.worker.fetcher.disconnected();
        self.take_back();
        (end, was_connected)
    }

    /// The next thing that rumqttc has to say. Its future is polled to the
    /// end: dropped half-way, it would lose packets.
    async fn next_event(
        &mut self,
        eventloop: &mut EventLoop,
    ) -> Result<Result<Event, ConnectionError>, End> {
        let inbox = Arc::clone(&self.worker.inbox);
        let mut poll = pin!(eventloop.poll());
        loop {
            let wake_at = self.step(Instant::now())?;
            tokio::select! {
                event = &mut poll => return Ok(event),
                () = inbox.changed() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    /// Does all that can be done now; returns when to look again.
    fn step(&mut self, now: Instant) -> Result<Instant, End> {
        self.worker.take_inputs(now);
        self.status_due |= std::mem::take(&mut self.worker.status_changed);
        self.confirm_desired();
        self.send_acks()?;
        match self.stage {
            Stage::Connecting if self.worker.shutdown => return Err(End::Shutdown),
            Stage::Connecting => return Ok(now + IDLE),
            Stage::Subscribing { .. } | Stage::Online if self.worker.shutdown => {
                self.stage = Stage::Leaving { until: now + SHUTDOWN_TIMEOUT, told: false };
            }
            Stage::Subscribing { since } => return due(since, now, "the subscription"),
            Stage::Online | Stage::Leaving { .. } => {}
        }
        if let Stage::Leaving { until, told } = self.stage {
            return self.step_leaving(now, until, told);
        }
        self.worker.work_on_layers(now);
        while self.queued.len() + self.sent.len() < SEND_WINDOW && self.send_next(now)? {}
        let oldest = self.sent.values().map(|(_, since)| *since).min();
        let mut wake_at = now + IDLE;
        if let Some(since) = oldest {
            wake_at = wake_at.min(due(since, now, "a message")?);
        }
        if self.queued.len() + self.sent.len() < SEND_WINDOW {
            let dues = [self.worker.fetcher.wake_at(now), self.worker.events.due()];
            wake_at = dues.into_iter().flatten().fold(wake_at, Instant::min);
        }
        Ok(wake_at)
    }

    fn step_leaving(&mut self, now: Instant, until: Instant, told: bool) -> Result<Instant, End> {
        if now >= until {
            return Err(End::Shutdown);
        }
        if !told {
            let payload = Status::Offline.to_bytes().map_err(|error| lost(&error))?;
            self.publish(Topic::Status, payload, Sent::Offline)?;
            self.stage = Stage::Leaving { until, told: true };
        }
        Ok(until)
    }

    /// False if there is nothing to send.
    fn send_next(&mut self, now: Instant) -> Result<bool, End> {
        if self.status_due
            && !self.status_under_way
            && let Some(payload) = self.worker.status.clone()
        {
            self.status_due = false;
            self.status_under_way = true;
            self.publish(Topic::Status, payload, Sent::Status)?;
            return Ok(true);
        }
        if let Some(uplink) = self.worker.uplinks.pop_front() {
            let payload = uplink.payload.clone();
            self.publish(uplink.topic, payload, Sent::Uplink(uplink))?;
            self.worker.take_inputs(now);
            return Ok(true);
        }
        if let Some(payload) = self.worker.events.next_batch(&self.worker.store, now) {
            self.publish(Topic::Event, payload, Sent::Events)?;
            return Ok(true);
        }
        if let Some(payload) = self.worker.metrics.take() {
            self.publish(Topic::Metrics, payload, Sent::Metrics)?;
            return Ok(true);
        }
        if let Some(request) = self.worker.fetcher.next_request(now) {
            let payload = request.to_bytes().map_err(|error| lost(&error))?;
            self.publish(Topic::ChunkGet, payload, Sent::ChunkGet)?;
            return Ok(true);
        }
        Ok(false)
    }

    fn publish(&mut self, topic: Topic, payload: Vec<u8>, sent: Sent) -> Result<(), End> {
        let retain = topic == Topic::Status;
        let topic = topic.of(&self.worker.config.node);
        self.queued.push_back(sent);
        self.client.try_publish(topic, QoS::AtLeastOnce, retain, payload).map_err(|e| lost(&e))
    }

    fn confirm_desired(&mut self) {
        for token in std::mem::take(&mut self.worker.confirmed) {
            if token.connection == self.worker.connection {
                self.acks.done(token.packet_id);
            }
        }
    }

    fn send_acks(&mut self) -> Result<(), End> {
        while self.acks_queued < ACK_WINDOW
            && let Some(packet_id) = self.acks.next()
        {
            // The packet id is all that rumqttc takes from it.
            let mut received = Publish::new("", QoS::AtLeastOnce, Vec::new());
            received.pkid = packet_id;
            self.client.try_ack(&received).map_err(|error| lost(&error))?;
            self.acks_queued += 1;
        }
        Ok(())
    }

    fn note_outgoing(&mut self, outgoing: &Outgoing) -> Result<(), End> {
        match outgoing {
            Outgoing::Publish(packet_id) => {
                if let Some(sent) = self.queued.pop_front() {
                    self.sent.insert(*packet_id, (sent, Instant::now()));
                }
            }
            Outgoing::PubAck(_) => self.acks_queued = self.acks_queued.saturating_sub(1),
            Outgoing::AwaitAck(_) => {
                return Err(End::Lost("the broker confirms messages out of order".into()));
            }
            Outgoing::Disconnect => return Err(End::Shutdown),
            Outgoing::Subscribe(_)
            | Outgoing::Unsubscribe(_)
            | Outgoing::PubRec(_)
            | Outgoing::PubRel(_)
            | Outgoing::PubComp(_)
            | Outgoing::PingReq
            | Outgoing::PingResp => {}
        }
        Ok(())
    }

    pub(super) fn confirmed(&mut self, packet_id: u16) -> Result<(), String> {
        match self.sent.remove(&packet_id) {
            Some((Sent::Status, _)) => self.status_under_way = false,
            Some((Sent::Offline, _)) => {
                self.client.try_disconnect().map_err(|error| error.to_string())?;
            }
            Some((Sent::Events | Sent::ChunkGet | Sent::Metrics | Sent::Uplink(_), _)) | None => {}
        }
        Ok(())
    }

    /// Uplink messages that may not have arrived are sent again.
    fn take_back(&mut self) {
        let mut sent: Vec<(Sent, Instant)> = std::mem::take(&mut self.sent).into_values().collect();
        sent.sort_by_key(|(_, since)| *since);
        let sent = sent.into_iter().map(|(sent, _)| sent).chain(self.queued.drain(..));
        let uplinks = sent.filter_map(|sent| match sent {
            Sent::Uplink(uplink) => Some(uplink),
            Sent::Status | Sent::Offline | Sent::Events | Sent::ChunkGet | Sent::Metrics => None,
        });
        let mut uplinks: VecDeque<Uplink> = uplinks.collect();
        uplinks.append(&mut self.worker.uplinks);
        self.worker.uplinks = uplinks;
    }

    fn was_connected(&self) -> bool {
        match self.stage {
            Stage::Connecting | Stage::Subscribing { .. } => false,
            Stage::Online | Stage::Leaving { .. } => true,
        }
    }

    pub(super) fn tell(&self, news: Vec<AgentEvent>) {
        for event in news {
            (self.worker.sink)(event);
        }
    }
}

/// When `what`, under way since then, counts as lost.
fn due(since: Instant, now: Instant, what: &str) -> Result<Instant, End> {
    let until = since + CONFIRM_TIMEOUT;
    if now < until {
        return Ok(until);
    }
    let seconds = CONFIRM_TIMEOUT.as_secs();
    Err(End::Lost(format!("the broker did not confirm {what} within {seconds} s")))
}

fn lost(error: &dyn std::fmt::Display) -> End {
    End::Lost(error.to_string())
}

fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => {
            format!("the broker refuses this node ({code:?}): check name and password")
        }
        other => other.to_string(),
    }
}
