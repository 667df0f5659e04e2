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
    /// The node, without its cloud, had so many events waiting, and its disk
    /// had been quiet since.
    Queued(u64),
}

impl Told {
    /// Tells the kinds apart, whatever is in them.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Self::Issued(_) => 0,
            Self::TakenUp(_) => 1,
            Self::Running(_) => 2,
            Self::Events(_) => 3,
            Self::Acked(_) => 4,
            Self::Queued(_) => 5,
        }
    }
}

impl Mark {
    /// Those that the node told of.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        match &self.told {
            Told::Events(events) => events,
            Told::Issued(_)
            | Told::TakenUp(_)
            | Told::Running(_)
            | Told::Acked(_)
            | Told::Queued(_) => &[],
        }
    }
}

/// All that was told up to some moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Known {
    pub issued: u64,
    pub taken_up: u64,
    /// Every generation that was said to run.
    pub ran: Vec<u64>,
    pub acked: u64,
    /// Those that the node told of, and those that it had in its queue then.
    pub events: Vec<Event>,
}

impl Known {
    /// What was told while the record was at most `position` bytes long.
    #[must_use]
    pub fn at(marks: &[Mark], position: u64) -> Self {
        let mut known = Self::default();
        let mut queue = None;
        let (before, after): (Vec<_>, Vec<_>) =
            marks.iter().enumerate().partition(|(_, mark)| mark.position <= position);
        for (index, mark) in before {
            match &mark.told {
                Told::Issued(generation) => known.issued = known.issued.max(*generation),
                Told::TakenUp(generation) => known.taken_up = known.taken_up.max(*generation),
                Told::Running(generation) => known.ran.push(*generation),
                Told::Events(events) => known.events.extend_from_slice(events),
                Told::Acked(seq) => known.acked = known.acked.max(*seq),
                Told::Queued(count) => queue = Some((index, *count)),
            }
        }
        // What was in the queue shows when it is told later, the oldest first;
        // their numbers have no gaps.
        let Some((index, count)) = queue else { return known };
        let seqs = marks.iter().skip(index).flat_map(|mark| mark.events().iter().map(|e| e.seq));
        let end = seqs.min().unwrap_or(0) + count;
        let later = after.iter().flat_map(|(_, mark)| mark.events());
        known.events.extend(later.filter(|event| event.seq < end).cloned());
        known
    }

    /// The highest number that an event was told under.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.events.iter().map(|event| event.seq).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wherry_bundle::Generation;
    use wherry_bundle::message::{EventKind, WallMillis};

    fn event(seq: u64) -> Event {
        Event {
            seq,
            wall_time: WallMillis(seq),
            boot_millis: 0,
            generation: Generation(1),
            kind: EventKind::ContainerExited,
            subject: String::new(),
            text: String::new(),
        }
    }

    #[test]
    fn what_was_in_the_queue_is_known_though_it_was_told_later() {
        let mark = |position, told| Mark { position, told };
        let marks = [
            mark(10, Told::Events(vec![event(1), event(2)])),
            // This confirmation the node did not get.
            mark(20, Told::Acked(2)),
            mark(30, Told::Queued(3)),
            mark(40, Told::Events(vec![event(2), event(3), event(4), event(5)])),
            mark(50, Told::Acked(5)),
        ];
        let seqs = |position| -> Vec<u64> {
            Known::at(&marks, position).events.iter().map(|event| event.seq).collect()
        };
        assert_eq!(seqs(29), [1, 2]);
        assert_eq!(seqs(30), [1, 2, 2, 3, 4]);
        assert_eq!(seqs(40), [1, 2, 2, 3, 4, 5]);
        assert_eq!((Known::at(&marks, 30).acked, Known::at(&marks, 50).acked), (2, 5));
    }
}
