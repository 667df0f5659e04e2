//! The node's durable state: what it works towards, what it refused, and the
//! events that the cloud has not confirmed.
//!
//! Files below `DATA/state`: `sled/` (the database), `mirror.0` and
//! `mirror.1` (the desired state once more), `lock`, `broken-N/` (databases
//! that were put aside). One process at a time; the database itself is opened
//! by a further one, `wherry store-keeper`, which is there only while there is
//! something to commit or to read.
//! Never here: what runs. After a crash that is read back from the kernel.
//! Nothing is written while nothing changes.

mod contents;
mod database;
mod disk;
mod error;
mod files;
pub mod keeper;
mod mirror;
mod open;
mod outbox;
mod record;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wherry_bundle::message::{Event, EventKind, Failed, Refused, WallMillis};
use wherry_bundle::{Digest, Generation, Name};

pub use disk::Keeping;
pub use error::{RecordError, StoreError};
pub use open::Recovery;
pub use outbox::{EVENTS_BYTES_MAX, EVENTS_MAX};
use state::State;

/// How long an event may wait in RAM, so that several share one commit.
const COMMIT_DELAY: Duration = Duration::from_secs(1);
/// After a commit failed: a full disk is not tried each second.
const COMMIT_RETRY: Duration = Duration::from_secs(30);
/// After the last commit or read, before a keeper closes the database:
/// opening it again costs milliseconds and up to a segment of writes.
pub const REST_DELAY: Duration = Duration::from_secs(15);
/// sled's commit runs on it: deep, but without large frames.
const COMMIT_STACK_BYTES: usize = 256 * 1024;

/// The open store. Share it by `Arc`; all methods take their turn.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    committer: Option<JoinHandle<()>>,
}

/// An envelope as it was taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub generation: Generation,
    pub envelope: Vec<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generations {
    /// What the node works towards or has reached.
    pub current: Option<Stored>,
    /// The last one that [`Store::mark_good`] named; may be the current one.
    pub last_good: Option<Stored>,
    /// The anti-rollback mark; 0 on a new node.
    pub highest_seen: Generation,
}

/// A generation that failed, as far as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFailure {
    pub generation: Generation,
    /// Digest of its whole envelope.
    pub envelope: Digest,
    /// `None`: another build wrote it.
    pub report: Option<Failed>,
}

/// An event before it has a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    pub wall_time: WallMillis,
    pub boot_millis: u64,
    pub generation: Generation,
    pub kind: EventKind,
    /// A pod's name, or empty.
    pub subject: String,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxStatus {
    pub waiting: usize,
    /// For want of room, since the node's state was made.
    pub dropped: u64,
}

impl Store {
    /// As [`Self::open_kept`], with the database in this process.
    ///
    /// # Errors
    /// As there.
    pub fn open(dir: &Path) -> Result<(Self, Vec<Recovery>), StoreError> {
        Self::open_kept(dir, Keeping::Here)
    }

    /// Opens the store in `dir`, making it if need be, and mends what is
    /// damaged (see [`Recovery`]): on success all that was ever acknowledged
    /// about generations is there, if the disk kept any copy of it.
    ///
    /// # Errors
    /// Another process holds it, or the disk is full, read-only or failing.
    pub fn open_kept(dir: &Path, keeping: Keeping) -> Result<(Self, Vec<Recovery>), StoreError> {
        let (state, recoveries) = open::open(dir, keeping)?;
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner { state, closing: false }),
            wake: Condvar::new(),
        });
        let for_thread = Arc::clone(&shared);
        let committer = thread::Builder::new()
            .name("wherry-commit".into())
            .stack_size(COMMIT_STACK_BYTES)
            .spawn(move || for_thread.commit_when_due())
            .map_err(|source: io::Error| StoreError::io("start a thread for", dir)(source))?;
        Ok((Self { shared, committer: Some(committer) }, recoveries))
    }

    /// What is known without a database: for a node whose disk is full or has
    /// become read-only, so that [`Self::open`] fails, but whose pods can
    /// run. Writes nothing.
    ///
    /// # Errors
    /// The files cannot be read, or a newer build wrote them.
    pub fn salvage(dir: &Path) -> Result<Generations, StoreError> {
        open::salvage(dir)
    }

    /// The envelopes, read from the disk: ask once, at the start.
    ///
    /// # Errors
    /// The disk.
    pub fn generations(&self) -> Result<Generations, StoreError> {
        self.shared.with(State::generations)
    }

    /// Makes `envelope` the current one and forgets the last refusal; both
    /// durable on return, here and in the mirror, together with all events
    /// pushed before. The same generation with the same bytes again is fine.
    ///
    /// # Errors
    /// [`StoreError::NotNewer`], [`StoreError::TooLarge`], or the disk. After
    /// an error of the disk, the new state may or may not be found at the
    /// next start; the one before is intact until the new one is whole.
    pub fn take_up(&self, generation: Generation, envelope: &[u8]) -> Result<(), StoreError> {
        self.shared.with(|state| state.take_up(generation, envelope))
    }

    /// Makes the current envelope the last good one too; durable on return.
    /// Idempotent: once it is so, nothing is written.
    ///
    /// # Errors
    /// [`StoreError::NotCurrent`], or the disk.
    pub fn mark_good(&self, generation: Generation) -> Result<(), StoreError> {
        self.shared.with(|state| state.mark_good(generation))
    }

    /// The current generation failed: with a last good one, that is the
    /// current one again; its envelope is forgotten, but not that it was
    /// seen. Durable on return.
    ///
    /// # Errors
    /// [`StoreError::NotCurrent`], or the disk.
    pub fn fail(&self, failed: &Failed) -> Result<(), StoreError> {
        self.shared.with(|state| state.fail(failed))
    }

    /// What failed last since a bundle was taken up.
    #[must_use]
    pub fn failed(&self) -> Option<KnownFailure> {
        self.shared.lock().state.failed()
    }

    /// How often the node booted since the current generation was taken up,
    /// if the boot it is in has id `boot_id`; 0 for one that was good. Each
    /// boot is written once.
    ///
    /// # Errors
    /// The disk.
    pub fn count_boot(&self, boot_id: [u8; 16]) -> Result<u32, StoreError> {
        self.shared.with(|state| state.count_boot(boot_id))
    }

    /// The form in which each job last succeeded.
    #[must_use]
    pub fn jobs(&self) -> BTreeMap<Name, Digest> {
        self.shared.lock().state.jobs.clone()
    }

    /// Replaces [`Self::jobs`]; durable on return. The same again writes
    /// nothing.
    ///
    /// # Errors
    /// The disk.
    pub fn set_jobs(&self, jobs: &BTreeMap<Name, Digest>) -> Result<(), StoreError> {
        self.shared.with(|state| state.set_jobs(jobs))
    }

    /// The last refusal since a bundle was taken up.
    #[must_use]
    pub fn refused(&self) -> Option<Refused> {
        self.shared.lock().state.refused()
    }

    /// Durable on return; the same refusal again writes nothing.
    ///
    /// # Errors
    /// The disk.
    pub fn set_refused(&self, refused: Option<&Refused>) -> Result<(), StoreError> {
        self.shared.with(|state| state.set_refused(refused))
    }

    /// Numbers an event and keeps it for the cloud. Never fails: with no room
    /// the oldest one goes. It is durable within a second; at once if it
    /// tells of a bundle taken up, refused or failed. Numbers are never used twice.
    pub fn push_event(&self, event: &NewEvent) -> u64 {
        let urgent = matches!(
            event.kind,
            EventKind::BundleTakenUp | EventKind::BundleRefused | EventKind::GenerationFailed
        );
        self.shared.with(|state| {
            let seq = state.push_event(event).unwrap_or_else(|error| {
                log::error!("an event is lost: {error}");
                0
            });
            if urgent && let Err(error) = state.commit_outbox() {
                log::error!("an event is not durable yet: {error}");
            }
            seq
        })
    }

    /// Events numbered above `seq`, oldest first, at least one if there is
    /// any, else as many as fit into a message of `bytes_max`. Commits first:
    /// only what is durable leaves the node.
    ///
    /// # Errors
    /// The disk.
    pub fn events_after(&self, seq: u64, bytes_max: usize) -> Result<Vec<Event>, StoreError> {
        self.shared.with(|state| state.events_after(seq, bytes_max))
    }

    /// The cloud has all events up to `seq`; durable within a second.
    ///
    /// True if `seq` is higher than any number given here: the cloud then
    /// remembers this node from before its state was lost, and took what it
    /// was sent for old events. All that wait got new numbers above `seq`
    /// and must be sent again.
    ///
    /// # Errors
    /// The disk.
    pub fn ack_events(&self, seq: u64) -> Result<bool, StoreError> {
        self.shared.with(|state| state.ack_events(seq))
    }

    /// What had to be mended since the store was opened, each told once.
    #[must_use]
    pub fn take_recoveries(&self) -> Vec<Recovery> {
        std::mem::take(&mut self.shared.lock().state.recoveries)
    }

    #[must_use]
    pub fn outbox_status(&self) -> OutboxStatus {
        self.shared.lock().state.outbox_status()
    }

    /// What this process wrote to the disk since it opened the store, in
    /// bytes; what a keeper writes is the keeper's.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.shared.lock().state.written_bytes()
    }

    /// Makes all events durable now.
    ///
    /// # Errors
    /// The disk.
    pub fn commit(&self) -> Result<(), StoreError> {
        self.shared.with(State::commit_outbox)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.wake.notify_one();
        if let Some(committer) = self.committer.take()
            && committer.join().is_err()
        {
            log::error!("the committer's thread had panicked");
        }
    }
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    wake: Condvar,
}

#[derive(Debug)]
struct Inner {
    state: State,
    closing: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic inside left the disk as a kill would have; the next commit
        // writes the whole difference again.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something that may leave work for the committer.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let result = work(&mut self.lock().state);
        self.wake.notify_one();
        result
    }

    /// The committer's thread: sleeps while there is nothing to commit, and
    /// the database is closed.
    fn commit_when_due(&self) {
        let mut inner = self.lock();
        loop {
            inner = self.rest_until_dirty(inner);
            inner = self.pause(inner, COMMIT_DELAY);
            let result = inner.state.commit_outbox();
            if inner.closing {
                return;
            }
            if let Err(error) = result {
                log::error!("events cannot be stored, next try in 30 s: {error}");
                inner = self.pause(inner, COMMIT_RETRY);
            }
        }
    }

    fn rest_until_dirty<'a>(&self, mut inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        let is_quiet = |inner: &mut Inner| !inner.closing && !inner.state.is_dirty();
        while is_quiet(&mut inner) {
            let Some(delay) = inner.state.rest_delay() else {
                let waited = self.wake.wait(inner);
                inner = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let waited = self.wake.wait_timeout_while(inner, delay, is_quiet);
            inner = waited.map_or_else(|error| error.into_inner().0, |(inner, _)| inner);
            if is_quiet(&mut inner) {
                inner.state.rest();
            }
        }
        inner
    }

    /// Ends early when the store is being closed.
    fn pause<'a>(&self, inner: MutexGuard<'a, Inner>, length: Duration) -> MutexGuard<'a, Inner> {
        let waited = self.wake.wait_timeout_while(inner, length, |inner| !inner.closing);
        waited.map_or_else(|error| error.into_inner().0, |(inner, _)| inner)
    }
}
