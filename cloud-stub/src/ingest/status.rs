//! Statuses into the database.

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
        cloud
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
                    Ok::<(), db::DbError>(())
                });
                if let Err(error) = stored {
                    log::error!("statuses are not stored: {error}");
                }
            })
            .await;
    }
}
