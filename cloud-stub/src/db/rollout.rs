//! What was issued to which node, and by which rollout.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};
use wherry_bundle::{Generation, Name};

use super::error::{self, DbError, What};
use super::{node, site};
use crate::limits::ROLLOUTS_LISTED_MAX;
use crate::view::{Rollout, RolloutNode, RolloutState, VersionId};

/// What a node shall run, ordered by application.
///
/// # Errors
/// The database's.
pub fn assigned(connection: &Connection, node: &Name) -> Result<Vec<VersionId>, DbError> {
    let mut statement = connection.prepare_cached(
        "SELECT v.application, v.x || '.' || v.y || '.' || v.z || '.' || v.build
         FROM assignment a JOIN version v ON v.id = a.version
         WHERE a.node = ?1 ORDER BY v.application",
    )?;
    let rows = statement
        .query_map([node.as_str()], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?
        .collect::<Result<Vec<_>, _>>()?;
    rows.iter().map(|(application, number)| error::version_id(application, number)).collect()
}

/// Gives a node another version of the application, or its first.
///
/// # Errors
/// The database's.
pub fn assign(
    connection: &Connection,
    node: &Name,
    application: &Name,
    version_row: i64,
) -> Result<(), DbError> {
    connection.execute(
        "INSERT INTO assignment (node, application, version) VALUES (?1, ?2, ?3)
         ON CONFLICT (node, application) DO UPDATE SET version = excluded.version",
        params![node.as_str(), application.as_str(), version_row],
    )?;
    Ok(())
}

/// Takes the node's next generation: each is given once.
///
/// # Errors
/// The database's.
pub fn next_generation(connection: &Connection, node: &Name) -> Result<Generation, DbError> {
    let last = connection.query_row(
        "INSERT INTO generation (node, last) VALUES (?1, 1)
         ON CONFLICT (node) DO UPDATE SET last = last + 1 RETURNING last",
        [node.as_str()],
        |row| row.get(0),
    )?;
    Ok(Generation(last))
}

/// The newest generation that was ever given to a node of this name; 0 is
/// none yet.
///
/// # Errors
/// The database's.
pub fn last_generation(connection: &Connection, node: &Name) -> Result<Generation, DbError> {
    let sql = "SELECT last FROM generation WHERE node = ?1";
    let last = connection.query_row(sql, [node.as_str()], |row| row.get(0)).optional()?;
    Ok(Generation(last.unwrap_or(0)))
}

/// Keeps the envelope that replaces the one before, and any that waits.
///
/// # Errors
/// The database's.
pub fn issue(
    connection: &Connection,
    node: &Name,
    generation: Generation,
    envelope: &[u8],
) -> Result<(), DbError> {
    site::forget(connection, node)?;
    connection.execute(
        "INSERT INTO issued (node, generation, envelope) VALUES (?1, ?2, ?3)
         ON CONFLICT (node) DO UPDATE SET
         generation = excluded.generation, envelope = excluded.envelope",
        params![node.as_str(), generation.0, envelope],
    )?;
    Ok(())
}

/// The nodes that something was issued to.
///
/// # Errors
/// The database's.
pub fn issued_nodes(connection: &Connection) -> Result<Vec<Name>, DbError> {
    error::names(connection, "SELECT node FROM issued ORDER BY node", [])
}

/// The newest envelope of a node.
///
/// # Errors
/// The database's.
pub fn envelope(connection: &Connection, node: &Name) -> Result<Option<Vec<u8>>, DbError> {
    let sql = "SELECT envelope FROM issued WHERE node = ?1";
    Ok(connection.query_row(sql, [node.as_str()], |row| row.get(0)).optional()?)
}

/// What a rollout gives to a node, now or in its turn.
#[derive(Clone, Debug)]
pub struct Given {
    pub node: Name,
    /// Whose nodes take turns.
    pub site: Option<String>,
    pub generation: Generation,
}

/// Records a rollout and what it gives; its number.
///
/// # Errors
/// The database's.
pub fn add(
    connection: &Connection,
    version: &VersionId,
    selector: &str,
    given: &[Given],
    now: u64,
) -> Result<u64, DbError> {
    let id = connection.query_row(
        "INSERT INTO rollout (application, number, selector, created_at) VALUES (?1, ?2, ?3, ?4)
         RETURNING id",
        params![version.application.as_str(), version.number.to_string(), selector, now],
        |row| row.get(0),
    )?;
    for Given { node, site, generation } in given {
        connection.execute(
            "INSERT INTO rollout_node (rollout, node, site, generation) VALUES (?1, ?2, ?3, ?4)",
            params![id, node.as_str(), site, generation.0],
        )?;
    }
    Ok(id)
}

/// The newest first, of one application or of all, with the state of each
/// node.
///
/// # Errors
/// The database's.
pub fn list(
    connection: &Connection,
    application: Option<&Name>,
    limit: u32,
) -> Result<Vec<Rollout>, DbError> {
    let mut statement = connection.prepare_cached(
        "SELECT id FROM rollout WHERE ?1 IS NULL OR application = ?1 ORDER BY id DESC LIMIT ?2",
    )?;
    let limit = limit.min(ROLLOUTS_LISTED_MAX);
    let ids = statement
        .query_map(params![application.map(Name::as_str), limit], |row| row.get::<_, u64>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    ids.into_iter().map(|id| show(connection, id)).collect()
}

/// # Errors
/// [`DbError::NotFound`].
pub fn show(connection: &Connection, id: u64) -> Result<Rollout, DbError> {
    let (application, number, selector, created_at): (String, String, String, u64) = connection
        .query_row(
            "SELECT application, number, selector, created_at FROM rollout WHERE id = ?1",
            [id],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
        .optional()?
        .ok_or_else(|| DbError::not_found(What::Rollout, id))?;
    let mut nodes = Vec::new();
    let mut sites: BTreeMap<String, Vec<RolloutNode>> = BTreeMap::new();
    for (name, site, wanted) in site::order(connection, id)? {
        let node = one(connection, &name, wanted)?;
        match site {
            Some(site) => sites.entry(site).or_default().push(node),
            None => nodes.push(node),
        }
    }
    for mut of_site in sites.into_values() {
        site::mark_stopped(&mut of_site);
        nodes.extend(of_site);
    }
    let version = error::version_id(&application, &number)?;
    Ok(Rollout { id: Some(id), version, selector, created_at, nodes })
}

/// The nodes of one site in a rollout, in the order of their turns.
///
/// # Errors
/// The database's.
pub fn nodes_of_site(
    connection: &Connection,
    id: u64,
    site: &str,
) -> Result<Vec<RolloutNode>, DbError> {
    let own = site::order(connection, id)?.into_iter();
    let own = own.filter(|(_, of, _)| of.as_deref() == Some(site));
    own.map(|(name, _, wanted)| one(connection, &name, wanted)).collect()
}

/// The newest generation that was issued to the node, or waits for its turn.
fn newest(connection: &Connection, node: &Name) -> Result<Generation, DbError> {
    let mut statement = connection.prepare_cached(
        "SELECT coalesce(max(generation), 0) FROM
         (SELECT generation FROM issued WHERE node = ?1
          UNION SELECT generation FROM queued WHERE node = ?1)",
    )?;
    Ok(Generation(statement.query_row([node.as_str()], |row| row.get(0))?))
}

fn one(connection: &Connection, name: &Name, wanted: Generation) -> Result<RolloutNode, DbError> {
    let queued = site::is_queued(connection, name, wanted)?;
    let node = node::show(connection, name)?;
    // What is only carried to it supersedes nothing until the node has it.
    let has_newer =
        wanted < node.generation && node.generation <= last_generation(connection, name)?;
    let superseded = has_newer || newest(connection, name)? > wanted;
    Ok(rollout_node(node, wanted, queued, superseded))
}

/// How far `node` is with `wanted`. `queued`: that waits for its turn;
/// `superseded`: a newer one was issued to it, or it has one.
#[must_use]
pub fn rollout_node(
    node: crate::view::Node,
    wanted: Generation,
    queued: bool,
    superseded: bool,
) -> RolloutNode {
    let state = match (queued, superseded) {
        (true, _) => RolloutState::Queued,
        (false, true) => RolloutState::Superseded,
        (false, false) => state(&node, wanted),
    };
    RolloutNode {
        state,
        generation_wanted: wanted,
        generation: node.generation,
        phase: node.phase,
        refused: node.refused,
        failed: node.failed,
        held: node.held,
        transfer: node.transfer,
        stopped_by: None,
        online: node.online,
        last_seen: node.last_seen,
        pods_available: node.pods_available,
        pods_total: node.pods_total,
        name: node.name,
    }
}

fn state(node: &crate::view::Node, wanted: Generation) -> RolloutState {
    use wherry_bundle::message::Phase;
    let failed = node.failed.as_ref().is_some_and(|failed| failed.generation == wanted);
    if node.generation < wanted {
        // 0: not even the generation of what was refused could be trusted.
        let refused = node.refused.as_ref();
        let ours = refused.is_some_and(|r| r.generation == wanted || r.generation.0 == 0);
        let held = node.held.as_ref().is_some_and(|held| held.generation == wanted);
        return match (failed, ours, held) {
            (true, _, _) => RolloutState::RolledBack,
            (false, true, _) => RolloutState::Refused,
            (false, false, true) => RolloutState::Held,
            (false, false, false) => RolloutState::Issued,
        };
    }
    match node.phase {
        Some(Phase::Good) => RolloutState::Done,
        Some(Phase::Stabilising) => RolloutState::Stabilising,
        Some(Phase::Empty | Phase::Fetching { .. } | Phase::Rolling { .. }) | None if failed => {
            RolloutState::Failed
        }
        Some(Phase::Empty | Phase::Fetching { .. } | Phase::Rolling { .. }) | None => {
            RolloutState::UnderWay
        }
    }
}

#[cfg(test)]
mod tests {
    use wherry_bundle::message::{Cause, Failed, Held, Phase, Refused, Status};

    use super::*;
    use crate::db::node::tests::{name, new_node, online, with_node};

    #[test]
    fn a_generation_is_given_once_even_after_the_node_was_removed() {
        let (_dir, db) = with_node();
        let next = || db.write(|tx| next_generation(tx, &name("gw-1"))).unwrap().0;
        assert_eq!((next(), next()), (1, 2));
        db.write(|tx| node::remove(tx, &name("gw-1"))).unwrap();
        db.write(|tx| node::add(tx, &new_node("gw-1"), 1)).unwrap();
        assert_eq!(next(), 3);
    }

    #[test]
    fn how_far_a_rollout_is() {
        let (_dir, db) = with_node();
        let version: VersionId = "shop@1.0.0.1".parse().unwrap();
        let roll = |generation| {
            db.write(|tx| {
                issue(tx, &name("gw-1"), Generation(generation), b"envelope")?;
                let generation = next_generation(tx, &name("gw-1"))?;
                add(tx, &version, "*", &[Given { node: name("gw-1"), site: None, generation }], 5)
            })
        };
        let first = roll(1).unwrap();
        let state = |id| db.read(|c| show(c, id)).unwrap().nodes[0].state;
        let said = |status: Status| {
            db.write(|tx| node::set_status(tx, &name("gw-1"), &status, false, 9)).unwrap()
        };
        let refusing = |refused: u64| {
            let Status::Online(mut status) = online(0, Phase::Empty) else { unreachable!() };
            status.refused = Some(Refused { generation: Generation(refused), reason: "no".into() });
            Status::Online(status)
        };
        assert_eq!(state(first), RolloutState::Issued);
        said(refusing(7));
        assert_eq!(state(first), RolloutState::Issued, "it refused another one");
        let holding = |held: u64| {
            let Status::Online(mut status) = online(0, Phase::Good) else { unreachable!() };
            status.held = Some(Held { generation: Generation(held), by: "an operator".into() });
            Status::Online(status)
        };
        said(holding(7));
        assert_eq!(state(first), RolloutState::Issued, "it holds another one");
        said(holding(1));
        assert_eq!(state(first), RolloutState::Held);
        let view = db.read(|c| show(c, first)).unwrap().nodes[0].held.clone();
        assert_eq!(view.map(|held| held.by).as_deref(), Some("an operator"));
        said(refusing(1));
        assert_eq!(state(first), RolloutState::Refused);
        said(online(1, Phase::Fetching { bytes_done: 1, bytes_total: 2 }));
        assert_eq!(state(first), RolloutState::UnderWay);
        said(online(1, Phase::Stabilising));
        assert_eq!(state(first), RolloutState::Stabilising);
        said(online(1, Phase::Good));
        assert_eq!(state(first), RolloutState::Done);
        let fails = |generation, phase| {
            let Status::Online(mut status) = online(generation, phase) else { unreachable!() };
            let cause = Cause::BootLoop { boots: 4 };
            status.failed = Some(Failed { generation: Generation(1), cause, lines: Vec::new() });
            Status::Online(status)
        };
        said(fails(0, Phase::Good));
        assert_eq!(state(first), RolloutState::RolledBack);
        said(fails(1, Phase::Rolling { pods_done: 0, pods_total: 1 }));
        assert_eq!(state(first), RolloutState::Failed);
        let second = roll(2).unwrap();
        assert_eq!(state(first), RolloutState::Superseded);
        assert_eq!(state(second), RolloutState::Issued);
        // A newer one that is only on its way to the node changes nothing.
        db.write(|tx| next_generation(tx, &name("gw-1"))).unwrap();
        said(refusing(2));
        assert_eq!(state(second), RolloutState::Refused);
        said(online(3, Phase::Empty));
        assert_eq!(state(second), RolloutState::Superseded);
        let list = db.read(|c| list(c, Some(&name("shop")), 10)).unwrap();
        assert_eq!(list.iter().map(|r| r.id).collect::<Vec<_>>(), [Some(second), Some(first)]);
        assert!(db.read(|c| show(c, 99)).is_err());
    }
}
