//! Before the loop and after it: lock, run folder, signals.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::MsFlags;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use wherry_cgroups::Tree;

use super::{Ended, Launcher, LauncherConfig, LauncherError, Link};
use crate::folders::Folders;
use crate::layers::Layers;
use crate::mounts;
use crate::network::PodNetwork;
use crate::notify::Notifier;

/// The run folder: records, logs and configuration volumes of a full node.
/// Only what is used costs memory.
const RUN_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Where the kernel's own choice of whom to kill for want of memory starts
/// for the launcher: late, as with it goes the reaping of all containers.
const OOM_SCORE_ADJUSTMENT: &str = "-900";

/// Keeps a second launcher from using the same run folder.
#[derive(Debug)]
pub struct Lock {
    file: Flock<File>,
    run: PathBuf,
}

impl Launcher {
    /// Everything but starting the supervisor.
    pub(super) fn prepare(config: LauncherConfig) -> Result<(Self, Lock), LauncherError> {
        check_run_dir(&config.run_dir)?;
        umask(Mode::from_bits_truncate(0o022));
        let folders = Folders::new(config.run_dir);
        let lock = own_run_folder(&folders)?;
        let network = PodNetwork::new(&config.network)?;
        let tree = Tree::detect(&config.cgroup_prefix)?;
        let layers = Layers::take_over(config.layers_dir, folders.clone())?;
        protect_from_oom();
        let mut launcher = Self {
            layers,
            tree,
            network,
            allowed: config.allowed,
            claims_dir: config.claims_dir,
            link: Link::new(config.supervisor),
            notifier: Notifier::from_environment(),
            signals: signals()?,
            pods: std::collections::BTreeMap::new(),
            starts: Vec::new(),
            probes: Vec::new(),
            ending: None,
            open_files_max: raise_open_files()?,
            fork_into_cgroups: true,
            folders,
        };
        launcher.adopt()?;
        Ok((launcher, lock))
    }
}

/// Takes the run folder's tmpfs away if the node was purged.
pub fn leave(ended: Ended, lock: Lock) -> Result<(), LauncherError> {
    match ended {
        Ended::Stopped => Ok(()),
        Ended::Purged => {
            // The descriptor keeps the detached mount until it is closed.
            drop(lock.file);
            mounts::unmount(&lock.run)?;
            // Somebody may have put something under the mount, or made the
            // folder beforehand.
            if let Err(error) = fs::remove_dir(&lock.run) {
                log::debug!("{}: {error}", lock.run.display());
            }
            Ok(())
        }
    }
}

/// The path becomes part of mount options, which have no quoting.
fn check_run_dir(path: &Path) -> Result<(), LauncherError> {
    let text = path.to_str().filter(|text| !text.contains([':', ',', '\\', '\n']));
    match text {
        Some(_) if path.is_absolute() && path.parent().is_some() => Ok(()),
        _ => Err(LauncherError::RunFolder(path.to_owned())),
    }
}

/// Makes the run folder a tmpfs of its own, unless an earlier launcher has,
/// and locks it.
fn own_run_folder(folders: &Folders) -> Result<Lock, LauncherError> {
    let run = folders.run();
    let io = |what, path: &Path| {
        let path = path.to_owned();
        move |source| LauncherError::Io { what, path, source }
    };
    make_folder(run)?;
    // What counts is the path as the mount table knows it.
    let real = fs::canonicalize(run).map_err(io("looking up", run))?;
    if !mounts::table()?.contains(&real) {
        mounts::tmpfs(run, RUN_BYTES_MAX, 0o755, MsFlags::empty())?;
    }
    mounts::make_private(&real)?;
    let path = folders.lock();
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(io("opening", &path))?;
    let file =
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => LauncherError::Locked { path: path.clone() },
            _ => LauncherError::Io { what: "locking", path: path.clone(), source: errno.into() },
        })?;
    for path in [folders.pods(), folders.layers(), folders.volumes()] {
        make_folder(&path)?;
    }
    Ok(Lock { file, run: real })
}

fn make_folder(path: &Path) -> Result<(), LauncherError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(|source| LauncherError::Io {
        what: "making folder",
        path: path.to_owned(),
        source,
    })
}

/// Signals as descriptors: nothing here runs in a handler.
fn signals() -> Result<SignalFd, LauncherError> {
    let system = |source| LauncherError::System { what: "signals", source };
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
        set.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).map_err(system)?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(system)
}

/// As many descriptors as we may have: one for each adopted container.
/// Gives the hard limit.
fn raise_open_files() -> Result<u64, LauncherError> {
    let system = |source| LauncherError::System { what: "limit of open files", source };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(system)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(system)?;
    Ok(hard)
}

fn protect_from_oom() {
    let path = "/proc/self/oom_score_adj";
    if let Err(error) = fs::write(path, OOM_SCORE_ADJUSTMENT) {
        log::debug!("{path}: {error} (needs CAP_SYS_RESOURCE; going on without)");
    }
}
