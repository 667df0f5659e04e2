//! Bundles that wait for their turn: the nodes of one site are upgraded one
//! after the other, whichever rollouts they are of.
//!
//! A queued bundle has its generation already, so that a newer one replaces
//! it in the queue as it does elsewhere: an older one never overtakes. Never
//! here: MQTT.

use rusqlite::{Connection, params};
use wherry_bundle::{Generation, Name};

use super::error::{self, DbError};
use super::{node, rollout};
use crate::version::ProductType;
use crate::view::{Node, RolloutNode, RolloutState};

/// A bundle that may be issued later.
#[derive(Clone, Debug)]
pub struct Queued<'a> {
    pub node: &'a Name,
    pub site: &'a str,
    pub generation: Generation,
    pub envelope: &'a [u8],
}

/// Lets `queued` wait for its turn in `rollout`; whatever waited for the node
/// before is forgotten.
///
/// # Errors
/// The database's.
pub fn queue(connection: &Connection, rollout: u64, queued: &Queued<'_>) -> Result<(), DbError> {
    let Queued { node, site, generation, envelope } = *queued;
    connection.execute(
        "INSERT INTO queued (node, rollout, site, generation, envelope) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (node) DO UPDATE SET rollout = excluded.rollout, site = excluded.site,
         generation = excluded.generation, envelope = excluded.envelope",
        params![node.as_str(), rollout, site, generation.0, envelope],
    )?;
    Ok(())
}

/// Nothing waits for the node any more.
///
/// # Errors
/// The database's.
pub fn forget(connection: &Connection, node: &Name) -> Result<(), DbError> {
    connection.execute("DELETE FROM queued WHERE node = ?1", [node.as_str()])?;
    Ok(())
}

/// Whether a bundle of this generation waits for the node.
///
/// # Errors
/// The database's.
pub fn is_queued(
    connection: &Connection,
    node: &Name,
    generation: Generation,
) -> Result<bool, DbError> {
    let sql = "SELECT count(*) FROM queued WHERE node = ?1 AND generation = ?2";
    let count: u64 =
        connection.query_row(sql, params![node.as_str(), generation.0], |row| row.get(0))?;
    Ok(count > 0)
}

/// Issues what has its turn, each site by itself and the oldest rollout first:
/// the nodes whose bundle is to be published now.
///
/// # Errors
/// The database's.
pub fn advance(connection: &Connection) -> Result<Vec<Name>, DbError> {
    let mut statement =
        connection.prepare_cached("SELECT DISTINCT rollout, site FROM queued ORDER BY 1, 2")?;
    let sites = statement
        .query_map([], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, String>(1)?)))?
        .collect::<Result<Vec<_>, _>>()?;
    let mut due = Vec::new();
    for (id, site) in sites {
        let next = rollout::nodes_of_site(connection, id, &site)?
            .into_iter()
            .find(|node| !is_past(node.state))
            .filter(|node| node.state == RolloutState::Queued);
        if let Some(next) = next
            && !is_busy(connection, &site, &next.name)?
        {
            issue(connection, &next.name)?;
            due.push(next.name);
        }
    }
    Ok(due)
}

/// Whether a node of the site other than `but` is on its way, by any rollout.
fn is_busy(connection: &Connection, site: &str, but: &Name) -> Result<bool, DbError> {
    // Other projects may have sites of the same name.
    let mut statement = connection.prepare_cached(
        "SELECT DISTINCT i.node, i.generation FROM issued i
         JOIN rollout_node r ON r.node = i.node JOIN node n ON n.name = i.node
         WHERE r.site = ?1 AND i.node <> ?2
         AND n.project = (SELECT project FROM node WHERE name = ?2)",
    )?;
    let rows = statement
        .query_map([site, but.as_str()], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?
        .collect::<Result<Vec<_>, _>>()?;
    for (name, generation) in rows {
        let node = node::show(connection, &error::name(&name)?)?;
        let node = rollout::rollout_node(node, Generation(generation), false, false);
        if !is_past(node.state) && !is_broken(node.state) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The next one does not wait for it.
fn is_past(state: RolloutState) -> bool {
    match state {
        RolloutState::Done | RolloutState::Superseded => true,
        RolloutState::Queued
        | RolloutState::Stopped
        | RolloutState::Issued
        | RolloutState::Held
        | RolloutState::UnderWay
        | RolloutState::Stabilising
        | RolloutState::RolledBack
        | RolloutState::Failed
        | RolloutState::Refused => false,
    }
}

/// It ended, and not well: nobody after it goes on.
fn is_broken(state: RolloutState) -> bool {
    match state {
        RolloutState::RolledBack | RolloutState::Failed | RolloutState::Refused => true,
        RolloutState::Queued
        | RolloutState::Stopped
        | RolloutState::Issued
        | RolloutState::Held
        | RolloutState::UnderWay
        | RolloutState::Stabilising
        | RolloutState::Done
        | RolloutState::Superseded => false,
    }
}

/// Marks the queued nodes of a site, in their order, that wait for nothing
/// any more since one before them did not get there.
pub(super) fn mark_stopped(nodes: &mut [RolloutNode]) {
    let mut stopped_by: Option<Name> = None;
    for node in nodes {
        if is_broken(node.state) {
            stopped_by.get_or_insert_with(|| node.name.clone());
        } else if node.state == RolloutState::Queued && stopped_by.is_some() {
            node.state = RolloutState::Stopped;
            node.stopped_by.clone_from(&stopped_by);
        }
    }
}

fn issue(connection: &Connection, node: &Name) -> Result<(), DbError> {
    let sql = "SELECT generation, envelope FROM queued WHERE node = ?1";
    let (generation, envelope): (u64, Vec<u8>) =
        connection.query_row(sql, [node.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rollout::issue(connection, node, Generation(generation), &envelope)
}

/// The site whose nodes `node` takes turns with; `None`: it has its own turn.
#[must_use]
pub fn of(node: &Node) -> Option<&str> {
    match node.product_type {
        ProductType::ExtensiveMultipleNodes => node.labels.get("site").map(String::as_str),
        ProductType::GatewaySingleNode | ProductType::ExtensiveSingleNode => None,
    }
}

/// The nodes of a rollout and their sites, in the order of their turns.
pub(super) fn order(
    connection: &Connection,
    id: u64,
) -> Result<Vec<(Name, Option<String>, Generation)>, DbError> {
    let mut statement = connection.prepare_cached(
        "SELECT node, site, generation FROM rollout_node WHERE rollout = ?1 ORDER BY node",
    )?;
    let rows = statement
        .query_map([id], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, u64>(2)?))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    rows.into_iter()
        .map(|(name, site, generation)| Ok((error::name(&name)?, site, Generation(generation))))
        .collect()
}
