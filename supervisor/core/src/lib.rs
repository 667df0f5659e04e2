//! The reconciler: `reconcile(desired, observed, ledger, now) -> Plan`.
//!
//! Duties: decide everything that a node does with its pods: start order,
//! restarts and back-off, replacement, what is published, what is fetched,
//! and whether a generation is good or has failed.
//! Never here: files, sockets, clocks, randomness, threads, logging. Time and
//! every outcome are inputs; the same inputs give the same plan.
//!
//! To read: [`model`], [`reconcile()`], then the rules, which stand at the
//! head of `order`, `rolling`, `jobs`, `stopping`, `sidecars`, `unhealthy` and
//! [`backoff`]; `tests/table` shows what comes of them, `tests/sim` that they hold.

#![forbid(unsafe_code)]

pub mod addresses;
pub mod backoff;
mod desired;
mod draft;
mod fetch;
mod jobs;
mod learn;
pub mod ledger;
pub mod model;
mod order;
mod pods;
mod publish;
mod reconcile;
mod rolling;
mod sidecars;
pub mod status;
pub mod stopping;
pub mod surge;
mod unhealthy;
pub mod upgrade;

pub use ledger::Ledger;
pub use model::*;
pub use reconcile::reconcile;
pub use status::{ContainerView, NodeView, PodView, status};
