//! What the broker sent, and what is done about it.

use rumqttc::{Incoming, Publish, QoS, SubscribeFilter, SubscribeReasonCode};
use tokio::time::Instant;
use wherry_bundle::limits::ENVELOPE_BYTES_MAX;
use wherry_bundle::message::{ChunkData, Command, EventAck, Message};
use wherry_bundle::topic::Topic;

use super::session::{Session, Stage};
use super::{AckToken, AgentEvent};

impl Session<'_> {
    pub(super) fn receive(&mut self, packet: Incoming) -> Result<(), String> {
        match packet {
            Incoming::ConnAck(_) => {
                self.stage = Stage::Subscribing { since: Instant::now() };
                let node = &self.worker.config.node;
                let filters = Topic::TO_NODE
                    .map(|topic| SubscribeFilter::new(topic.of(node), QoS::AtLeastOnce));
                self.client.try_subscribe_many(filters).map_err(|error| error.to_string())?;
            }
            Incoming::SubAck(ack) => {
                let refused = ack
                    .return_codes
                    .iter()
                    .position(|code| matches!(code, SubscribeReasonCode::Failure));
                if let Some(topic) = refused.and_then(|index| Topic::TO_NODE.get(index)) {
                    let topic = topic.of(&self.worker.config.node);
                    return Err(format!("the broker refuses a subscription to {topic}"));
                }
                if let Stage::Subscribing { .. } = self.stage {
                    self.stage = Stage::Online;
                    self.worker.events.connected(Instant::now());
                    (self.worker.sink)(AgentEvent::Connected);
                }
            }
            Incoming::PubAck(ack) => self.confirmed(ack.pkid)?,
            Incoming::Publish(publish) => self.receive_publish(publish),
            // Pings are rumqttc's business, the rest does not come to a client.
            _ => {}
        }
        Ok(())
    }

    fn receive_publish(&mut self, publish: Publish) {
        let packet_id = if publish.qos == QoS::AtMostOnce { 0 } else { publish.pkid };
        self.acks.received(packet_id);
        let own = &self.worker.config.node;
        let topic = Topic::parse(&publish.topic).filter(|(node, _)| node == own);
        let result = match topic.map(|(_, topic)| topic) {
            Some(Topic::Desired) => return self.receive_desired(publish, packet_id),
            Some(Topic::Command) => Command::from_bytes(&publish.payload).map(|command| {
                if self.worker.seen.is_new(command.id) {
                    (self.worker.sink)(AgentEvent::Command(command));
                }
            }),
            Some(Topic::EventAck) => EventAck::from_bytes(&publish.payload).map(|ack| {
                self.worker.events.acked(ack.seq, &self.worker.store, Instant::now());
            }),
            Some(Topic::ChunkData) => ChunkData::from_bytes(&publish.payload).map(|chunk| {
                let mut news = Vec::new();
                // One that nobody asked for is a late or repeated answer.
                self.worker.fetcher.receive(chunk, Instant::now(), &mut news);
                self.tell(news);
            }),
            Some(
                Topic::ChunkGet
                | Topic::Status
                | Topic::Event
                | Topic::Log
                | Topic::Reply
                | Topic::Metrics,
            )
            | None => {
                self.worker.rejected.note(&publish.topic, &"not a topic for this node");
                Ok(())
            }
        };
        if let Err(error) = result {
            self.worker.rejected.note(&publish.topic, &error);
        }
        self.acks.done(packet_id);
    }

    /// Its confirmation is the supervisor's matter.
    fn receive_desired(&mut self, publish: Publish, packet_id: u16) {
        let bytes = publish.payload.len();
        // Empty: the cloud has taken its retained message back.
        if bytes == 0 || bytes > ENVELOPE_BYTES_MAX {
            if bytes > 0 {
                self.worker.rejected.note(&publish.topic, &format!("{bytes} bytes are too many"));
            }
            self.acks.done(packet_id);
            return;
        }
        let token = AckToken { connection: self.worker.connection, packet_id };
        (self.worker.sink)(AgentEvent::Desired { bytes: publish.payload.into(), token });
    }
}
