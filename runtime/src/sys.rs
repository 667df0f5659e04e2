//! The system calls that Rust cannot check. All `unsafe` of this crate is
//! here; each function is safe to call as documented.

use std::ffi::{CStr, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{ForkResult, Pid};

/// Runs `child` in a forked process, whose exit status is what it returns.
/// The child never returns into the caller's code, not by a panic either.
///
/// The caller must be single-threaded: another thread's locks would stay
/// locked in the child for ever. The launcher is.
///
/// # Errors
/// What `fork(2)` says.
pub fn fork_child(child: impl FnOnce() -> i32) -> io::Result<Pid> {
    // SAFETY: single-threaded caller (see above), so the child's copy of the
    // process is whole.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let _guard = ExitOnUnwind;
            exit_now(child());
        }
    }
}

/// [`fork_child`], with the child in the cgroup (v2) of which `cgroup` is the
/// folder from its first instruction on: moving it afterwards would wait
/// several milliseconds for an RCU grace period. `clone3(2)`,
/// `CLONE_INTO_CGROUP`.
///
/// # Errors
/// What `clone3(2)` says; `ENOSYS` or `E2BIG` before Linux 5.7.
pub fn fork_child_into(cgroup: BorrowedFd<'_>, child: impl FnOnce() -> i32) -> io::Result<Pid> {
    let mut args = CloneArgs {
        flags: CLONE_INTO_CGROUP,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        cgroup: u64::from(cgroup.as_raw_fd().unsigned_abs()),
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM and a stack of its own this is fork(2): the
    // child goes on with a copy of everything. The caller is single-threaded
    // as for `fork_child`, so that what the C library would do in addition,
    // for other threads' locks, is not needed.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &mut args, size_of::<CloneArgs>()) };
    match i32::try_from(pid) {
        Ok(0) => {
            let _guard = ExitOnUnwind;
            exit_now(child());
        }
        Ok(pid) if pid > 0 => Ok(Pid::from_raw(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `struct clone_args` (`linux/sched.h`, Linux 5.7).
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Keeps a panic in a child from reaching the parent's code.
struct ExitOnUnwind;
impl Drop for ExitOnUnwind {
    fn drop(&mut self) {
        exit_now(PANIC_STATUS);
    }
}

/// Exit status of a forked child that panicked.
pub const PANIC_STATUS: i32 = 70;

fn exit_now(status: i32) -> ! {
    // SAFETY: ends the process without running what the parent registered
    // for its own end (exit handlers, buffered output).
    unsafe { libc::_exit(status) }
}

/// Makes this process's signals as a new program expects them: all default,
/// none blocked. What was ignored or blocked would stay so through exec(2):
/// Rust ignores SIGPIPE, the launcher blocks what it reads by signalfd.
pub fn reset_signals() {
    // `struct sigaction` of the kernel, which is smaller on every
    // architecture: all zeros is SIG_DFL without flags.
    let default = [0_u64; 8];
    let nowhere: *mut u64 = std::ptr::null_mut();
    for number in 1..=SIGNALS {
        // SAFETY: SIG_DFL runs no code of ours; the structure outlives the
        // call. Not by libc, which keeps two signals to itself. SIGKILL and
        // SIGSTOP refuse, which is right.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), nowhere, SIGSET_BYTES)
        };
    }
    // Cannot fail with these arguments (sigprocmask(2)).
    let _ = nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Empties this process's environment. For forked, single-threaded children:
/// nobody else may be reading it.
pub fn clear_environment() {
    // SAFETY: single-threaded (see above).
    unsafe { libc::clearenv() };
}

/// Highest signal number (`_NSIG`; `signal(7)`), and the size of the kernel's
/// set of them.
const SIGNALS: i32 = 64;
const SIGSET_BYTES: usize = 8;

/// Closes every descriptor from `first` up. The owners that still hold them
/// must never be dropped or used: for forked children that end by exec or
/// [`fork_child`]'s exit only.
pub fn close_from(first: RawFd) {
    let last = c_ulong::from(u32::MAX);
    // SAFETY: see above: nobody uses the descriptors afterwards.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if done == 0 {
        return;
    }
    // Kernels before 5.9.
    for fd in first..LEGACY_FD_MAX {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}

/// Descriptors closed one by one where the kernel cannot close a range: more
/// than the launcher ever has open.
const LEGACY_FD_MAX: RawFd = 4096;

/// Takes ownership of a descriptor that a parent process left open at a
/// number agreed upon, and makes it close-on-exec.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn take_inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl on any number is harmless.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by agreement nobody else in this process owns
    // it (callers are documented to call once).
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes ownership of a descriptor that came in a message: the kernel made it
/// for this process, and told its number once.
#[must_use]
pub fn received_fd(number: RawFd) -> OwnedFd {
    // SAFETY: see above; callers pass what recvmsg(2) has just given.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Makes `terminal` the controlling terminal of this process, which leads its
/// session. `TIOCSCTTY` of `ioctl_tty(2)`.
///
/// # Errors
/// It is no terminal, or another session's.
pub fn control_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes a number and no address.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Rows and columns of a terminal. `TIOCGWINSZ` of `ioctl_tty(2)`.
///
/// # Errors
/// It is no terminal.
pub fn terminal_size(terminal: BorrowedFd<'_>) -> io::Result<libc::winsize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes one `winsize`, which outlives the call.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &mut size) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(size) }
}

/// `TIOCSWINSZ`, which tells the programs in it (`SIGWINCH`).
///
/// # Errors
/// It is no terminal.
pub fn set_terminal_size(terminal: BorrowedFd<'_>, size: &libc::winsize) -> io::Result<()> {
    // SAFETY: the kernel reads one `winsize`, which outlives the call.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, size) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A descriptor that stands for process `pid`, whatever becomes of the
/// number. Readable once the process has ended. `pidfd_open(2)`.
///
/// # Errors
/// `ESRCH`: there is no such process.
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: plain system call; the result is a new descriptor of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    owned(fd)
}

/// Sends a signal by pidfd. `pidfd_send_signal(2)`.
///
/// # Errors
/// `ESRCH`: the process has ended.
pub fn pidfd_kill(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null siginfo means "as kill(2) would".
    let done =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `kill(2)` with any signal number, real-time ones too, which
/// [`nix::sys::signal::kill`] cannot name. For unreaped children only: their
/// number cannot have been given to another process.
///
/// # Errors
/// `ESRCH`, or `EINVAL` for an unknown signal.
pub fn kill_child(pid: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: plain system call.
    if unsafe { libc::kill(pid.as_raw(), signal) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Waits for one child and reaps it; its wait status, raw as `waitpid(2)`
/// gives it.
///
/// # Errors
/// `ECHILD`: it is none of ours.
pub fn wait_for(child: Pid) -> io::Result<i32> {
    loop {
        let mut status = 0;
        // SAFETY: the status outlives the call.
        if unsafe { libc::waitpid(child.as_raw(), &mut status, 0) } >= 0 {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Reaps one child that has ended, if any: its pid and raw wait status.
///
/// A child can make its parent its tracer (`PTRACE_TRACEME`): then each of its
/// signals stops it and is told here. It is let go, and has not ended.
#[must_use]
pub fn reap_any() -> Option<(Pid, i32)> {
    loop {
        let mut status = 0;
        // SAFETY: the status outlives the call.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
        if pid <= 0 {
            // ECHILD, no child at all, is as good as none that has ended.
            return None;
        }
        if !libc::WIFSTOPPED(status) {
            return Some((Pid::from_raw(pid), status));
        }
        trace_no_more(pid, libc::WSTOPSIG(status));
    }
}

/// Lets a stopped tracee go on with the signal that stopped it. `ptrace(2)`.
fn trace_no_more(pid: i32, signal: i32) {
    // What execve(2) sends a tracee is meant for the tracer.
    let signal = if signal == libc::SIGTRAP { 0 } else { signal };
    let nowhere: *mut libc::c_void = std::ptr::null_mut();
    // SAFETY: takes no address. It fails if SIGKILL was faster.
    unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, nowhere, libc::c_long::from(signal)) };
}

/// `struct pidfd_info` of Linux 6.13, first version (`linux/pidfd.h`).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    ids: [u32; 11],
    exit_code: i32,
}
const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)`.
#[allow(clippy::cast_possible_truncation)] // 64 bytes
const PIDFD_GET_INFO: c_ulong =
    (3 << 30) | ((size_of::<PidfdInfo>() as c_ulong) << 16) | (0xFF << 8) | 11;

/// The wait status (as `waitpid(2)` gives it) of a process that somebody
/// else has reaped. `None` on kernels before 6.15, and while it is not
/// reaped yet.
#[must_use]
pub fn pidfd_wait_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the structure has the size that the request number says, and
    // outlives the call.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, &mut info) };
    (done == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// `struct loop_info64` (`linux/loop.h`).
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` (`linux/loop.h`, Linux 5.8).
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}
const LOOP_CONFIGURE: c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: c_ulong = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// The number of a loop device that was free a moment ago. `loop(4)`.
///
/// # Errors
/// What the ioctl on `/dev/loop-control` says.
pub fn loop_free_number(control: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: this request takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
    u32::try_from(number).map_err(|_| io::Error::last_os_error())
}

/// Binds `file` to a loop device, read-only, freed by the kernel when its
/// last user (descriptor or mount) is gone. `loop(4)`.
///
/// # Errors
/// `EBUSY`: somebody else was faster, try another number.
pub fn loop_configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: integers and arrays of them, for which all zeros is a value.
    let mut config: LoopConfig = unsafe { std::mem::zeroed() };
    config.fd = file.as_raw_fd().unsigned_abs();
    config.info.flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
    // SAFETY: the structure is what LOOP_CONFIGURE takes, and outlives it.
    if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &config) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Opens `path` (relative) below `folder`, following no symlink and never
/// leaving it. `openat2(2)`.
///
/// # Errors
/// `ELOOP` for a symlink, `EXDEV` for an escape, or what open(2) says.
pub fn open_beneath(folder: BorrowedFd<'_>, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    open_resolved(folder, path, flags, resolve)
}

/// Opens `path` as a process with the root folder `root` would: absolute
/// names and symlinks stay in it. `openat2(2)`.
///
/// # Errors
/// What open(2) says.
pub fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    open_resolved(root, path, flags, resolve)
}

fn open_resolved(
    folder: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    resolve: ResolveFlag,
) -> io::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
    let fd = nix::fcntl::openat2(folder.as_raw_fd(), path, how)?;
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What is at `path`, on a mount of its own that is read-only and that no
/// path leads to: nobody can make it writable again, and it is gone with its
/// last user. `open_tree(2)`, `mount_setattr(2)`.
///
/// # Errors
/// What these say; `ENOSYS` before Linux 5.12, `EPERM` without
/// `CAP_SYS_ADMIN`, `EINVAL` for what is on such a mount already.
pub fn read_only_clone(path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::O_CLOEXEC.unsigned_abs();
    // SAFETY: the path outlives the call; the result is a new descriptor.
    let tree =
        owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    let read_only = MountAttr { set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    let size = size_of::<MountAttr>();
    let (fd, empty) = (tree.as_raw_fd(), c"".as_ptr());
    // SAFETY: path and structure outlive the call, which reads them only.
    let done = unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd, empty, libc::AT_EMPTY_PATH, &read_only, size)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(tree) }
}

/// `struct mount_attr` (`linux/mount.h`, Linux 5.12).
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}
const MOUNT_ATTR_RDONLY: u64 = 1;

/// `struct fsxattr` (`linux/fs.h`).
#[repr(C)]
#[derive(Default)]
struct FsXattr {
    flags: u32,
    extent_bytes: u32,
    extents: u32,
    project: u32,
    cow_extent_bytes: u32,
    padding: [u8; 8],
}
const FS_IOC_FSGETXATTR: c_ulong = 0x801C_581F;
const FS_IOC_FSSETXATTR: c_ulong = 0x401C_5820;
/// What is made in the folder is of its project too.
const FS_XFLAG_PROJINHERIT: u32 = 0x200;

fn fs_attributes(file: BorrowedFd<'_>) -> io::Result<FsXattr> {
    let mut found = FsXattr::default();
    // SAFETY: the structure is what the request fills, and outlives it.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSGETXATTR as _, &mut found) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(found) }
}

/// The project that a file or folder is of; 0 for none. `ioctl_fsgetxattr(2)`.
///
/// # Errors
/// `ENOTTY`: its file system knows no projects.
pub fn project(file: BorrowedFd<'_>) -> io::Result<u32> {
    fs_attributes(file).map(|found| found.project)
}

/// Makes a folder, and what will be in it, part of a project.
///
/// # Errors
/// `EOPNOTSUPP`: its file system was made without projects.
pub fn set_project(folder: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    let mut wanted = fs_attributes(folder)?;
    wanted.project = project;
    wanted.flags |= FS_XFLAG_PROJINHERIT;
    // SAFETY: the structure is what the request takes, and outlives it.
    let done = unsafe { libc::ioctl(folder.as_raw_fd(), FS_IOC_FSSETXATTR as _, &wanted) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `struct if_dqblk` (`linux/quota.h`).
#[repr(C)]
#[derive(Default)]
struct Quota {
    /// In KiB.
    blocks_hard: u64,
    blocks_soft: u64,
    bytes: u64,
    inodes_hard: u64,
    inodes_soft: u64,
    inodes: u64,
    blocks_time: u64,
    inodes_time: u64,
    valid: u32,
}
/// The same number on all architectures; Linux 5.14.
const SYS_QUOTACTL_FD: libc::c_long = 443;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
const PRJQUOTA: u32 = 2;
const QIF_BLIMITS: u32 = 1;

fn quotactl(file: BorrowedFd<'_>, what: u32, project: u32, quota: &mut Quota) -> io::Result<()> {
    let (fd, command) = (file.as_raw_fd(), what << 8 | PRJQUOTA);
    // SAFETY: the structure is what both commands take, and outlives the call.
    let done = unsafe { libc::syscall(SYS_QUOTACTL_FD, fd, command, project, quota) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the file system counts, and limits, what projects hold.
pub fn has_project_quotas(file: BorrowedFd<'_>) -> bool {
    quotactl(file, Q_GETQUOTA, 0, &mut Quota::default()).is_ok()
}

/// Limits what all files of a project may hold together. `quotactl(2)`.
///
/// # Errors
/// `ESRCH`: no quotas are on.
pub fn limit_project(file: BorrowedFd<'_>, project: u32, bytes: u64) -> io::Result<()> {
    let blocks_hard = bytes.div_ceil(1024);
    let mut quota = Quota { blocks_hard, valid: QIF_BLIMITS, ..Quota::default() };
    quotactl(file, Q_SETQUOTA, project, &mut quota)
}

/// Duplicates `from` to exactly the number `to`, without close-on-exec, for
/// a program that is about to be executed.
///
/// # Errors
/// What `dup2(2)` says.
pub fn place_fd(from: BorrowedFd<'_>, to: RawFd) -> io::Result<()> {
    if from.as_raw_fd() == to {
        // SAFETY: clears close-on-exec on a descriptor that is open.
        let done = unsafe { libc::fcntl(to, libc::F_SETFD, 0) };
        return if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    }
    nix::unistd::dup2(from.as_raw_fd(), to)?;
    Ok(())
}

/// SIGKILL for this process when its parent dies; false if it is dead
/// already.
///
/// # Errors
/// What `prctl(2)` says.
pub fn die_with_parent(parent: Pid) -> io::Result<bool> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    Ok(nix::unistd::getppid() == parent)
}

/// Gives this process exactly `capabilities` (bit `n` is number `n` of
/// `capability.h`), with no way to more, and whatever user `set_user` sets;
/// meant to be the last thing before `execve(2)`, for a child of one thread.
/// `capabilities(7)`.
///
/// # Errors
/// What `prctl(2)`, `capset(2)` or `set_user` say: then the process may have
/// lost some of its rights, and has to end.
pub fn set_privileges(
    capabilities: u64,
    set_user: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let wanted = |number: u32| capabilities >> number & 1 == 1;
    let prctl = |option: i32, a: c_ulong, b: c_ulong| {
        let none: c_ulong = 0;
        // SAFETY: these options take integers only.
        let done = unsafe { libc::prctl(option, a, b, none, none) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    for number in (0..u64::BITS).filter(|&number| !wanted(number)) {
        match prctl(libc::PR_CAPBSET_DROP, c_ulong::from(number), 0) {
            // Beyond the last one that the kernel knows.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            dropped => dropped?,
        }
    }
    prctl(libc::PR_SET_KEEPCAPS, 1, 0)?;
    set_user()?;
    set_capabilities(capabilities)?;
    prctl(libc::PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    for number in (0..u64::BITS).filter(|&number| wanted(number)) {
        prctl(libc::PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, c_ulong::from(number))?;
    }
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}
const PR_CAP_AMBIENT_RAISE: c_ulong = 2;
const PR_CAP_AMBIENT_CLEAR_ALL: c_ulong = 4;

/// Permitted, effective and inheritable alike. `capset(2)`.
fn set_capabilities(capabilities: u64) -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`.
    const VERSION: u32 = 0x2008_0522;
    #[allow(clippy::cast_possible_truncation)] // the two halves
    let halves = [capabilities as u32, (capabilities >> 32) as u32];
    // Version and pid (this thread); then effective, permitted, inheritable
    // of each half.
    let header = [VERSION, 0];
    let data = halves.map(|half| [half; 3]);
    // SAFETY: both arrays have the layout of `linux/capability.h` and outlive
    // the call.
    let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Binds this process, and what it executes, to a filter of system calls, for
/// good. It must have no way to privileges (`PR_SET_NO_NEW_PRIVS`), and one
/// thread. `seccomp(2)`.
///
/// Processors' guards against speculation stay as they are elsewhere, as has
/// been the kernel's own choice from 5.16 on; older ones would slow the whole
/// program down.
///
/// # Errors
/// `ENOSYS` or `EINVAL`: the kernel has no filters, or the program is not one.
pub fn set_seccomp_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let len =
        u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let operation = c_ulong::from(libc::SECCOMP_SET_MODE_FILTER);
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: the program and its instructions outlive the call, which copies
    // them and writes nothing.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, &raw const program) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::wait::{WaitStatus, waitpid};

    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<PidfdInfo>(), 64);
        assert_eq!(size_of::<LoopInfo>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
        assert_eq!(PIDFD_GET_INFO, 0xC040_FF0B);
        assert_eq!(size_of::<CloneArgs>(), 88);
        assert_eq!(size_of::<MountAttr>(), 32);
    }

    #[test]
    fn a_child_ends_with_its_status_and_a_pidfd_tells() {
        let pid = fork_child(|| 41).unwrap();
        let pidfd = pidfd_open(pid).unwrap();
        assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 41));
        // Linux 6.15 and later remember the status of what was reaped.
        assert_eq!(pidfd_wait_status(pidfd.as_fd()).unwrap_or(41 << 8), 41 << 8);
    }

    #[test]
    fn nothing_outside_a_folder_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", folder.path().join("link")).unwrap();
        let dir = std::fs::File::open(folder.path()).unwrap();
        let open = |path: &str| open_beneath(dir.as_fd(), Path::new(path), OFlag::O_RDONLY);
        assert!(open("file").is_ok());
        for path in ["link", "../etc/passwd", "/etc/passwd", "absent"] {
            assert!(open(path).is_err(), "{path}");
        }
    }
}
