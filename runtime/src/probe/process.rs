//! System calls by which the launcher holds processes and files: pidfds,
//! `openat2(2)`, sealed memory files, seccomp filters.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use serde::{Deserialize, Serialize};

use super::trial::{Obstacle, Trial, in_child};
use crate::seccomp::Filter;
use crate::sys;

/// `MFD_EXEC` of `linux/memfd.h`, Linux 6.3.
const MFD_EXEC: u32 = 0x10;
/// Of the process whose end is watched: any that nothing else has.
const STATUS: i32 = 41;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// `pidfd_open(2)` and `pidfd_send_signal(2)`: Linux 5.3.
    pub pidfd: Trial<()>,
    /// Whether a pidfd tells the exit status of what somebody else reaped:
    /// Linux 6.15.
    pub exit_status: bool,
    /// Opening below a folder without leaving it: Linux 5.6.
    pub openat2: Trial<()>,
    /// An executable memory file, sealed for good.
    pub sealed_memory: Trial<()>,
    pub seccomp: Trial<()>,
}

pub fn attempt() -> Trial<Process> {
    in_child(|| {
        let (pidfd, exit_status) = match pidfd() {
            Ok(exit_status) => (Ok(()), exit_status),
            Err(obstacle) => (Err(obstacle), false),
        };
        let (openat2, sealed_memory) = (openat2(), sealed_memory());
        // Last: it cannot be taken back.
        let seccomp = seccomp();
        Ok(Process { pidfd, exit_status, openat2, sealed_memory, seccomp })
    })
}

fn pidfd() -> Trial<bool> {
    let pid = sys::fork_child(|| STATUS).map_err(Obstacle::io("fork"))?;
    let opened = sys::pidfd_open(pid).map_err(Obstacle::io("pidfd_open"));
    let sent = opened.as_ref().map(|pidfd| sys::pidfd_kill(pidfd.as_fd(), 0));
    let reaped = sys::wait_for(pid).map_err(Obstacle::io("waitpid"))?;
    let exit_status = opened.as_ref().map(|pidfd| sys::pidfd_wait_status(pidfd.as_fd()));
    match sent {
        Ok(Err(error)) => Err(Obstacle::io("pidfd_send_signal")(error)),
        Ok(Ok(())) | Err(_) => opened.clone_error(),
    }?;
    Ok(exit_status.is_ok_and(|status| status == Some(reaped)))
}

/// The error of a result whose value is not wanted.
trait CloneError {
    fn clone_error(&self) -> Trial<()>;
}

impl<T> CloneError for Trial<T> {
    fn clone_error(&self) -> Trial<()> {
        self.as_ref().map(|_| ()).map_err(Clone::clone)
    }
}

fn openat2() -> Trial<()> {
    let root = File::open("/").map_err(Obstacle::io("opening /"))?;
    sys::open_beneath(root.as_fd(), Path::new("."), OFlag::O_PATH | OFlag::O_DIRECTORY)
        .map(drop)
        .map_err(Obstacle::io("openat2"))
}

/// What containers get.
fn seccomp() -> Trial<()> {
    nix::sys::prctl::set_no_new_privs().map_err(Obstacle::refused("no new privileges"))?;
    let installed = Filter::runtime_default(0).install();
    installed.map_err(|error| Obstacle::io("a seccomp filter")(error.into()))
}

/// What [`crate::seal`] does with the whole program.
fn sealed_memory() -> Trial<()> {
    let flags = MemFdCreateFlag::MFD_CLOEXEC | MemFdCreateFlag::MFD_ALLOW_SEALING;
    let executable = flags | MemFdCreateFlag::from_bits_retain(MFD_EXEC);
    let memory = match memfd_create(c"wherry-check", executable) {
        Err(Errno::EINVAL) => memfd_create(c"wherry-check", flags),
        result => result,
    };
    let mut memory =
        memory.map(File::from).map_err(Obstacle::refused("an executable memory file"))?;
    memory.write_all(b"before").map_err(Obstacle::io("writing a memory file"))?;
    let seals = SealFlag::F_SEAL_SEAL
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE;
    fcntl(memory.as_raw_fd(), FcntlArg::F_ADD_SEALS(seals))
        .map_err(Obstacle::refused("sealing a memory file"))?;
    match memory.write(b"after") {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
        outcome => Err(Obstacle::Wrong(format!("writing to a sealed file gave {outcome:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_them_and_the_caller_keeps_its_freedom() {
        let found = attempt().unwrap();
        for trial in [&found.pidfd, &found.openat2, &found.sealed_memory, &found.seccomp] {
            assert_eq!(*trial, Ok(()));
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(status.contains("Seccomp:\t0"), "{status}");
    }
}
