//! Events into the database, and only then the acknowledgement.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use wherry_bundle::Name;
use wherry_bundle::message::{EventAck, Events, Message};
use wherry_bundle::topic::Topic;

use crate::cloud::Cloud;
use crate::db;

pub(super) async fn run(cloud: Arc<Cloud>, mut queue: mpsc::Receiver<(Name, Events)>) {
    while let Some((node, Events(events))) = queue.recv().await {
        let count = events.len() as u64;
        let (node, stored) = cloud
            .blocking(move |cloud| {
                let stored = cloud.db.write(|tx| db::event::store(tx, &node, &events));
                (node, stored)
            })
            .await;
        let mark = match stored {
            Ok(Some(mark)) => mark,
            Ok(None) => {
                log::debug!("events of `{node}`, which is no node here");
                continue;
            }
            // Not acknowledged: the node keeps them and sends them again.
            Err(error) => {
                log::error!("events of {node} are not stored: {error}");
                continue;
            }
        };
        cloud.counters.events.fetch_add(count, Ordering::Relaxed);
        let ack = EventAck { seq: mark.seq };
        let sent = match ack.to_bytes() {
            Ok(payload) => cloud.mqtt.publish(Topic::EventAck.of(&node), false, payload).await,
            Err(error) => {
                log::error!("event acknowledgement: {error}");
                continue;
            }
        };
        if let Err(error) = sent {
            log::debug!("{node} is not told that its events are stored: {error}");
        }
    }
}
