//! What every part of the server shares.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};

use ed25519_dalek::SigningKey;
use wherry_bundle::Name;
use wherry_bundle::topic::Topic;

use crate::db::{self, Db};
use crate::image::BlobDir;
use crate::ingest::replies::Replies;
use crate::metrics::Fleet;
use crate::mqtt::{Away, Mqtt};

/// The parts of a running cloud.
#[derive(Debug)]
pub struct Cloud {
    pub(crate) db: Db,
    pub(crate) blobs: BlobDir,
    /// Where uploads go until they are imported.
    pub(crate) uploads: std::path::PathBuf,
    pub(crate) key: SigningKey,
    pub(crate) mqtt: Mqtt,
    pub(crate) replies: Arc<Replies>,
    pub(crate) fleet: Arc<Fleet>,
    /// Where nodes find the broker, for `node config`; known once it listens.
    pub(crate) public_broker: OnceLock<(String, u16)>,
    pub(crate) counters: Counters,
    /// One import, or clean-up after a removal, at a time: neither must see
    /// layers of the other half-way.
    pub(crate) images: Mutex<()>,
    /// One rollout at a time: it reads, compiles for a while, then writes.
    pub(crate) rollouts: Mutex<()>,
    /// Keeps what is read from the database and what is published for each
    /// node in the same order.
    pub(crate) desired: tokio::sync::Mutex<()>,
    /// Nodes that the embedded broker has to put out.
    pub(crate) removed: tokio::sync::mpsc::UnboundedSender<Name>,
}

/// Since the start of the process.
#[derive(Debug, Default)]
pub struct Counters {
    pub(crate) events: AtomicU64,
    pub(crate) chunk_bytes: AtomicU64,
    pub(crate) chunks_sent: AtomicU64,
    /// From a layer file or the database, because the cache did not have them.
    pub(crate) chunks_read: AtomicU64,
}

impl Cloud {
    /// Runs what may wait for the disk on a thread for that.
    ///
    /// # Panics
    /// As `work` does.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> T {
        let cloud = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&cloud)).await {
            Ok(value) => value,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Publishes what is desired of the node: its newest envelope, or that
    /// there is none.
    ///
    /// # Errors
    /// The broker is away; it is published when it is back.
    pub(crate) async fn publish_desired(self: &Arc<Self>, node: &Name) -> Result<(), Away> {
        let _order = self.desired.lock().await;
        let name = node.clone();
        let read = self.blocking(move |cloud| cloud.db.read(|c| db::rollout::envelope(c, &name)));
        match read.await {
            Ok(envelope) => {
                let topic = Topic::Desired.of(node);
                self.mqtt.publish(topic, true, envelope.unwrap_or_default()).await
            }
            Err(error) => {
                log::error!("the envelope of {node} cannot be read: {error}");
                Ok(())
            }
        }
    }

    /// Publishes everything that is desired, after a connection to a broker
    /// that may know nothing of it.
    pub(crate) async fn publish_all(self: &Arc<Self>) {
        let nodes = self.blocking(|cloud| cloud.db.read(db::rollout::issued_nodes)).await;
        let nodes = match nodes {
            Ok(nodes) => nodes,
            Err(error) => return log::error!("what is issued cannot be read: {error}"),
        };
        for node in nodes {
            if let Err(error) = self.publish_desired(&node).await {
                return log::warn!("not everything desired is published: {error}");
            }
        }
    }

    /// What nodes trust, as `node config` prints it.
    pub(crate) fn public_key_hex(&self) -> String {
        crate::keys::hex(self.key.verifying_key().as_bytes())
    }
}
