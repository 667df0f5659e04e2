//! The launcher's loop: requests, ended children, creators at work, timers;
//! one thread, one `poll(2)`.
//!
//! Whatever may hang has a deadline: creators are processes of their own,
//! removals wait for the kernel to report the last death.

mod adopt;
mod config;
mod ending;
mod link;
mod pods;
mod prepare;
mod probing;
mod reap;
mod requests;
mod starts;
mod state;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use wherry_bundle::Name;
use wherry_bundle::limits::bounded_text;
use wherry_cgroups::Tree;

use crate::check::Allowed;
use crate::clock::boot_millis;
use crate::folders::Folders;
use crate::layers::{LayerError, Layers};
use crate::mounts::MountError;
use crate::network::{PodNetwork, PodNetworkError};
use crate::notify::Notifier;
use crate::packet::Received;
use crate::proto::{Notice, Text};
use crate::seal::SealError;

pub use config::{Ended, LauncherConfig, NetworkSettings, Supervisor};
use ending::Ending;
use link::{HangUp, Link};
use probing::Probing;
use state::{Pod, Start, State};

/// Creators at once: each is a small process; more requests wait in the
/// socket.
const STARTS_MAX: usize = 8;
/// Requests served before looking at anything else again.
const REQUESTS_A_TURN_MAX: usize = 16;

/// Why the launcher could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    #[error("{path}: another launcher is running here (stop it, or use another run folder)")]
    Locked { path: PathBuf },
    #[error("the program is not sealed against its containers: call seal::ensure_sealed first")]
    NotSealed,
    #[error("run folder `{0}`: use an absolute path without `:`, `,` and `\\`")]
    RunFolder(PathBuf),
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{what}: {source}")]
    System { what: &'static str, source: Errno },
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Layers(#[from] LayerError),
    #[error("cgroups: {0}")]
    Cgroups(#[from] wherry_cgroups::Error),
    #[error(transparent)]
    Network(#[from] PodNetworkError),
}

/// Runs until SIGTERM, SIGINT, [`crate::proto::Request::Stop`] or
/// [`crate::proto::Request::Purge`]. Adopts what an earlier launcher left
/// running. Needs root, and a sealed process of one thread.
///
/// # Errors
/// What the environment lacks. Before the first error nothing was started;
/// containers that ran before go on running.
pub fn run(config: LauncherConfig) -> Result<Ended, LauncherError> {
    if !crate::seal::is_sealed()? {
        return Err(LauncherError::NotSealed);
    }
    let (mut launcher, lock) = Launcher::prepare(config)?;
    let ended = launcher.serve()?;
    drop(launcher);
    prepare::leave(ended, lock)?;
    Ok(ended)
}

#[derive(Debug)]
struct Launcher {
    folders: Folders,
    layers: Layers,
    tree: Tree,
    network: PodNetwork,
    allowed: Allowed,
    claims_dir: PathBuf,
    link: Link,
    notifier: Notifier,
    signals: SignalFd,
    pods: BTreeMap<Name, Pod>,
    starts: Vec<Start>,
    probes: Vec<Probing>,
    ending: Option<Ending>,
    open_files_max: u64,
    /// Whether `CLONE_INTO_CGROUP` is of use. Kernels since 6.14 take it for
    /// a fork that lost a race against `cgroup.kill`, and kill the child, if
    /// the cgroup was killed more often than the parent's own. So it is used
    /// for new cgroups only; and if the launcher's own was killed once, the
    /// first start finds out.
    fork_into_cgroups: bool,
}

/// What a descriptor in the poll set belongs to.
enum Source {
    Signals,
    Supervisor,
    Other,
}

impl Launcher {
    fn serve(&mut self) -> Result<Ended, LauncherError> {
        loop {
            self.link.start_if_due(boot_millis());
            let (signals, supervisor) = self.wait()?;
            if signals {
                self.read_signals();
            }
            // Also what no signal tells of: adopted containers, and creators'
            // reports.
            self.reap();
            self.advance_starts(boot_millis());
            self.advance_probes(boot_millis());
            if supervisor {
                self.link.flush();
                self.serve_requests();
            }
            self.advance_removals(boot_millis());
            if self.link.is_lost() {
                self.stop();
            }
            if let Some(ended) = self.advance_ending(boot_millis()) {
                return Ok(ended);
            }
        }
    }

    /// Waits for something to do: whether signals, and whether the
    /// supervisor's socket are ready.
    fn wait(&self) -> Result<(bool, bool), LauncherError> {
        let mut sources = vec![Source::Signals];
        let mut set = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some(socket) = self.link.socket() {
            let mut flags = PollFlags::empty();
            // Requests wait in the socket while there is enough to do.
            flags.set(PollFlags::POLLIN, self.starts.len() < STARTS_MAX);
            flags.set(PollFlags::POLLOUT, self.link.has_waiting());
            sources.push(Source::Supervisor);
            set.push(PollFd::new(socket, flags));
        }
        let open = self.starts.iter().filter(|start| start.outcome.is_none());
        for fd in open.map(|start| start.socket.as_fd()).chain(self.adopted_pidfds()) {
            sources.push(Source::Other);
            set.push(PollFd::new(fd, PollFlags::POLLIN));
        }
        match poll(&mut set, self.timeout()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(source) => return Err(LauncherError::System { what: "poll", source }),
        }
        let (mut signals, mut supervisor) = (false, false);
        for (source, fd) in sources.iter().zip(&set) {
            let ready = fd.any().unwrap_or(true);
            match source {
                Source::Signals => signals |= ready,
                Source::Supervisor => supervisor |= ready,
                Source::Other => {}
            }
        }
        Ok((signals, supervisor))
    }

    fn adopted_pidfds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let containers = self.pods.values().flat_map(|pod| pod.containers.values());
        containers.filter_map(|container| match &container.state {
            State::Running(running) => running.pidfd.as_ref().map(AsFd::as_fd),
            State::Defined | State::Exited { .. } => None,
        })
    }

    /// Until the nearest deadline.
    fn timeout(&self) -> PollTimeout {
        let starts = self.starts.iter().map(|start| start.deadline_millis);
        let removals = self.pods.values().filter_map(|pod| pod.removal.as_ref());
        let next = starts
            .chain(removals.map(|removal| removal.deadline_millis))
            .chain(self.probes.iter().filter_map(Probing::deadline_millis))
            .chain(self.link.start_at())
            .chain(self.ending.as_ref().map(Ending::deadline_millis))
            .min();
        let Some(next) = next else { return PollTimeout::NONE };
        // One more: the clock is cut to whole milliseconds.
        let millis = next.saturating_sub(boot_millis()).saturating_add(1);
        i32::try_from(millis).ok().and_then(|n| n.try_into().ok()).unwrap_or(PollTimeout::MAX)
    }

    fn serve_requests(&mut self) {
        for _ in 0..REQUESTS_A_TURN_MAX {
            if self.starts.len() >= STARTS_MAX {
                return;
            }
            match self.link.receive() {
                Ok(Received::Packet((packet, streams))) => self.serve_request(packet, &streams),
                Ok(Received::Nothing) => return,
                Ok(Received::End) => return self.supervisor_gone(),
                Err(error) => {
                    // No sequence number to answer to: the supervisor's own
                    // deadline has to tell it.
                    log::error!("{error}");
                    return;
                }
            }
        }
    }

    /// A supervisor's sequence numbers mean nothing to the next one.
    fn forget_requests(&mut self) {
        for start in &mut self.starts {
            start.seqs.clear();
        }
        self.forget_probes();
        for removal in self.pods.values_mut().filter_map(|pod| pod.removal.as_mut()) {
            removal.seqs.clear();
        }
    }

    fn supervisor_gone(&mut self) {
        self.forget_requests();
        match self.link.hung_up() {
            HangUp::Restarted => {}
            HangUp::Final => self.stop(),
        }
    }

    fn answer(&mut self, seq: u32, result: Result<(), String>) {
        let notice = match result {
            Ok(()) => Notice::Done { seq },
            Err(error) => {
                log::warn!("{error}");
                let error = Text::try_from(bounded_text(&error).as_str()).unwrap_or_default();
                Notice::Failed { seq, error }
            }
        };
        self.link.send(&notice);
    }

    fn answer_all(&mut self, seqs: &[u32], result: &Result<(), String>) {
        for &seq in seqs {
            self.answer(seq, result.clone());
        }
    }
}
