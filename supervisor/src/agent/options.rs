//! How the agent connects.

use std::net::Ipv6Addr;
use std::time::Duration;

use rumqttc::{LastWill, MqttOptions, NetworkOptions, QoS};
use wherry_bundle::limits::MQTT_PAYLOAD_BYTES_MAX;
use wherry_bundle::message::{Message, Status};
use wherry_bundle::topic::Topic;
use wherry_bundle::wire::WireError;

use super::AgentConfig;

/// A dead link is noticed by both sides within twice this; a ping is four
/// bytes on the metered uplink.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// For name, connection and the broker's greeting together, and for sending
/// one message: half a minute for 32 KiB is 9 kbit/s.
const NETWORK_TIMEOUT_SECONDS: u64 = 30;
/// Topic and headers around a payload.
const PACKET_OVERHEAD_BYTES: usize = 1024;
/// Messages that are sent and not confirmed.
pub(super) const SEND_WINDOW: usize = 16;
/// Confirmations in rumqttc's queue.
pub(super) const ACK_WINDOW: usize = 32;
/// Packet ids in use go round in this range. Well above [`SEND_WINDOW`], so
/// that an id comes round only when its message was confirmed long ago.
const PACKET_IDS: u16 = 128;
/// rumqttc's queue: all that this side ever puts into it at once.
pub(super) const QUEUE_MAX: usize = SEND_WINDOW + ACK_WINDOW + 4;

pub(super) fn mqtt_options(config: &AgentConfig) -> Result<MqttOptions, WireError> {
    // rumqttc appends `:port` to the text.
    let host = match config.host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => config.host.clone(),
    };
    let mut options = MqttOptions::new(format!("wherry-{}", config.node), host, config.port);
    let packet_bytes_max = MQTT_PAYLOAD_BYTES_MAX + PACKET_OVERHEAD_BYTES;
    let will = LastWill::new(
        Topic::Status.of(&config.node),
        Status::Offline.to_bytes()?,
        QoS::AtLeastOnce,
        true,
    );
    options
        .set_clean_session(false)
        .set_keep_alive(KEEP_ALIVE)
        .set_last_will(will)
        .set_manual_acks(true)
        .set_inflight(PACKET_IDS)
        .set_max_packet_size(packet_bytes_max, packet_bytes_max);
    if !config.password.is_empty() {
        options.set_credentials(config.node.as_str(), config.password.as_str());
    }
    Ok(options)
}

pub(super) fn network_options() -> NetworkOptions {
    let mut options = NetworkOptions::new();
    options.set_connection_timeout(NETWORK_TIMEOUT_SECONDS);
    options.set_tcp_nodelay(true);
    options
}
