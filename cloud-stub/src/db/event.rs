//! Events of nodes: each stored once, bounded for each node.
//!
//! A node numbers its events without gaps, sends them in order, one batch at
//! a time, and again until they are acknowledged. So a number above the mark
//! that is not the next one means that the node had to drop what is between.

use rusqlite::{Connection, OptionalExtension, params};
use wherry_bundle::Name;
use wherry_bundle::message::{Event, EventKind};

use super::error::{self, DbError, What};
use crate::limits::EVENTS_KEPT_MAX;

/// Up to where a node's events are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub seq: u64,
    /// Numbers below that never came.
    pub missing: u64,
}

/// Stores what is new in a batch; what to acknowledge once it is committed.
/// `None` if there is no such node.
///
/// A node whose flash was replaced begins at 1 again. That shows when it sends
/// something else under a number that is stored: the mark then jumps above
/// the batch, the node learns from the acknowledgement that its numbers were
/// used before, and sends the same events under new ones.
///
/// # Errors
/// The database's.
pub fn store(
    connection: &Connection,
    node: &Name,
    events: &[Event],
) -> Result<Option<Mark>, DbError> {
    let exists =
        connection.prepare_cached("SELECT 1 FROM node WHERE name = ?1")?.exists([node.as_str()])?;
    if !exists {
        return Ok(None);
    }
    let mut mark = self::mark(connection, node)?;
    let before = mark;
    let last = events.iter().map(|event| event.seq).max().unwrap_or(0);
    if renumbered(connection, node, events)? {
        mark.seq = mark.seq.max(last).saturating_add(1);
    } else {
        for event in events.iter().filter(|event| event.seq > before.seq) {
            if mark.seq > 0 {
                mark.missing += event.seq.saturating_sub(mark.seq).saturating_sub(1);
            }
            mark.seq = mark.seq.max(event.seq);
            insert(connection, node, event)?;
        }
    }
    if mark != before {
        set_mark(connection, node, mark)?;
        connection
            .prepare_cached("DELETE FROM event WHERE node = ?1 AND seq + ?2 <= ?3")?
            .execute(params![node.as_str(), EVENTS_KEPT_MAX, mark.seq])?;
    }
    Ok(Some(mark))
}

/// The newest `tail` events, oldest first.
///
/// # Errors
/// [`DbError::NotFound`] for the node.
pub fn tail(connection: &Connection, node: &Name, tail: u32) -> Result<Vec<Event>, DbError> {
    super::node::token(connection, node)?.ok_or_else(|| DbError::not_found(What::Node, node))?;
    let mut statement = connection
        .prepare_cached("SELECT event FROM event WHERE node = ?1 ORDER BY seq DESC LIMIT ?2")?;
    let rows = statement.query_map(params![node.as_str(), tail], |row| row.get::<_, String>(0))?;
    let mut events: Vec<Event> =
        rows.map(|text| error::json(&text?)).collect::<Result<_, DbError>>()?;
    events.reverse();
    Ok(events)
}

/// Zeros when the node never sent one.
///
/// # Errors
/// The database's.
pub fn mark(connection: &Connection, node: &Name) -> Result<Mark, DbError> {
    let mut statement =
        connection.prepare_cached("SELECT seq, missing FROM event_mark WHERE node = ?1")?;
    let mark = statement
        .query_row([node.as_str()], |row| Ok(Mark { seq: row.get(0)?, missing: row.get(1)? }))
        .optional()?;
    Ok(mark.unwrap_or_default())
}

/// The newest event that tells of something going wrong.
///
/// # Errors
/// The database's.
pub fn last_error(connection: &Connection, node: &Name) -> Result<Option<Event>, DbError> {
    let kinds = [
        EventKind::BundleRefused,
        EventKind::LayerFailed,
        EventKind::ContainerFailed,
        EventKind::StoreRecovered,
        EventKind::GenerationFailed,
        EventKind::ContainerUnhealthy,
    ];
    let kinds: Vec<String> = kinds.iter().map(error::to_json).collect::<Result<_, _>>()?;
    let mut statement = connection.prepare_cached(
        "SELECT event FROM event WHERE node = ?1 AND kind IN (?2, ?3, ?4, ?5, ?6, ?7)
         ORDER BY seq DESC LIMIT 1",
    )?;
    let text: Option<String> = statement
        .query_row(
            params![node.as_str(), kinds[0], kinds[1], kinds[2], kinds[3], kinds[4], kinds[5]],
            |row| row.get(0),
        )
        .optional()?;
    text.map(|text| error::json(&text)).transpose()
}

/// Whether the batch has something else under a number that is stored.
fn renumbered(connection: &Connection, node: &Name, events: &[Event]) -> Result<bool, DbError> {
    let mut statement =
        connection.prepare_cached("SELECT event FROM event WHERE node = ?1 AND seq = ?2")?;
    for event in events {
        let stored: Option<String> =
            statement.query_row(params![node.as_str(), event.seq], |row| row.get(0)).optional()?;
        if let Some(stored) = stored
            && error::json::<Event>(&stored)? != *event
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn insert(connection: &Connection, node: &Name, event: &Event) -> Result<(), DbError> {
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO event (node, seq, kind, event) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            node.as_str(),
            event.seq,
            error::to_json(&event.kind)?,
            error::to_json(event)?
        ])?;
    Ok(())
}

fn set_mark(connection: &Connection, node: &Name, mark: Mark) -> Result<(), DbError> {
    connection
        .prepare_cached(
            "INSERT INTO event_mark (node, seq, missing) VALUES (?1, ?2, ?3)
             ON CONFLICT (node) DO UPDATE SET seq = excluded.seq, missing = excluded.missing",
        )?
        .execute(params![node.as_str(), mark.seq, mark.missing])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use wherry_bundle::Generation;
    use wherry_bundle::message::WallMillis;

    use super::*;
    use crate::db::node::tests::{name, with_node};

    fn event(seq: u64, text: &str) -> Event {
        Event {
            seq,
            wall_time: WallMillis(seq),
            boot_millis: seq,
            generation: Generation(1),
            kind: EventKind::PodAvailable,
            subject: "web-1".into(),
            text: text.into(),
        }
    }

    fn check(batches: &[&[(u64, &str)]], expected: Mark, stored: &[&str]) {
        let (_dir, db) = with_node();
        let mut mark = Mark::default();
        for batch in batches {
            let batch: Vec<Event> = batch.iter().map(|(seq, text)| event(*seq, text)).collect();
            mark = db.write(|tx| store(tx, &name("gw-1"), &batch)).unwrap().unwrap();
        }
        assert_eq!(mark, expected, "{batches:?}");
        let events = db.read(|c| tail(c, &name("gw-1"), 100)).unwrap();
        let texts: Vec<&str> = events.iter().map(|event| event.text.as_str()).collect();
        assert_eq!(texts, stored, "{batches:?}");
    }

    #[test]
    fn each_event_counts_once_and_gaps_are_counted() {
        check(&[&[(1, "a"), (2, "b")]], Mark { seq: 2, missing: 0 }, &["a", "b"]);
        // Sent again, with more.
        let again: &[&[(u64, &str)]] = &[&[(1, "a"), (2, "b")], &[(1, "a"), (2, "b"), (3, "c")]];
        check(again, Mark { seq: 3, missing: 0 }, &["a", "b", "c"]);
        check(&[&[(1, "a")], &[(4, "d"), (7, "g")]], Mark { seq: 7, missing: 4 }, &["a", "d", "g"]);
        // The first ever: this cloud may be newer than the node.
        check(&[&[(900, "x")]], Mark { seq: 900, missing: 0 }, &["x"]);
        check(&[&[]], Mark::default(), &[]);
    }

    #[test]
    fn a_node_that_begins_again_is_told_to_renumber() {
        let lost = &[&[(1, "a"), (2, "b"), (3, "c")][..], &[(1, "new"), (2, "other")]];
        check(lost, Mark { seq: 4, missing: 0 }, &["a", "b", "c"]);
        let longer = &[&[(1, "a")][..], &[(1, "new"), (2, "other")], &[(4, "new"), (5, "other")]];
        check(longer, Mark { seq: 5, missing: 0 }, &["a", "new", "other"]);
    }

    #[test]
    fn old_ones_go_and_nobody_else_may_write() {
        let (_dir, db) = with_node();
        let many: Vec<Event> = (1..=EVENTS_KEPT_MAX + 5).map(|seq| event(seq, "x")).collect();
        db.write(|tx| store(tx, &name("gw-1"), &many)).unwrap();
        let kept = db.read(|c| tail(c, &name("gw-1"), u32::MAX)).unwrap();
        assert_eq!((kept.len() as u64, kept[0].seq), (EVENTS_KEPT_MAX, 6));
        assert_eq!(db.write(|tx| store(tx, &name("gw-9"), &many)).unwrap(), None);
    }
}
