//! What the host's kernel can do, by trying it: each module tries one part of
//! what the launcher needs.
//!
//! Every trial runs in a forked child, in namespaces of its own, within a
//! bounded time, and leaves nothing behind. The caller must be
//! single-threaded, as for every fork here.
//! Never here: what a lack means, or what to do about it.

pub mod cgroups;
pub mod filesystems;
pub mod namespaces;
pub mod network;
pub mod process;
mod trial;

use serde::{Deserialize, Serialize};

pub use trial::{Obstacle, Trial, in_child};

/// Everything that can be tried, in the order of trying.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    pub process: Trial<process::Process>,
    pub namespaces: Trial<namespaces::Namespaces>,
    pub filesystems: Trial<filesystems::Filesystems>,
    pub network: Trial<network::Network>,
    pub cgroups: Trial<cgroups::Cgroups>,
}

/// Tries everything. `cgroup` is the prefix that the node has or will have:
/// what is made and removed beside it carries its name.
#[must_use]
pub fn all(cgroup: &str) -> Tried {
    Tried {
        process: process::attempt(),
        namespaces: namespaces::attempt(),
        filesystems: filesystems::attempt(),
        network: network::attempt(),
        cgroups: cgroups::attempt(cgroup),
    }
}
