//! Chunks that were asked for, and those that came before their turn: bounded
//! in bytes, whatever is fetched.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use wherry_bundle::Digest;
use wherry_bundle::limits::{CHUNK_BYTES_MAX, CHUNKS_PER_GET_MAX, TRANSFER_WINDOW_BYTES};

/// All requests count as lost when nothing came for so long; with each loss in
/// a row after twice as much, up to the longest, and for one chunk at a time.
const TIMEOUT_FIRST: Duration = Duration::from_secs(15);
const TIMEOUT_LONGEST: Duration = Duration::from_secs(300);
/// While others are awaited, fewer are not worth a message of their own.
const BATCH_MIN: usize = 4;
/// A chunk that came wrong so often will not come right.
pub(super) const TRIES_MAX: u32 = 5;

#[derive(Debug)]
pub(super) struct Window {
    /// By the place in what is built.
    chunks: BTreeMap<usize, Wanted>,
    bytes: usize,
    /// In a row.
    timeouts: u32,
    expires: Instant,
}

#[derive(Debug)]
struct Wanted {
    digest: Digest,
    size_bytes: usize,
    wrong: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    ToAsk,
    Asked,
    Came(Vec<u8>),
}

/// What an answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Late, or repeated.
    Unasked,
    Right,
    /// Not the bytes that the digest names; so many times now.
    Wrong(u32),
}

impl Wanted {
    fn is_to_ask(&self) -> bool {
        matches!(self.state, State::ToAsk)
    }
}

impl Window {
    pub fn new(now: Instant) -> Self {
        Self { chunks: BTreeMap::new(), bytes: 0, timeouts: 0, expires: now }
    }

    pub fn has_room(&self) -> bool {
        self.bytes + CHUNK_BYTES_MAX <= TRANSFER_WINDOW_BYTES
    }

    pub fn has(&self, index: usize) -> bool {
        self.chunks.contains_key(&index)
    }

    /// True if this chunk is under way, for whatever place.
    pub fn has_digest(&self, digest: &Digest) -> bool {
        self.chunks.values().any(|wanted| wanted.digest == *digest)
    }

    pub fn add(&mut self, index: usize, digest: Digest, size_bytes: usize) {
        self.bytes += size_bytes;
        let wanted = Wanted { digest, size_bytes, wrong: 0, state: State::ToAsk };
        if let Some(before) = self.chunks.insert(index, wanted) {
            self.bytes -= before.size_bytes;
        }
    }

    /// What came for this place.
    pub fn take(&mut self, index: usize) -> Option<Vec<u8>> {
        let State::Came(_) = self.chunks.get(&index)?.state else { return None };
        let wanted = self.chunks.remove(&index)?;
        self.bytes -= wanted.size_bytes;
        match wanted.state {
            State::Came(bytes) => Some(bytes),
            State::ToAsk | State::Asked => None,
        }
    }

    /// What to ask for now, of at most `bytes_max` together, but one chunk at
    /// least.
    pub fn ask(&mut self, now: Instant, bytes_max: usize) -> (Vec<Digest>, usize) {
        self.expire(now);
        let (count_min, count_max) =
            if self.timeouts > 0 { (usize::MAX, 1) } else { (BATCH_MIN, CHUNKS_PER_GET_MAX) };
        let (mut digests, mut bytes) = (Vec::new(), 0);
        if self.is_waiting() && self.to_ask().count() < count_min {
            return (digests, bytes);
        }
        for wanted in self.chunks.values_mut().filter(|wanted| wanted.is_to_ask()) {
            let fits = digests.is_empty() || bytes + wanted.size_bytes <= bytes_max;
            if digests.len() == count_max || !fits {
                break;
            }
            wanted.state = State::Asked;
            digests.push(wanted.digest);
            bytes += wanted.size_bytes;
        }
        if !digests.is_empty() {
            self.expires = now + self.patience();
        }
        (digests, bytes)
    }

    pub fn receive(&mut self, digest: Digest, bytes: Vec<u8>, now: Instant) -> Answer {
        let asked =
            |wanted: &&mut Wanted| wanted.digest == digest && matches!(wanted.state, State::Asked);
        let Some(wanted) = self.chunks.values_mut().find(asked) else { return Answer::Unasked };
        let is_right = Digest::of(&bytes) == digest;
        let answer = if is_right {
            self.bytes = self.bytes - wanted.size_bytes + bytes.len();
            wanted.size_bytes = bytes.len();
            wanted.state = State::Came(bytes);
            Answer::Right
        } else {
            wanted.wrong += 1;
            wanted.state = State::ToAsk;
            Answer::Wrong(wanted.wrong)
        };
        if is_right {
            self.timeouts = 0;
        }
        self.expires = now + self.patience();
        answer
    }

    /// What was asked for and did not come is asked for again.
    pub fn disconnected(&mut self) {
        self.give_up();
        self.timeouts = 0;
    }

    /// When requests count as lost.
    pub fn wake_at(&self) -> Option<Instant> {
        self.is_waiting().then_some(self.expires)
    }

    pub fn has_to_ask(&self) -> bool {
        self.to_ask().next().is_some()
    }

    fn to_ask(&self) -> impl Iterator<Item = &Wanted> {
        self.chunks.values().filter(|wanted| wanted.is_to_ask())
    }

    fn expire(&mut self, now: Instant) {
        if self.is_waiting() && now >= self.expires {
            self.give_up();
            self.timeouts += 1;
        }
    }

    fn give_up(&mut self) {
        for wanted in self.chunks.values_mut() {
            if let State::Asked = wanted.state {
                wanted.state = State::ToAsk;
            }
        }
    }

    fn is_waiting(&self) -> bool {
        self.chunks.values().any(|wanted| matches!(wanted.state, State::Asked))
    }

    fn patience(&self) -> Duration {
        TIMEOUT_FIRST.saturating_mul(1 << self.timeouts.min(16)).min(TIMEOUT_LONGEST)
    }
}
