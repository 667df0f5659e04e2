//! The store behind its lock: every operation, on one thread at a time.
//!
//! Each change is one commit of [`Disk`]; changes of the desired state are
//! then copied to the mirror, and only then acknowledged.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::Flock;
use wherry_bundle::limits::{ENVELOPE_BYTES_MAX, bounded_text};
use wherry_bundle::message::{Event, Failed, Message, Refused};
use wherry_bundle::{Digest, Generation, Name};

use super::contents::{
    FAILED_KEY, META_KEY, REFUSED_KEY, TRIAL_KEY, database_path, encode, insert_pieces, job_key,
    read_envelope, remove_pieces,
};
use super::disk::{Batch, Disk, Keeping};
use super::error::{RecordError, StoreError};
use super::mirror::{Found, Mirrors};
use super::open::{Recovery, open_or_mend};
use super::outbox::{EVENT_PREFIX, Outbox, event_key, event_seq};
use super::record::{
    BundleRef, EventRecord, FailedRecord, JobRecord, Meta, Mirror, Record, RefusedRecord,
    TrialRecord,
};
use super::{Generations, KnownFailure, NewEvent, OutboxStatus, Stored};

/// Added to a record's length for its share of a message.
const EVENT_OVERHEAD_BYTES: usize = 16;
/// What a cloud may claim to have stored: beyond it numbers would run out.
const SEQ_MAX: u64 = u64::MAX / 2;

#[derive(Debug)]
pub(super) struct State {
    pub(super) dir: PathBuf,
    pub(super) keeping: Keeping,
    /// `None` after a commit failed, or when nothing asked for it for a
    /// while: until the database is opened anew.
    pub(super) disk: Option<Disk>,
    /// Since [`Self::rest`] last looked.
    pub(super) is_used: bool,
    /// A commit failed: nobody knows whether it is on the disk.
    pub(super) uncertain: bool,
    /// What had to be mended since the store was opened.
    pub(super) recoveries: Vec<Recovery>,
    pub(super) meta: Meta,
    pub(super) refused: Option<RefusedRecord>,
    pub(super) failed: Option<FailedRecord>,
    pub(super) trial: Option<TrialRecord>,
    pub(super) jobs: BTreeMap<Name, Digest>,
    pub(super) mirrors: Mirrors,
    /// The database is newer than the mirror.
    pub(super) mirror_stale: bool,
    pub(super) outbox: Outbox,
    /// Held as long as the store lives.
    pub(super) _lock: Flock<std::fs::File>,
}

impl State {
    pub fn generations(&mut self) -> Result<Generations, StoreError> {
        self.reopen()?;
        let (current, last_good) = (self.meta.current, self.meta.last_good);
        Ok(Generations {
            current: self.stored(current)?,
            last_good: self.stored(last_good)?,
            highest_seen: Generation(self.meta.highest_seen),
        })
    }

    pub fn take_up(&mut self, asked: Generation, envelope: &[u8]) -> Result<(), StoreError> {
        let too_large = StoreError::TooLarge { bytes: envelope.len(), max: ENVELOPE_BYTES_MAX };
        if envelope.len() > ENVELOPE_BYTES_MAX {
            return Err(too_large);
        }
        let taken = BundleRef::of(asked, envelope).ok_or(too_large)?;
        if self.meta.current == Some(taken) {
            return self.refresh_mirror();
        }
        let seen = Generation(self.meta.highest_seen);
        if asked <= seen {
            return Err(StoreError::NotNewer { asked, seen });
        }
        let mut batch = Batch::default();
        if let Some(old) = self.meta.current.filter(|old| Some(*old) != self.meta.last_good) {
            remove_pieces(&mut batch, old);
        }
        insert_pieces(&mut batch, taken, envelope);
        batch.remove(REFUSED_KEY);
        batch.remove(FAILED_KEY);
        let meta = Meta {
            revision: self.meta.revision + 1,
            current: Some(taken),
            last_good: self.meta.last_good,
            highest_seen: asked.0,
        };
        self.commit_meta(batch, meta)?;
        self.refused = None;
        self.failed = None;
        self.refresh_mirror()
    }

    /// How often the node booted since the current generation was taken up,
    /// if `boot_id` is the boot that it is in.
    pub fn count_boot(&mut self, boot_id: [u8; 16]) -> Result<u32, StoreError> {
        let Some(current) = self.meta.current.filter(|c| Some(*c) != self.meta.last_good) else {
            return Ok(0);
        };
        let generation = current.generation;
        let trial = match self.trial.filter(|trial| trial.generation == generation) {
            None => TrialRecord { generation, boot_id, boots: 0 },
            Some(known) if known.boot_id == boot_id => return Ok(known.boots),
            Some(known) => TrialRecord { boot_id, boots: known.boots.saturating_add(1), ..known },
        };
        let mut batch = Batch::default();
        batch.insert(TRIAL_KEY, encode("trial", &trial)?);
        self.commit(batch)?;
        self.trial = Some(trial);
        Ok(trial.boots)
    }

    pub fn fail(&mut self, failed: &Failed) -> Result<(), StoreError> {
        let asked = failed.generation;
        let Some(current) = self.meta.current.filter(|c| c.generation == asked.0) else {
            let current = Generation(self.meta.current.map_or(0, |c| c.generation));
            return Err(StoreError::NotCurrent { asked, current });
        };
        let report = failed.to_bytes().map_err(|_| StoreError::Record {
            record: "failed".into(),
            source: RecordError::Malformed,
        })?;
        let record = FailedRecord { generation: asked.0, sha256: current.sha256, report };
        let mut batch = Batch::default();
        batch.insert(FAILED_KEY, encode("failed", &record)?);
        match self.meta.last_good.filter(|good| *good != current) {
            Some(good) => {
                remove_pieces(&mut batch, current);
                let revision = self.meta.revision + 1;
                let meta = Meta { revision, current: Some(good), ..self.meta.clone() };
                self.commit_meta(batch, meta)?;
                self.failed = Some(record);
                self.refresh_mirror()
            }
            None => {
                self.commit(batch)?;
                self.failed = Some(record);
                Ok(())
            }
        }
    }

    pub fn failed(&self) -> Option<KnownFailure> {
        let record = self.failed.as_ref()?;
        Some(KnownFailure {
            generation: Generation(record.generation),
            envelope: Digest(record.sha256),
            report: Failed::from_bytes(&record.report).ok(),
        })
    }

    pub fn mark_good(&mut self, asked: Generation) -> Result<(), StoreError> {
        let current = self.meta.current.unwrap_or(BundleRef { generation: 0, ..EMPTY_REF });
        if current.generation != asked.0 || asked.0 == 0 {
            let current = Generation(current.generation);
            return Err(StoreError::NotCurrent { asked, current });
        }
        if self.meta.last_good == Some(current) {
            return self.refresh_mirror();
        }
        let mut batch = Batch::default();
        if let Some(old) = self.meta.last_good {
            remove_pieces(&mut batch, old);
        }
        let revision = self.meta.revision + 1;
        let meta = Meta { revision, last_good: Some(current), ..self.meta.clone() };
        self.commit_meta(batch, meta)?;
        self.refresh_mirror()
    }

    pub fn set_jobs(&mut self, jobs: &BTreeMap<Name, Digest>) -> Result<(), StoreError> {
        if *jobs == self.jobs {
            return Ok(());
        }
        // What a failed commit left is read first: it is what changes.
        self.reopen()?;
        let mut batch = Batch::default();
        for name in self.jobs.keys().filter(|name| !jobs.contains_key(*name)) {
            batch.remove(job_key(name));
        }
        for (name, hash) in jobs.iter().filter(|(name, hash)| self.jobs.get(*name) != Some(*hash)) {
            batch.insert(job_key(name), encode("job", &JobRecord { pod_hash: hash.0 })?);
        }
        self.commit(batch)?;
        self.jobs.clone_from(jobs);
        Ok(())
    }

    pub fn refused(&self) -> Option<Refused> {
        self.refused.as_ref().map(|record| Refused {
            generation: Generation(record.generation),
            reason: record.reason.clone(),
        })
    }

    pub fn set_refused(&mut self, refused: Option<&Refused>) -> Result<(), StoreError> {
        let record = refused.map(|refused| RefusedRecord {
            generation: refused.generation.0,
            reason: bounded_text(&refused.reason),
        });
        if record == self.refused {
            return Ok(());
        }
        let mut batch = Batch::default();
        match &record {
            Some(record) => batch.insert(REFUSED_KEY, encode("refused", record)?),
            None => batch.remove(REFUSED_KEY),
        }
        self.commit(batch)?;
        self.refused = record;
        Ok(())
    }

    pub fn push_event(&mut self, event: &NewEvent) -> Result<u64, StoreError> {
        let mut record = EventRecord::new(event);
        record.subject = bounded_text(&record.subject);
        record.text = bounded_text(&record.text);
        Ok(self.outbox.push(encode("event", &record)?))
    }

    pub fn events_after(&mut self, seq: u64, bytes_max: usize) -> Result<Vec<Event>, StoreError> {
        self.commit_outbox()?;
        self.reopen()?;
        let Some(disk) = &self.disk else { return Ok(Vec::new()) };
        let mut events = Vec::new();
        let mut bytes = 0;
        for entry in disk.scan_from(EVENT_PREFIX, &event_key(seq.saturating_add(1))) {
            let (key, value) = entry?;
            bytes += value.len() + EVENT_OVERHEAD_BYTES;
            if bytes > bytes_max && !events.is_empty() {
                break;
            }
            let event = EventRecord::from_record(&value).and_then(|record| {
                record.into_event(event_seq(&key).ok_or(RecordError::Malformed)?)
            });
            match event {
                Ok(event) => events.push(event),
                // It goes with the next acknowledgement; the gap shows.
                Err(error) => log::warn!("an event in the outbox cannot be read: {error}"),
            }
        }
        Ok(events)
    }

    /// True if waiting events got new numbers.
    pub fn ack_events(&mut self, seq: u64) -> Result<bool, StoreError> {
        if seq <= self.outbox.used_seq() {
            self.outbox.ack(seq);
            return Ok(false);
        }
        if seq > SEQ_MAX {
            log::warn!("the cloud confirmed event {seq}, which cannot be: ignored");
            return Ok(false);
        }
        self.reopen()?;
        let disk = &self.disk;
        let read = |seq: u64| {
            let value = disk.as_ref()?.get(&event_key(seq)).ok()??;
            Some(value.to_vec())
        };
        let records = self.outbox.take_all(read);
        self.outbox.skip_to(seq);
        for record in records {
            self.outbox.push(record);
        }
        Ok(true)
    }

    pub fn written_bytes(&self) -> u64 {
        self.mirrors.written_bytes()
    }

    pub fn outbox_status(&self) -> OutboxStatus {
        OutboxStatus { waiting: self.outbox.waiting(), dropped: self.outbox.dropped() }
    }

    pub fn is_dirty(&self) -> bool {
        self.outbox.is_dirty()
    }

    pub fn commit_outbox(&mut self) -> Result<(), StoreError> {
        if self.is_dirty() { self.commit(Batch::default()) } else { Ok(()) }
    }

    fn commit_meta(&mut self, mut batch: Batch, meta: Meta) -> Result<(), StoreError> {
        batch.insert(META_KEY, encode("meta", &meta)?);
        self.commit(batch)?;
        self.meta = meta;
        self.mirror_stale = true;
        Ok(())
    }

    /// Commits `batch` and whatever the outbox has waiting.
    fn commit(&mut self, mut batch: Batch) -> Result<(), StoreError> {
        self.reopen()?;
        self.outbox.stage(&mut batch);
        let Some(disk) = &self.disk else { return Ok(()) };
        match disk.commit(batch) {
            Ok(()) => {
                self.outbox.committed();
                Ok(())
            }
            Err(error) => {
                self.disk = None;
                self.uncertain = true;
                Err(error)
            }
        }
    }

    /// Lets go of the database's process if nothing asked for it since the
    /// last call.
    pub fn rest(&mut self) {
        if !self.is_used && self.rest_delay().is_some() {
            self.disk = None;
        }
        self.is_used = false;
    }

    /// After how long [`Self::rest`] is to be called; `None`: there is no
    /// process that it could end.
    pub fn rest_delay(&self) -> Option<Duration> {
        match (&self.disk, &self.keeping) {
            (Some(Disk::Apart(_)), Keeping::Apart { rest_delay, .. }) => Some(*rest_delay),
            (None | Some(Disk::Here(_)), _) | (_, Keeping::Here) => None,
        }
    }

    /// After this, `disk` is there. What a failed commit left on the disk is
    /// read back: it may be the state before or after it.
    fn reopen(&mut self) -> Result<(), StoreError> {
        self.is_used = true;
        if self.disk.as_mut().is_some_and(Disk::is_usable) {
            return Ok(());
        }
        self.disk = None;
        let (_, Found { newest, .. }) = Mirrors::load(&self.dir)?;
        let (disk, loaded, recovery) = open_or_mend(&self.dir, &self.keeping, newest.as_ref())?;
        let meta = loaded.meta.unwrap_or_default();
        let is_lost = recovery.is_none() && meta.revision < self.meta.revision;
        if is_lost && !self.mirror_stale {
            // Acknowledged state is gone, and from the mirror too: nothing
            // is written over what is left of it.
            let source = RecordError::Missing;
            return Err(StoreError::Record { record: "meta".into(), source });
        }
        self.mirror_stale |= meta != self.meta || recovery.is_some();
        self.meta = meta;
        self.refused = loaded.refused;
        self.failed = loaded.failed;
        self.trial = loaded.trial;
        self.jobs = loaded.jobs;
        self.outbox.skip_to(loaded.mark.used_seq);
        if self.uncertain || !self.outbox.is_as_stored(&loaded.events) {
            self.outbox.reconcile(&loaded.events);
            log::warn!("the database was opened anew after a failure");
        }
        self.uncertain = false;
        self.disk = Some(disk);
        if is_lost {
            // It was never acknowledged: the keeper was killed before the mirror
            // had it, and again while it was to open the database, until that
            // counted as damaged. Whoever asks builds on what is there instead.
            return Err(StoreError::Lost { path: database_path(&self.dir) });
        }
        if let Some(recovery) = recovery {
            self.recoveries.push(recovery);
            self.refresh_mirror()?;
        }
        Ok(())
    }

    pub fn refresh_mirror(&mut self) -> Result<(), StoreError> {
        if !self.mirror_stale {
            return Ok(());
        }
        let generations = self.generations()?;
        let mirror = Mirror {
            meta: self.meta.clone(),
            current: generations.current.map(|stored| stored.envelope),
            last_good: generations.last_good.map(|stored| stored.envelope),
            used_seq: self.outbox.used_seq(),
        };
        self.mirrors.save(&mirror)?;
        self.mirror_stale = false;
        Ok(())
    }

    fn stored(&self, reference: Option<BundleRef>) -> Result<Option<Stored>, StoreError> {
        let (Some(reference), Some(disk)) = (reference, &self.disk) else { return Ok(None) };
        let envelope = read_envelope(disk, reference)?;
        Ok(Some(Stored { generation: Generation(reference.generation), envelope }))
    }
}

const EMPTY_REF: BundleRef = BundleRef { generation: 0, bytes: 0, sha256: [0; 32] };
