//! The launcher's end of the supervisor: its process, started again with
//! back-off when it dies, and the socket, which never makes the launcher
//! wait.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::unistd::Pid;

use super::Supervisor;
use crate::client::SUPERVISOR_FD;
use crate::packet::{self, PacketError, Received, Wait};
use crate::proto::{Notice, Packet};
use crate::seal::SELF_EXE;
use crate::sys;

/// Back-off between two starts of a supervisor that dies: soon at first, as
/// pods that end meanwhile are not restarted without it, then rarely.
const RESTART_MILLIS_FIRST: u64 = 100;
const RESTART_MILLIS_MAX: u64 = 10_000;
/// After running so long its death counts as the first again.
const STABLE_MILLIS: u64 = 60_000;
/// Notices that wait for a supervisor that does not read: all that `List`
/// can give, twice. One that is still further behind hangs, and is replaced.
const WAITING_MAX: usize = 2 * (wherry_bundle::limits::PODS_MAX + 1) + 2048;
/// Status of the forked child if the program could not be executed.
const EXEC_FAILED: i32 = 127;

/// What the supervisor's death or hang-up means.
#[derive(Debug, PartialEq, Eq)]
pub enum HangUp {
    /// It will be started again.
    Restarted,
    /// An attached one is not ours to start.
    Final,
}

#[derive(Debug)]
pub struct Link {
    args: Option<Vec<CString>>,
    socket: Option<OwnedFd>,
    process: Option<Pid>,
    waiting: VecDeque<Vec<u8>>,
    buffer: Vec<u8>,
    started_millis: u64,
    attempt: u32,
    /// When it is to be started, if it is not running and not ending.
    start_at: Option<u64>,
}

impl Link {
    /// Nothing is started before [`Link::start_if_due`].
    #[must_use]
    pub fn new(supervisor: Supervisor) -> Self {
        let (args, socket, start_at) = match supervisor {
            Supervisor::Spawn { args } => (Some(args), None, Some(0)),
            Supervisor::Attached(socket) => (None, Some(socket), None),
        };
        Self {
            args,
            socket,
            process: None,
            waiting: VecDeque::new(),
            buffer: Vec::new(),
            started_millis: 0,
            attempt: 0,
            start_at,
        }
    }

    #[must_use]
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// There is no supervisor, and there will be none.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.socket.is_none() && self.process.is_none() && self.start_at.is_none()
    }

    #[must_use]
    pub fn process(&self) -> Option<Pid> {
        self.process
    }

    #[must_use]
    pub fn start_at(&self) -> Option<u64> {
        self.start_at
    }

    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Starts the supervisor if its time has come. Failing to counts as a
    /// death of it.
    pub fn start_if_due(&mut self, now: u64) {
        let (Some(at), Some(args)) = (self.start_at, &self.args) else { return };
        if now < at {
            return;
        }
        self.start_at = None;
        self.started_millis = now;
        match spawn(args) {
            Ok((process, socket)) => {
                log::info!("supervisor started, pid {process}");
                self.process = Some(process);
                self.socket = Some(socket);
            }
            Err(error) => {
                log::error!("starting the supervisor: {error}");
                self.schedule(now);
            }
        }
    }

    /// Sends a notice, or keeps it until the socket takes more.
    pub fn send(&mut self, notice: &Notice) {
        if self.socket.is_none() {
            return;
        }
        match packet::encode(notice) {
            Ok(bytes) => self.waiting.push_back(bytes),
            Err(error) => log::error!("a notice could not be sent: {error}"),
        }
        self.flush();
        if self.waiting.len() > WAITING_MAX {
            log::error!("the supervisor does not read: it is replaced");
            self.waiting.clear();
            self.socket = None;
            self.kill();
        }
    }

    /// Sends what waits, as far as the socket takes it.
    pub fn flush(&mut self) {
        let Some(socket) = &self.socket else { return };
        while let Some(bytes) = self.waiting.front() {
            match packet::send_bytes(socket.as_fd(), bytes, Wait::No) {
                Ok(true) => {
                    self.waiting.pop_front();
                }
                Ok(false) => return,
                // Seen again, and dealt with, when reading.
                Err(error) => {
                    log::debug!("{error}");
                    self.waiting.clear();
                    return;
                }
            }
        }
    }

    /// The next request, if one is there, with what came along.
    ///
    /// # Errors
    /// A malformed one, which is consumed.
    pub fn receive(&mut self) -> Result<Received<(Packet, Vec<OwnedFd>)>, PacketError> {
        match &self.socket {
            Some(socket) => packet::receive_with(socket.as_fd(), &mut self.buffer, Wait::No),
            None => Ok(Received::Nothing),
        }
    }

    /// The other end of the socket was closed. A supervisor of ours that is
    /// still there is of no more use.
    pub fn hung_up(&mut self) -> HangUp {
        self.socket = None;
        self.waiting.clear();
        if self.args.is_none() {
            return HangUp::Final;
        }
        self.kill();
        HangUp::Restarted
    }

    /// Its process was reaped.
    pub fn died(&mut self, status: i32, now: u64) {
        log::warn!("the supervisor ended: {}", crate::process::exit_of(status));
        self.process = None;
        self.socket = None;
        self.waiting.clear();
        self.schedule(now);
    }

    fn schedule(&mut self, now: u64) {
        if self.args.is_none() {
            return;
        }
        if now.saturating_sub(self.started_millis) >= STABLE_MILLIS {
            self.attempt = 0;
        }
        let delay = RESTART_MILLIS_FIRST.saturating_mul(1 << self.attempt.min(16));
        self.start_at = Some(now + delay.min(RESTART_MILLIS_MAX));
        self.attempt = self.attempt.saturating_add(1);
    }

    /// Asks it to end, and does not start it again.
    pub fn end(&mut self) {
        self.args = None;
        self.start_at = None;
        self.signal(libc::SIGTERM);
    }

    /// SIGKILL, if it runs.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
    }

    fn signal(&self, signal: i32) {
        if let Some(process) = self.process
            && let Err(error) = sys::kill_child(process, signal)
        {
            log::debug!("signalling the supervisor: {error}");
        }
    }
}

/// Starts this program again as supervisor.
fn spawn(args: &[CString]) -> io::Result<(Pid, OwnedFd)> {
    let (own, its) = packet::pair().map_err(io::Error::other)?;
    let launcher = Pid::this();
    let program = CString::new(SELF_EXE)?;
    let mut words = vec![c"wherry".to_owned()];
    words.extend_from_slice(args);
    let child = sys::fork_child(|| {
        sys::reset_signals();
        if !matches!(sys::die_with_parent(launcher), Ok(true)) {
            return EXEC_FAILED;
        }
        if sys::place_fd(its.as_fd(), SUPERVISOR_FD).is_err() {
            return EXEC_FAILED;
        }
        sys::close_from(SUPERVISOR_FD + 1);
        // Returns only if it failed, which the status tells.
        let Err(_) = nix::unistd::execv(&program, &words);
        EXEC_FAILED
    })?;
    Ok((child, own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_and_is_forgotten() {
        let mut link = Link::new(Supervisor::Spawn { args: Vec::new() });
        assert_eq!(link.start_at(), Some(0));
        let mut delays = Vec::new();
        for _ in 0..9 {
            link.started_millis = 1000;
            link.died(0, 1000);
            delays.push(link.start_at().unwrap() - 1000);
        }
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        link.died(0, 1000 + STABLE_MILLIS);
        assert_eq!(link.start_at(), Some(1000 + STABLE_MILLIS + 100));
    }

    #[test]
    fn an_attached_supervisor_that_goes_is_not_replaced() {
        let (own, its) = packet::pair().unwrap();
        let mut link = Link::new(Supervisor::Attached(own));
        drop(its);
        assert!(matches!(link.receive(), Ok(Received::End)));
        assert_eq!(link.hung_up(), HangUp::Final);
    }

    #[test]
    fn a_supervisor_that_does_not_read_is_given_up() {
        let (own, _its) = packet::pair().unwrap();
        let mut link = Link::new(Supervisor::Attached(own));
        for seq in 0..100_000 {
            link.send(&Notice::Done { seq });
        }
        assert!(link.socket().is_none());
        assert!(!link.has_waiting());
    }
}
