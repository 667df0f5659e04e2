//! A whole Wherry on one machine, for end-to-end tests, demo and benchmarks:
//! cloud and gateway in network namespaces of their own, real images, and
//! eyes that look from outside.
//!
//! Everything that is made here carries the prefix [`PREFIX`] and is taken
//! away when its owner is dropped, also when a test fails.

#![deny(unsafe_code)]

pub mod cloud;
pub mod host;
pub mod images;
pub mod interrupt;
pub mod launcher;
pub mod mqtt;
pub mod node;
pub mod observe;
pub mod package;
pub mod peers;
pub mod place;
pub mod power;
pub mod report;
pub mod rig;
pub mod run;
pub mod scenario;
pub mod shop;
#[allow(unsafe_code)]
mod sys;
pub mod templates;
pub mod world;

/// Of every namespace, cgroup, mount and folder that a test makes.
pub const PREFIX: &str = "wherry-test";
