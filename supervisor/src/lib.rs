//! The node: store, layers and agent, and what uses them.

#![deny(unsafe_code)]

pub mod agent;
pub mod layers;
pub mod store;
