//! What the cloud and a node say to each other: the model of a bundle, its
//! signed envelope, MQTT topics and messages, and a frame codec for byte
//! streams.
//!
//! Duties: define the types, their limits, their encoding and their checks.
//! Never here: files, sockets, clocks, randomness, logging.

#![forbid(unsafe_code)]

pub mod carrier;
pub mod chunk;
pub mod envelope;
pub mod exec;
pub mod frame;
pub mod health;
pub mod id;
pub mod limits;
pub mod message;
pub mod metrics;
pub mod model;
pub mod topic;
pub mod wire;
pub mod word;

pub use id::{BuildVersion, Digest, Generation, InvalidName, Name};
pub use model::Bundle;
pub use word::{Fact, Word};
