//! rumqttd on a thread and a loopback port of its own.
//!
//! Its router's thread cannot be ended and lives until the process does; it
//! waits for connections that nobody can make any more.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rumqttd::protocol::v4::V4;
use rumqttd::{
    ConnectionSettings, LinkType, Router, RouterConfig, SegmentConfig, Server, ServerSettings,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use wherry_bundle::limits::MQTT_PAYLOAD_BYTES_MAX;
use wherry_bundle::topic::Topic;

use super::BrokerError;
use crate::keys;
use crate::limits::{BROKER_CONNECTIONS_MAX, PACKET_OVERHEAD_BYTES};

/// The cloud's own connections, on top of the nodes'.
const OWN_CONNECTIONS: usize = 8;
/// Packets of one connection that are handled at a time.
const PACKETS_AT_ONCE: usize = 100;
/// Messages that are given to one connection at a time.
const OUTGOING_PACKETS: u64 = 200;
/// What is kept of each filter: so many segments, each closed once it has so
/// many bytes. It has to hold what is sent and not acknowledged: an envelope
/// for `desired`, a window of chunks for `chunk/data`.
const SEGMENT_BYTES: usize = 256 * 1024;
const SEGMENTS: usize = 3;
/// Of the cloud's own filters, which all nodes send to.
const CLOUD_SEGMENT_BYTES: usize = 2 * 1024 * 1024;
const CLOUD_SEGMENTS: usize = 4;
/// From accept to CONNECT; the gate sends it at once.
const CONNECT_TIMEOUT_MILLIS: u16 = 10_000;
/// Another program may take the free port that was found.
const PORT_ATTEMPTS: usize = 5;
const START_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Rumqttd {
    address: SocketAddr,
    secret: String,
    stop: oneshot::Sender<()>,
}

impl Rumqttd {
    /// Starts it and waits until it accepts connections.
    ///
    /// # Errors
    /// No port, no thread, no randomness.
    pub async fn start() -> Result<Self, BrokerError> {
        let failed = |error: std::io::Error| BrokerError::Start(error.to_string());
        let secret = keys::new_token().map_err(failed)?;
        let router = Router::new(0, router_config()).spawn();
        let mut last = String::new();
        for _ in 0..PORT_ATTEMPTS {
            // rumqttd does not tell which port it got, so a free one is found
            // first.
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
            let address = free.local_addr().map_err(failed)?;
            drop(free);
            let server = Server::new(server_settings(address, &secret), router.clone(), V4);
            let (stop, stopped) = oneshot::channel();
            let (ended, mut end) = oneshot::channel();
            std::thread::Builder::new()
                .name("mqtt-broker".into())
                .spawn(move || ended.send(run(server, stopped)))
                .map_err(failed)?;
            tokio::select! {
                reason = &mut end => last = reason.unwrap_or_else(|_| "it panicked".into()),
                () = accepts(address) => return Ok(Self { address, secret, stop }),
                () = tokio::time::sleep(START_TIMEOUT) => last = "it does not answer".into(),
            }
        }
        Err(BrokerError::Start(last))
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The password of every connection.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Closes the port and every connection.
    pub fn stop(self) {
        // An error means that it has ended already.
        let _ = self.stop.send(());
    }
}

/// Serves until told to stop; the reason if it ends by itself.
fn run(mut server: Server<V4>, stopped: oneshot::Receiver<()>) -> String {
    // Sessions are ended in order because this runtime has one thread.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return error.to_string(),
    };
    runtime.block_on(async {
        tokio::select! {
            result = server.start(LinkType::Remote) => match result {
                Ok(()) => "it ended".into(),
                Err(error) => error.to_string(),
            },
            _ = stopped => "stopped".into(),
        }
    })
}

async fn accepts(address: SocketAddr) {
    while TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn server_settings(listen: SocketAddr, secret: &str) -> ServerSettings {
    let secret = secret.to_owned();
    let mut settings = ServerSettings {
        name: "wherry".into(),
        listen,
        tls: None,
        next_connection_delay_ms: 0,
        connections: ConnectionSettings {
            connection_timeout_ms: CONNECT_TIMEOUT_MILLIS,
            max_payload_size: MQTT_PAYLOAD_BYTES_MAX + PACKET_OVERHEAD_BYTES,
            max_inflight_count: PACKETS_AT_ONCE,
            auth: None,
            external_auth: None,
            dynamic_filters: false,
        },
    };
    settings.set_auth_handler(move |_client: String, _user: String, password: String| {
        std::future::ready(password == secret)
    });
    settings
}

fn router_config() -> RouterConfig {
    let cloud =
        SegmentConfig { max_segment_size: CLOUD_SEGMENT_BYTES, max_segment_count: CLOUD_SEGMENTS };
    let custom: HashMap<String, SegmentConfig> =
        Topic::TO_CLOUD.iter().map(|topic| (topic.of_every_node(), cloud.clone())).collect();
    RouterConfig {
        max_connections: BROKER_CONNECTIONS_MAX + OWN_CONNECTIONS,
        max_outgoing_packet_count: OUTGOING_PACKETS,
        max_segment_size: SEGMENT_BYTES,
        max_segment_count: SEGMENTS,
        custom_segment: Some(custom),
        ..RouterConfig::default()
    }
}
