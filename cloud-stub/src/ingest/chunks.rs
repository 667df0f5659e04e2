//! Chunks of layers for nodes that ask.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::mpsc;
use wherry_bundle::limits::cut;
use wherry_bundle::message::{ChunkContents, ChunkData, ChunkGet, Message};
use wherry_bundle::topic::Topic;
use wherry_bundle::{Digest, Name};

use crate::chunks::{self, Cache};
use crate::cloud::Cloud;

/// Of why there is no chunk: its message has room for no more beside a digest.
const REASON_BYTES_MAX: usize = 1024;

/// A request for more chunks than there may be was refused when it was
/// decoded.
pub(super) async fn run(cloud: Arc<Cloud>, mut queue: mpsc::Receiver<(Name, ChunkGet)>) {
    let mut cache = Cache::default();
    while let Some((node, get)) = queue.recv().await {
        for digest in get.chunks {
            let contents = contents(&cloud, &node, digest, &mut cache).await;
            if !send(&cloud, &node, digest, contents).await {
                // What is left of the request would fare no better.
                break;
            }
        }
    }
}

/// The chunk's bytes, or why there are none.
async fn contents(
    cloud: &Arc<Cloud>,
    node: &Name,
    digest: Digest,
    cache: &mut Cache,
) -> Result<Bytes, String> {
    if let Some(bytes) = cache.get(&digest) {
        return Ok(bytes);
    }
    let read = cloud.blocking(move |cloud| chunks::read(&cloud.db, &cloud.blobs, &digest)).await;
    match read {
        Ok(bytes) => {
            cloud.counters.chunks_read.fetch_add(1, Ordering::Relaxed);
            let bytes = Bytes::from(bytes);
            cache.put(digest, bytes.clone());
            Ok(bytes)
        }
        Err(error) => {
            log::warn!("{node} asks for chunk {}: {error}", digest.short());
            Err(error.to_string())
        }
    }
}

/// False when the broker is away.
async fn send(cloud: &Cloud, node: &Name, chunk: Digest, contents: Result<Bytes, String>) -> bool {
    let bytes = contents.as_ref().map_or(0, |bytes| bytes.len() as u64);
    let sent = u64::from(contents.is_ok());
    let contents = match contents {
        Ok(bytes) => ChunkContents::Bytes(bytes.into()),
        Err(why) => ChunkContents::Missing(cut(&why, REASON_BYTES_MAX).to_owned()),
    };
    let payload = match (ChunkData { chunk, contents }).to_bytes() {
        Ok(payload) => payload,
        Err(error) => {
            log::error!("chunk for {node}: {error}");
            return true;
        }
    };
    if let Err(error) = cloud.mqtt.publish(Topic::ChunkData.of(node), false, payload).await {
        log::debug!("chunk for {node} not sent: {error}");
        return false;
    }
    cloud.counters.chunks_sent.fetch_add(sent, Ordering::Relaxed);
    cloud.counters.chunk_bytes.fetch_add(bytes, Ordering::Relaxed);
    true
}
