//! The launcher: the one process of a node that runs as root for good. It
//! creates, signals, reaps and removes what the supervisor asks for, and
//! tells it what ended.
//!
//! Duties: containers, their mounts, cgroups and namespaces.
//! Never here: decisions, threads, async, anything that came from a network
//! unchecked.
//!
//! [`launcher::run`] is the process, [`client`] the supervisor's end of the
//! socket between the two, [`proto`] what they say to each other.
#![deny(unsafe_code)]

pub mod client;
pub mod folders;
pub mod launcher;
pub mod packet;
pub mod proto;
pub mod seal;
#[allow(unsafe_code)]
mod sys;
