//! The reconciler: `reconcile(desired, observed, ledger, now) -> Plan`.
//!
//! Duties: decide everything that a node does with its pods: start order,
//! restarts and back-off, replacement, what is published, what is fetched.
//! Never here: files, sockets, clocks, randomness, threads, logging. Time and
//! every outcome are inputs; the same inputs give the same plan.

#![forbid(unsafe_code)]

pub mod ledger;
pub mod model;

pub use ledger::Ledger;
pub use model::*;
