//! Whether layer files are still what they were: a thread reads them, slowly,
//! and compares each chunk.
//!
//! Flash loses bits, and a container that meets one of them crashes without a
//! reason that anybody could find. So every layer that the node needs is read
//! once after each boot, and then every few days; one whose containers do not
//! stay up is read at once. What is damaged is put aside, so that it is missing
//! and is built again of its good chunks.
//! Never here: fetching, pods, and what is needed.

mod read;
mod record;
mod turn;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use wherry_bundle::Digest;
use wherry_bundle::model::Layer;
use wherry_core::Millis;

use crate::clock;
use crate::layers::Layers;
use read::{Check, Checked};
pub use record::Record;
use turn::Turn;

/// Between two pauses: at the usual rate the thread wakes every four seconds.
const PIECE_BYTES: u64 = 4 * 1024 * 1024;
/// One chunk's buffer is on the heap; hashing is shallow.
const STACK_BYTES: usize = 128 * 1024;
/// The timer stands still during suspend, the boot clock does not.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How much of the flash is read, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// 0: nothing is checked.
    pub bytes_per_second: u64,
    /// From one check of a layer to the next.
    pub interval: Millis,
}

/// How much of a layer is no longer what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Damage {
    pub chunks_bad: u32,
    /// 0: nobody knows how the layer is cut.
    pub chunks: u32,
}

/// A layer that was found to be damaged, and is put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged {
    pub layer: Digest,
    pub damage: Damage,
}

#[derive(Clone, Debug)]
enum Order {
    /// All that is to be checked from now on.
    Watch(Vec<Layer>),
    /// These are suspected.
    Suspect(Vec<Layer>),
    /// Its digest was just checked.
    Fresh(Digest),
}

/// Gives work to the thread. It ends with this.
#[derive(Debug)]
pub struct Scrubber {
    orders: Sender<Order>,
}

impl Scrubber {
    /// Starts the thread; `record` is the file in which it remembers, until
    /// the next boot, what it checked. `sink` is called on it.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start(
        layers: Layers,
        pace: Pace,
        record: PathBuf,
        sink: impl Fn(Damaged) + Send + 'static,
    ) -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel();
        let worker = Worker { layers, pace, turn: Turn::new(Record::load(record), pace), sink };
        let thread = thread::Builder::new().name("wherry-scrub".into()).stack_size(STACK_BYTES);
        thread.spawn(move || worker.run(&inbox))?;
        Ok(Self { orders })
    }

    /// What is to be checked; replaces the list before.
    pub fn watch(&self, layers: Vec<Layer>) {
        self.give(Order::Watch(layers));
    }

    /// To be checked at once, unless they were since the node booted.
    pub fn suspect(&self, layers: Vec<Layer>) {
        self.give(Order::Suspect(layers));
    }

    /// It was just built, and its digest checked.
    pub fn is_fresh(&self, layer: Digest) {
        self.give(Order::Fresh(layer));
    }

    fn give(&self, order: Order) {
        // Without its thread, a node goes on as it is.
        let _ = self.orders.send(order);
    }
}

struct Worker<S> {
    layers: Layers,
    pace: Pace,
    turn: Turn,
    sink: S,
}

impl<S: Fn(Damaged)> Worker<S> {
    fn run(mut self, inbox: &mpsc::Receiver<Order>) {
        let mut check: Option<Check> = None;
        let mut pause_end = Instant::now();
        loop {
            match inbox.recv_timeout(pause_end.saturating_duration_since(Instant::now())) {
                Ok(order) => {
                    self.turn.take(order, clock::boot_now());
                    // What is suspected goes first; the other begins anew.
                    check = check.filter(|check| self.turn.goes_on(&check.layer()));
                    if check.is_none() {
                        pause_end = Instant::now();
                    }
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            pause_end = Instant::now() + self.advance(&mut check);
        }
    }

    /// Reads one piece; how long to pause after it.
    fn advance(&mut self, check: &mut Option<Check>) -> Duration {
        let now = clock::boot_now();
        let Some(under_way) = check else {
            let Some(layer) = self.turn.next(now) else {
                let due = self.turn.due(now).map(|at| at.saturating_sub(now).0.saturating_add(1));
                return due.map_or(WAIT_MAX, Duration::from_millis).min(WAIT_MAX);
            };
            match Check::begin(&self.layers, layer) {
                Ok(begun) => *check = Some(begun),
                // It is missing, which others know.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.turn.skip(layer.digest)
                }
                Err(error) => {
                    log::warn!("layer {}: {error}", layer.digest.short());
                    self.is_damaged(layer.digest, Damage { chunks_bad: 0, chunks: 0 });
                }
            }
            return Duration::ZERO;
        };
        let layer = under_way.layer().digest;
        let bytes = match under_way.read(PIECE_BYTES) {
            Checked::More { bytes } => bytes,
            Checked::Sound { bytes } => {
                log::debug!("layer {} is sound", layer.short());
                *check = None;
                self.turn.is_sound(layer, clock::boot_now());
                bytes
            }
            Checked::Damaged(damage) => {
                *check = None;
                self.is_damaged(layer, damage);
                0
            }
        };
        if self.turn.is_suspected(&layer) { Duration::ZERO } else { self.pace.pause(bytes) }
    }

    fn is_damaged(&mut self, layer: Digest, damage: Damage) {
        match self.layers.quarantine(&layer) {
            Ok(()) => {
                self.turn.is_damaged(layer, damage);
                (self.sink)(Damaged { layer, damage });
            }
            // Somebody removed it meanwhile, or the disk takes nothing.
            Err(error) => {
                log::error!("a damaged layer stays as it is: {error}");
                self.turn.skip(layer);
            }
        }
    }
}

impl Pace {
    /// For `bytes` to have been read at this rate.
    fn pause(self, bytes: u64) -> Duration {
        let millis = bytes.saturating_mul(1_000) / self.bytes_per_second.max(1);
        Duration::from_millis(millis).min(WAIT_MAX)
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.chunks {
            0 => f.write_str("it"),
            chunks => write!(f, "{} of {chunks} chunks", self.chunks_bad),
        }
    }
}

#[cfg(test)]
mod tests;
