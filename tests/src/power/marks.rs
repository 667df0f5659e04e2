//! What was told between node and cloud, in relation to the disk's writes.

use serde::{Deserialize, Serialize};
use wherry_bundle::message::Event;

/// Something that was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Bytes of the record of the disk's writes when it was seen on its way.
    pub position: u64,
    pub told: Told,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// The cloud issued this generation: from here on the node may know it.
    Issued(u64),
    /// The node confirmed this generation, or named it in its status.
    TakenUp(u64),
    /// The node said that all pods of this generation run.
    Running(u64),
    /// The node told of these.
    Events(Vec<Event>),
    /// The cloud has these and all before: from here on the node may forget
    /// them.
    Acked(u64),
}

/// All that was told up to some moment.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub issued: u64,
    pub taken_up: u64,
    /// Every generation that was said to run.
    pub ran: Vec<u64>,
    pub acked: u64,
    pub events: Vec<Event>,
}

impl Known {
    /// What was told while the record was at most `position` bytes long.
    #[must_use]
    pub fn at(marks: &[Mark], position: u64) -> Self {
        let mut known = Self::default();
        for mark in marks.iter().filter(|mark| mark.position <= position) {
            match &mark.told {
                Told::Issued(generation) => known.issued = known.issued.max(*generation),
                Told::TakenUp(generation) => known.taken_up = known.taken_up.max(*generation),
                Told::Running(generation) => known.ran.push(*generation),
                Told::Events(events) => known.events.extend_from_slice(events),
                Told::Acked(seq) => known.acked = known.acked.max(*seq),
            }
        }
        known
    }

    /// The highest number that an event was told under.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.events.iter().map(|event| event.seq).max().unwrap_or(0)
    }
}
