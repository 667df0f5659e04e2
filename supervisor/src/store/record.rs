//! The persisted form of everything in the store, apart from wire and core
//! types: what is on flash outlives both.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 1 | version of the record's type |
//! | 1 | 4 | CRC-32 (IEEE, little endian) of all that follows and the version |
//! | 5 | … | postcard |
//!
//! Never here: files.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wherry_bundle::message::{Event, EventKind, WallMillis};
use wherry_bundle::{Digest, Generation};

use super::NewEvent;
use super::error::RecordError;

const HEADER_BYTES: usize = 5;

/// A type with a persisted form.
pub(super) trait Record: Serialize + DeserializeOwned {
    /// Changes whenever the postcard form does; an older one is then read by
    /// a conversion, a newer one is refused.
    const VERSION: u8;

    fn to_record(&self) -> Result<Vec<u8>, RecordError> {
        let header = vec![Self::VERSION, 0, 0, 0, 0];
        let mut bytes = postcard::to_extend(self, header).map_err(|_| RecordError::Malformed)?;
        let crc = checksum(&bytes);
        bytes[1..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        Ok(bytes)
    }

    fn from_record(bytes: &[u8]) -> Result<Self, RecordError> {
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(RecordError::Malformed);
        };
        let [found, crc @ ..] = *header;
        if u32::from_le_bytes(crc) != checksum(bytes) {
            return Err(RecordError::Checksum);
        }
        if found != Self::VERSION {
            return Err(RecordError::Version { found, known: Self::VERSION });
        }
        match postcard::take_from_bytes(body) {
            Ok((record, [])) => Ok(record),
            Ok(_) | Err(_) => Err(RecordError::Malformed),
        }
    }
}

/// Of the version byte and the body.
fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..1]);
    hasher.update(&bytes[HEADER_BYTES..]);
    hasher.finalize()
}

/// What the node works towards, and the anti-rollback mark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// Grows with each change; tells which of database and mirrors is newer.
    pub revision: u64,
    pub current: Option<BundleRef>,
    pub last_good: Option<BundleRef>,
    /// The highest generation that was ever taken up.
    pub highest_seen: u64,
}
impl Record for Meta {
    const VERSION: u8 = 1;
}

/// An envelope that is stored in pieces under its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BundleRef {
    pub generation: u64,
    pub bytes: u32,
    pub sha256: [u8; 32],
}

impl BundleRef {
    pub fn of(generation: Generation, envelope: &[u8]) -> Option<Self> {
        let bytes = u32::try_from(envelope.len()).ok()?;
        Some(Self { generation: generation.0, bytes, sha256: Digest::of(envelope).0 })
    }
}

/// The last refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RefusedRecord {
    pub generation: u64,
    pub reason: String,
}
impl Record for RefusedRecord {
    const VERSION: u8 = 1;
}

/// What is left of events that are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OutboxMark {
    /// No event with a number up to here is ever made again.
    pub used_seq: u64,
    pub dropped: u64,
}
impl Record for OutboxMark {
    const VERSION: u8 = 1;
}

/// An event; its number is the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EventRecord {
    pub wall_millis: u64,
    pub boot_millis: u64,
    pub generation: u64,
    pub kind: u8,
    pub subject: String,
    pub text: String,
}
impl Record for EventRecord {
    const VERSION: u8 = 1;
}

/// The whole desired state, as one file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mirror {
    pub meta: Meta,
    pub current: Option<Vec<u8>>,
    pub last_good: Option<Vec<u8>>,
    /// Events up to here had been numbered when this was written.
    pub used_seq: u64,
}
impl Record for Mirror {
    const VERSION: u8 = 1;
}

impl Mirror {
    /// True if the envelopes are those that `meta` names.
    pub fn is_consistent(&self) -> bool {
        let matches = |envelope: &Option<Vec<u8>>, reference: Option<BundleRef>| match reference {
            Some(reference) => envelope.as_ref().is_some_and(|envelope| {
                BundleRef::of(Generation(reference.generation), envelope) == Some(reference)
            }),
            None => envelope.is_none(),
        };
        matches(&self.current, self.meta.current) && matches(&self.last_good, self.meta.last_good)
    }
}

impl EventRecord {
    pub fn new(event: &NewEvent) -> Self {
        Self {
            wall_millis: event.wall_time.0,
            boot_millis: event.boot_millis,
            generation: event.generation.0,
            kind: kind_code(event.kind),
            subject: event.subject.clone(),
            text: event.text.clone(),
        }
    }

    pub fn into_event(self, seq: u64) -> Result<Event, RecordError> {
        Ok(Event {
            seq,
            wall_time: WallMillis(self.wall_millis),
            boot_millis: self.boot_millis,
            generation: Generation(self.generation),
            kind: kind_of(self.kind).ok_or(RecordError::Malformed)?,
            subject: self.subject,
            text: self.text,
        })
    }
}

/// Fixed for ever: a number on flash keeps its meaning when the wire's enum
/// is reordered.
fn kind_code(kind: EventKind) -> u8 {
    match kind {
        EventKind::Started => 0,
        EventKind::BundleTakenUp => 1,
        EventKind::BundleRefused => 2,
        EventKind::LayerFetched => 3,
        EventKind::LayerFailed => 4,
        EventKind::PodCreated => 5,
        EventKind::ContainerStarted => 6,
        EventKind::ContainerExited => 7,
        EventKind::ContainerFailed => 8,
        EventKind::PodAvailable => 9,
        EventKind::PodRemoved => 10,
        EventKind::GenerationRunning => 11,
        EventKind::StoreRecovered => 12,
        EventKind::CommandDone => 13,
    }
}

fn kind_of(code: u8) -> Option<EventKind> {
    const ALL: [EventKind; 14] = [
        EventKind::Started,
        EventKind::BundleTakenUp,
        EventKind::BundleRefused,
        EventKind::LayerFetched,
        EventKind::LayerFailed,
        EventKind::PodCreated,
        EventKind::ContainerStarted,
        EventKind::ContainerExited,
        EventKind::ContainerFailed,
        EventKind::PodAvailable,
        EventKind::PodRemoved,
        EventKind::GenerationRunning,
        EventKind::StoreRecovered,
        EventKind::CommandDone,
    ];
    ALL.into_iter().find(|kind| kind_code(*kind) == code)
}
