//! The cloud's own connection to the broker, embedded or not: an ordinary
//! MQTT 3.1.1 client.
//!
//! Its session is clean: whatever is lost with a connection is asked for
//! again by the nodes, and what is desired is published again at each
//! connection. Never here: what a message means.

use std::net::Ipv6Addr;
use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, Incoming, MqttOptions, Outgoing, Publish, QoS,
    SubscribeFilter, SubscribeReasonCode,
};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use wherry_bundle::limits::MQTT_PAYLOAD_BYTES_MAX;
use wherry_bundle::topic::Topic;

use crate::limits::{OUTGOING_QUEUE_MAX, PACKET_OVERHEAD_BYTES, PUBLISH_TIMEOUT, STOP_TIMEOUT};

const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// After a lost connection; doubles up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LONGEST: Duration = Duration::from_secs(15);

/// Where the broker is, and who the cloud is there.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerLogin {
    pub host: String,
    pub port: u16,
    /// Empty: no credentials are sent.
    pub user: String,
    pub password: String,
    /// One connection a client id: a second cloud at the same broker would
    /// put the first one out.
    pub client_id: String,
}

impl std::fmt::Debug for BrokerLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port, user, password: _, client_id } = self;
        write!(f, "BrokerLogin({client_id}: {user}@{host}:{port})")
    }
}

/// Why something was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Away {
    #[error("the cloud is not connected to its broker")]
    NotConnected,
    #[error("the broker takes no messages at the moment")]
    Stuck,
}

/// For publishing; shared by all who do.
#[derive(Debug, Default)]
pub struct Mqtt {
    client: watch::Sender<Option<AsyncClient>>,
    /// The connection makes no progress and has to be made anew.
    stuck: Notify,
}

impl Mqtt {
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.borrow().is_some()
    }

    /// Waits for the connection, and for the subscriptions on it.
    pub async fn connected(&self) {
        // The sender is `self`: it cannot go away meanwhile.
        let _ = self.client.subscribe().wait_for(Option::is_some).await;
    }

    /// Hands a message to the client, with quality of service 1. That it
    /// arrives is certain only if the connection lives on.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn publish(&self, topic: String, retain: bool, payload: Vec<u8>) -> Result<(), Away> {
        let client = self.client.borrow().clone().ok_or(Away::NotConnected)?;
        let queued = client.publish(topic, QoS::AtLeastOnce, retain, payload);
        match timeout(PUBLISH_TIMEOUT, queued).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Away::NotConnected),
            Err(_) => {
                self.stuck.notify_one();
                Err(Away::Stuck)
            }
        }
    }
}

/// Who hears of what happens.
pub trait Listener: Send + Sync {
    /// Must not wait.
    fn receive(&self, publish: Publish);
    /// Connected and subscribed. Must not wait.
    fn ready(&self);
}

/// Connects, again and again, until `stop` says so.
pub async fn run(
    mqtt: &Mqtt,
    login: BrokerLogin,
    listener: &dyn Listener,
    mut stop: watch::Receiver<bool>,
) {
    let mut retry = RETRY_FIRST;
    let mut told = false;
    while !*stop.borrow() {
        // A new client each time: none can be left in a state that it does
        // not come out of.
        let (client, mut eventloop) = AsyncClient::new(options(&login), OUTGOING_QUEUE_MAX);
        let began = Instant::now();
        let end = session(mqtt, &client, &mut eventloop, listener, &mut stop).await;
        let was_connected = mqtt.client.send_replace(None).is_some();
        match end {
            End::Stopped => return,
            End::Lost(why) if was_connected || !told => {
                log::warn!("the connection to the broker is lost: {why}");
                told = true;
            }
            End::Lost(why) => log::debug!("no connection to the broker: {why}"),
        }
        if was_connected && began.elapsed() > RETRY_LONGEST {
            retry = RETRY_FIRST;
            told = false;
        }
        tokio::select! {
            () = tokio::time::sleep(retry) => {}
            () = told_to_stop(&mut stop) => return,
        }
        retry = (retry * 2).min(RETRY_LONGEST);
    }
}

enum End {
    Stopped,
    Lost(String),
}

async fn session(
    mqtt: &Mqtt,
    client: &AsyncClient,
    eventloop: &mut EventLoop,
    listener: &dyn Listener,
    stop: &mut watch::Receiver<bool>,
) -> End {
    loop {
        let event = tokio::select! {
            event = eventloop.poll() => event,
            () = mqtt.stuck.notified() => return End::Lost("it takes no messages".into()),
            () = told_to_stop(stop) => {
                // rumqttc may have been in the middle of a packet: what is
                // lost by that is as lost as with any other connection.
                let _ = timeout(STOP_TIMEOUT, disconnect(client, eventloop)).await;
                return End::Stopped;
            }
        };
        match event {
            Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                let filters = Topic::TO_CLOUD
                    .map(|topic| SubscribeFilter::new(topic.of_every_node(), QoS::AtLeastOnce));
                if let Err(error) = client.try_subscribe_many(filters) {
                    return End::Lost(error.to_string());
                }
            }
            Ok(Event::Incoming(Incoming::SubAck(ack))) => {
                if ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                    return End::Lost("it refuses the subscriptions: check its permissions".into());
                }
                log::info!("connected to the broker");
                mqtt.client.send_replace(Some(client.clone()));
                listener.ready();
            }
            Ok(Event::Incoming(Incoming::Publish(publish))) => listener.receive(publish),
            Ok(Event::Incoming(_) | Event::Outgoing(_)) => {}
            Err(error) => return End::Lost(describe(&error)),
        }
    }
}

async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which says the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Says good-bye, after what is queued already.
async fn disconnect(client: &AsyncClient, eventloop: &mut EventLoop) {
    if client.try_disconnect().is_err() {
        return;
    }
    while let Ok(event) = eventloop.poll().await {
        if event == Event::Outgoing(Outgoing::Disconnect) {
            return;
        }
    }
}

fn options(login: &BrokerLogin) -> MqttOptions {
    // rumqttc appends `:port` to the text.
    let host = match login.host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => login.host.clone(),
    };
    let mut options = MqttOptions::new(&login.client_id, host, login.port);
    let packet_bytes_max = MQTT_PAYLOAD_BYTES_MAX + PACKET_OVERHEAD_BYTES;
    options
        .set_clean_session(true)
        .set_keep_alive(KEEP_ALIVE)
        .set_max_packet_size(packet_bytes_max, packet_bytes_max);
    if !login.user.is_empty() {
        options.set_credentials(&login.user, &login.password);
    }
    options
}

fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => {
            format!("it refuses the cloud ({code:?}): check user and password")
        }
        other => other.to_string(),
    }
}
