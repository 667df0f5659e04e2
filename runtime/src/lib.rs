//! The launcher: the one process of a node that runs as root for good. It
//! creates, signals, reaps and removes what the supervisor asks for, and
//! tells it what ended.
//!
//! Duties: containers, their mounts, cgroups and namespaces.
//! Never here: decisions, threads, async, anything that came from a network
//! unchecked.

pub mod proto;
