//! Fetching layers: which chunk to ask for next, and what to do with one that
//! came.
//!
//! One layer at a time, written in sequence; a window of chunks bounds memory
//! and the uplink. Never here: MQTT.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use wherry_bundle::Digest;
use wherry_bundle::limits::{CHUNK_BYTES_MAX, CHUNK_REQUESTS_MAX};
use wherry_bundle::message::{ChunkContents, ChunkData, ChunkGet};
use wherry_bundle::model::Layer;

use super::AgentEvent;
use crate::layers::{Layers, Partial};

const CHUNK_BYTES: u64 = CHUNK_BYTES_MAX as u64;
/// All requests of the window count as lost after this; with each loss in a
/// row twice as much, up to the longest, and only one request at a time.
const TIMEOUT_FIRST: Duration = Duration::from_secs(15);
const TIMEOUT_LONGEST: Duration = Duration::from_secs(300);
/// A layer that failed is tried again after this, with each failure twice as
/// much, up to the longest. Other layers go on meanwhile.
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_LONGEST: Duration = Duration::from_secs(600);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Fetcher {
    layers: Layers,
    /// Those that are not whole, in order of urgency.
    wanted: Vec<Layer>,
    bytes_whole: u64,
    bytes_total: u64,
    active: Option<Active>,
    retries: BTreeMap<Digest, Retry>,
    progress_told: Option<Instant>,
}

#[derive(Debug)]
struct Active {
    partial: Partial,
    /// Offsets asked for and not answered.
    requested: BTreeSet<u64>,
    /// Chunks that came before one in front of them.
    early: BTreeMap<u64, Vec<u8>>,
    /// Timeouts since a chunk came.
    timeouts: u32,
    expires: Instant,
}

#[derive(Debug)]
struct Retry {
    failures: u32,
    at: Instant,
}

impl Fetcher {
    pub fn new(layers: Layers) -> Self {
        Self {
            layers,
            wanted: Vec::new(),
            bytes_whole: 0,
            bytes_total: 0,
            active: None,
            retries: BTreeMap::new(),
            progress_told: None,
        }
    }

    /// Replaces the list. A transfer under way goes on if it is still wanted.
    pub fn want(&mut self, layers: Vec<Layer>) {
        let mut seen = BTreeSet::new();
        let unique: Vec<Layer> = layers.into_iter().filter(|layer| seen.insert(*layer)).collect();
        let (whole, wanted): (Vec<Layer>, Vec<Layer>) =
            unique.into_iter().partition(|layer| self.layers.is_whole(layer));
        let bytes = |layers: &[Layer]| -> u64 {
            layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size_bytes))
        };
        self.bytes_whole = bytes(&whole);
        self.bytes_total = self.bytes_whole.saturating_add(bytes(&wanted));
        if self.active.as_ref().is_some_and(|active| !wanted.contains(&active.partial.layer())) {
            self.active = None;
        }
        self.retries.retain(|digest, _| wanted.iter().any(|layer| layer.digest == *digest));
        self.wanted = wanted;
    }

    /// What was asked for and not answered is asked for again.
    pub fn disconnected(&mut self) {
        if let Some(active) = &mut self.active {
            active.requested.clear();
            active.timeouts = 0;
        }
    }

    /// The next chunk to ask for now, if the window has room.
    pub fn next_request(&mut self, now: Instant, news: &mut Vec<AgentEvent>) -> Option<ChunkGet> {
        while self.active.is_none() {
            let layer = self.next_layer(now)?;
            self.begin(layer, now, news);
        }
        let active = self.active.as_mut()?;
        active.expire(now);
        active.next_request(now)
    }

    /// When [`Self::next_request`] may have something that it has not now.
    pub fn wake_at(&self) -> Option<Instant> {
        match &self.active {
            Some(active) => Some(active.expires).filter(|_| !active.requested.is_empty()),
            None => self.wanted.iter().filter_map(|l| Some(self.retries.get(&l.digest)?.at)).min(),
        }
    }

    /// False if nobody asked for this chunk.
    pub fn receive(&mut self, chunk: ChunkData, now: Instant, news: &mut Vec<AgentEvent>) -> bool {
        let Some(active) = &mut self.active else { return false };
        let layer = active.partial.layer();
        if layer.digest != chunk.layer {
            return false;
        }
        let result = match chunk.contents {
            ChunkContents::Missing(reason) => Err(format!("the cloud does not have it: {reason}")),
            ChunkContents::Bytes(bytes) => {
                if !active.accepts(chunk.offset, bytes.len()) {
                    return false;
                }
                active.write(chunk.offset, bytes, now).map_err(|error| error.to_string())
            }
        };
        match result {
            Ok(()) => self.finish_if_whole(now, news),
            Err(error) => self.fail(layer, error, now, news),
        }
        true
    }

    fn next_layer(&self, now: Instant) -> Option<Layer> {
        let ready = |layer: &&Layer| self.retries.get(&layer.digest).is_none_or(|r| r.at <= now);
        self.wanted.iter().find(ready).copied()
    }

    fn begin(&mut self, layer: Layer, now: Instant, news: &mut Vec<AgentEvent>) {
        match self.layers.begin(layer) {
            Ok(partial) => {
                self.active = Some(Active {
                    partial,
                    requested: BTreeSet::new(),
                    early: BTreeMap::new(),
                    timeouts: 0,
                    expires: now,
                });
                self.finish_if_whole(now, news);
            }
            Err(error) => self.fail(layer, error.to_string(), now, news),
        }
    }

    fn finish_if_whole(&mut self, now: Instant, news: &mut Vec<AgentEvent>) {
        let whole = |active: &Active| active.partial.offset() == active.partial.layer().size_bytes;
        let Some(active) = self.active.take_if(|active| whole(active)) else {
            self.tell_progress(now, news);
            return;
        };
        let layer = active.partial.layer();
        match active.partial.finish() {
            Ok(()) => {
                self.wanted.retain(|wanted| *wanted != layer);
                self.retries.remove(&layer.digest);
                self.bytes_whole = self.bytes_whole.saturating_add(layer.size_bytes);
                news.push(AgentEvent::LayerDone(layer.digest));
                self.tell_progress(now, news);
            }
            Err(error) => self.fail(layer, error.to_string(), now, news),
        }
    }

    fn fail(&mut self, layer: Layer, error: String, now: Instant, news: &mut Vec<AgentEvent>) {
        self.active = None;
        let retry = self.retries.entry(layer.digest).or_insert(Retry { failures: 0, at: now });
        let wait = RETRY_FIRST.saturating_mul(1 << retry.failures.min(16)).min(RETRY_LONGEST);
        retry.failures += 1;
        retry.at = now + wait;
        news.push(AgentEvent::LayerFailed { layer: layer.digest, error });
    }

    fn tell_progress(&mut self, now: Instant, news: &mut Vec<AgentEvent>) {
        if self.progress_told.is_some_and(|told| now < told + PROGRESS_INTERVAL) {
            return;
        }
        self.progress_told = Some(now);
        let under_way = self.active.as_ref().map_or(0, |active| active.partial.offset());
        let bytes_done = self.bytes_whole.saturating_add(under_way);
        news.push(AgentEvent::Progress { bytes_done, bytes_total: self.bytes_total });
    }
}

impl Active {
    fn window(&self) -> usize {
        if self.timeouts == 0 { CHUNK_REQUESTS_MAX } else { 1 }
    }

    fn expire(&mut self, now: Instant) {
        if !self.requested.is_empty() && now >= self.expires {
            self.requested.clear();
            self.timeouts += 1;
        }
    }

    fn next_request(&mut self, now: Instant) -> Option<ChunkGet> {
        let layer = self.partial.layer();
        if self.requested.len() >= self.window() {
            return None;
        }
        let window =
            (0..CHUNK_REQUESTS_MAX as u64).map(|i| self.partial.offset() + i * CHUNK_BYTES);
        let offset = window
            .take_while(|offset| *offset < layer.size_bytes)
            .find(|offset| !self.requested.contains(offset) && !self.early.contains_key(offset))?;
        self.requested.insert(offset);
        let wait = TIMEOUT_FIRST.saturating_mul(1 << self.timeouts.min(16)).min(TIMEOUT_LONGEST);
        self.expires = now + wait;
        let length = chunk_length(layer, offset);
        Some(ChunkGet { layer: layer.digest, offset, length })
    }

    /// A chunk inside the window that is not there yet, of the right length.
    fn accepts(&self, offset: u64, length: usize) -> bool {
        let start = self.partial.offset();
        let layer = self.partial.layer();
        offset >= start
            && offset < layer.size_bytes.min(start + CHUNK_REQUESTS_MAX as u64 * CHUNK_BYTES)
            && (offset - start).is_multiple_of(CHUNK_BYTES)
            && length == chunk_length(layer, offset) as usize
            && !self.early.contains_key(&offset)
    }

    fn write(
        &mut self,
        offset: u64,
        bytes: Vec<u8>,
        now: Instant,
    ) -> Result<(), crate::layers::LayerError> {
        self.requested.remove(&offset);
        self.timeouts = 0;
        self.expires = now + TIMEOUT_FIRST;
        self.early.insert(offset, bytes);
        while let Some(bytes) = self.early.remove(&self.partial.offset()) {
            self.partial.write(&bytes)?;
        }
        Ok(())
    }
}

fn chunk_length(layer: Layer, offset: u64) -> u32 {
    u32::try_from((layer.size_bytes - offset).min(CHUNK_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Bench {
        fetcher: Fetcher,
        layers: Layers,
        now: Instant,
        news: Vec<AgentEvent>,
        _dir: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let layers = Layers::open(dir.path()).unwrap();
            let fetcher = Fetcher::new(layers.clone());
            Self { fetcher, layers, now: Instant::now(), news: Vec::new(), _dir: dir }
        }

        /// All that can be asked for now.
        fn requests(&mut self) -> Vec<ChunkGet> {
            let next = || self.fetcher.next_request(self.now, &mut self.news);
            std::iter::from_fn(next).collect()
        }

        fn answer(&mut self, request: ChunkGet, blob: &[u8]) -> bool {
            let start = usize::try_from(request.offset).unwrap();
            let bytes = blob[start..start + request.length as usize].to_vec();
            let contents = ChunkContents::Bytes(bytes);
            let chunk = ChunkData { layer: request.layer, offset: request.offset, contents };
            self.fetcher.receive(chunk, self.now, &mut self.news)
        }

        fn fetch(&mut self, blob: &[u8]) {
            loop {
                let requests = self.requests();
                if requests.is_empty() {
                    return;
                }
                for request in requests {
                    assert!(self.answer(request, blob));
                }
            }
        }

        fn failures(&self) -> usize {
            self.news.iter().filter(|e| matches!(e, AgentEvent::LayerFailed { .. })).count()
        }
    }

    fn blob(length: usize, seed: usize) -> (Vec<u8>, Layer) {
        let bytes: Vec<u8> =
            (0..length).map(|i| u8::try_from((i * seed + i / 256) % 256).unwrap()).collect();
        let layer = Layer { digest: Digest::of(&bytes), size_bytes: length as u64 };
        (bytes, layer)
    }

    #[test]
    fn the_window_is_full_and_never_more() {
        let mut bench = Bench::new();
        let (bytes, layer) = blob(3_000_000, 7);
        bench.fetcher.want(vec![layer, layer]);
        let requests = bench.requests();
        assert_eq!(requests.len(), CHUNK_REQUESTS_MAX);
        // Out of order: what is early is held, and opens no more room.
        assert!(bench.answer(requests[1], &bytes));
        assert!(!bench.answer(requests[1], &bytes), "twice");
        assert_eq!(bench.requests(), []);
        assert!(bench.answer(requests[0], &bytes));
        assert_eq!(bench.requests().len(), 2);
        bench.fetcher.disconnected();
        bench.now += PROGRESS_INTERVAL;
        bench.fetch(&bytes);
        assert!(bench.layers.is_whole(&layer));
        let progress = |bytes_done| AgentEvent::Progress { bytes_done, bytes_total: 3_000_000 };
        let done = AgentEvent::LayerDone(layer.digest);
        // Two chunks were there; with the third one a second had passed.
        assert_eq!(bench.news, [progress(0), progress(3 * 65536), done]);
    }

    #[test]
    fn silence_is_answered_ever_more_slowly() {
        let mut bench = Bench::new();
        let (bytes, layer) = blob(3_000_000, 7);
        bench.fetcher.want(vec![layer]);
        assert_eq!(bench.requests().len(), CHUNK_REQUESTS_MAX);
        let mut wait = TIMEOUT_FIRST;
        let mut last = None;
        for _ in 0..10 {
            assert_eq!(bench.fetcher.wake_at(), Some(bench.now + wait));
            bench.now += wait;
            let requests = bench.requests();
            assert_eq!(requests.len(), 1);
            last = requests.first().copied();
            wait = (wait * 2).min(TIMEOUT_LONGEST);
        }
        bench.answer(last.unwrap(), &bytes);
        bench.fetch(&bytes);
        assert!(bench.layers.is_whole(&layer));
    }

    #[test]
    fn a_damaged_layer_is_fetched_again_and_holds_no_other_up() {
        let mut bench = Bench::new();
        let (mut bytes, layer) = blob(200_000, 7);
        let (other_bytes, other) = blob(100_000, 11);
        bench.fetcher.want(vec![layer, other]);
        bytes[150_000] ^= 1;
        for request in bench.requests() {
            bench.answer(request, &bytes);
        }
        assert_eq!(bench.failures(), 1);
        bench.fetch(&other_bytes);
        assert!(bench.layers.is_whole(&other));
        assert_eq!(bench.fetcher.wake_at(), Some(bench.now + RETRY_FIRST));
        bytes[150_000] ^= 1;
        bench.now += RETRY_FIRST;
        bench.fetch(&bytes);
        assert!(bench.layers.is_whole(&layer));
    }

    #[test]
    fn a_layer_that_the_cloud_lacks_is_asked_for_again_later() {
        let mut bench = Bench::new();
        let (_, layer) = blob(100_000, 7);
        bench.fetcher.want(vec![layer]);
        let request = bench.requests()[0];
        let contents = ChunkContents::Missing("removed".into());
        let chunk = ChunkData { layer: request.layer, offset: 0, contents };
        assert!(bench.fetcher.receive(chunk, bench.now, &mut bench.news));
        assert_eq!(bench.failures(), 1);
        assert_eq!(bench.requests(), []);
        bench.now += RETRY_FIRST + SECOND;
        assert_eq!(bench.requests().len(), 2);
    }

    #[test]
    fn chunks_that_nobody_wants_change_nothing() {
        let mut bench = Bench::new();
        let (bytes, layer) = blob(1_000_000, 7);
        bench.fetcher.want(vec![layer]);
        let requests = bench.requests();
        let chunk = |offset: u64, length: usize| ChunkData {
            layer: layer.digest,
            offset,
            contents: ChunkContents::Bytes(vec![0; length]),
        };
        for (offset, length) in
            [(0, 65535), (0, 65537), (1, 65536), (9 * 65536, 65536), (u64::MAX, 65536)]
        {
            let taken = bench.fetcher.receive(chunk(offset, length), bench.now, &mut bench.news);
            assert!(!taken, "{offset} {length}");
        }
        let other = ChunkData { layer: Digest::of(b"other"), ..chunk(0, 65536) };
        assert!(!bench.fetcher.receive(other, bench.now, &mut bench.news));
        assert!(bench.answer(requests[0], &bytes));
        bench.fetcher.want(Vec::new());
        assert!(!bench.answer(requests[1], &bytes));
    }
}
