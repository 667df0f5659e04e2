//! What a launcher is told when it starts.

use std::ffi::CString;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::check::Allowed;

/// One node's launcher. Two nodes on one machine differ in every field.
#[derive(Debug)]
pub struct LauncherConfig {
    /// Absolute; made into a private tmpfs. See [`crate::folders`].
    pub run_dir: PathBuf,
    /// Absolute; holds `HEX.squashfs` files, each whole and verified.
    pub layers_dir: PathBuf,
    /// Absolute; what outlives pods. See [`crate::claims`].
    pub claims_dir: PathBuf,
    /// Below the cgroup file systems' roots.
    pub cgroup_prefix: String,
    pub network: NetworkSettings,
    /// What pods may have of the host.
    pub allowed: Allowed,
    pub supervisor: Supervisor,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSettings {
    /// Interface and nftables table; made when the first pod needs it.
    pub bridge: String,
    pub subnet_base: Ipv4Addr,
    pub subnet_prefix: u8,
    /// Name servers of pods; empty: the host's own, as far as pods can reach
    /// them.
    pub dns: Vec<IpAddr>,
}

/// Who asks the launcher for things.
#[derive(Debug)]
pub enum Supervisor {
    /// This program again, with these arguments (without the program's
    /// name); it finds its socket at [`crate::client::SUPERVISOR_FD`]. When
    /// it dies, it is started again with back-off.
    Spawn { args: Vec<CString> },
    /// Somebody else, at the other end of this socket; when that end closes,
    /// the launcher ends and leaves the containers running.
    Attached(OwnedFd),
}

/// Why the launcher ended. Containers run on unless it was `Purged`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Stopped,
    Purged,
}
