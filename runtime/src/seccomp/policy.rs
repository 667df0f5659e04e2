//! From the table to what each number gets, on one architecture and for one
//! set of capabilities.

use super::table::CALLS;

/// In [`Call::numbers`]: the architecture has no such call.
pub const NONE: u32 = u32::MAX;

/// A system call of [`CALLS`].
#[derive(Debug)]
pub struct Call {
    #[cfg(test)]
    pub name: &'static str,
    /// In the order of [`Architecture`].
    pub numbers: [u32; 3],
    pub rule: Rule,
}

/// On which terms a call is allowed. What a capability guards in the kernel is
/// not given without it: such calls are where most of its bugs are reached.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    Always,
    /// Number of the capability that it needs.
    With(u8),
    WithEither(u8, u8),
    /// New namespaces need `SYS_ADMIN`, new user namespaces too: in one of
    /// these a process holds every capability.
    CloneFlags,
    UnshareFlags,
    /// Its flags are in memory, where a filter cannot see them.
    Clone3,
    Personality,
    Socket,
}

/// Numbers of capabilities (`linux/capability.h`).
pub mod cap {
    pub const DAC_READ_SEARCH: u8 = 2;
    pub const SYS_MODULE: u8 = 16;
    pub const SYS_RAWIO: u8 = 17;
    pub const SYS_CHROOT: u8 = 18;
    pub const SYS_PTRACE: u8 = 19;
    pub const SYS_PACCT: u8 = 20;
    pub const SYS_ADMIN: u8 = 21;
    pub const SYS_BOOT: u8 = 22;
    pub const SYS_NICE: u8 = 23;
    pub const SYS_TIME: u8 = 25;
    pub const SYS_TTY_CONFIG: u8 = 26;
    pub const SYSLOG: u8 = 34;
    pub const PERFMON: u8 = 38;
    pub const BPF: u8 = 39;
}

/// What a call gets. Those with a list look at the low 32 bits of its first
/// argument, which are all that the kernel looks at: a comparison of 64 bits
/// would let through what differs in the others only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    /// With this error number.
    Refuse(i32),
    /// Allowed if none of these bits is set.
    WithoutBits(u32),
    /// Allowed with one of these values.
    OneOf(&'static [u32]),
    NoneOf(&'static [u32]),
}

/// The answer to what is refused.
pub const REFUSED: Verdict = Verdict::Refuse(libc::EPERM);
/// The answer to what a program may ask for only to find out whether the kernel
/// has it: then it does without, where `EPERM` would make it give up.
pub const UNKNOWN: Verdict = Verdict::Refuse(libc::ENOSYS);

/// `CLONE_NEW…` of `linux/sched.h`, all but the one for time, whose bit is part
/// of the signal's number in `clone(2)`.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;
const TIME_NAMESPACE: u32 = 0x80;
/// Linux, Linux as 32 bits, each also with `UNAME26`; the last one asks only
/// (`linux/personality.h`). Others switch protections of the memory off.
const PERSONALITIES: &[u32] = &[0, 0x0008, 0x0002_0000, 0x0002_0008, u32::MAX];
/// The kernel's cryptography, where programs have their own and many bugs were
/// found; and the line to virtual machines, which knows no network namespaces.
const SOCKETS_REFUSED: &[u32] = &[libc::AF_ALG as u32, libc::AF_VSOCK as u32];

/// Where ARM's own calls begin (`__ARM_NR_BASE`).
const ARM_OWN: u32 = 0x000f_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code))] // one of them is this one
pub enum Architecture {
    X86_64,
    Aarch64,
    /// 32 bits, EABI.
    Arm,
}

impl Architecture {
    #[cfg(target_arch = "x86_64")]
    pub const OWN: Self = Self::X86_64;
    #[cfg(target_arch = "aarch64")]
    pub const OWN: Self = Self::Aarch64;
    #[cfg(target_arch = "arm")]
    pub const OWN: Self = Self::Arm;

    /// `AUDIT_ARCH_…` of `linux/audit.h`: ELF's number of the machine, and
    /// whether it has 64 bits and is little-endian.
    #[must_use]
    pub fn audit_number(self) -> u32 {
        const BITS_64: u32 = 0x8000_0000;
        const LITTLE_ENDIAN: u32 = 0x4000_0000;
        match self {
            Self::X86_64 => 62 | BITS_64 | LITTLE_ENDIAN,
            Self::Aarch64 => 183 | BITS_64 | LITTLE_ENDIAN,
            Self::Arm => 40 | LITTLE_ENDIAN,
        }
    }
}

impl Call {
    #[must_use]
    pub fn number(&self, architecture: Architecture) -> Option<u32> {
        let [x86_64, aarch64, arm] = self.numbers;
        let number = match architecture {
            Architecture::X86_64 => x86_64,
            Architecture::Aarch64 => aarch64,
            Architecture::Arm => arm,
        };
        (number != NONE).then_some(number)
    }
}

impl Rule {
    #[must_use]
    pub fn verdict(self, capabilities: u64) -> Verdict {
        let holds = |number: u8| capabilities >> number & 1 == 1;
        let only_if = |ok: bool, else_verdict| if ok { Verdict::Allow } else { else_verdict };
        let admin = holds(cap::SYS_ADMIN);
        match self {
            Self::Always => Verdict::Allow,
            Self::With(number) => only_if(holds(number), REFUSED),
            Self::WithEither(one, other) => only_if(holds(one) || holds(other), REFUSED),
            Self::CloneFlags => only_if(admin, Verdict::WithoutBits(NAMESPACES)),
            Self::UnshareFlags => only_if(admin, Verdict::WithoutBits(NAMESPACES | TIME_NAMESPACE)),
            // C libraries then use clone(2).
            Self::Clone3 => only_if(admin, UNKNOWN),
            Self::Personality => Verdict::OneOf(PERSONALITIES),
            Self::Socket => Verdict::NoneOf(SOCKETS_REFUSED),
        }
    }
}

/// Every number's verdict: each holds from the number beside it up to the next
/// one. The first begins at 0; neighbours differ.
#[must_use]
pub fn spans(architecture: Architecture, capabilities: u64) -> Vec<(u32, Verdict)> {
    let listed = CALLS
        .iter()
        .filter_map(|call| Some((call.number(architecture)?, call.rule.verdict(capabilities))));
    let mut listed: Vec<(u32, Verdict)> = listed.collect();
    listed.sort_unstable_by_key(|(number, _)| *number);
    let newest = listed.iter().map(|(number, _)| *number).filter(|number| *number < ARM_OWN).max();
    // Above it are calls that came after the table was written, and on x86_64
    // x32's: all its numbers have bit 30.
    let not_listed = |number| if Some(number) > newest { UNKNOWN } else { REFUSED };
    let mut spans: Vec<(u32, Verdict)> = Vec::new();
    let mut append = |start, verdict| {
        if spans.last().is_none_or(|(_, last)| *last != verdict) {
            spans.push((start, verdict));
        }
    };
    let mut next = 0;
    for (number, verdict) in listed {
        if next < number {
            append(next, not_listed(next));
        }
        append(number, verdict);
        next = number + 1;
    }
    append(next, not_listed(next));
    spans
}
