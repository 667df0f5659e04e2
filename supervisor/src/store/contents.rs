//! What is where in the database.
//!
//! | key | value |
//! |---|---|
//! | `m` | [`Meta`] |
//! | `r` | [`RefusedRecord`], if there is one |
//! | `f` | [`FailedRecord`], if there is one |
//! | `t` | [`TrialRecord`] of the newest generation that was tried |
//! | `j`, name | [`JobRecord`] of a job that has succeeded |
//! | `b`, generation, index | a piece of an envelope, at most [`VALUE_BYTES_MAX`] |
//! | `o` | [`OutboxMark`] |
//! | `e`, number | an event |
//!
//! Numbers are eight bytes, big endian, so that keys sort as they do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wherry_bundle::limits::ENVELOPE_BYTES_MAX;
use wherry_bundle::{Digest, Name};

use super::database::VALUE_BYTES_MAX;
use super::disk::{Batch, Disk};
use super::error::{RecordError, StoreError};
use super::outbox::{EVENT_PREFIX, MARK_KEY, event_seq};
use super::record::{
    BundleRef, FailedRecord, JobRecord, Meta, Mirror, OutboxMark, Record, RefusedRecord,
    TrialRecord,
};

pub(super) const META_KEY: &[u8] = b"m";
pub(super) const REFUSED_KEY: &[u8] = b"r";
pub(super) const FAILED_KEY: &[u8] = b"f";
pub(super) const TRIAL_KEY: &[u8] = b"t";
const JOB_PREFIX: &[u8] = b"j";
const BUNDLE_PREFIX: &[u8] = b"b";

/// Everything in a database but the envelopes, checked.
#[derive(Debug)]
pub(super) struct Loaded {
    /// `None`: the database is empty.
    pub meta: Option<Meta>,
    pub refused: Option<RefusedRecord>,
    pub failed: Option<FailedRecord>,
    pub trial: Option<TrialRecord>,
    pub jobs: BTreeMap<Name, Digest>,
    pub mark: OutboxMark,
    /// Number and length of each event's record.
    pub events: Vec<(u64, usize)>,
}

/// Reads and checks what is in a database.
pub(super) fn load(disk: &Disk) -> Result<Loaded, StoreError> {
    let meta: Option<Meta> = decode(disk, META_KEY, "meta")?;
    for reference in meta.iter().flat_map(|meta| [meta.current, meta.last_good]).flatten() {
        read_envelope(disk, reference)?;
    }
    let mut events = Vec::new();
    for entry in disk.scan(EVENT_PREFIX) {
        let (key, value) = entry?;
        events.extend(event_seq(&key).map(|seq| (seq, value.len())));
    }
    Ok(Loaded {
        meta,
        refused: decode(disk, REFUSED_KEY, "refused")?,
        failed: decode(disk, FAILED_KEY, "failed")?,
        trial: decode(disk, TRIAL_KEY, "trial")?,
        jobs: load_jobs(disk)?,
        mark: decode(disk, MARK_KEY, "outbox")?.unwrap_or_default(),
        events,
    })
}

fn load_jobs(disk: &Disk) -> Result<BTreeMap<Name, Digest>, StoreError> {
    let mut jobs = BTreeMap::new();
    for entry in disk.scan(JOB_PREFIX) {
        let (key, value) = entry?;
        let failed = |source| StoreError::Record { record: "job".into(), source };
        let name = key.get(JOB_PREFIX.len()..).and_then(|name| std::str::from_utf8(name).ok());
        let name = name.and_then(|name| Name::new(name).ok());
        let name = name.ok_or_else(|| failed(RecordError::Malformed))?;
        let record = JobRecord::from_record(&value).map_err(failed)?;
        jobs.insert(name, Digest(record.pod_hash));
    }
    Ok(jobs)
}

pub(super) fn job_key(name: &Name) -> Vec<u8> {
    [JOB_PREFIX, name.as_str().as_bytes()].concat()
}

/// Writes all that a mirror holds into an empty database.
pub(super) fn restore(disk: &Disk, mirror: &Mirror, mark: OutboxMark) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    let envelopes =
        [(mirror.meta.current, &mirror.current), (mirror.meta.last_good, &mirror.last_good)];
    for (reference, envelope) in envelopes {
        if let (Some(reference), Some(envelope)) = (reference, envelope) {
            insert_pieces(&mut batch, reference, envelope);
        }
    }
    batch.insert(META_KEY, encode("meta", &mirror.meta)?);
    batch.insert(MARK_KEY, encode("outbox", &mark)?);
    disk.commit(batch)
}

pub(super) fn read_envelope(disk: &Disk, reference: BundleRef) -> Result<Vec<u8>, StoreError> {
    let mut envelope = Vec::with_capacity(reference.bytes as usize);
    for entry in disk.scan(&bundle_prefix(reference.generation)) {
        envelope.extend_from_slice(&entry?.1);
        if envelope.len() > ENVELOPE_BYTES_MAX {
            break;
        }
    }
    if Digest::of(&envelope).0 == reference.sha256 {
        return Ok(envelope);
    }
    let source = if envelope.is_empty() { RecordError::Missing } else { RecordError::Checksum };
    Err(StoreError::Record { record: format!("bundle {}", reference.generation), source })
}

pub(super) fn insert_pieces(batch: &mut Batch, reference: BundleRef, envelope: &[u8]) {
    for (index, piece) in envelope.chunks(VALUE_BYTES_MAX).enumerate() {
        batch.insert(piece_key(reference.generation, index), piece);
    }
}

pub(super) fn remove_pieces(batch: &mut Batch, reference: BundleRef) {
    for index in 0..(reference.bytes as usize).div_ceil(VALUE_BYTES_MAX) {
        batch.remove(piece_key(reference.generation, index));
    }
}

fn bundle_prefix(generation: u64) -> Vec<u8> {
    [BUNDLE_PREFIX, &generation.to_be_bytes()].concat()
}

fn piece_key(generation: u64, index: usize) -> Vec<u8> {
    [bundle_prefix(generation).as_slice(), &(index as u64).to_be_bytes()].concat()
}

pub(super) fn encode<T: Record>(name: &str, record: &T) -> Result<Vec<u8>, StoreError> {
    record.to_record().map_err(|source| StoreError::Record { record: name.into(), source })
}

fn decode<T: Record>(disk: &Disk, key: &[u8], name: &str) -> Result<Option<T>, StoreError> {
    let Some(value) = disk.get(key)? else { return Ok(None) };
    let record = T::from_record(&value)
        .map_err(|source| StoreError::Record { record: name.into(), source })?;
    Ok(Some(record))
}

/// The folder of the database below the store's.
pub(super) fn database_path(dir: &Path) -> PathBuf {
    dir.join("sled")
}
