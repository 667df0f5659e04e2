//! Fetching layers: which chunks to ask for next, and what to do with those
//! that came.
//!
//! One layer at a time: first how it is cut, then those of its chunks that
//! this node does not hold. A window of bytes bounds memory and the uplink.
//! Never here: MQTT.

mod meter;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use wherry_bundle::Digest;
use wherry_bundle::limits::CHUNK_BYTES_MAX;
use wherry_bundle::message::{ChunkContents, ChunkData, ChunkGet, Transfer};
use wherry_bundle::model::Layer;

use super::AgentEvent;
use crate::layers::{Ahead, Assembly, LayerError, Layers, Step, WantedLayer};
use meter::{Pace, Rate};
use window::{Answer, TRIES_MAX, Window};

/// A layer that failed is tried again after this, with each failure twice as
/// much, up to the longest. Other layers go on meanwhile.
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_LONGEST: Duration = Duration::from_secs(600);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Fetcher {
    layers: Layers,
    /// Those that are not whole, in order of urgency.
    wanted: Vec<WantedLayer>,
    bytes_whole: u64,
    bytes_total: u64,
    active: Option<Active>,
    retries: BTreeMap<Digest, Retry>,
    progress_told: Option<Instant>,
    pace: Pace,
    rate: Rate,
    /// Of layers that were finished since the list was empty.
    bytes_fetched: u64,
    bytes_copied: u64,
    chunks_refused: u64,
    /// There is work that needs no answer.
    is_busy: bool,
}

/// The layer that is fetched.
#[derive(Debug)]
struct Active {
    layer: Layer,
    stage: Stage,
    window: Window,
}

#[derive(Debug)]
enum Stage {
    /// How it is cut: lists that came, of all these.
    Lists { digests: Vec<Digest>, came: Vec<Vec<u8>> },
    /// Boxed: it holds a hasher.
    Chunks { assembly: Box<Assembly>, ahead: Ahead, bytes_missing: u64 },
}

#[derive(Debug)]
struct Retry {
    failures: u32,
    at: Instant,
}

/// Why a layer is not to be had now.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error("the cloud does not have chunk {chunk}: {why}")]
    Missing { chunk: Digest, why: String },
    #[error("chunk {chunk} came with other bytes {tries} times")]
    Wrong { chunk: Digest, tries: u32 },
    #[error("nobody told how it is cut")]
    NoLists,
}

impl Fetcher {
    /// `bytes_per_second_max` bounds what is asked for; `None` does not.
    pub fn new(layers: Layers, bytes_per_second_max: Option<u64>) -> Self {
        Self {
            layers,
            wanted: Vec::new(),
            bytes_whole: 0,
            bytes_total: 0,
            active: None,
            retries: BTreeMap::new(),
            progress_told: None,
            pace: Pace::new(bytes_per_second_max),
            rate: Rate::default(),
            bytes_fetched: 0,
            bytes_copied: 0,
            chunks_refused: 0,
            is_busy: false,
        }
    }

    /// Replaces the list. A transfer under way goes on if it is still wanted.
    pub fn want(&mut self, layers: Vec<WantedLayer>) {
        let mut seen = BTreeSet::new();
        let unique = layers.into_iter().filter(|wanted| seen.insert(wanted.layer.digest));
        let (whole, wanted): (Vec<WantedLayer>, Vec<WantedLayer>) =
            unique.partition(|wanted| self.layers.is_whole(&wanted.layer));
        self.bytes_whole = size_bytes(&whole);
        self.bytes_total = self.bytes_whole.saturating_add(size_bytes(&wanted));
        let is_wanted = |digest: &Digest| wanted.iter().any(|w| w.layer.digest == *digest);
        if self.active.as_ref().is_some_and(|active| !is_wanted(&active.layer.digest)) {
            self.active = None;
        }
        self.retries.retain(|digest, _| is_wanted(digest));
        if self.wanted.is_empty() {
            (self.bytes_fetched, self.bytes_copied) = (0, 0);
        }
        self.wanted = wanted;
    }

    /// What was asked for and not answered is asked for again.
    pub fn disconnected(&mut self) {
        if let Some(active) = &mut self.active {
            active.window.disconnected();
        }
    }

    /// Does what needs no answer from the cloud: a bounded part of it.
    pub fn work(&mut self, now: Instant, news: &mut Vec<AgentEvent>) {
        self.is_busy = false;
        while self.active.is_none() {
            let Some(wanted) = self.next_wanted(now).cloned() else { return };
            let layer = wanted.layer;
            match Active::begin(&self.layers, wanted, now) {
                Ok(active) => {
                    self.active = Some(active);
                    self.tell_begun(news);
                }
                Err(error) => self.fail(layer, error, now, news),
            }
        }
        let Some(active) = &mut self.active else { return };
        let layer = active.layer;
        match active.work(&self.layers) {
            Ok(Worked::Waits) => {}
            Ok(Worked::More) => self.is_busy = true,
            Ok(Worked::Cut) => {
                self.is_busy = true;
                self.tell_begun(news);
            }
            Ok(Worked::Whole) => {
                self.is_busy = true;
                self.finish(now, news);
            }
            Err(error) => self.fail(layer, error, now, news),
        }
        self.tell_progress(now, news);
    }

    /// The next chunks to ask for, if window and pace have room.
    pub fn next_request(&mut self, now: Instant) -> Option<ChunkGet> {
        let active = self.active.as_mut()?;
        if self.pace.free_at(now).is_some() {
            return None;
        }
        let (chunks, bytes) = active.window.ask(now, self.pace.burst_bytes());
        self.pace.spend(bytes, now);
        (!chunks.is_empty()).then_some(ChunkGet { chunks })
    }

    /// When [`Self::work`] or [`Self::next_request`] may have something to do
    /// that they have not now.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        if self.is_busy {
            return Some(now);
        }
        match &self.active {
            Some(active) => {
                let free_at = self.pace.free_at(now).filter(|_| active.window.has_to_ask());
                [active.window.wake_at(), free_at].into_iter().flatten().min()
            }
            None => {
                let at = |wanted: &WantedLayer| Some(self.retries.get(&wanted.layer.digest)?.at);
                self.wanted.iter().filter_map(at).min()
            }
        }
    }

    /// False if nobody asked for this chunk.
    pub fn receive(&mut self, chunk: ChunkData, now: Instant, news: &mut Vec<AgentEvent>) -> bool {
        let Some(active) = &mut self.active else { return false };
        let (layer, digest) = (active.layer, chunk.chunk);
        let error = match chunk.contents {
            ChunkContents::Missing(_) if !active.window.has_digest(&digest) => return false,
            ChunkContents::Missing(why) => FetchError::Missing { chunk: digest, why },
            ChunkContents::Bytes(bytes) => {
                let length = bytes.len() as u64;
                match active.window.receive(digest, bytes, now) {
                    Answer::Unasked => return false,
                    Answer::Right => {
                        self.rate.add(length, now);
                        self.is_busy = true;
                        return true;
                    }
                    Answer::Wrong(tries) => {
                        self.chunks_refused += 1;
                        log::warn!("chunk {digest} is refused: it came with other bytes");
                        if tries < TRIES_MAX {
                            return true;
                        }
                        FetchError::Wrong { chunk: digest, tries }
                    }
                }
            }
        };
        self.fail(layer, error, now, news);
        true
    }

    fn next_wanted(&self, now: Instant) -> Option<&WantedLayer> {
        let is_ready = |digest| self.retries.get(digest).is_none_or(|retry| retry.at <= now);
        self.wanted.iter().find(|wanted| is_ready(&wanted.layer.digest))
    }

    fn finish(&mut self, now: Instant, news: &mut Vec<AgentEvent>) {
        let Some(active) = self.active.take() else { return };
        let layer = active.layer;
        let Stage::Chunks { assembly, .. } = active.stage else { return };
        let (fetched, copied) = (assembly.supplied_bytes(), assembly.copied_bytes());
        match assembly.finish() {
            Ok(()) => {
                self.wanted.retain(|wanted| wanted.layer != layer);
                self.retries.remove(&layer.digest);
                self.bytes_whole = self.bytes_whole.saturating_add(layer.size_bytes);
                self.bytes_fetched += fetched;
                self.bytes_copied += copied;
                news.push(AgentEvent::LayerDone {
                    layer: layer.digest,
                    bytes_fetched: fetched,
                    bytes_copied: copied,
                });
            }
            Err(error) => self.fail(layer, error.into(), now, news),
        }
    }

    fn fail(&mut self, layer: Layer, error: FetchError, now: Instant, news: &mut Vec<AgentEvent>) {
        self.active = None;
        let retry = self.retries.entry(layer.digest).or_insert(Retry { failures: 0, at: now });
        let wait = RETRY_FIRST.saturating_mul(1 << retry.failures.min(16)).min(RETRY_LONGEST);
        retry.failures = retry.failures.saturating_add(1);
        retry.at = now + wait;
        let is_no_space = matches!(&error, FetchError::Layer(error) if error.is_no_space());
        let error = error.to_string();
        news.push(AgentEvent::LayerFailed { layer: layer.digest, error, is_no_space });
    }

    fn tell_begun(&self, news: &mut Vec<AgentEvent>) {
        if let Some(Active { layer, stage: Stage::Chunks { bytes_missing, .. }, .. }) = self.active
        {
            news.push(AgentEvent::LayerBegun { layer, bytes_missing });
        }
    }

    fn tell_progress(&mut self, now: Instant, news: &mut Vec<AgentEvent>) {
        if self.progress_told.is_some_and(|told| now < told + PROGRESS_INTERVAL) {
            return;
        }
        self.progress_told = Some(now);
        news.push(AgentEvent::Progress(self.progress(now)));
    }

    fn progress(&mut self, now: Instant) -> Transfer {
        let bytes_per_second = self.rate.bytes_per_second(now);
        let mut transfer = Transfer {
            bytes_done: self.bytes_whole,
            bytes_total: self.bytes_total,
            bytes_fetched: self.bytes_fetched,
            bytes_copied: self.bytes_copied,
            bytes_per_second,
            seconds_left: None,
            chunks_refused: self.chunks_refused,
        };
        // Of layers that were not looked at yet all may have to come.
        let mut bytes_left = size_bytes(&self.wanted);
        if let Some(active) = &self.active
            && let Stage::Chunks { assembly, bytes_missing, .. } = &active.stage
        {
            transfer.bytes_done += assembly.offset();
            transfer.bytes_fetched += assembly.supplied_bytes();
            transfer.bytes_copied += assembly.copied_bytes();
            bytes_left -= active.layer.size_bytes.min(bytes_left);
            bytes_left += bytes_missing.saturating_sub(assembly.supplied_bytes());
        }
        transfer.seconds_left = bytes_left.checked_div(bytes_per_second);
        transfer
    }
}

/// What [`Active::work`] came to.
enum Worked {
    /// For the cloud.
    Waits,
    More,
    /// Now it is known how the layer is cut.
    Cut,
    Whole,
}

impl Active {
    fn begin(layers: &Layers, wanted: WantedLayer, now: Instant) -> Result<Self, FetchError> {
        let WantedLayer { layer, lists: digests } = wanted;
        let mut window = Window::new(now);
        let stage = if layers.has_lists(&layer, &digests) {
            Stage::chunks(layers, layer)?
        } else if digests.is_empty() {
            return Err(FetchError::NoLists);
        } else {
            fill_lists(&mut window, &digests, 0);
            Stage::Lists { digests, came: Vec::new() }
        };
        Ok(Self { layer, stage, window })
    }

    fn work(&mut self, layers: &Layers) -> Result<Worked, FetchError> {
        match &mut self.stage {
            Stage::Lists { digests, came } => {
                while let Some(list) = self.window.take(came.len()) {
                    came.push(list);
                }
                fill_lists(&mut self.window, digests, came.len());
                if came.len() < digests.len() {
                    return Ok(Worked::Waits);
                }
                layers.put_lists(&self.layer, came)?;
                self.stage = Stage::chunks(layers, self.layer)?;
                Ok(Worked::Cut)
            }
            Stage::Chunks { assembly, ahead, .. } => {
                let worked = build(assembly, &mut self.window)?;
                fill_chunks(assembly, ahead, &mut self.window)?;
                Ok(worked)
            }
        }
    }
}

impl Stage {
    fn chunks(layers: &Layers, layer: Layer) -> Result<Self, FetchError> {
        let mut assembly = Box::new(Assembly::begin(layers, layer)?);
        let (mut ahead, mut bytes_missing) = (Ahead::default(), 0);
        while let Some(located) = assembly.missing(&mut ahead)? {
            bytes_missing += u64::from(located.chunk.size_bytes);
        }
        Ok(Self::Chunks { assembly, ahead: Ahead::default(), bytes_missing })
    }
}

/// Adds what is on this node and what came, as far as that goes now.
fn build(assembly: &mut Assembly, window: &mut Window) -> Result<Worked, FetchError> {
    match assembly.advance()? {
        Step::More => Ok(Worked::More),
        Step::Whole => Ok(Worked::Whole),
        Step::Needs(located) => match window.take(located.index) {
            Some(bytes) => {
                assembly.supply(&bytes)?;
                Ok(Worked::More)
            }
            None => {
                // It was expected on this node, and was not what it should be.
                if !window.has(located.index) {
                    let size_bytes = located.chunk.size_bytes as usize;
                    window.add(located.index, located.chunk.digest, size_bytes);
                }
                Ok(Worked::Waits)
            }
        },
    }
}

/// Looks ahead for chunks to ask for, as long as there is room.
fn fill_chunks(
    assembly: &mut Assembly,
    ahead: &mut Ahead,
    window: &mut Window,
) -> Result<(), LayerError> {
    while window.has_room()
        && let Some(located) = assembly.missing(ahead)?
    {
        // The same chunk once more will be copied from its first place.
        if !window.has(located.index) && !window.has_digest(&located.chunk.digest) {
            let size_bytes = located.chunk.size_bytes as usize;
            window.add(located.index, located.chunk.digest, size_bytes);
        }
    }
    Ok(())
}

/// A list's size is not known before it is there.
fn fill_lists(window: &mut Window, digests: &[Digest], came: usize) {
    for (index, digest) in digests.iter().enumerate().skip(came) {
        if !window.has_room() {
            return;
        }
        if !window.has(index) {
            window.add(index, *digest, CHUNK_BYTES_MAX);
        }
    }
}

fn size_bytes(layers: &[WantedLayer]) -> u64 {
    layers.iter().fold(0, |sum, wanted| sum.saturating_add(wanted.layer.size_bytes))
}

#[cfg(test)]
mod tests;
