//! Statuses into the database, and what follows from them: the turns of a
//! site's nodes, and that what was carried to a node is issued to it.

use std::sync::Arc;

use rusqlite::Connection;
use wherry_bundle::Name;
use wherry_bundle::message::Status;

use super::Inbox;
use super::inbox::Arrived;
use crate::clock::now_millis;
use crate::cloud::Cloud;
use crate::db::{self, DbError};

pub(super) async fn run(cloud: Arc<Cloud>, inbox: Arc<Inbox>) {
    loop {
        inbox.status_came.notified().await;
        let statuses = inbox.take_statuses();
        let now = now_millis();
        let due = cloud
            .blocking(move |cloud| {
                let stored = cloud.db.write(|tx| {
                    let mut due = Vec::new();
                    for (node, arrived) in &statuses {
                        due.extend(store(tx, node, arrived, now)?);
                    }
                    // What a site waited for may have come.
                    due.extend(db::site::advance(tx)?);
                    Ok::<_, DbError>(due)
                });
                stored.unwrap_or_else(|error| {
                    log::error!("statuses are not stored: {error}");
                    Vec::new()
                })
            })
            .await;
        publish(&cloud, due).await;
    }
}

/// The node, if it took up what was carried to it: that is to be published.
fn store(
    connection: &Connection,
    node: &Name,
    arrived: &Arrived,
    now: u64,
) -> Result<Option<Name>, DbError> {
    // A status that names another node is a broken or a hostile client.
    if let Status::Online(status) = &arrived.status
        && status.node != *node
    {
        log::warn!("{node} sends a status of `{}`", status.node);
        return Ok(None);
    }
    if !db::node::set_status(connection, node, &arrived.status, arrived.retained, now)? {
        log::debug!("a status of `{node}`, which is no node here");
        return Ok(None);
    }
    let taken_up = match &arrived.status {
        Status::Online(status) => db::carried::promote(connection, node, status.generation)?,
        Status::Offline => false,
    };
    Ok(taken_up.then(|| node.clone()))
}

/// Publishes what was issued by what nodes said.
pub(crate) async fn publish(cloud: &Arc<Cloud>, due: Vec<Name>) {
    for node in due {
        log::info!("{node} is issued its next bundle");
        // Stored, so it is published when the broker is back.
        if let Err(error) = cloud.publish_desired(&node).await {
            log::warn!("what is issued waits for the broker: {error}");
        }
    }
}
