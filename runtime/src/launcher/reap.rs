//! Ends of processes: children by `waitpid(2)`, adopted containers by pidfd,
//! and what each end means.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use wherry_bundle::Name;
use wherry_bundle::message::Exit;

use super::Launcher;
use super::starts::save_state;
use super::state::{Running, State};
use crate::clock::boot_millis;
use crate::process::{Stat, exit_of};
use crate::proto::Notice;
use crate::sys;

impl Launcher {
    pub(super) fn read_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
            // For SIGCHLD there is nothing to do here: children are looked for
            // on every turn.
            if let Ok(Signal::SIGTERM | Signal::SIGINT) = Signal::try_from(number) {
                log::info!("signal {number}: stopping, containers run on");
                self.stop();
            }
        }
    }

    /// Reaps every child that has ended, and looks after adopted containers.
    pub(super) fn reap(&mut self) {
        while let Some((pid, status)) = sys::reap_any() {
            self.child_ended(pid, status);
        }
        for (pid, status) in self.adopted_ended() {
            self.container_ended(pid, status);
        }
    }

    fn child_ended(&mut self, pid: Pid, status: i32) {
        if self.link.process() == Some(pid) {
            self.forget_requests();
            return self.link.died(status, boot_millis());
        }
        if self.prober_ended(pid, status) {
            return;
        }
        if self.container_ended(pid, Some(status)) || self.start_process_ended(pid, status) {
            return;
        }
        // A creator writes down its container's pid before it lets it run:
        // if this was one, the report is there by now. Else it was one of
        // libcontainer's own short-lived processes.
        self.read_reports();
        self.start_process_ended(pid, status);
    }

    /// Whether it was a process of a start under way.
    fn start_process_ended(&mut self, pid: Pid, status: i32) -> bool {
        for start in &mut self.starts {
            if start.creator == Some(pid) {
                start.creator = None;
                return true;
            }
            if start.init.is_some_and(|init| init.pid == pid) {
                start.ended = Some(status);
                return true;
            }
        }
        false
    }

    /// Whether it was a running container's first process, whose end ends
    /// all others of the container (`pid_namespaces(7)`).
    pub(super) fn container_ended(&mut self, pid: Pid, status: Option<i32>) -> bool {
        let at_millis = boot_millis();
        let Some((pod, name)) = self.container_of(pid) else { return false };
        let entry = self.pods.get_mut(&pod).and_then(|pod| pod.containers.get_mut(&name));
        let Some(container) = entry else { return false };
        let State::Running(running) = &container.state else { return false };
        let killed = status.is_some_and(|status| exit_of(status) == Exit::Signal(KILL));
        let oom = killed
            && self.tree.oom_kills(&container.cgroup).is_ok_and(|kills| kills > running.oom_kills);
        let exit = match status {
            _ if oom => Exit::OutOfMemory,
            Some(status) => exit_of(status),
            None => Exit::Unknown,
        };
        let started_millis = running.since_millis;
        container.state = State::Exited { exit, started_millis, at_millis };
        save_state(&container.folder.state(), &container.state);
        log::info!("{pod}/{name} ended: {exit}");
        let notice = Notice::Exited { pod, container: name, exit, started_millis, at_millis };
        self.link.send(&notice);
        true
    }

    fn container_of(&self, pid: Pid) -> Option<(Name, Name)> {
        self.running()
            .find(|(_, _, running)| running.identity.pid == pid)
            .map(|(pod, container, _)| (pod.clone(), container.clone()))
    }

    fn running(&self) -> impl Iterator<Item = (&Name, &Name, &Running)> {
        self.pods.iter().flat_map(|(pod, entry)| {
            entry.containers.iter().filter_map(move |(name, container)| match &container.state {
                State::Running(running) => Some((pod, name, running)),
                State::Defined | State::Exited { .. } => None,
            })
        })
    }

    /// Adopted containers that have ended, with what the kernel still knows.
    fn adopted_ended(&self) -> Vec<(Pid, Option<i32>)> {
        let adopted: Vec<_> = self
            .running()
            .filter_map(|(_, _, running)| Some((running.identity, running.pidfd.as_ref()?)))
            .collect();
        let mut set: Vec<PollFd<'_>> = adopted
            .iter()
            .map(|(_, pidfd)| PollFd::new(pidfd.as_fd(), PollFlags::POLLIN))
            .collect();
        if set.is_empty() || poll(&mut set, PollTimeout::ZERO).unwrap_or(0) == 0 {
            return Vec::new();
        }
        let ended = adopted.iter().zip(&set).filter(|(_, fd)| fd.any().unwrap_or(false));
        ended
            .map(|((identity, pidfd), _)| {
                let zombie = || {
                    Stat::read(identity.pid)
                        .ok()
                        .filter(|stat| stat.start_ticks == identity.start_ticks)
                        .filter(|stat| stat.state == 'Z')
                        .map(|stat| stat.wait_status)
                };
                // Twice: it may be reaped between the two questions.
                let ask = || sys::pidfd_wait_status(pidfd.as_fd());
                (identity.pid, ask().or_else(zombie).or_else(ask))
            })
            .collect()
    }
}

const KILL: u8 = 9;
