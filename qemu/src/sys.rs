//! The system calls that the standard library has no safe form of.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;
use nix::sys::signal::Signal;

/// Makes `command` die with the *thread* that spawns it.
///
/// Source: prctl(2), `PR_SET_PDEATHSIG`; kept across execve.
pub(crate) fn die_with_parent(command: &mut Command) {
    let parent = nix::unistd::getpid();
    // SAFETY: between fork and exec only prctl, getppid and _exit's error path
    // run, all async-signal-safe; nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            if nix::unistd::getppid() != parent {
                // It died before the call above: nobody would send the signal.
                return Err(std::io::ErrorKind::NotFound.into());
            }
            Ok(())
        });
    }
}

/// Rows and columns of a terminal; `None` if it is none.
///
/// Source: ioctl_tty(2), `TIOCGWINSZ`.
pub(crate) fn window_size(terminal: BorrowedFd<'_>) -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call writes a winsize to where it is pointed to, and `size`
    // is one.
    let outcome = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (outcome == 0).then_some((size.ws_row, size.ws_col))
}
