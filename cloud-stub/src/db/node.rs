//! Nodes: what was said about them when they were added, and what they last
//! said about themselves.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};
use wherry_bundle::message::{NodeStatus, Status};
use wherry_bundle::{Generation, Name};

use super::error::{self, DbError, What};
use super::{carried, event, project, rollout};
use crate::version::ProductType;
use crate::view::{Node, NodeDetail, is_available};

/// What a person says about a new node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNode {
    pub name: Name,
    pub project: Name,
    pub product_type: ProductType,
    pub architecture: String,
    pub labels: BTreeMap<String, String>,
    pub token: String,
}

/// # Errors
/// [`DbError::Taken`], or [`DbError::NotFound`] for the project.
pub fn add(connection: &Connection, node: &NewNode, now: u64) -> Result<(), DbError> {
    project::show(connection, &node.project)?;
    connection
        .execute(
            "INSERT INTO node (name, project, product_type, architecture, labels, token, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                node.name.as_str(),
                node.project.as_str(),
                node.product_type.as_str(),
                node.architecture,
                error::to_json(&node.labels)?,
                node.token,
                now
            ],
        )
        .map_err(error::taken(What::Node, &node.name))?;
    Ok(())
}

/// Ordered by name.
///
/// # Errors
/// The database's.
pub fn list(connection: &Connection) -> Result<Vec<Node>, DbError> {
    let rows = rows(connection, "ORDER BY n.name", "")?;
    rows.into_iter().map(|row| Ok(row.view()?.0)).collect()
}

/// All nodes of one project, ordered by name.
///
/// # Errors
/// The database's.
pub fn of_project(connection: &Connection, project: &Name) -> Result<Vec<Node>, DbError> {
    let rows = rows(connection, "WHERE n.project = ?1 ORDER BY n.name", project.as_str())?;
    rows.into_iter().map(|row| Ok(row.view()?.0)).collect()
}

/// # Errors
/// [`DbError::NotFound`].
pub fn show(connection: &Connection, name: &Name) -> Result<Node, DbError> {
    Ok(one(connection, name)?.0)
}

/// Everything that is known of it.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn detail(connection: &Connection, name: &Name) -> Result<NodeDetail, DbError> {
    let (node, status) = one(connection, name)?;
    let said = |of: fn(&NodeStatus) -> String| status.as_ref().map(of);
    Ok(NodeDetail {
        applications: rollout::assigned(connection, name)?,
        wherry_version: said(|status| status.wherry_version.clone()),
        kernel: said(|status| status.kernel.clone()),
        reported_architecture: said(|status| status.architecture.clone()),
        uptime_seconds: status.as_ref().map(|status| status.uptime_seconds),
        last_error: event::last_error(connection, name)?,
        events_waiting: status.as_ref().map_or(0, |status| status.events_waiting),
        events_dropped: status.as_ref().map_or(0, |status| status.events_dropped),
        events_missing: event::mark(connection, name)?.missing,
        carried: carried::show(connection, name)?,
        pods: status.map(|status| status.pods).unwrap_or_default(),
        node,
    })
}

/// Removes it with its events and everything that was issued to it.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn remove(connection: &Connection, name: &Name) -> Result<(), DbError> {
    let removed = connection.execute("DELETE FROM node WHERE name = ?1", [name.as_str()])?;
    if removed == 0 { Err(DbError::not_found(What::Node, name)) } else { Ok(()) }
}

/// The node's password at the broker; `None` if there is no such node.
///
/// # Errors
/// The database's.
pub fn token(connection: &Connection, name: &Name) -> Result<Option<String>, DbError> {
    let sql = "SELECT token FROM node WHERE name = ?1";
    Ok(connection.query_row(sql, [name.as_str()], |row| row.get(0)).optional()?)
}

/// Keeps what the node, or its last will, said. A `retained` status may be
/// old: it does not count as seen now. False if there is no such node.
///
/// # Errors
/// The database's.
pub fn set_status(
    connection: &Connection,
    name: &Name,
    status: &Status,
    retained: bool,
    now: u64,
) -> Result<bool, DbError> {
    let seen = if retained { None } else { Some(now) };
    let changed = match status {
        Status::Online(status) => connection.execute(
            "UPDATE node SET online = 1, offline_since = NULL, status = ?2,
             last_seen = coalesce(?3, last_seen) WHERE name = ?1",
            params![name.as_str(), error::to_json(status)?, seen],
        )?,
        // The last will is not a sign of life: last_seen stays.
        Status::Offline => connection.execute(
            "UPDATE node SET online = 0, offline_since = coalesce(offline_since, ?2)
             WHERE name = ?1",
            params![name.as_str(), now],
        )?,
    };
    Ok(changed > 0)
}

/// Keeps what a person brought of a node. False if the node is connected:
/// then it has said something newer, and nothing is changed.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn set_reported(
    connection: &Connection,
    status: &NodeStatus,
    now: u64,
) -> Result<bool, DbError> {
    show(connection, &status.node)?;
    let changed = connection.execute(
        "UPDATE node SET status = ?2, last_seen = ?3, offline_since = coalesce(offline_since, ?3)
         WHERE name = ?1 AND online = 0",
        params![status.node.as_str(), error::to_json(status)?, now],
    )?;
    Ok(changed > 0)
}

/// The broker in this process has just started: nobody is connected to it.
///
/// # Errors
/// The database's.
pub fn set_all_offline(connection: &Connection, now: u64) -> Result<(), DbError> {
    connection.execute("UPDATE node SET online = 0, offline_since = ?1 WHERE online = 1", [now])?;
    Ok(())
}

/// A row before its texts are checked.
struct NodeRow {
    name: String,
    project: String,
    product_type: String,
    architecture: String,
    labels: String,
    created_at: u64,
    online: bool,
    last_seen: Option<u64>,
    offline_since: Option<u64>,
    status: Option<String>,
    issued: Option<u64>,
}

fn rows(connection: &Connection, filter: &str, value: &str) -> Result<Vec<NodeRow>, DbError> {
    let sql = format!(
        "SELECT n.name, n.project, n.product_type, n.architecture, n.labels, n.created_at,
         n.online, n.last_seen, n.offline_since, n.status, i.generation
         FROM node n LEFT JOIN issued i ON i.node = n.name {filter}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let values: &[&str] = if filter.contains("?1") { &[value] } else { &[] };
    let rows = statement.query_map(rusqlite::params_from_iter(values), NodeRow::read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn one(connection: &Connection, name: &Name) -> Result<(Node, Option<NodeStatus>), DbError> {
    let row = rows(connection, "WHERE n.name = ?1", name.as_str())?.pop();
    row.ok_or_else(|| DbError::not_found(What::Node, name))?.view()
}

impl NodeRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            name: row.get(0)?,
            project: row.get(1)?,
            product_type: row.get(2)?,
            architecture: row.get(3)?,
            labels: row.get(4)?,
            created_at: row.get(5)?,
            online: row.get(6)?,
            last_seen: row.get(7)?,
            offline_since: row.get(8)?,
            status: row.get(9)?,
            issued: row.get(10)?,
        })
    }

    fn view(self) -> Result<(Node, Option<NodeStatus>), DbError> {
        let status: Option<NodeStatus> = self.status.as_deref().map(error::json).transpose()?;
        let pods = status.as_ref().map(|status| status.pods.as_slice()).unwrap_or_default();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let node = Node {
            name: error::name(&self.name)?,
            project: error::name(&self.project)?,
            product_type: self.product_type.parse().map_err(DbError::Corrupt)?,
            architecture: self.architecture,
            labels: error::json(&self.labels)?,
            created_at: self.created_at,
            online: self.online,
            last_seen: self.last_seen,
            offline_since: self.offline_since,
            generation_wanted: Generation(self.issued.unwrap_or(0)),
            generation: status.as_ref().map(|status| status.generation).unwrap_or_default(),
            phase: status.as_ref().map(|status| status.phase.clone()),
            refused: status.as_ref().and_then(|status| status.refused.clone()),
            failed: status.as_ref().and_then(|status| status.failed.clone()),
            held: status.as_ref().and_then(|status| status.held.clone()),
            transfer: status.as_ref().and_then(|status| status.transfer),
            flash: status.as_ref().map(|status| status.flash),
            pods_available: count(pods.iter().filter(|pod| is_available(pod)).count()),
            pods_total: count(pods.len()),
        };
        Ok((node, status))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use wherry_bundle::message::{FlashUse, Phase, WallMillis};

    use super::*;
    use crate::db::{Db, customer};

    pub(crate) fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// Customer, project, and the node `gw-1`.
    pub(crate) fn with_node() -> (tempfile::TempDir, Db) {
        let (dir, db) = crate::db::tests::open();
        db.write(|tx| {
            customer::add(tx, &name("acme"), 1)?;
            project::add(tx, &name("plant"), &name("acme"), 1)?;
            add(tx, &new_node("gw-1"), 1)
        })
        .unwrap();
        (dir, db)
    }

    pub(crate) fn new_node(node: &str) -> NewNode {
        NewNode {
            name: name(node),
            project: name("plant"),
            product_type: ProductType::GatewaySingleNode,
            architecture: "amd64".into(),
            labels: [("site".to_owned(), "berlin".to_owned())].into(),
            token: "secret".into(),
        }
    }

    pub(crate) fn online(generation: u64, phase: Phase) -> Status {
        Status::Online(Box::new(NodeStatus {
            node: name("gw-1"),
            wherry_version: "0.1.0".into(),
            architecture: "amd64".into(),
            kernel: "6.18".into(),
            wall_time: WallMillis(5),
            uptime_seconds: 60,
            generation: Generation(generation),
            versions: Vec::new(),
            phase,
            refused: None,
            failed: None,
            held: None,
            transfer: None,
            flash: FlashUse::default(),
            pods: Vec::new(),
            events_waiting: 0,
            events_dropped: 0,
        }))
    }

    #[test]
    fn the_last_will_keeps_what_was_known() {
        let (_dir, db) = with_node();
        let set = |status: &Status, retained, now| {
            db.write(|tx| set_status(tx, &name("gw-1"), status, retained, now)).unwrap()
        };
        let show = || db.read(|c| show(c, &name("gw-1"))).unwrap();
        assert!(!show().online);
        assert!(set(&online(3, Phase::Good), true, 10));
        assert_eq!((show().online, show().last_seen), (true, None), "retained: not seen now");
        set(&online(3, Phase::Good), false, 20);
        set(&Status::Offline, false, 30);
        set(&Status::Offline, true, 40);
        let node = show();
        assert_eq!((node.online, node.last_seen, node.offline_since), (false, Some(20), Some(30)));
        assert_eq!((node.generation, node.phase), (Generation(3), Some(Phase::Good)));
        set(&online(4, Phase::Empty), false, 50);
        assert_eq!(show().offline_since, None);
        db.write(|tx| set_all_offline(tx, 60)).unwrap();
        assert_eq!((show().online, show().offline_since), (false, Some(60)));
        let unknown = db.write(|tx| set_status(tx, &name("gw-9"), &Status::Offline, false, 1));
        assert!(!unknown.unwrap());
    }

    #[test]
    fn a_node_needs_its_project_and_its_own_name() {
        let (_dir, db) = with_node();
        let taken = db.write(|tx| add(tx, &new_node("gw-1"), 1)).unwrap_err().to_string();
        assert_eq!(taken, "there is a node `gw-1` already");
        let nowhere = NewNode { project: name("moon"), ..new_node("gw-2") };
        let error = db.write(|tx| add(tx, &nowhere, 1)).unwrap_err().to_string();
        assert_eq!(error, "there is no project `moon`");
        assert_eq!(db.read(|c| token(c, &name("gw-1"))).unwrap().as_deref(), Some("secret"));
        assert_eq!(db.read(|c| token(c, &name("gw-2"))).unwrap(), None);
    }
}
