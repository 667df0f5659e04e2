//! What the supervisor keeps on flash: the store, and which layer files stay.
//!
//! A disk that cannot be written must not stop the pods: then the bundle is
//! read from the mirror, and the store is tried again from time to time.
//! Never here: pods, the broker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wherry_bundle::envelope::{self, EnvelopeError};
use wherry_bundle::limits::DEPLOYMENTS_MAX;
use wherry_bundle::message::{Event, Failed, Refused};
use wherry_bundle::model::Layer;
use wherry_bundle::{Bundle, Digest, Generation, Name};
use wherry_core::Millis;

use super::health::HealthSpecs;
use super::judge::Held;
use super::preflight::Flash;
use crate::clock;
use crate::config::DataDir;
use crate::layers::{LayerError, Layers, Removed};
use crate::store::{
    Generations, Keeping, NewEvent, OutboxStatus, Recovery, Store, StoreError, Stored,
};

/// Between tries to open a store whose disk is full or read-only.
const RETRY: Millis = Millis(60_000);
/// Of the disk, stays free for the store and the file system itself.
const ROOM_MARGIN_BYTES: u64 = 4 << 20;
/// Jobs that are remembered: all of two bundles.
const JOBS_MAX: usize = 2 * DEPLOYMENTS_MAX;
/// Of one answer.
const EVENTS_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug)]
pub struct Durable {
    data: DataDir,
    keeping: Keeping,
    own: Name,
    layers: Layers,
    store: Option<Arc<Store>>,
    /// When a store that did not open is tried again.
    retry_at: Option<Millis>,
    held: Held,
    last_good: Needed,
    /// Layers of the bundles that the current one replaces, until it is good
    /// or has failed: their pods may still run.
    replaced: BTreeSet<Digest>,
    /// Kept here while there is no store.
    refused: Option<Refused>,
    failed: Option<Failed>,
    /// Since the current generation was taken up.
    boots: u32,
    jobs: Jobs,
}

/// The form in which each job last succeeded.
#[derive(Debug, Default)]
struct Jobs {
    succeeded: BTreeMap<Name, Digest>,
    /// When it is tried again to write what the disk did not take.
    retry_at: Option<Millis>,
}

/// What remains of a bundle that is kept for later: no configuration files
/// are held in RAM for it.
#[derive(Clone, Debug, Default)]
struct Needed {
    generation: Generation,
    layers: BTreeSet<Layer>,
    chunk_lists: BTreeMap<Digest, Vec<Digest>>,
    claims: BTreeSet<Name>,
}

/// What was found when the store was opened.
#[derive(Debug, Default)]
pub struct Found {
    pub bundle: Option<Bundle>,
    /// Of that and of the last good one, whose pods may still run.
    pub health: HealthSpecs,
    /// For people.
    pub recoveries: Vec<Recovery>,
}

impl Durable {
    /// Opens what is there. A store that does not open is an error in the log
    /// only.
    ///
    /// # Errors
    /// The layers' folder cannot be made.
    pub fn open(
        data: &DataDir,
        keeping: Keeping,
        own: &Name,
        now: Millis,
    ) -> Result<(Self, Found), LayerError> {
        let mut durable = Self {
            data: data.clone(),
            keeping,
            own: own.clone(),
            layers: open_layers(data)?,
            store: None,
            retry_at: None,
            held: Held::default(),
            last_good: Needed::default(),
            replaced: BTreeSet::new(),
            refused: None,
            failed: None,
            boots: 0,
            jobs: Jobs::default(),
        };
        let found = match durable.open_store() {
            Ok(found) => found,
            Err(error) => {
                log::error!("the node's state cannot be opened, it is only read: {error}");
                durable.retry_at = Some(now.saturating_add(RETRY));
                durable.salvage()
            }
        };
        Ok((durable, found))
    }

    /// Tries again to open a store that did not open, when it is time; or
    /// tells of one that had to be mended meanwhile.
    pub fn retry(&mut self, now: Millis) -> Option<Found> {
        if let Some(recoveries) = self.mended() {
            return Some(Found { recoveries, ..Found::default() });
        }
        if self.jobs.retry_at.is_some_and(|at| at <= now) {
            self.write_jobs(now);
        }
        self.retry_at.filter(|at| *at <= now)?;
        match self.open_store() {
            Ok(found) => {
                log::info!("the node's state could be opened again");
                self.retry_at = None;
                Some(found)
            }
            Err(error) => {
                log::warn!("the node's state still cannot be opened: {error}");
                self.retry_at = Some(now.saturating_add(RETRY));
                None
            }
        }
    }

    #[must_use]
    pub fn retry_at(&self) -> Option<Millis> {
        self.retry_at.into_iter().chain(self.jobs.retry_at).min()
    }

    #[must_use]
    pub fn held(&self) -> &Held {
        &self.held
    }

    #[must_use]
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    #[must_use]
    pub fn store(&self) -> Option<Arc<Store>> {
        self.store.clone()
    }

    /// Those layers of `bundle` that are whole.
    #[must_use]
    pub fn present(&self, bundle: Option<&Bundle>) -> BTreeSet<Digest> {
        let images = bundle.into_iter().flat_map(|bundle| &bundle.images);
        let layers = images.flat_map(|image| &image.layers);
        layers.filter(|layer| self.layers.is_whole(layer)).map(|layer| layer.digest).collect()
    }

    /// The last good bundle, if all its layers are here and not all of
    /// `current`'s.
    #[must_use]
    pub fn stand_in(&self, current: &Bundle) -> Option<Bundle> {
        let is_whole = |bundle: &Bundle| {
            bundle.images.iter().flat_map(|i| &i.layers).all(|l| self.layers.is_whole(l))
        };
        let good = self.last_good.generation;
        if good == Generation::default() || good == current.generation || is_whole(current) {
            return None;
        }
        let generations = match &self.store {
            Some(store) => store.generations(),
            None => Store::salvage(&self.data.state()),
        };
        let stored = generations
            .inspect_err(|error| log::error!("the last good bundle cannot be read: {error}"))
            .ok()?
            .last_good?;
        open_kept(&stored, &self.own).ok().filter(is_whole)
    }

    /// Makes `bundle` the current one, durably.
    ///
    /// # Errors
    /// The disk, or no store.
    pub fn take_up(
        &mut self,
        bundle: &Bundle,
        envelope: &[u8],
        before: Option<&Bundle>,
    ) -> Result<(), StoreError> {
        self.open_now()?.take_up(bundle.generation, envelope)?;
        self.held.current = Some((bundle.generation, Digest::of(envelope)));
        self.held.highest_seen = self.held.highest_seen.max(bundle.generation);
        self.held.failed = None;
        self.refused = None;
        self.failed = None;
        self.count_boot();
        self.replaced.extend(before.into_iter().flat_map(digests_of));
        self.layers.mark(digests_of(bundle), bundle.generation);
        Ok(())
    }

    /// Remembers that the current generation failed, durably, and goes back
    /// to the last good one: its bundle, if there is one.
    ///
    /// # Errors
    /// The disk, or no store.
    pub fn fail(&mut self, failed: &Failed) -> Result<Option<Bundle>, StoreError> {
        let store = self.open_now()?;
        store.fail(failed)?;
        let (known, generations) = (store.failed(), store.generations()?);
        self.held.failed = known.map(|known| (known.generation, known.envelope));
        self.failed = Some(failed.clone());
        let is_left =
            generations.current.as_ref().is_some_and(|c| c.generation != failed.generation);
        let back = self.load(generations).0.filter(|_| is_left);
        if back.is_some() {
            self.boots = 0;
            self.replaced.clear();
        }
        Ok(back)
    }

    /// The form of each job that has succeeded, as far as `desired` cares. All
    /// of a generation that was good have: going back to it does not run them
    /// again, whatever ran since.
    #[must_use]
    pub fn succeeded(&self, desired: &Bundle) -> BTreeMap<Name, Digest> {
        let mut succeeded = self.jobs.succeeded.clone();
        if desired.generation == self.last_good.generation {
            succeeded.extend(jobs_of(desired));
        }
        succeeded
    }

    /// Remembers that jobs of `current` have succeeded: durably, if the disk
    /// takes it, before this returns; else as soon as it does.
    pub fn remember_jobs(
        &mut self,
        succeeded: BTreeMap<Name, Digest>,
        current: &Bundle,
        now: Millis,
    ) {
        let jobs = &mut self.jobs.succeeded;
        jobs.extend(succeeded);
        if jobs.len() > JOBS_MAX {
            let own: BTreeMap<Name, Digest> = jobs_of(current).collect();
            jobs.retain(|name, _| own.contains_key(name));
        }
        self.write_jobs(now);
    }

    fn write_jobs(&mut self, now: Millis) {
        let written = self.open_now().and_then(|store| store.set_jobs(&self.jobs.succeeded));
        self.jobs.retry_at = written.err().map(|error| {
            log::error!("jobs that are done would run again after a reboot: {error}");
            now.saturating_add(RETRY)
        });
    }

    #[must_use]
    pub fn failed(&self) -> Option<&Failed> {
        self.failed.as_ref()
    }

    /// Boots since the current generation was taken up; 0 for a good one.
    #[must_use]
    pub fn boots(&self) -> u32 {
        self.boots
    }

    fn count_boot(&mut self) {
        let Some(store) = &self.store else { return };
        match store.count_boot(clock::boot_id()) {
            Ok(boots) => self.boots = boots,
            Err(error) => log::error!("this boot is not counted: {error}"),
        }
    }

    /// The room that `bundle` takes, with `claims_bytes` for its claims, and what
    /// there is for it beside what has to stay; `None` if nobody knows, or it
    /// takes none.
    #[must_use]
    pub fn room_for(
        &self,
        bundle: &Bundle,
        before: Option<&Bundle>,
        claims_bytes: u64,
    ) -> Option<Flash> {
        let missing_bytes = self.missing_bytes(bundle).saturating_add(claims_bytes);
        let mut pinned = self.pinned(before);
        pinned.extend(digests_of(bundle));
        // If it fails, the transfer will find out.
        let free = self.layers.free_bytes().ok()?;
        let removable = self.layers.removable_bytes(&pinned).ok()?;
        (missing_bytes > 0).then(|| Flash {
            folder: self.data.0.clone(),
            needed_bytes: missing_bytes.saturating_add(ROOM_MARGIN_BYTES),
            free_bytes: free.saturating_add(removable),
        })
    }

    /// Remembers a refusal; false if it is known already.
    ///
    /// # Errors
    /// The disk, or no store; it is remembered in RAM then.
    pub fn refuse(&mut self, refused: &Refused) -> Result<bool, StoreError> {
        if self.refused.as_ref() == Some(refused) {
            return Ok(false);
        }
        self.refused = Some(refused.clone());
        self.open_now()?.set_refused(Some(refused))?;
        Ok(true)
    }

    #[must_use]
    pub fn refused(&self) -> Option<&Refused> {
        self.refused.as_ref()
    }

    #[must_use]
    pub fn last_good(&self) -> Generation {
        self.last_good.generation
    }

    /// Claims of the last good bundle.
    #[must_use]
    pub fn last_good_claims(&self) -> &BTreeSet<Name> {
        &self.last_good.claims
    }

    /// Whether some generation was taken up, readable or not.
    #[must_use]
    pub fn has_current(&self) -> bool {
        self.held.current.is_some()
    }

    /// `current` has run well: it becomes the last good one.
    ///
    /// # Errors
    /// The disk, or no store.
    pub fn mark_good(&mut self, current: &Bundle, now: Millis) -> Result<(), StoreError> {
        self.open_now()?.mark_good(current.generation)?;
        // What it does not have any more would run if it came back.
        self.jobs.succeeded = jobs_of(current).collect();
        self.write_jobs(now);
        self.last_good = Needed::of(current);
        self.replaced.clear();
        self.layers.mark(digests_of(current), current.generation);
        Ok(())
    }

    /// What is checked from time to time: the layers of `current` and of the
    /// last good bundle.
    #[must_use]
    pub fn needed_layers(&self, current: Option<&Bundle>) -> BTreeSet<Layer> {
        let current = current.into_iter().flat_map(layers_of);
        current.chain(self.last_good.layers.iter().copied()).collect()
    }

    /// How a layer is cut that the last good bundle needs.
    #[must_use]
    pub fn chunk_lists(&self, layer: &Digest) -> Option<&Vec<Digest>> {
        self.last_good.chunk_lists.get(layer)
    }

    /// Removes layers that neither `current` nor those behind it need, so that
    /// what is missing of `current` has room beside `free_bytes_min`; at least
    /// `bytes_min`. Nothing, mostly.
    #[must_use]
    pub fn make_room(
        &self,
        current: Option<&Bundle>,
        free_bytes_min: u64,
        bytes_min: u64,
    ) -> Removed {
        let wanted = current.map_or(0, |bundle| self.missing_bytes(bundle));
        let made = self.layers.free_bytes().and_then(|free| {
            let short = wanted.saturating_add(free_bytes_min).saturating_sub(free);
            match short.max(bytes_min) {
                0 => Ok(Removed::default()),
                bytes => self.layers.make_room(&self.pinned(current), bytes),
            }
        });
        made.unwrap_or_else(|error| {
            log::warn!("no room is made: {error}");
            Removed::default()
        })
    }

    fn pinned(&self, current: Option<&Bundle>) -> BTreeSet<Digest> {
        let current = current.into_iter().flat_map(digests_of);
        let last_good = self.last_good.layers.iter().map(|layer| layer.digest);
        current.chain(last_good).chain(self.replaced.iter().copied()).collect()
    }

    /// What is not on the disk yet, in bytes.
    fn missing_bytes(&self, bundle: &Bundle) -> u64 {
        let missing: BTreeSet<Layer> =
            layers_of(bundle).filter(|layer| !self.layers.is_whole(layer)).collect();
        missing.iter().fold(0, |sum: u64, layer| {
            let part = self.layers.part_bytes(&layer.digest);
            sum.saturating_add(layer.size_bytes.saturating_sub(part))
        })
    }

    /// The number of the event; 0 without a store.
    pub fn push_event(&self, event: &NewEvent) -> u64 {
        self.store.as_ref().map_or(0, |store| store.push_event(event))
    }

    /// Events above number `seq` that no cloud has confirmed, oldest first, at
    /// least one if there is any.
    ///
    /// # Errors
    /// The disk, or no store.
    pub fn events_after(&self, seq: u64) -> Result<Vec<Event>, StoreError> {
        self.open_now()?.events_after(seq, EVENTS_BYTES_MAX)
    }

    #[must_use]
    pub fn outbox(&self) -> OutboxStatus {
        let none = OutboxStatus { waiting: 0, dropped: 0 };
        self.store.as_ref().map_or(none, |store| store.outbox_status())
    }

    /// What was mended in an open store. The bundle that runs was in its
    /// mirror, or will come again from the cloud.
    fn mended(&self) -> Option<Vec<Recovery>> {
        let recoveries = self.store.as_ref()?.take_recoveries();
        recoveries.iter().for_each(|recovery| log::warn!("{recovery}"));
        (!recoveries.is_empty()).then_some(recoveries)
    }

    fn open_store(&mut self) -> Result<Found, StoreError> {
        let (store, recoveries) = Store::open_kept(&self.data.state(), self.keeping.clone())?;
        for recovery in &recoveries {
            log::warn!("{recovery}");
        }
        let generations = store.generations()?;
        self.refused = store.refused();
        if let Some(known) = store.failed() {
            self.held.failed = Some((known.generation, known.envelope));
            self.failed = known.report;
        }
        let mut jobs = store.jobs();
        jobs.append(&mut self.jobs.succeeded);
        self.jobs.succeeded = jobs;
        self.store = Some(Arc::new(store));
        self.count_boot();
        let (bundle, health) = self.load(generations);
        Ok(Found { bundle, health, recoveries })
    }

    fn salvage(&mut self) -> Found {
        match Store::salvage(&self.data.state()) {
            Ok(generations) => {
                let (bundle, health) = self.load(generations);
                Found { bundle, health, recoveries: Vec::new() }
            }
            Err(error) => {
                log::error!("nor can its mirror be read; pods that run are left alone: {error}");
                Found::default()
            }
        }
    }

    fn load(&mut self, generations: Generations) -> (Option<Bundle>, HealthSpecs) {
        self.held.highest_seen = generations.highest_seen;
        self.held.current = generations
            .current
            .as_ref()
            .map(|stored| (stored.generation, Digest::of(&stored.envelope)));
        let open = |stored: Option<Stored>, what| {
            let stored = stored?;
            open_kept(&stored, &self.own)
                .inspect_err(|error| log::error!("the {what} bundle cannot be used: {error}"))
                .ok()
        };
        let last_good = open(generations.last_good, "last good");
        self.last_good = last_good.as_ref().map(Needed::of).unwrap_or_default();
        let mut health = HealthSpecs::default();
        last_good.iter().for_each(|bundle| health.learn(bundle));
        (open(generations.current, "current").or(last_good), health)
    }

    fn open_now(&self) -> Result<&Arc<Store>, StoreError> {
        self.store.as_ref().ok_or_else(|| StoreError::Locked { path: self.data.state() })
    }
}

impl Needed {
    fn of(bundle: &Bundle) -> Self {
        Self {
            generation: bundle.generation,
            layers: layers_of(bundle).collect(),
            chunk_lists: bundle.chunk_lists.clone(),
            claims: bundle.claims.iter().map(|claim| claim.name.clone()).collect(),
        }
    }
}

fn layers_of(bundle: &Bundle) -> impl Iterator<Item = Layer> {
    bundle.images.iter().flat_map(|image| &image.layers).copied()
}

fn digests_of(bundle: &Bundle) -> impl Iterator<Item = Digest> {
    layers_of(bundle).map(|layer| layer.digest)
}

/// The jobs of `bundle`, and in which form it has them.
fn jobs_of(bundle: &Bundle) -> impl Iterator<Item = (Name, Digest)> {
    let jobs = bundle.deployments.iter().filter(|deployment| deployment.job.is_some());
    jobs.map(|job| (job.name.clone(), bundle.pod_hash(job)))
}

fn open_kept(stored: &Stored, own: &Name) -> Result<Bundle, EnvelopeError> {
    envelope::open_kept(&stored.envelope, own)
}

fn open_layers(data: &DataDir) -> Result<Layers, LayerError> {
    Layers::open(&data.layers())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ed25519_dalek::SigningKey;
    use wherry_bundle::model::{Job, RestartPolicy, Strategy};

    use super::*;
    use crate::supervisor::sample;

    fn bundle(generation: u64, layer: &[u8]) -> (Bundle, Vec<u8>) {
        let mut bundle = Bundle { generation: Generation(generation), ..sample::bundle() };
        bundle.images[0].layers = vec![sample::layer(layer)];
        bundle.chunk_lists = [sample::cut(layer)].into();
        let key = SigningKey::from_bytes(&[1; 32]);
        let envelope = envelope::seal(&bundle, &key).unwrap();
        (bundle, envelope)
    }

    fn put(durable: &Durable, text: &[u8]) {
        fs::write(durable.layers().path(&sample::layer(text).digest), text).unwrap();
    }

    #[test]
    fn a_restart_finds_all_and_what_is_needed_is_pinned() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir(dir.path().to_owned());
        let own = sample::name("gw-1");
        let open = || Durable::open(&data, Keeping::Here, &own, Millis(0)).unwrap();
        let (mut durable, found) = open();
        assert!(found.bundle.is_none() && found.recoveries.is_empty());
        let mut before = None;
        for (generation, layer) in [(1, b"a"), (2, b"b"), (3, b"c")] {
            put(&durable, layer);
            let (bundle, envelope) = bundle(generation, layer);
            durable.take_up(&bundle, &envelope, before.as_ref()).unwrap();
            if generation == 1 {
                durable.mark_good(&bundle, Millis(0)).unwrap();
            }
            before = Some(bundle);
        }
        let whole = |durable: &Durable| durable.layers().present().unwrap().len();
        // All that can go.
        let go = |durable: &Durable, current: &Option<Bundle>| {
            durable.make_room(current.as_ref(), u64::MAX, 0).layers
        };
        put(&durable, b"d");
        assert_eq!(go(&durable, &before), [sample::layer(b"d").digest]);
        assert_eq!(whole(&durable), 3, "current, the one before and last good");
        let needed = durable.needed_layers(before.as_ref());
        assert_eq!(needed, [sample::layer(b"a"), sample::layer(b"c")].into());
        assert!(durable.chunk_lists(&sample::layer(b"a").digest).is_some());
        let refused = Refused { generation: Generation(9), reason: "no".into() };
        assert!(durable.refuse(&refused).unwrap());
        assert!(!durable.refuse(&refused).unwrap(), "the same again is no news");
        drop(durable);

        let (mut durable, found) = open();
        assert_eq!(found.bundle, before);
        assert_eq!(durable.held().highest_seen, Generation(3));
        assert_eq!((durable.last_good(), durable.refused()), (Generation(1), Some(&refused)));
        assert_eq!(durable.present(before.as_ref()).len(), 1);
        let current = before.clone().unwrap();
        assert_eq!(durable.stand_in(&current), None, "the current one is whole");
        fs::remove_file(durable.layers().path(&current.images[0].layers[0].digest)).unwrap();
        let stand_in = durable.stand_in(&current).map(|bundle| bundle.generation);
        assert_eq!(stand_in, Some(Generation(1)));
        fs::remove_file(durable.layers().path(&sample::layer(b"a").digest)).unwrap();
        assert_eq!(durable.stand_in(&current), None, "nor is the last good one whole");
        put(&durable, b"c");
        durable.mark_good(&current, Millis(0)).unwrap();
        assert_eq!(durable.make_room(before.as_ref(), 0, 0), Removed::default());
        assert_eq!(go(&durable, &before), [sample::layer(b"b").digest]);
        assert_eq!(whole(&durable), 1);
    }

    #[test]
    fn without_a_store_the_bundle_is_found_and_the_store_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir(dir.path().to_owned());
        let own = sample::name("gw-1");
        let (bundle, envelope) = bundle(1, b"a");
        let (mut first, _) = Durable::open(&data, Keeping::Here, &own, Millis(0)).unwrap();
        first.take_up(&bundle, &envelope, None).unwrap();
        // Its lock keeps the second one out, as a failing disk would.
        let (mut second, found) = Durable::open(&data, Keeping::Here, &own, Millis(5)).unwrap();
        assert_eq!(found.bundle.as_ref(), Some(&bundle));
        assert!(second.store().is_none());
        assert!(second.take_up(&bundle, &envelope, None).is_err());
        let at = second.retry_at().unwrap();
        assert!(second.retry(at).is_none());
        drop(first);
        assert!(second.retry(at).is_none(), "not before its time");
        let found = second.retry(second.retry_at().unwrap()).unwrap();
        assert_eq!(found.bundle, Some(bundle));
        assert!(second.store().is_some() && second.retry_at().is_none());
    }

    #[test]
    fn what_a_bundle_takes_counts_what_is_there_and_what_can_go() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir(dir.path().to_owned());
        let (mut durable, _) =
            Durable::open(&data, Keeping::Here, &sample::name("gw-1"), Millis(0)).unwrap();
        let (mut first, envelope) = bundle(1, b"a");
        put(&durable, b"a");
        assert_eq!(durable.room_for(&first, None, 0), None, "it is all there");
        durable.take_up(&first, &envelope, None).unwrap();
        let (mut second, _) = bundle(2, b"b");
        second.images[0].layers[0].size_bytes = 1 << 60;
        let large = vec![7; 64 << 10];
        put(&durable, &large);
        let flash = durable.room_for(&second, Some(&first), 0).unwrap();
        assert_eq!((flash.folder, flash.needed_bytes), (data.0, (1 << 60) + ROOM_MARGIN_BYTES));
        let pinned = BTreeSet::from([&b"a"[..], b"b"].map(|text| sample::layer(text).digest));
        assert!(durable.layers().removable_bytes(&pinned).unwrap() >= 64 << 10);
        // What came of it already is not wanted again.
        let part = durable.layers().path(&sample::layer(b"b").digest).with_extension("part");
        fs::write(part, &large).unwrap();
        let flash = durable.room_for(&second, Some(&first), 0).unwrap();
        assert_eq!(flash.needed_bytes, (1 << 60) - (64 << 10) + ROOM_MARGIN_BYTES);
        first.images[0].layers[0].size_bytes = 2;
        assert!(durable.room_for(&first, None, 0).is_some(), "a file of another size is none");
    }

    #[test]
    fn a_bundle_of_another_node_is_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir(dir.path().to_owned());
        let (bundle, envelope) = bundle(1, b"a");
        let (mut durable, _) =
            Durable::open(&data, Keeping::Here, &sample::name("gw-1"), Millis(0)).unwrap();
        durable.take_up(&bundle, &envelope, None).unwrap();
        drop(durable);
        let (_, found) =
            Durable::open(&data, Keeping::Here, &sample::name("gw-2"), Millis(0)).unwrap();
        assert_eq!(found.bundle, None);
    }

    #[test]
    fn jobs_are_remembered_until_a_good_generation_is_without_them() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir(dir.path().to_owned());
        let own = sample::name("gw-1");
        let open = || Durable::open(&data, Keeping::Here, &own, Millis(0)).unwrap().0;
        let jobs = |forms: &[(&str, &str)]| -> BTreeMap<Name, Digest> {
            let forms = forms.iter();
            forms.map(|(name, form)| (sample::name(name), Digest::of(form.as_bytes()))).collect()
        };
        let with_job = |generation, layer: &[u8]| {
            let mut made = bundle(generation, layer).0;
            made.deployments[0].job = Some(Job { backoff_limit: 6, deadline_seconds: None });
            made.deployments[0].replicas = 1;
            made.deployments[0].strategy = Strategy::Recreate;
            made.deployments[0].pod.restart_policy = RestartPolicy::Never;
            let key = SigningKey::from_bytes(&[1; 32]);
            let envelope = envelope::seal(&made, &key).unwrap();
            let form = made.pod_hash(&made.deployments[0]);
            (made, envelope, BTreeMap::from([(sample::name("web"), form)]))
        };
        let mut durable = open();
        let (first, envelope, done) = with_job(1, b"a");
        durable.take_up(&first, &envelope, None).unwrap();
        assert!(durable.succeeded(&first).is_empty());
        durable.remember_jobs(jobs(&[("other", "x")]), &first, Millis(0));
        durable.remember_jobs(done.clone(), &first, Millis(0));
        drop(durable);
        let mut durable = open();
        let both: BTreeMap<_, _> =
            done.clone().into_iter().chain(jobs(&[("other", "x")])).collect();
        assert_eq!(durable.succeeded(&first), both);
        durable.mark_good(&first, Millis(0)).unwrap();
        drop(durable);
        let mut durable = open();
        assert_eq!(durable.succeeded(&first), done);

        // Another form ran; going back to what was good runs nothing again.
        let (second, envelope, newer) = with_job(2, b"b");
        durable.take_up(&second, &envelope, Some(&first)).unwrap();
        assert_ne!(durable.succeeded(&second), newer);
        durable.remember_jobs(newer.clone(), &second, Millis(0));
        assert_eq!(durable.succeeded(&second), newer);
        assert_eq!(durable.succeeded(&first), done);
    }
}
