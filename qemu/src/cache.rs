//! Where fetched packages are kept: outside of the clone, in one folder an
//! architecture, guarded by a lock file against a second rig that starts.
//! Fetches nothing itself.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::Arch;

/// Names the folder that is used instead of `$HOME/.cache/wherry`.
pub const CACHE_VARIABLE: &str = "WHERRY_CACHE";

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither variable is set.
    #[error("neither {CACHE_VARIABLE} nor HOME is set: set one, packages are kept below it")]
    NoHome,
    /// The folder cannot be made, or not be locked.
    #[error("cannot use the cache {}", path.display())]
    Io {
        /// The folder or its lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The cache of one architecture, held by nobody else while this lives.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    _lock: Flock<File>,
}

impl Cache {
    /// Waits for whoever holds it.
    pub(crate) fn lock(arch: Arch) -> Result<Self, Error> {
        Self::lock_below(&root()?, arch)
    }

    fn lock_below(root: &Path, arch: Arch) -> Result<Self, Error> {
        let folder = root.join("rigs").join(arch.name());
        let path = folder.join("lock");
        let failed = |source| Error::Io { path: path.clone(), source };
        fs::create_dir_all(&folder).map_err(failed)?;
        let file = File::create(&path).map_err(failed)?;
        let lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| failed(errno.into()))?;
        Ok(Self { folder, _lock: lock })
    }

    /// `name` in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

fn root() -> Result<PathBuf, Error> {
    if let Some(folder) = std::env::var_os(CACHE_VARIABLE).filter(|value| !value.is_empty()) {
        return Ok(folder.into());
    }
    let home = std::env::var_os("HOME").filter(|value| !value.is_empty()).ok_or(Error::NoHome)?;
    Ok(PathBuf::from(home).join(".cache/wherry"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_one_waits_for_the_first() {
        let root = tempfile::tempdir().unwrap();
        let first = Cache::lock_below(root.path(), Arch::Armv7).unwrap();
        Cache::lock_below(root.path(), Arch::Aarch64).unwrap();
        let (send, receive) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let second = Cache::lock_below(root.path(), Arch::Armv7).unwrap();
                send.send(second.path("x")).unwrap();
            });
            let waiting = receive.recv_timeout(Duration::from_millis(200));
            assert_eq!(waiting, Err(mpsc::RecvTimeoutError::Timeout));
            drop(first);
            let path = receive.recv_timeout(Duration::from_secs(10)).unwrap();
            assert_eq!(path, root.path().join("rigs/armv7/x"));
        });
    }
}
