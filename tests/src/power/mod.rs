//! Power cuts: what a node told its cloud, against what its disk may hold
//! after one.
//!
//! [`tap`] stands between node and broker and notes, for each thing that was
//! told, how much had gone to the disk by then ([`marks`]). [`disk`] is a
//! disk on this machine whose writes and flushes are recorded. [`check`]
//! looks at what a cut may leave; the program `wherry-crash` makes hundreds
//! of such states ([`crash`]) and calls it for each of them, in a process of
//! its own ([`look`]). [`queue`] has the node make events that nobody hears.
//!
//! [`native`] is the node of this machine on such a disk, [`guest`] one under
//! QEMU; [`cuts`] kills QEMU in the middle of upgrades.

pub mod check;
pub mod crash;
pub mod cuts;
pub mod disk;
pub mod guest;
pub mod look;
pub mod machine;
pub mod marks;
pub mod native;
pub mod packets;
pub mod queue;
pub mod report;
#[allow(unsafe_code)]
pub mod sys;
pub mod tap;

use std::time::{SystemTime, UNIX_EPOCH};

/// Where a run's random choices begin: `WHERRY_SEED`, or `usual`, or the
/// clock. It is printed, so that a run that failed can be repeated.
#[must_use]
pub fn seed(what: &str, usual: Option<u64>) -> u64 {
    let given = std::env::var("WHERRY_SEED").ok().and_then(|seed| seed.parse().ok());
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
    let seed = given.or(usual).unwrap_or_else(clock);
    println!("{what}: WHERRY_SEED={seed}");
    seed
}
