//! What can go wrong with cgroups.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no cgroup hierarchy is mounted: mount cgroup2 at /sys/fs/cgroup")]
    NotMounted,
    #[error("`{0}` cannot name a cgroup: use 1 to 63 of a-z, 0-9 and `-`")]
    Name(String),
    #[error(
        "`{0}` cannot be the prefix of cgroups: use 1 to 4 plain names joined by `/`, as in `wherry`"
    )]
    Prefix(String),
    #[error("cannot {verb} {}: {source}", path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("{} holds `{text}`, which is not what the kernel writes there", path.display())]
    Malformed { path: PathBuf, text: String },
    #[error(
        "a memory limit needs the memory controller, which this kernel does not offer: \
         enable it (on some boards: cgroup_enable=memory on the kernel's command line) \
         or remove the limit"
    )]
    NoMemoryController,
    #[error("this kernel has no cgroup freezer: enable CONFIG_CGROUP_FREEZER")]
    NoFreezer,
    #[error("{} was not frozen within {millis} ms: thaw it, or kill it", path.display())]
    NotFrozen { path: PathBuf, millis: u64 },
    #[error("processes in {} outlived {rounds} rounds of SIGKILL: try again", path.display())]
    NotKilled { path: PathBuf, rounds: u32 },
    #[error("{} still has processes after {millis} ms: kill them, then remove it again", path.display())]
    Busy { path: PathBuf, millis: u64 },
}

impl Error {
    /// The cgroup that was asked about does not exist (any more).
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_gone(source))
    }
}

/// ENOENT: no such file. ENODEV: the file of a cgroup that was removed after
/// it was opened.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    const ENODEV: i32 = 19;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ENODEV)
}
