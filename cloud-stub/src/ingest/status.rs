//! Statuses into the database, and the turns of a site's nodes that follow
//! from them.

use std::sync::Arc;

use wherry_bundle::message::Status;

use super::Inbox;
use crate::clock::now_millis;
use crate::cloud::Cloud;
use crate::db;

pub(super) async fn run(cloud: Arc<Cloud>, inbox: Arc<Inbox>) {
    loop {
        inbox.status_came.notified().await;
        let statuses = inbox.take_statuses();
        let now = now_millis();
        let due = cloud
            .blocking(move |cloud| {
                let stored = cloud.db.write(|tx| {
                    for (node, arrived) in &statuses {
                        // A status that names another node is a broken or a
                        // hostile client.
                        if let Status::Online(status) = &arrived.status
                            && status.node != *node
                        {
                            log::warn!("{node} sends a status of `{}`", status.node);
                            continue;
                        }
                        if !db::node::set_status(tx, node, &arrived.status, arrived.retained, now)?
                        {
                            log::debug!("a status of `{node}`, which is no node here");
                        }
                    }
                    // What a site waited for may have come.
                    db::site::advance(tx)
                });
                stored.unwrap_or_else(|error| {
                    log::error!("statuses are not stored: {error}");
                    Vec::new()
                })
            })
            .await;
        for node in due {
            log::info!("{node} has its turn");
            // Stored, so it is published when the broker is back.
            if let Err(error) = cloud.publish_desired(&node).await {
                log::warn!("the rollout waits for the broker: {error}");
            }
        }
    }
}
