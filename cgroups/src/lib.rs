//! The cgroup tree of a node's pods: limits, usage, OOM kills, freeze, kill.
//!
//! Duties: `PREFIX/POD/CONTAINER` in each hierarchy that Wherry uses, on
//! cgroup v1, v2 and hybrid. [`Tree`] is where to begin.
//! Never here: deciding limits, containers' life cycle, mounting cgroupfs.
//! Nothing is remembered: each call reads and writes the kernel's files.
//!
//! One controller a file; each explains the kernel files that it touches
//! (`Documentation/admin-guide/cgroup-v1/`, `…/cgroup-v2.rst`).

#![forbid(unsafe_code)]

mod control;
mod cpu;
mod devices;
mod error;
mod file;
mod freezer;
mod memory;
mod mounts;
mod path;
mod pids;
mod pressure;
mod tree;

pub use error::Error;
pub use mounts::{Controller, Layout, Mounts};
pub use path::CgroupPath;
pub use pressure::Pressure;
pub use tree::Tree;

/// What a cgroup may use. `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Thousandths of a processor, at least 1.
    pub cpu_millis: Option<u32>,
    /// Memory with page cache and tmpfs; swap is not given on top of it.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    pub devices: Devices,
}

/// Which device nodes may be opened.
///
/// Enforced on v1 only. On v2 it takes an eBPF program, which is not done:
/// there, containers are kept from devices by having no `CAP_MKNOD` and no
/// mount that honours device nodes but their own `/dev`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Devices {
    /// As the parent: for pods and the prefix.
    #[default]
    Inherited,
    /// Those that every container has: null, zero, full, random, urandom,
    /// tty, ptmx and pts. For cgroups without children.
    Container,
}

/// What a cgroup uses, its children included. 0 where the kernel does not
/// have the controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since the cgroup was made.
    pub cpu_micros: u64,
    /// Memory with page cache.
    pub memory_bytes: u64,
    /// Highest so far; the current use where the kernel keeps no such mark
    /// (v2 before 5.19).
    pub memory_bytes_peak: u64,
    /// Processes and threads, zombies included.
    pub pids: u64,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: u64,
    pub pressure: Option<Pressure>,
}
