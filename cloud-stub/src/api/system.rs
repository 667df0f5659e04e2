//! `/v1/key`, `/v1/health`, `/metrics`

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::ApiError;
use super::extract::json;
use crate::cloud::Cloud;
use crate::db::{DbError, node};
use crate::view::Node;

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

/// By node and purpose. It begins anew when a node boots, as counters may.
fn flash_written(nodes: &[Node]) -> String {
    let name = "wherry_node_flash_written_bytes_total";
    let help = "Bytes that Wherry wrote to a node's flash since it booted.";
    let mut text = format!("# HELP {name} {help}\n# TYPE {name} counter\n");
    for (node, flash) in nodes.iter().filter_map(|node| Some((&node.name, node.flash?))) {
        for (purpose, bytes) in
            [("layers", flash.layer_bytes), ("state", flash.state_bytes), ("logs", flash.log_bytes)]
        {
            // Names need no escapes.
            text += &format!("{name}{{node=\"{node}\",purpose=\"{purpose}\"}} {bytes}\n");
        }
    }
    text
}

/// In Prometheus' text format, version 0.0.4.
pub(super) async fn metrics(State(cloud): Shared) -> Result<impl IntoResponse, ApiError> {
    let Json(text) = json(&cloud, |cloud| {
        let nodes = cloud.db.read(node::list)?;
        let online = nodes.iter().filter(|node| node.online).count() as u64;
        let available: u64 = nodes.iter().map(|node| u64::from(node.pods_available)).sum();
        let events = cloud.counters.events.load(Ordering::Relaxed);
        let chunk_bytes = cloud.counters.chunk_bytes.load(Ordering::Relaxed);
        let chunks_sent = cloud.counters.chunks_sent.load(Ordering::Relaxed);
        let chunks_read = cloud.counters.chunks_read.load(Ordering::Relaxed);
        let mut text = String::new();
        for (name, kind, help, value) in [
            ("wherry_nodes", "gauge", "Nodes that are known.", nodes.len() as u64),
            ("wherry_nodes_online", "gauge", "Nodes that are connected.", online),
            ("wherry_pods_available", "gauge", "Available pods of all nodes.", available),
            ("wherry_events_received_total", "counter", "Events in messages of nodes.", events),
            ("wherry_chunk_bytes_total", "counter", "Bytes of layers sent to nodes.", chunk_bytes),
            ("wherry_chunks_sent_total", "counter", "Chunks sent to nodes.", chunks_sent),
            ("wherry_chunks_read_total", "counter", "Chunks read to be sent.", chunks_read),
        ] {
            // Writing to a String does not fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        text += &flash_written(&nodes);
        Ok::<_, DbError>(text)
    })
    .await?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}

#[cfg(test)]
mod tests {
    use wherry_bundle::message::Phase;

    use super::*;
    use crate::db::node::tests::{online, with_node};

    #[test]
    fn what_nodes_wrote_is_told_by_purpose() {
        let (_dir, db) = with_node();
        let lines = || flash_written(&db.read(node::list).unwrap());
        assert_eq!(lines().lines().count(), 2, "it has not said anything yet");
        let (node, status) = ("gw-1".parse().unwrap(), online(1, Phase::Good));
        db.write(|tx| node::set_status(tx, &node, &status, false, 1)).unwrap();
        let line = "wherry_node_flash_written_bytes_total{node=\"gw-1\",purpose=\"layers\"} 0\n";
        assert!(lines().contains(line), "{}", lines());
    }
}
