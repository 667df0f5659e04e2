use wherry_bundle::chunk::{Chunk, ChunkList};
use wherry_bundle::limits::TRANSFER_WINDOW_BYTES;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const CHUNK: usize = 30_000;

/// A node's fetcher, and the cloud's chunks.
struct Bench {
    fetcher: Fetcher,
    layers: Layers,
    cloud: BTreeMap<Digest, Vec<u8>>,
    now: Instant,
    news: Vec<AgentEvent>,
    served_bytes: usize,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(rate: Option<u64>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layers = Layers::open(dir.path()).unwrap();
        Self {
            fetcher: Fetcher::new(layers.clone(), rate),
            layers,
            cloud: BTreeMap::new(),
            now: Instant::now(),
            news: Vec::new(),
            served_bytes: 0,
            _dir: dir,
        }
    }

    /// The cloud has this layer from now on.
    fn offer(&mut self, bytes: &[u8]) -> WantedLayer {
        let layer = Layer { digest: Digest::of(bytes), size_bytes: bytes.len() as u64 };
        let mut chunks = Vec::new();
        for part in bytes.chunks(CHUNK) {
            let size_bytes = u32::try_from(part.len()).unwrap();
            chunks.push(Chunk { digest: Digest::of(part), size_bytes });
            self.cloud.insert(Digest::of(part), part.to_vec());
        }
        let mut digests = Vec::new();
        for list in ChunkList::encode(&chunks).unwrap() {
            digests.push(Digest::of(&list));
            self.cloud.insert(Digest::of(&list), list);
        }
        WantedLayer { layer, lists: digests }
    }

    /// All that can be done and asked for now.
    fn requests(&mut self) -> Vec<Digest> {
        loop {
            self.fetcher.work(self.now, &mut self.news);
            if !self.fetcher.is_busy {
                break;
            }
        }
        let next = || self.fetcher.next_request(self.now);
        std::iter::from_fn(next).flat_map(|get| get.chunks).collect()
    }

    fn answer(&mut self, chunk: Digest) -> bool {
        let bytes = self.cloud[&chunk].clone();
        let length = bytes.len();
        let contents = ChunkContents::Bytes(bytes);
        let taken = self.fetcher.receive(ChunkData { chunk, contents }, self.now, &mut self.news);
        self.served_bytes += if taken { length } else { 0 };
        taken
    }

    fn fetch(&mut self) {
        loop {
            let requests = self.requests();
            if requests.is_empty() {
                return;
            }
            for chunk in requests {
                assert!(self.answer(chunk));
            }
        }
    }

    fn failures(&self) -> Vec<&str> {
        let failures = self.news.iter().filter_map(|event| match event {
            AgentEvent::LayerFailed { error, .. } => Some(error.as_str()),
            _ => None,
        });
        failures.collect()
    }
}

fn blob(length: usize, seed: usize) -> Vec<u8> {
    let byte = |i: usize| u8::try_from((i * seed + i / 256 + i / 65_537) % 256).unwrap();
    (0..length).map(byte).collect()
}

#[test]
fn how_it_is_cut_comes_first_and_the_window_is_never_more_than_full() {
    let mut bench = Bench::new(None);
    let bytes = blob(3_000_000, 7);
    let wanted = bench.offer(&bytes);
    bench.fetcher.want(vec![wanted.clone(), wanted.clone()]);
    assert_eq!(bench.requests(), wanted.lists);
    assert!(bench.answer(wanted.lists[0]));
    let chunks: Vec<Digest> = bytes.chunks(CHUNK).map(Digest::of).collect();
    let window = (TRANSFER_WINDOW_BYTES - CHUNK_BYTES_MAX) / CHUNK + 1;
    assert_eq!(bench.requests(), chunks[..window]);
    // Out of order: what is early is held, and opens no more room.
    for chunk in &chunks[1..window] {
        assert!(bench.answer(*chunk));
    }
    assert!(!bench.answer(chunks[1]), "twice");
    assert_eq!(bench.requests(), []);
    assert!(bench.answer(chunks[0]));
    assert_eq!(bench.requests(), chunks[window..2 * window]);
    bench.fetcher.disconnected();
    bench.fetch();
    assert!(bench.layers.is_whole(&wanted.layer));
    assert_eq!(bench.served_bytes, bytes.len() + bench.cloud[&wanted.lists[0]].len());
    let layer = wanted.layer;
    assert!(bench.news.contains(&AgentEvent::LayerBegun { layer, bytes_missing: 3_000_000 }));
    let done =
        AgentEvent::LayerDone { layer: layer.digest, bytes_fetched: 3_000_000, bytes_copied: 0 };
    assert!(bench.news.contains(&done));
}

#[test]
fn only_what_changed_is_asked_for() {
    let mut bench = Bench::new(None);
    let mut bytes = blob(2_000_000, 7);
    let wanted = bench.offer(&bytes);
    bench.fetcher.want(vec![wanted]);
    bench.fetch();
    bytes[700_000] ^= 1;
    let wanted = bench.offer(&bytes);
    let layer = wanted.layer;
    bench.fetcher.want(vec![wanted.clone()]);
    assert_eq!(bench.requests(), wanted.lists);
    bench.answer(wanted.lists[0]);
    let changed = &bytes[700_000 / CHUNK * CHUNK..][..CHUNK];
    assert_eq!(bench.requests(), [Digest::of(changed)]);
    bench.answer(Digest::of(changed));
    bench.now += PROGRESS_INTERVAL;
    assert_eq!(bench.requests(), []);
    assert!(bench.layers.is_whole(&layer));
    let (missing, copied) = (CHUNK as u64, 2_000_000 - CHUNK as u64);
    assert!(bench.news.contains(&AgentEvent::LayerBegun { layer, bytes_missing: missing }));
    let done =
        AgentEvent::LayerDone { layer: layer.digest, bytes_fetched: missing, bytes_copied: copied };
    assert!(bench.news.contains(&done), "{:?}", bench.news);
}

#[test]
fn silence_is_answered_ever_more_slowly() {
    let mut bench = Bench::new(None);
    let bytes = blob(3_000_000, 7);
    let wanted = bench.offer(&bytes);
    bench.fetcher.want(vec![wanted.clone()]);
    bench.requests();
    bench.answer(wanted.lists[0]);
    assert!(bench.requests().len() > 10);
    let mut last = None;
    for wait in [15, 30, 60, 120, 240, 300, 300] {
        assert_eq!(bench.fetcher.wake_at(bench.now), Some(bench.now + wait * SECOND));
        bench.now += wait * SECOND;
        let requests = bench.requests();
        assert_eq!(requests.len(), 1);
        last = requests.first().copied();
    }
    bench.answer(last.unwrap());
    bench.fetch();
    assert!(bench.layers.is_whole(&wanted.layer));
}

#[test]
fn a_wrong_chunk_is_asked_for_again_some_times_and_then_named() {
    let mut bench = Bench::new(None);
    let (bytes, other_bytes) = (blob(200_000, 7), blob(100_000, 11));
    let (wanted, other) = (bench.offer(&bytes), bench.offer(&other_bytes));
    bench.fetcher.want(vec![wanted.clone(), other.clone()]);
    bench.requests();
    bench.answer(wanted.lists[0]);
    let bad = Digest::of(&bytes[..CHUNK]);
    let good = bench.cloud.insert(bad, vec![0; CHUNK]).unwrap();
    for tries in 1..=TRIES_MAX {
        assert!(bench.failures().is_empty(), "{tries}");
        let requests = bench.requests();
        assert!(requests.contains(&bad), "{tries}");
        for chunk in requests {
            bench.answer(chunk);
        }
    }
    let named = format!("chunk {bad} came with other bytes {TRIES_MAX} times");
    assert_eq!(bench.failures(), [named]);
    assert_eq!(bench.fetcher.chunks_refused, u64::from(TRIES_MAX));
    // It holds no other layer up, and is tried again later.
    bench.fetch();
    assert!(bench.layers.is_whole(&other.layer) && !bench.layers.is_whole(&wanted.layer));
    assert_eq!(bench.fetcher.wake_at(bench.now), Some(bench.now + RETRY_FIRST));
    bench.cloud.insert(bad, good);
    bench.now += RETRY_FIRST;
    bench.fetch();
    assert!(bench.layers.is_whole(&wanted.layer));
}

#[test]
fn a_chunk_that_the_cloud_lacks_is_asked_for_again_later() {
    let mut bench = Bench::new(None);
    let wanted = bench.offer(&blob(100_000, 7));
    bench.fetcher.want(vec![wanted.clone()]);
    bench.requests();
    let missing = |chunk| ChunkData { chunk, contents: ChunkContents::Missing("removed".into()) };
    assert!(!bench.fetcher.receive(missing(Digest::of(b"x")), bench.now, &mut bench.news));
    assert!(bench.fetcher.receive(missing(wanted.lists[0]), bench.now, &mut bench.news));
    assert!(bench.failures()[0].contains("removed"), "{:?}", bench.failures());
    assert_eq!(bench.requests(), []);
    bench.now += RETRY_FIRST + SECOND;
    assert_eq!(bench.requests(), wanted.lists);
}

#[test]
fn a_layer_without_lists_is_told() {
    let mut bench = Bench::new(None);
    let wanted = bench.offer(&blob(100_000, 7));
    bench.fetcher.want(vec![WantedLayer { lists: Vec::new(), ..wanted }]);
    assert_eq!(bench.requests(), []);
    assert_eq!(bench.failures(), ["nobody told how it is cut"]);
}

#[test]
fn the_pace_is_kept() {
    let mut bench = Bench::new(Some(CHUNK as u64));
    let bytes = blob(10 * CHUNK, 7);
    let wanted = bench.offer(&bytes);
    bench.fetcher.want(vec![wanted.clone()]);
    bench.requests();
    bench.answer(wanted.lists[0]);
    // A list of unknown size counts as a whole chunk.
    bench.now += 5 * SECOND;
    let start = bench.now;
    while !bench.layers.is_whole(&wanted.layer) {
        let requests = bench.requests();
        assert!(requests.len() <= 1);
        for chunk in requests {
            bench.answer(chunk);
        }
        bench.now = bench.fetcher.wake_at(bench.now).unwrap_or(bench.now + SECOND);
    }
    let took = bench.now - start;
    assert!(took >= 9 * SECOND && took <= 12 * SECOND, "{took:?}");
}

#[test]
fn progress_has_rate_and_estimate() {
    let mut bench = Bench::new(Some(CHUNK as u64));
    let wanted = bench.offer(&blob(20 * CHUNK, 7));
    bench.fetcher.want(vec![wanted.clone()]);
    bench.requests();
    bench.answer(wanted.lists[0]);
    bench.now += 5 * SECOND;
    for _ in 0..10 {
        for chunk in bench.requests() {
            bench.answer(chunk);
        }
        bench.now += SECOND;
    }
    bench.requests();
    let progress = bench.fetcher.progress(bench.now);
    assert_eq!(progress.bytes_total, 20 * CHUNK as u64);
    assert_eq!(progress.bytes_done, progress.bytes_fetched);
    assert!((9..=11).contains(&(progress.bytes_done / CHUNK as u64)), "{progress:?}");
    let rate = progress.bytes_per_second / (CHUNK as u64 / 10);
    assert!((8..=12).contains(&rate), "{progress:?}");
    assert!((8..=13).contains(&progress.seconds_left.unwrap()), "{progress:?}");
}

#[test]
fn what_is_wanted_no_more_is_left_and_its_chunks_are_kept() {
    let mut bench = Bench::new(None);
    let old = blob(2_000_000, 7);
    let wanted = bench.offer(&old);
    bench.fetcher.want(vec![wanted.clone()]);
    for _ in 0..3 {
        for chunk in bench.requests() {
            bench.answer(chunk);
        }
    }
    bench.requests();
    let had = bench.served_bytes;
    let mut new = old.clone();
    *new.last_mut().unwrap() ^= 1;
    let newer = bench.offer(&new);
    bench.fetcher.want(vec![newer.clone()]);
    let late = Digest::of(&old[..CHUNK]);
    assert!(!bench.answer(late));
    bench.fetch();
    assert!(bench.layers.is_whole(&newer.layer));
    let lists: usize = [&wanted, &newer].iter().map(|w| bench.cloud[&w.lists[0]].len()).sum();
    let most = new.len() + lists + TRANSFER_WINDOW_BYTES + CHUNK;
    assert!(had > 500_000 && bench.served_bytes <= most, "{} of {most}", bench.served_bytes);
}
