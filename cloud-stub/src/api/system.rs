//! `/v1/key`, `/v1/health`, `/metrics`

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use wherry_bundle::Name;
use wherry_bundle::metrics::text;

use super::ApiError;
use super::extract::json;
use crate::cloud::Cloud;
use crate::db::{DbError, node, project};
use crate::metrics::page::{Counts, Facts, page};

type Shared = State<Arc<Cloud>>;

/// The key that nodes have to trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// ed25519, 64 hexadecimal digits.
    pub public_key: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub broker_connected: bool,
    pub wherry_version: String,
}

pub(super) async fn key(State(cloud): Shared) -> Json<Key> {
    Json(Key { public_key: cloud.public_key_hex() })
}

pub(super) async fn health(State(cloud): Shared) -> Json<Health> {
    let wherry_version = env!("CARGO_PKG_VERSION").to_owned();
    Json(Health { broker_connected: cloud.mqtt.is_connected(), wherry_version })
}

/// In Prometheus' text format, for the whole fleet.
pub(super) async fn metrics(State(cloud): Shared) -> Result<impl IntoResponse, ApiError> {
    let Json(text) = json(&cloud, |cloud| facts(cloud).map(|facts| page(&facts))).await?;
    Ok(([(CONTENT_TYPE, text::CONTENT_TYPE)], text))
}

fn facts(cloud: &Cloud) -> Result<Facts, DbError> {
    let (nodes, customers) =
        cloud.db.read(|c| Ok::<_, DbError>((node::list(c)?, project::customers(c)?)))?;
    // What one that is away said last is not so any more.
    let online: BTreeSet<&Name> =
        nodes.iter().filter(|node| node.online).map(|node| &node.name).collect();
    let samples = cloud.fleet.fresh(|node| online.contains(node), Instant::now());
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let counters = &cloud.counters;
    let counts = Counts {
        events: count(&counters.events),
        chunk_bytes: count(&counters.chunk_bytes),
        chunks_sent: count(&counters.chunks_sent),
        chunks_read: count(&counters.chunks_read),
        refused: cloud.fleet.refused(),
    };
    let messages = cloud.fleet.messages();
    let broker_connected = cloud.mqtt.is_connected();
    Ok(Facts { nodes, customers, samples, messages, counts, broker_connected })
}
