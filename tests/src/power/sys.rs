//! A process whose syncs do nothing: the control that shows what they are
//! for. A seccomp filter answers them with success before the kernel sees
//! them, in a static binary as in any other.

use std::io::Error;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;

/// What makes data durable, and sled's weaker call.
const SYNCS: [libc::c_long; 6] = [
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_syncfs,
    libc::SYS_sync,
    libc::SYS_msync,
];

/// For `command` and all its children. To be used on 64-bit machines.
///
/// # Errors
/// None here; starting the command fails without `CAP_SYS_ADMIN`.
pub fn drop_syncs(command: &mut Command) {
    let filter = filter();
    // SAFETY: between fork and exec only prctl is called; `filter` is moved
    // into the closure and was allocated before the fork.
    unsafe {
        command.pre_exec(move || install(&filter));
    }
}

/// For this thread and those that it makes, as long as they live.
///
/// # Errors
/// No `CAP_SYS_ADMIN`.
pub fn drop_own_syncs() -> Result<(), Error> {
    install(&filter())
}

fn install(filter: &[libc::sock_filter]) -> Result<(), Error> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap_or(0),
        filter: filter.as_ptr().cast_mut(),
    };
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: `program` points to `filter`, which the kernel copies in the call.
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) } != 0 {
        return Err(Error::last_os_error());
    }
    Ok(())
}

/// Loads the number of the call, compares it with each of [`SYNCS`], and
/// answers 0 or lets it pass (classic BPF, seccomp(2)).
fn filter() -> Vec<libc::sock_filter> {
    let load = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
    let jump = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    let answer = code(libc::BPF_RET | libc::BPF_K);
    let statement = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let mut filter = vec![statement(load, 0)];
    for (left, call) in (0..SYNCS.len()).rev().zip(SYNCS) {
        // Over the further comparisons and the answer that lets it pass.
        let jt = u8::try_from(left + 1).unwrap_or(0);
        let k = u32::try_from(call).unwrap_or(u32::MAX);
        filter.push(libc::sock_filter { code: jump, jt, jf: 0, k });
    }
    filter.push(statement(answer, libc::SECCOMP_RET_ALLOW));
    filter.push(statement(answer, libc::SECCOMP_RET_ERRNO));
    filter
}

fn code(code: u32) -> u16 {
    u16::try_from(code).unwrap_or(0)
}
