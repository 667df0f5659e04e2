//! What requests that ask a node something have in common.

use std::sync::Arc;

use wherry_bundle::Name;
use wherry_bundle::message::{Command, Message, Order};
use wherry_bundle::topic::Topic;

use super::ApiError;
use super::extract::json;
use crate::cloud::Cloud;
use crate::db::node;
use crate::keys;
use crate::mqtt::Away;

/// # Errors
/// There is no such node, or it is away.
pub(super) async fn check_online(cloud: &Arc<Cloud>, name: &Name) -> Result<(), ApiError> {
    let known = name.clone();
    let node = json(cloud, move |cloud| cloud.db.read(|c| node::show(c, &known))).await?;
    if node.online {
        return Ok(());
    }
    Err(ApiError::unavailable(format!("node `{name}` is offline"))
        .hint(format!("`wherry-cloud node show {name}` tells what is known of it")))
}

pub(super) async fn send(cloud: &Cloud, node: &Name, id: u64, order: Order) -> Result<(), Away> {
    match (Command { id, order }).to_bytes() {
        Ok(payload) => cloud.mqtt.publish(Topic::Command.of(node), false, payload).await,
        Err(error) => {
            log::error!("a command for {node}: {error}");
            Err(Away::NotConnected)
        }
    }
}

/// Never used before, across restarts too: nodes do a command of one id once.
pub(super) fn new_id() -> Result<u64, ApiError> {
    Ok(u64::from_le_bytes(keys::random_bytes().map_err(ApiError::internal)?))
}
