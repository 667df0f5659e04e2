//! The system calls of trials that Rust cannot check.

use std::ffi::{c_ulong, c_ushort};
use std::io;

/// Binds this process to a seccomp filter that allows everything, for good:
/// `prctl(2)`, `PR_SET_SECCOMP`; `seccomp(2)`.
///
/// # Errors
/// `EINVAL`: the kernel has no filters.
pub fn seccomp_filter() -> io::Result<()> {
    // "Return this" of classic BPF (`linux/bpf_common.h`).
    const BPF_RET_K: c_ushort = 0x06;
    let mut allow =
        [libc::sock_filter { code: BPF_RET_K, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
    let program = libc::sock_fprog { len: 1, filter: allow.as_mut_ptr() };
    let unused: c_ulong = 0;
    let yes: c_ulong = 1;
    let filter = c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: numbers only. Every one has the register's width, as prctl(2)
    // is variadic.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, unused, unused, unused) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the program and its one instruction outlive the call, which
    // copies them.
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, filter, &program, unused, unused) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
