//! The system calls that the standard library has no safe form of.

use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sched::{CloneFlags, setns};

/// Makes `command` run in the network namespace behind `netns`, which has to
/// stay open until it was spawned.
pub fn run_in_netns(command: &mut Command, netns: BorrowedFd<'_>) {
    use std::os::fd::AsRawFd;
    let fd = netns.as_raw_fd();
    // SAFETY: between fork and exec only setns is called, which is
    // async-signal-safe; `fd` is open in the child because the caller keeps
    // its owner alive until `spawn` has returned.
    unsafe {
        command.pre_exec(move || {
            let netns = BorrowedFd::borrow_raw(fd);
            setns(netns, CloneFlags::CLONE_NEWNET)?;
            Ok(())
        });
    }
}
