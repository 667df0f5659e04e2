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

pub mod check;
pub mod claims;
pub mod client;
pub mod clock;
pub mod creator;
pub mod executor;
pub mod folders;
pub mod init;
pub mod launcher;
pub mod layers;
pub mod mounts;
pub mod network;
pub mod notify;
pub mod oci;
pub mod packet;
pub mod probe;
pub mod prober;
pub mod process;
pub mod proto;
pub mod record;
pub mod rootfs;
#[cfg(test)]
mod samples;
pub mod sandbox;
pub mod seal;
pub mod seccomp;
#[allow(unsafe_code)]
mod sys;
pub mod terminal;
pub mod text;
