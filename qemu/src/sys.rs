//! The system calls that the standard library has no safe form of.

use std::os::unix::process::CommandExt;
use std::process::Command;

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
