//! What a program in a container may ask of the kernel: makes calls, each with
//! arguments that do no harm where it is allowed, and tells what came of it.

use std::error::Error;
use std::time::Duration;

use nix::errno::Errno;
use nix::time::ClockId;

use crate::sys;

/// Of `linux/keyctl.h`, `linux/sched.h` and `sys/socket.h`, and what is no
/// command of any.
const NO_COMMAND: usize = 9999;
const CLONE_NEWUSER: usize = 0x1000_0000;
const CLONE_FS: usize = 0x200;
const ADDR_NO_RANDOMIZE: usize = 0x0004_0000;
/// After the last of any architecture.
const NO_CALL: libc::c_long = 999;
/// What a filter that compared all of an argument would take for another one.
#[cfg(target_pointer_width = "64")]
const ABOVE: usize = 1 << 32;
#[cfg(target_pointer_width = "32")]
const ABOVE: usize = 0;

/// `NAME ok` or `NAME ERROR`, a line each.
pub fn tell() {
    let algorithms = libc::AF_ALG.unsigned_abs() as usize;
    let machines = libc::AF_VSOCK.unsigned_abs() as usize;
    let unix = libc::AF_UNIX.unsigned_abs() as usize;
    let stream = libc::SOCK_STREAM.unsigned_abs() as usize;
    let packets = libc::SOCK_SEQPACKET.unsigned_abs() as usize;
    let internet = libc::AF_INET.unsigned_abs() as usize;
    let frames = libc::AF_PACKET.unsigned_abs() as usize;
    let raw = libc::SOCK_RAW.unsigned_abs() as usize;
    let icmp = libc::IPPROTO_ICMP.unsigned_abs() as usize;
    let calls: [(&str, libc::c_long, &[usize]); 24] = [
        ("getpid", libc::SYS_getpid, &[]),
        ("keyctl", libc::SYS_keyctl, &[NO_COMMAND]),
        ("add_key", libc::SYS_add_key, &[]),
        ("bpf", libc::SYS_bpf, &[NO_COMMAND]),
        ("mount", libc::SYS_mount, &[]),
        ("kexec_load", libc::SYS_kexec_load, &[]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, &[]),
        ("io_uring_setup", libc::SYS_io_uring_setup, &[]),
        ("userfaultfd", libc::SYS_userfaultfd, &[NO_COMMAND]),
        ("setns", libc::SYS_setns, &[NO_COMMAND]),
        ("ptrace", libc::SYS_ptrace, &[libc::PTRACE_TRACEME as usize]),
        ("unshare-fs", libc::SYS_unshare, &[CLONE_FS]),
        ("clone3", libc::SYS_clone3, &[]),
        ("no-call", NO_CALL, &[]),
        ("personality", libc::SYS_personality, &[ADDR_NO_RANDOMIZE]),
        ("personality-asked", libc::SYS_personality, &[0xffff_ffff]),
        ("socket", libc::SYS_socket, &[unix, stream]),
        ("socket-alg", libc::SYS_socket, &[algorithms, packets]),
        ("socket-alg-above", libc::SYS_socket, &[algorithms | ABOVE, packets]),
        ("socket-vsock", libc::SYS_socket, &[machines, stream]),
        ("socket-raw", libc::SYS_socket, &[internet, raw, icmp]),
        ("socket-packet", libc::SYS_socket, &[frames, raw]),
        ("init_module", libc::SYS_init_module, &[]),
        ("unshare-user", libc::SYS_unshare, &[CLONE_NEWUSER]),
    ];
    for (name, number, args) in calls {
        match sys::call(number, args) {
            Ok(()) => println!("{name} ok"),
            Err(error) => {
                let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
                println!("{name} {errno:?}");
            }
        }
    }
}

/// Threads are there by clone(2), or not at all.
pub fn threads() -> Result<(), Box<dyn Error>> {
    let threads = (0..4).map(|n| std::thread::Builder::new().spawn(move || n));
    let threads: Vec<_> = threads.collect::<Result<_, _>>()?;
    let sum: i32 = threads.into_iter().filter_map(|thread| thread.join().ok()).sum();
    println!("threads {sum}");
    Ok(())
}

/// Has its parent trace it, as some programs do so that nobody else can, and
/// gets a signal.
pub fn traced() -> Result<(), Box<dyn Error>> {
    sys::call(libc::SYS_ptrace, &[libc::PTRACE_TRACEME as usize])?;
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGWINCH)?;
    println!("went on");
    Ok(())
}

/// Nanoseconds of one call that does nothing: the best of some runs, in this
/// process's own time, since others may be at work.
pub fn time() -> Result<(), Box<dyn Error>> {
    const RUNS: u32 = 10;
    const CALLS: u32 = 200_000;
    let now = || ClockId::CLOCK_PROCESS_CPUTIME_ID.now().map(Duration::from);
    let mut best = Duration::MAX;
    for _ in 0..RUNS {
        let begin = now()?;
        for _ in 0..CALLS {
            sys::call(libc::SYS_getpid, &[])?;
        }
        best = best.min(now()? - begin);
    }
    println!("{}", best.as_nanos() / u128::from(CALLS));
    Ok(())
}

/// Ends by a signal where such calls are refused.
#[cfg(target_arch = "x86_64")]
pub fn i386() {
    println!("i386 {}", sys::getpid_of_i386());
}
#[cfg(not(target_arch = "x86_64"))]
pub fn i386() {
    println!("i386 false");
}
