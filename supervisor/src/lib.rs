//! The node: configuration, command line, supervisor.
//!
//! `wherry run` becomes the launcher (crate `wherry-runtime`), which starts
//! the supervisor of this crate as a process of its own.

#![deny(unsafe_code)]

pub mod agent;
pub mod check;
pub mod claims;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
mod io;
pub mod layers;
pub mod logger;
pub mod logs;
pub mod metrics;
pub mod scrub;
pub mod store;
pub mod subnet;
pub mod supervisor;
pub mod window;
