//! The server: everything put together, started and stopped in order.
//!
//! `DATA/` holds `cloud.db`, `keys/`, `layers/` and `uploads/`, and belongs to
//! one process at a time.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use nix::fcntl::{Flock, FlockArg};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use wherry_bundle::Name;

use crate::api;
use crate::broker::{BrokerError, Credentials, Embedded};
use crate::chunks;
use crate::clock::now_millis;
use crate::cloud::{Cloud, Counters};
use crate::db::{self, Db, DbError};
use crate::image::BlobDir;
use crate::ingest::{self, Inbox};
use crate::keys::{self, KeyError};
use crate::limits::STOP_TIMEOUT;
use crate::mqtt::{self, BrokerLogin, Mqtt};

/// The name of the lock file in `DATA/`.
const LOCK: &str = "lock";
/// The cloud's user at its own broker.
const OWN_USER: &str = "wherry-cloud";

/// What a person decides.
#[derive(Clone, Debug)]
pub struct Settings {
    pub data_dir: PathBuf,
    pub api_listen: SocketAddr,
    pub broker: BrokerSettings,
    /// Where nodes find the broker, when it is not where it listens.
    pub public_broker: Option<(String, u16)>,
}

#[derive(Clone, Debug)]
pub enum BrokerSettings {
    Embedded { listen: SocketAddr },
    External(BrokerLogin),
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} is in use by another wherry-cloud: stop it first")]
    Locked(PathBuf),
    #[error("cannot listen for the API on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("{path}: {source}")]
    Db { path: PathBuf, source: DbError },
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// A running server. Dropping it without [`Server::stop`] leaves threads.
#[derive(Debug)]
pub struct Server {
    cloud: Arc<Cloud>,
    api: SocketAddr,
    embedded: Option<Arc<Embedded>>,
    stop_api: watch::Sender<bool>,
    stop_mqtt: watch::Sender<bool>,
    serving: JoinHandle<()>,
    mqtt: JoinHandle<()>,
    workers: JoinSet<()>,
    _lock: Flock<File>,
}

impl Server {
    /// Opens the data folder and both ports.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn start(settings: Settings) -> Result<Self, ServeError> {
        let (removed, removals) = mpsc::unbounded_channel();
        let (cloud, lock) = open(&settings, removed)?;
        let cloud = Arc::new(cloud);
        let listener = TcpListener::bind(settings.api_listen);
        let refused = |source| ServeError::Listen { address: settings.api_listen, source };
        let listener = listener.await.map_err(refused)?;
        let api = listener.local_addr().map_err(refused)?;

        let (embedded, login) = match &settings.broker {
            BrokerSettings::Embedded { listen } => {
                let embedded = Embedded::start(*listen, credentials(&cloud)).await?;
                let login = own_login(&embedded);
                (Some(Arc::new(embedded)), login)
            }
            BrokerSettings::External(login) => (None, login.clone()),
        };
        let port = embedded.as_ref().map(|embedded| embedded.address().port());
        cloud.public_broker.get_or_init(|| public_broker(&settings, port));
        let (inbox, queues) = Inbox::new(Arc::clone(&cloud.replies), Arc::clone(&cloud.fleet));
        let mut workers = ingest::spawn(&cloud, &inbox, queues);
        workers.spawn(when_ready(Arc::clone(&cloud), Arc::clone(&inbox), embedded.clone()));
        if let Some(embedded) = &embedded {
            workers.spawn(put_out(removals, Arc::clone(embedded)));
        }
        let (stop_mqtt, mqtt_stopped) = watch::channel(false);
        let for_mqtt = Arc::clone(&cloud);
        let mqtt = tokio::spawn(async move {
            mqtt::run(&for_mqtt.mqtt, login, &*inbox, mqtt_stopped).await;
        });
        let (stop_api, mut api_stopped) = watch::channel(false);
        let router = api::router(Arc::clone(&cloud));
        let serving = tokio::spawn(async move {
            let stopped = async move {
                let _ = api_stopped.wait_for(|stop| *stop).await;
            };
            let served = axum::serve(listener, router).with_graceful_shutdown(stopped);
            if let Err(error) = served.await {
                log::error!("the API ended: {error}");
            }
        });
        Ok(Self { cloud, api, embedded, stop_api, stop_mqtt, serving, mqtt, workers, _lock: lock })
    }

    /// Where the API listens.
    #[must_use]
    pub fn api_address(&self) -> SocketAddr {
        self.api
    }

    /// Where the embedded broker listens, if there is one.
    #[must_use]
    pub fn mqtt_address(&self) -> Option<SocketAddr> {
        self.embedded.as_ref().map(|embedded| embedded.address())
    }

    /// Waits until the cloud is connected to its broker.
    pub async fn connected(&self) {
        self.cloud.mqtt.connected().await;
    }

    /// Ends requests, the connection to the broker, and the broker, in this
    /// order; waits for each, but not for ever.
    pub async fn stop(mut self) {
        self.stop_api.send_replace(true);
        if timeout(STOP_TIMEOUT, &mut self.serving).await.is_err() {
            // Somebody follows a log.
            self.serving.abort();
        }
        self.stop_mqtt.send_replace(true);
        if timeout(STOP_TIMEOUT, &mut self.mqtt).await.is_err() {
            self.mqtt.abort();
        }
        self.workers.shutdown().await;
        if let Some(embedded) = self.embedded.take() {
            match Arc::try_unwrap(embedded) {
                Ok(embedded) => embedded.stop().await,
                Err(_) => log::error!("the broker is still in use, it is not stopped"),
            }
        }
    }
}

fn open(
    settings: &Settings,
    removed: mpsc::UnboundedSender<Name>,
) -> Result<(Cloud, Flock<File>), ServeError> {
    let dir = &settings.data_dir;
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| ServeError::Io { path, source }
    };
    // Tokens are in the database, and the key beside it.
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io(dir))?;
    let lock = lock(dir)?;
    let key = keys::open_or_create(&dir.join("keys"))?;
    let path = dir.join("cloud.db");
    let db = Db::open(&path).map_err(|source| ServeError::Db { path: path.clone(), source })?;
    if let BrokerSettings::Embedded { .. } = settings.broker {
        db.write(|tx| db::node::set_all_offline(tx, now_millis()))
            .map_err(|source| ServeError::Db { path, source })?;
    }
    let layers = dir.join("layers");
    let blobs = BlobDir::open(&layers).map_err(io(&layers))?;
    blobs.remove_temporary().map_err(io(&layers))?;
    chunks::heal(&db, &blobs);
    let uploads = dir.join("uploads");
    clear(&uploads).map_err(io(&uploads))?;
    let cloud = Cloud {
        db,
        blobs,
        uploads,
        key,
        mqtt: Mqtt::default(),
        replies: Arc::default(),
        fleet: Arc::default(),
        public_broker: OnceLock::new(),
        counters: Counters::default(),
        images: std::sync::Mutex::default(),
        rollouts: std::sync::Mutex::default(),
        desired: tokio::sync::Mutex::default(),
        removed,
    };
    Ok((cloud, lock))
}

fn lock(dir: &Path) -> Result<Flock<File>, ServeError> {
    let path = dir.join(LOCK);
    let file =
        File::create(&path).map_err(|source| ServeError::Io { path: path.clone(), source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::Error::EWOULDBLOCK => ServeError::Locked(dir.to_owned()),
        errno => ServeError::Io { path, source: errno.into() },
    })
}

/// An empty folder: what an upload that was killed left behind goes.
fn clear(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    DirBuilder::new().mode(0o700).create(dir)
}

/// `port` is the one that the embedded broker got.
fn public_broker(settings: &Settings, port: Option<u16>) -> (String, u16) {
    if let Some(public) = &settings.public_broker {
        return public.clone();
    }
    match &settings.broker {
        BrokerSettings::External(login) => (login.host.clone(), login.port),
        BrokerSettings::Embedded { listen } => {
            let port = port.unwrap_or(listen.port());
            if !listen.ip().is_unspecified() {
                return (listen.ip().to_string(), port);
            }
            let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
            (name.unwrap_or_else(|| "localhost".into()), port)
        }
    }
}

fn own_login(embedded: &Embedded) -> BrokerLogin {
    let (address, secret) = embedded.inner();
    BrokerLogin {
        host: address.ip().to_string(),
        port: address.port(),
        user: OWN_USER.into(),
        password: secret.into(),
        client_id: OWN_USER.into(),
    }
}

fn credentials(cloud: &Arc<Cloud>) -> Credentials {
    let cloud = Arc::clone(cloud);
    Arc::new(move |node, password| {
        match cloud.db.read(|c| db::node::token(c, node)) {
            // Digests, so that the time it takes tells nothing of the token.
            Ok(Some(token)) => {
                let digest = |text: &str| wherry_bundle::Digest::of(text.as_bytes());
                digest(&token) == digest(password)
            }
            Ok(None) => false,
            Err(error) => {
                log::error!("the password of {node} cannot be checked: {error}");
                false
            }
        }
    })
}

/// At each connection to the broker: everything desired is published, and
/// nodes are let in.
async fn when_ready(cloud: Arc<Cloud>, inbox: Arc<Inbox>, embedded: Option<Arc<Embedded>>) {
    loop {
        inbox.ready.notified().await;
        cloud.publish_all().await;
        if let Some(embedded) = &embedded {
            embedded.gate().open();
        }
    }
}

async fn put_out(mut removals: mpsc::UnboundedReceiver<Name>, embedded: Arc<Embedded>) {
    while let Some(node) = removals.recv().await {
        embedded.gate().disconnect(&node);
    }
}
