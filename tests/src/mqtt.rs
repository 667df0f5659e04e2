//! A stranger at the broker: reads what is retained, and sends what nobody
//! asked for.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rumqttc::{Client, Connection, Event, MqttOptions, Packet, QoS};

use crate::host::WAN_ADDRESS;

/// How long the broker may take for anything.
const PATIENCE: Duration = Duration::from_secs(10);

fn connect(user: &str, password: &str) -> (Client, Connection) {
    let id = format!("stranger-{}", std::process::id());
    let mut options = MqttOptions::new(id, WAN_ADDRESS, 1883);
    options.set_credentials(user, password);
    options.set_max_packet_size(1 << 20, 1 << 20);
    Client::new(options, 10)
}

/// Publishes once, QoS 1, and waits until the broker has it. To be called in
/// the namespace of the broker.
///
/// # Errors
/// No connection, or no acknowledgement in time.
pub fn publish(user: &str, password: &str, topic: &str, payload: &[u8]) -> Result<()> {
    let (client, mut connection) = connect(user, password);
    client.publish(topic, QoS::AtLeastOnce, false, payload)?;
    next(&mut connection, |packet| matches!(packet, Packet::PubAck(_)).then_some(()))
}

/// The retained message of a topic.
///
/// # Errors
/// None comes in time.
pub fn retained(user: &str, password: &str, topic: &str) -> Result<Vec<u8>> {
    let (client, mut connection) = connect(user, password);
    client.subscribe(topic, QoS::AtLeastOnce)?;
    next(&mut connection, |packet| match packet {
        Packet::Publish(publish) if publish.topic == topic => Some(publish.payload.to_vec()),
        _ => None,
    })
}

fn next<T>(connection: &mut Connection, wanted: impl Fn(Packet) -> Option<T>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        let Ok(event) = connection.recv_timeout(left) else { break };
        if let Event::Incoming(packet) = event?
            && let Some(found) = wanted(packet)
        {
            return Ok(found);
        }
    }
    bail!("the broker did not answer in {PATIENCE:?}")
}
