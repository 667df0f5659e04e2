//! System calls of the first program that Rust cannot check.

use std::ffi::{CStr, c_int, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::unistd::Pid;

/// `linux/watchdog.h`, type `W`: `_IOWR('W', 6, int)` and `_IO`-like reads.
const WDIOC_SETTIMEOUT: c_ulong = watchdog_request(READ | WRITE, 6);
const WDIOC_KEEPALIVE: c_ulong = watchdog_request(READ, 5);
const READ: c_ulong = 2;
const WRITE: c_ulong = 1;

const fn watchdog_request(direction: c_ulong, number: c_ulong) -> c_ulong {
    #[allow(clippy::cast_possible_truncation)] // 4
    let size = size_of::<c_int>() as c_ulong;
    (direction << 30) | (size << 16) | ((b'W' as c_ulong) << 8) | number
}

/// Loads a kernel module from an open file. `finit_module(2)`.
///
/// # Errors
/// `EEXIST`: it is loaded already; `ENOENT`: it needs a symbol of another.
pub fn load_module(file: BorrowedFd<'_>, parameters: &CStr) -> io::Result<()> {
    // SAFETY: the parameters outlive the call; the descriptor is open.
    let done = unsafe {
        libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters.as_ptr(), 0 as c_int)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets a watchdog's time; gives what the device made of it, in seconds.
///
/// # Errors
/// What `ioctl(2)` says: not every device's time can be set.
pub fn watchdog_set_timeout(device: BorrowedFd<'_>, seconds: u32) -> io::Result<u32> {
    let mut value = c_int::try_from(seconds).unwrap_or(c_int::MAX);
    // SAFETY: the request takes a pointer to an int, which outlives it.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), WDIOC_SETTIMEOUT as _, &mut value) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::try_from(value).unwrap_or(seconds))
}

/// Feeds a watchdog.
///
/// # Errors
/// What `ioctl(2)` says.
pub fn watchdog_feed(device: BorrowedFd<'_>) -> io::Result<()> {
    let mut unused: c_int = 0;
    // SAFETY: the request takes a pointer to an int, or ignores it.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), WDIOC_KEEPALIVE as _, &mut unused) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How the machine goes down, as the kernel takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    Reboot,
    PowerOff,
}

/// Ends the machine, or the PID namespace. `reboot(2)`. Nothing is synced.
///
/// # Errors
/// `EPERM`. It does not return otherwise, but from a PID namespace that is
/// being killed.
pub fn machine_down(down: Down) -> io::Result<()> {
    let how = match down {
        Down::Reboot => libc::RB_AUTOBOOT,
        Down::PowerOff => libc::RB_POWER_OFF,
    };
    reboot(how)
}

/// Has ctrl-alt-del send SIGINT to the first program instead of ending the
/// machine at once.
///
/// # Errors
/// `EPERM`; `EINVAL` in a PID namespace.
pub fn catch_ctrl_alt_del() -> io::Result<()> {
    reboot(libc::RB_DISABLE_CAD)
}

fn reboot(how: c_int) -> io::Result<()> {
    // SAFETY: takes an integer.
    if unsafe { libc::reboot(how) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a signal to every process but this one; for the first program only.
/// There being none is fine. `kill(2)`.
pub fn signal_everybody(signal: c_int) {
    // SAFETY: plain system call.
    unsafe { libc::kill(-1, signal) };
}

/// Reaps this child if it has ended; its raw wait status.
#[must_use]
pub fn reap_one(child: Pid) -> Option<c_int> {
    let mut status = 0;
    // SAFETY: the status outlives the call.
    let pid = unsafe { libc::waitpid(child.as_raw(), &mut status, libc::WNOHANG) };
    (pid > 0).then_some(status)
}

/// Whether this process has no child at all, which for the first program
/// means that nobody else is there.
#[must_use]
pub fn is_alone() -> bool {
    // SAFETY: WNOWAIT and WNOHANG leave everything as it is; a null status is
    // allowed (waitid(2)).
    let done = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_ALL, 0, &mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)
    };
    done < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ECHILD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_kernels_numbers() {
        assert_eq!(WDIOC_SETTIMEOUT, 0xC004_5706);
        assert_eq!(WDIOC_KEEPALIVE, 0x8004_5705);
    }
}
