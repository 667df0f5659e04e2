//! System calls as no library makes them.

use std::io;

/// A system call by its number; what is not given is 0.
///
/// # Errors
/// What the kernel, or a filter, says.
pub fn call(number: libc::c_long, args: &[usize]) -> io::Result<()> {
    let arg = |at: usize| args.get(at).copied().unwrap_or(0);
    let [a, b, c, d, e] = std::array::from_fn(arg);
    // SAFETY: the callers' own calls: with null or no addresses at all, and of
    // this process nothing changes that it needs.
    if unsafe { libc::syscall(number, a, b, c, d, e) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// `getpid` as a program of 32 bits calls it; whether that worked.
#[cfg(target_arch = "x86_64")]
#[must_use]
pub fn getpid_of_i386() -> bool {
    let number: i64 = 20;
    let answer: i64;
    // SAFETY: reads nothing and writes its answer only; the kernel does not
    // keep r8 to r11 on this way in.
    unsafe {
        std::arch::asm!(
            "int 0x80",
            inlateout("rax") number => answer,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    u32::try_from(answer) == Ok(std::process::id())
}
