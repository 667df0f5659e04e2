//! The broker's door: one TCP connection in, one to rumqttd out, and every
//! packet of the node judged in between.
//!
//! One session a node and client id: a new connection ends the old one and
//! waits until rumqttd is done with it, so that the old last will cannot come
//! after the new status. Never here: what a message means.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rumqttc::mqttbytes::v4::{ConnAck, Connect, ConnectReturnCode, Login, Packet};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use wherry_bundle::Name;

use super::BrokerError;
use super::permit::{self, Applicant};
use super::relay::{self, PacketReader, send};
use crate::limits::{BROKER_CONNECT_TIMEOUT, BROKER_CONNECTIONS_MAX};

/// Whether this is the node's password. May block: it is called on a thread
/// for that.
pub type Credentials = Arc<dyn Fn(&Name, &str) -> bool + Send + Sync>;

/// After a refused accept (too many files), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// A session that was told to end is gone within this.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// What a client that sends no pings gets instead of "for ever", which
/// rumqttd refuses: the longest that MQTT has.
const KEEP_ALIVE_SECONDS_MAX: u16 = u16::MAX;

/// The listening side.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    upstream: SocketAddr,
    secret: String,
    credentials: Credentials,
    open: watch::Sender<bool>,
    sessions: Mutex<HashMap<String, Session>>,
    serial: AtomicU64,
    places: Arc<Semaphore>,
}

/// A connection that was let in.
#[derive(Debug)]
struct Session {
    serial: u64,
    node: Name,
    /// Set to end it; closed once rumqttd is done with it.
    end: Arc<watch::Sender<bool>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

impl Gate {
    /// Opens the port. Who connects waits until [`Gate::open`].
    ///
    /// # Errors
    /// The port cannot be had.
    pub async fn start(
        listen: SocketAddr,
        upstream: SocketAddr,
        secret: String,
        credentials: Credentials,
    ) -> Result<Self, BrokerError> {
        let failed = |source| BrokerError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            upstream,
            secret,
            credentials,
            open: watch::Sender::new(false),
            sessions: Mutex::default(),
            serial: AtomicU64::new(0),
            places: Arc::new(Semaphore::new(BROKER_CONNECTIONS_MAX)),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, accepting })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets nodes in: the cloud has subscribed, nothing they say is lost.
    pub fn open(&self) {
        self.shared.open.send_replace(true);
    }

    /// Ends the node's connections: it was removed.
    pub fn disconnect(&self, node: &Name) {
        for session in self.shared.sessions().values().filter(|session| session.node == *node) {
            session.end.send_replace(true);
        }
    }

    /// Closes the port, ends every connection, and waits for that.
    pub async fn stop(&self) {
        self.accepting.abort();
        let ends: Vec<_> = self.shared.sessions().values().map(|s| Arc::clone(&s.end)).collect();
        for end in &ends {
            end.send_replace(true);
        }
        let all = async {
            for end in &ends {
                end.closed().await;
            }
        };
        if timeout(END_TIMEOUT, all).await.is_err() {
            log::warn!("some connections to the broker did not end in time");
        }
    }
}

impl Shared {
    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<String, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the session of this name, if there is one, and begins the next.
    async fn begin(&self, key: &str, node: &Name) -> (u64, watch::Receiver<bool>) {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let (end, ended) = watch::channel(false);
        let session = Session { serial, node: node.clone(), end: Arc::new(end) };
        let previous = self.sessions().insert(key.to_owned(), session);
        if let Some(previous) = previous {
            previous.end.send_replace(true);
            if timeout(END_TIMEOUT, previous.end.closed()).await.is_err() {
                log::warn!("the former connection of {node} did not end in time");
            }
        }
        (serial, ended)
    }

    fn finish(&self, key: &str, serial: u64) {
        let mut sessions = self.sessions();
        if sessions.get(key).is_some_and(|session| session.serial == serial) {
            sessions.remove(key);
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut open = shared.open.subscribe();
    if open.wait_for(|open| *open).await.is_err() {
        return;
    }
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                log::warn!("broker: cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&shared.places).try_acquire_owned() else {
            log::warn!("broker: {peer} turned away, {BROKER_CONNECTIONS_MAX} are connected");
            continue;
        };
        tokio::spawn(serve(stream, peer, Arc::clone(&shared), place));
    }
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    _place: OwnedSemaphorePermit,
) {
    let mut client = match PacketReader::new(stream) {
        Ok(client) => client,
        Err(error) => return log::debug!("broker: {peer}: {error}"),
    };
    let (connect, applicant) = match admit(&mut client, &shared).await {
        Ok(admitted) => admitted,
        Err(why) => return log::warn!("broker: {peer} refused: {why}"),
    };
    let node = applicant.node;
    // A name cannot have a colon, so no client id reaches another node's
    // session.
    let key = format!("{node}:{}", applicant.client_id);
    let (serial, ended) = shared.begin(&key, &node).await;
    let keep_alive = connect.keep_alive;
    log::info!("broker: {node} connected from {peer}");
    let why = match upstream(&shared, connect, &key, &node).await {
        Ok(broker) => relay::run(client, broker, &node, keep_alive, ended).await,
        Err(error) => {
            refuse(&mut client, ConnectReturnCode::ServiceUnavailable).await;
            format!("rumqttd does not take it: {error}")
        }
    };
    log::info!("broker: {node} gone: {why}");
    shared.finish(&key, serial);
}

/// Reads and checks the CONNECT packet. Whoever is refused is told so.
async fn admit(client: &mut PacketReader, shared: &Shared) -> Result<(Connect, Applicant), String> {
    let packet = timeout(BROKER_CONNECT_TIMEOUT, client.next())
        .await
        .map_err(|_| "it did not say CONNECT in time".to_owned())??;
    let Packet::Connect(connect) = packet else {
        return Err("its first packet is not CONNECT".into());
    };
    let applicant = match permit::applicant(&connect) {
        Ok(applicant) => applicant,
        Err((code, why)) => {
            refuse(client, code).await;
            return Err(why.into());
        }
    };
    let credentials = Arc::clone(&shared.credentials);
    let (node, password) = (applicant.node.clone(), applicant.password.clone());
    let known = tokio::task::spawn_blocking(move || credentials(&node, &password)).await;
    if !known.unwrap_or(false) {
        refuse(client, ConnectReturnCode::BadUserNamePassword).await;
        return Err(format!("unknown node or wrong password for `{}`", applicant.node));
    }
    Ok((connect, applicant))
}

async fn refuse(client: &mut PacketReader, code: ConnectReturnCode) {
    // The client may be gone: then it needs no answer.
    let _ = send(client.stream(), &Packet::ConnAck(ConnAck::new(code, false))).await;
}

/// Connects to rumqttd in the node's stead.
///
/// rumqttd's task may panic for good when a client goes away before it got
/// its CONNACK; what is here stays until [`relay::run`] has read it.
async fn upstream(
    shared: &Shared,
    mut connect: Connect,
    key: &str,
    node: &Name,
) -> io::Result<TcpStream> {
    let mut broker = TcpStream::connect(shared.upstream).await?;
    broker.set_nodelay(true)?;
    key.clone_into(&mut connect.client_id);
    connect.login = Some(Login::new(node.as_str(), shared.secret.as_str()));
    if connect.keep_alive == 0 {
        connect.keep_alive = KEEP_ALIVE_SECONDS_MAX;
    }
    send(&mut broker, &Packet::Connect(connect)).await?;
    Ok(broker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_begins_when_the_former_one_is_over() {
        let shared = Arc::new(Shared {
            upstream: ([127, 0, 0, 1], 1).into(),
            secret: String::new(),
            credentials: Arc::new(|_, _| false),
            open: watch::Sender::new(true),
            sessions: Mutex::default(),
            serial: AtomicU64::new(0),
            places: Arc::new(Semaphore::new(1)),
        });
        let node: Name = "gw-1".parse().unwrap();
        let (first, mut ended) = shared.begin("gw-1:a", &node).await;
        let (other, mut other_ended) = shared.begin("gw-1:b", &node).await;
        let next = tokio::spawn({
            let (shared, node) = (Arc::clone(&shared), node.clone());
            async move { shared.begin("gw-1:a", &node).await.0 }
        });
        ended.wait_for(|ended| *ended).await.unwrap();
        assert!(!*other_ended.borrow_and_update(), "another client id, another session");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!next.is_finished(), "rumqttd is not done with the first one yet");
        // Its end must not take its successor away.
        shared.finish("gw-1:a", first);
        drop(ended);
        let second = next.await.unwrap();
        assert_eq!(shared.sessions().get("gw-1:a").map(|s| s.serial), Some(second));
        shared.finish("gw-1:b", other);
        assert_eq!(shared.sessions().len(), 1);
    }
}
