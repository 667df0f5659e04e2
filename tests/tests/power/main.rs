//! Power cuts on this machine: in the middle of upgrades, and soon after starts.

#![allow(clippy::unwrap_used)]

mod cuts;
mod starts;
