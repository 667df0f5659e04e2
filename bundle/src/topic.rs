//! MQTT topics: `wherry/v1/NODE/…`. A node touches only its own prefix.

use crate::Name;

const PREFIX: &str = "wherry/v1";

/// What a topic below a node's prefix carries; see the module [`crate::message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Cloud to node, retained: the signed envelope.
    Desired,
    /// Cloud to node: [`crate::message::Command`].
    Command,
    /// Cloud to node: [`crate::message::EventAck`].
    EventAck,
    /// Node to cloud: [`crate::message::ChunkGet`].
    ChunkGet,
    /// Cloud to node: [`crate::message::ChunkData`].
    ChunkData,
    /// Node to cloud, retained, and the last will: [`crate::message::Status`].
    Status,
    /// Node to cloud: [`crate::message::Events`].
    Event,
    /// Node to cloud: [`crate::message::LogChunk`].
    Log,
    /// Node to cloud: [`crate::message::Reply`].
    Reply,
    /// Node to cloud: [`crate::metrics::Metrics`].
    Metrics,
}

impl Topic {
    pub const ALL: [Self; 10] = [
        Self::Desired,
        Self::Command,
        Self::EventAck,
        Self::ChunkGet,
        Self::ChunkData,
        Self::Status,
        Self::Event,
        Self::Log,
        Self::Reply,
        Self::Metrics,
    ];
    /// What a node subscribes to.
    pub const TO_NODE: [Self; 4] = [Self::Desired, Self::Command, Self::EventAck, Self::ChunkData];
    /// What the cloud subscribes to, of every node.
    pub const TO_CLOUD: [Self; 6] =
        [Self::ChunkGet, Self::Status, Self::Event, Self::Log, Self::Reply, Self::Metrics];

    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Desired => "desired",
            Self::Command => "command",
            Self::EventAck => "event/ack",
            Self::ChunkGet => "chunk/get",
            Self::ChunkData => "chunk/data",
            Self::Status => "status",
            Self::Event => "event",
            Self::Log => "log",
            Self::Reply => "reply",
            Self::Metrics => "metrics",
        }
    }

    /// The full topic for one node.
    #[must_use]
    pub fn of(self, node: &Name) -> String {
        format!("{PREFIX}/{node}/{}", self.suffix())
    }

    /// The filter that matches this topic of every node.
    #[must_use]
    pub fn of_every_node(self) -> String {
        format!("{PREFIX}/+/{}", self.suffix())
    }

    /// Splits a full topic into node and topic; `None` if it is not ours.
    #[must_use]
    pub fn parse(full: &str) -> Option<(Name, Self)> {
        let (node, suffix) = full.strip_prefix(PREFIX)?.strip_prefix('/')?.split_once('/')?;
        let topic = Self::ALL.into_iter().find(|t| t.suffix() == suffix)?;
        Some((Name::new(node).ok()?, topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_reads_back() {
        let node = Name::new("gw-1").unwrap();
        for topic in Topic::ALL {
            assert_eq!(Topic::parse(&topic.of(&node)), Some((node.clone(), topic)));
        }
        for other in ["wherry/v1/gw-1", "wherry/v2/gw-1/status", "wherry/v1/A/status", "x"] {
            assert_eq!(Topic::parse(other), None);
        }
    }
}
