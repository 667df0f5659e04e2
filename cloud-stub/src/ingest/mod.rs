//! What nodes say, from the broker into the database, and what they are
//! answered.
//!
//! Everything is decoded and checked here; a message that is not what it
//! should be is logged and dropped. Nothing waits in the client's loop: each
//! kind has a bounded queue, and what finds no room is said again by the node.

mod chunks;
mod events;
mod inbox;
pub mod replies;
pub mod report;
pub(crate) mod status;

use std::sync::Arc;

use tokio::task::JoinSet;

pub use inbox::{Inbox, Queues};

use crate::cloud::Cloud;

/// Starts the workers; they end when the set is dropped.
pub fn spawn(cloud: &Arc<Cloud>, inbox: &Arc<Inbox>, queues: Queues) -> JoinSet<()> {
    let mut workers = JoinSet::new();
    workers.spawn(status::run(Arc::clone(cloud), Arc::clone(inbox)));
    workers.spawn(events::run(Arc::clone(cloud), queues.events));
    workers.spawn(chunks::run(Arc::clone(cloud), queues.chunks));
    workers
}
