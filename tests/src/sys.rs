//! The system calls that the standard library has no safe form of.

use std::io::Result;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

/// Makes `command` run in the network namespace behind `netns`, which has to
/// stay open until it was spawned.
pub fn run_in_netns(command: &mut Command, netns: BorrowedFd<'_>) {
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

/// Where a program finds a socket that [`pass_fd`] gave it.
const INHERITED: i32 = 3;

/// Makes `command` have `fd`, which has to stay open until it was spawned, as
/// its descriptor 3.
pub fn pass_fd(command: &mut Command, fd: BorrowedFd<'_>) {
    let fd = fd.as_raw_fd();
    // SAFETY: dup2 is async-signal-safe and touches only the child's table;
    // the copy has no close-on-exec flag.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::dup2(fd, INHERITED)?;
            Ok(())
        });
    }
}

/// Takes what [`pass_fd`] gave; to be called once.
pub fn inherited_fd() -> Result<OwnedFd> {
    nix::fcntl::fcntl(INHERITED, nix::fcntl::FcntlArg::F_GETFD)?;
    // SAFETY: the descriptor is open, as just seen, and nobody else in this
    // program knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(INHERITED) })
}

/// Two ends of a connection that keeps packets apart.
pub fn packet_pair() -> Result<(OwnedFd, OwnedFd)> {
    let kind = SockType::SeqPacket;
    Ok(socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?)
}
