//! Runs one trial in a child, with a deadline, and brings back its outcome.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::MsFlags;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{mounts, sys};

/// What one trial may take. The slowest is the network's, a tenth of a second
/// on a slow board; what takes longer than this hangs.
const TRIAL_SECONDS_MAX: u64 = 10;
/// How long a killed child may take to be gone: one that waits inside the
/// kernel for broken hardware cannot be killed, and is left alone.
const KILLED_MILLIS_MAX: u64 = 500;
const KILLED_LOOK_MILLIS: u64 = 5;
/// What a child reports: some texts, none longer than a line.
const REPORT_BYTES_MAX: u64 = 64 * 1024;
/// Folders that every system has, any of which a child covers with a tmpfs
/// in its own mount namespace.
const COVERABLE: [&str; 4] = ["/run", "/tmp", "/mnt", "/var"];
const COVER_BYTES_MAX: u64 = 1024 * 1024;

/// What a trial found, or why it found nothing.
pub type Trial<T> = Result<T, Obstacle>;

/// Why something was not seen to work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Obstacle {
    #[error("{what}: {}", Errno::from_raw(*.errno).desc())]
    Refused { what: String, errno: i32 },
    /// The kernel took it, and did something else.
    #[error("{0}")]
    Wrong(String),
    #[error("no answer within {TRIAL_SECONDS_MAX} s")]
    TimedOut,
    #[error("the trial itself failed: {0}")]
    Failed(String),
    #[error("not tried, for want of {0}")]
    NotTried(String),
}

impl Obstacle {
    /// Whether the kernel refused, for a reason other than who asked.
    #[must_use]
    pub fn is_lack(&self) -> bool {
        match self {
            Self::Refused { errno, .. } => *errno != libc::EPERM,
            Self::Wrong(_) => true,
            Self::TimedOut | Self::Failed(_) | Self::NotTried(_) => false,
        }
    }

    pub(super) fn refused(what: &str) -> impl FnOnce(Errno) -> Self + use<> {
        let what = what.to_owned();
        move |errno| Self::Refused { what, errno: errno as i32 }
    }

    pub(super) fn io(what: &str) -> impl FnOnce(io::Error) -> Self + use<> {
        let what = what.to_owned();
        move |error| match error.raw_os_error() {
            Some(errno) => Self::Refused { what, errno },
            None => Self::Wrong(format!("{what}: {error}")),
        }
    }
}

/// Runs `work` in a child that dies with us, and gives what it found.
///
/// # Errors
/// What `work` says; [`Obstacle::TimedOut`] after ten seconds, and then the
/// child is killed; [`Obstacle::Failed`] when it could not report.
pub fn in_child<T: Serialize + DeserializeOwned>(work: impl FnOnce() -> Trial<T>) -> Trial<T> {
    let failed = |error: io::Error| Obstacle::Failed(error.to_string());
    let (mut reader, writer) = io::pipe().map_err(failed)?;
    fcntl(reader.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .map_err(|errno| failed(errno.into()))?;
    let parent = nix::unistd::getpid();
    let child = sys::fork_child(|| {
        // 0: the parent is outside of our new pid namespace.
        let alone = nix::unistd::getppid().as_raw() == 0;
        if !sys::die_with_parent(parent).unwrap_or(false) && !alone {
            return 1;
        }
        let outcome = work();
        let report = postcard::to_allocvec(&outcome).unwrap_or_default();
        i32::from((&writer).write_all(&report).is_err())
    })
    .map_err(failed)?;
    drop(writer);
    let report = read_until_closed(&mut reader);
    end(child);
    let report = report?;
    postcard::from_bytes(&report)
        .unwrap_or_else(|_| Err(Obstacle::Failed("the child ended without a word".into())))
}

/// What is written until the last writer is gone.
fn read_until_closed(reader: &mut (impl Read + AsFd)) -> Trial<Vec<u8>> {
    let failed = |error: io::Error| Obstacle::Failed(error.to_string());
    let deadline = Instant::now() + Duration::from_secs(TRIAL_SECONDS_MAX);
    let mut report = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Obstacle::TimedOut);
        }
        let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], wait) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        let room = REPORT_BYTES_MAX.saturating_sub(report.len() as u64);
        match reader.by_ref().take(room).read_to_end(&mut report) {
            Ok(_) => return Ok(report),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Reaps `child`, killing it if it has not ended by itself.
fn end(child: Pid) {
    // It may have ended already: then this reaches nobody.
    let _ = kill(child, Signal::SIGKILL);
    for _ in 0..KILLED_MILLIS_MAX / KILLED_LOOK_MILLIS {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {
                std::thread::sleep(Duration::from_millis(KILLED_LOOK_MILLIS));
            }
            Ok(_) | Err(_) => return,
        }
    }
}

/// In a child: a mount namespace of its own, and an empty folder on a tmpfs.
pub(super) fn private_folder() -> Trial<&'static Path> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(Obstacle::refused("a new mount namespace"))?;
    let step = |error: mounts::MountError| Obstacle::Failed(error.to_string());
    mounts::make_private(Path::new("/")).map_err(step)?;
    let folder = COVERABLE.iter().map(Path::new).find(|path| path.is_dir());
    let folder =
        folder.ok_or_else(|| Obstacle::Failed(format!("none of {COVERABLE:?} is here")))?;
    nix::mount::mount(
        Some("tmpfs"),
        folder,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(format!("size={COVER_BYTES_MAX},mode=755").as_str()),
    )
    .map_err(Obstacle::refused("mounting a tmpfs"))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_childs_finding_comes_back() {
        assert_eq!(in_child(|| Ok(7_u32)), Ok(7));
        let refused = || Obstacle::Refused { what: "x".into(), errno: libc::ENODEV };
        assert_eq!(in_child::<u32>(|| Err(refused())), Err(refused()));
        let long = "x".repeat(30_000);
        assert_eq!(in_child(|| Ok(long.clone())), Ok(long));
    }

    #[test]
    fn a_child_that_dies_is_no_finding() {
        let trial = in_child::<u32>(|| {
            let _ = kill(nix::unistd::getpid(), Signal::SIGKILL);
            Ok(7)
        });
        assert!(matches!(trial, Err(Obstacle::Failed(_))), "{trial:?}");
    }

    #[test]
    fn only_who_asks_or_time_is_no_lack() {
        let refused = |errno| Obstacle::Refused { what: String::new(), errno };
        for (obstacle, is_lack) in [
            (refused(libc::ENODEV), true),
            (refused(libc::EINVAL), true),
            (refused(libc::EPERM), false),
            (Obstacle::Wrong(String::new()), true),
            (Obstacle::TimedOut, false),
            (Obstacle::NotTried(String::new()), false),
        ] {
            assert_eq!(obstacle.is_lack(), is_lack, "{obstacle:?}");
        }
    }
}
