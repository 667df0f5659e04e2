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

/// The last generation that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FailedRecord {
    pub generation: u64,
    /// Of its envelope: the same bytes again are no news.
    pub sha256: [u8; 32],
    /// A [`Failed`](wherry_bundle::message::Failed) as it is sent; one that a
    /// newer build wrote is told without its reasons.
    pub report: Vec<u8>,
}
impl Record for FailedRecord {
    const VERSION: u8 = 1;
}

/// A generation that has still to show that it is good, over reboots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TrialRecord {
    pub generation: u64,
    /// The boot that was counted last.
    pub boot_id: [u8; 16],
    /// Boots since it was taken up, that one not counted.
    pub boots: u32,
}
impl Record for TrialRecord {
    const VERSION: u8 = 1;
}

/// The form in which a job succeeded; its name is the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JobRecord {
    pub pod_hash: [u8; 32],
}
impl Record for JobRecord {
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
        EventKind::ContainerUnhealthy => 14,
        EventKind::GenerationGood => 15,
        EventKind::GenerationFailed => 16,
        EventKind::GenerationHeld => 17,
        EventKind::StrategyChanged => 18,
        EventKind::TransferStarted => 19,
        EventKind::LayerDamaged => 20,
        EventKind::LayersRemoved => 21,
        EventKind::BundleReceived => 22,
        EventKind::CommandRun => 23,
        EventKind::VolumeOverLimit => 24,
    }
}

fn kind_of(code: u8) -> Option<EventKind> {
    const ALL: [EventKind; 25] = [
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
        EventKind::ContainerUnhealthy,
        EventKind::GenerationGood,
        EventKind::GenerationFailed,
        EventKind::GenerationHeld,
        EventKind::StrategyChanged,
        EventKind::TransferStarted,
        EventKind::LayerDamaged,
        EventKind::LayersRemoved,
        EventKind::BundleReceived,
        EventKind::CommandRun,
        EventKind::VolumeOverLimit,
    ];
    ALL.into_iter().find(|kind| kind_code(*kind) == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[track_caller]
    fn check<T: Record + PartialEq + std::fmt::Debug>(record: &T, golden: &str) {
        let bytes = record.to_record().unwrap();
        assert_eq!(hex(&bytes), golden);
        assert_eq!(T::from_record(&bytes).as_ref(), Ok(record));
    }

    fn reference() -> BundleRef {
        BundleRef { generation: 300, bytes: 3, sha256: [0xab; 32] }
    }

    /// A change of these bytes means: records on gateways are no longer
    /// read. Raise `VERSION` and convert instead.
    #[test]
    fn golden_bytes() {
        let meta =
            Meta { revision: 7, current: Some(reference()), last_good: None, highest_seen: 300 };
        check(
            &meta,
            "01abfd2f4c0701ac0203abababababababababababababababababababababababababababababababab00ac02",
        );
        let refused = RefusedRecord { generation: 301, reason: "too old".into() };
        check(&refused, "0130c55548ad0207746f6f206f6c64");
        let failed = FailedRecord { generation: 300, sha256: [0xab; 32], report: vec![1, 2, 3] };
        check(
            &failed,
            "01c8687870ac02abababababababababababababababababababababababababababababababab03010203",
        );
        let trial = TrialRecord { generation: 300, boot_id: [0xcd; 16], boots: 2 };
        check(&trial, "01bfcb61f7ac02cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd02");
        check(
            &JobRecord { pod_hash: [0xef; 32] },
            "01cceb9074efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef",
        );
        check(&OutboxMark { used_seq: 1000, dropped: 3 }, "011cfe41e8e80703");
        let event = EventRecord {
            wall_millis: 1_700_000_000_000,
            boot_millis: 5000,
            generation: 300,
            kind: 9,
            subject: "web-1".into(),
            text: "available".into(),
        };
        check(&event, "0113e1253a80d095ffbc318827ac0209057765622d3109617661696c61626c65");
        let mirror = Mirror { meta, current: Some(vec![1, 2, 3]), last_good: None, used_seq: 1000 };
        check(
            &mirror,
            "016ea4fdaa0701ac0203abababababababababababababababababababababababababababababababab00ac02010301020300e807",
        );
    }

    #[test]
    fn any_changed_byte_shows() {
        let bytes = OutboxMark { used_seq: 1000, dropped: 3 }.to_record().unwrap();
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[index] ^= 1 << bit;
                assert_eq!(OutboxMark::from_record(&changed), Err(RecordError::Checksum));
            }
        }
        for length in 0..bytes.len() {
            assert!(OutboxMark::from_record(&bytes[..length]).is_err());
        }
    }

    #[test]
    fn a_record_of_a_newer_build_is_refused_as_such() {
        let mut bytes = OutboxMark::default().to_record().unwrap();
        bytes[0] = 2;
        let crc = checksum(&bytes).to_le_bytes();
        bytes[1..HEADER_BYTES].copy_from_slice(&crc);
        let refused = Err(RecordError::Version { found: 2, known: 1 });
        assert_eq!(OutboxMark::from_record(&bytes), refused);
    }

    #[test]
    fn every_kind_of_event_reads_back() {
        for code in 0..=24 {
            assert_eq!(kind_of(code).map(kind_code), Some(code));
        }
        assert_eq!(kind_of(25), None);
    }
}
