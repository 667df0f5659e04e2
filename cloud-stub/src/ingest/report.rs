//! What a node without a line says, in a file that a person brought.
//!
//! It counts as if it had come over MQTT, all of it or nothing. Nobody signed
//! it: it is as trustworthy as who brings it.

use std::convert::Infallible;

use rusqlite::Connection;
use wherry_bundle::Name;
use wherry_bundle::carrier::{self, CarrierError, ReportItem};
use wherry_bundle::message::{Event, Events, NodeStatus};

use crate::clock::now_millis;
use crate::cloud::Cloud;
use crate::db::{self, DbError};
use crate::view::ReportImported;

/// Why a report is refused.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("this is no report of a node, or it is damaged: {0}")]
    Item(#[from] CarrierError<Infallible>),
    #[error("this is no whole report of a node: {0}")]
    Order(&'static str),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// A file, read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    status: Box<NodeStatus>,
    events: Vec<Event>,
}

impl Report {
    /// # Errors
    /// Anything but a whole report.
    pub fn read(mut bytes: &[u8]) -> Result<Self, ReportError> {
        let status = match carrier::read(&mut bytes)? {
            Some(ReportItem::Status(status)) => status,
            Some(ReportItem::Events(_) | ReportItem::End) => {
                return Err(ReportError::Order("it does not begin with a status"));
            }
            None => return Err(ReportError::Order("it is empty")),
        };
        let mut events = Vec::new();
        loop {
            match carrier::read(&mut bytes)? {
                Some(ReportItem::Events(Events(more))) => events.extend(more),
                Some(ReportItem::End) if bytes.is_empty() => return Ok(Self { status, events }),
                Some(ReportItem::End) => {
                    return Err(ReportError::Order("it goes on after its end"));
                }
                Some(ReportItem::Status(_)) => {
                    return Err(ReportError::Order("it has two statuses"));
                }
                None => return Err(ReportError::Order("it is cut off")),
            }
        }
    }
}

/// Stores a report; what came of it, and the nodes whose bundle is to be
/// published now.
///
/// # Errors
/// The database's, or there is no such node; then nothing was changed.
pub fn import(cloud: &Cloud, report: &Report) -> Result<(ReportImported, Vec<Name>), DbError> {
    cloud.db.write(|tx| {
        let Report { status, events } = report;
        let node = &status.node;
        let status_taken = db::node::set_reported(tx, status, now_millis())?;
        // An older status says nothing of what the node has now.
        let taken_up = status_taken && db::carried::promote(tx, node, status.generation)?;
        let events_new = store(tx, node, events)?;
        let mut due = db::site::advance(tx)?;
        if taken_up {
            due.push(node.clone());
        }
        let imported = ReportImported {
            node: node.clone(),
            generation: status.generation,
            phase: status.phase.clone(),
            status_taken,
            events: events.len() as u64,
            events_new,
            taken_up,
        };
        Ok((imported, due))
    })
}

/// How many of the events were not here before.
fn store(connection: &Connection, node: &Name, events: &[Event]) -> Result<u64, DbError> {
    let before = db::event::mark(connection, node)?;
    let Some(after) = db::event::store(connection, node, events)? else { return Ok(0) };
    let new = |event: &&Event| event.seq > before.seq && event.seq <= after.seq;
    // Numbers that the cloud knows otherwise: the node learns that when it has
    // a line, and sends these events again under others.
    let last = events.iter().map(|event| event.seq).max().unwrap_or(0);
    let renumbered = after.seq > before.seq.max(last);
    Ok(if renumbered { 0 } else { events.iter().filter(new).count() as u64 })
}

#[cfg(test)]
mod tests {
    use wherry_bundle::carrier::Item;
    use wherry_bundle::message::{Message, Phase, Status};

    use super::*;
    use crate::db::node::tests::online;

    fn file<M: Message>(items: &[M]) -> Vec<u8> {
        let mut file = Vec::new();
        items.iter().for_each(|item| carrier::write(&mut file, item).unwrap());
        file
    }

    fn status() -> ReportItem {
        let Status::Online(status) = online(3, Phase::Good) else { unreachable!() };
        ReportItem::Status(status)
    }

    #[test]
    fn only_a_whole_report_is_one() {
        let events = || ReportItem::Events(Events(Vec::new()));
        let whole = file(&[status(), events(), events(), ReportItem::End]);
        assert!(Report::read(&whole).is_ok());
        let refused = |bytes: &[u8]| Report::read(bytes).unwrap_err().to_string();
        for (bytes, why) in [
            (file::<ReportItem>(&[]), "it is empty"),
            (file(&[ReportItem::End]), "does not begin with a status"),
            (file(&[status(), events()]), "it is cut off"),
            (file(&[status(), status(), ReportItem::End]), "two statuses"),
            (file(&[status(), ReportItem::End, ReportItem::End]), "after its end"),
            (whole[..whole.len() - 1].to_vec(), "in the middle of a frame"),
            (b"PK\x03\x04 something else".to_vec(), "not a frame"),
            (file(&[Item::Chunk(vec![7; 100])]), "no report of a node"),
        ] {
            let error = refused(&bytes);
            assert!(error.contains(why), "{error}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            assert!(Report::read(&damaged).is_err(), "byte {at}");
        }
    }
}
