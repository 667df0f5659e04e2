use super::policy::{Architecture, NONE, Rule, cap};
use super::table::CALLS;
use super::*;

const ALL: [Architecture; 3] = [Architecture::X86_64, Architecture::Aarch64, Architecture::Arm];
/// Above every number that any kernel has, but for ARM's own.
const NUMBERS: u32 = 1024;
const EVERY_CAPABILITY: u64 = u64::MAX;
/// `__ARM_NR_…`.
const BREAKPOINT: u32 = 0xf_0001;
const CACHEFLUSH: u32 = 0xf_0002;
const SET_TLS: u32 = 0xf_0005;
/// The flags of a new thread (glibc and musl).
const THREAD: u64 = 0x003d_0f00;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Allowed,
    Refused(i32),
    Killed,
}
use Answer::{Allowed, Killed, Refused};

const NOT_PERMITTED: Answer = Refused(libc::EPERM);
const NO_SUCH_CALL: Answer = Refused(libc::ENOSYS);

/// What the kernel would do: runs the program over one `struct seccomp_data`.
/// Also how many instructions that took.
fn run(filter: &Filter, audit_number: u32, number: u32, argument: u64) -> (Answer, usize) {
    let mut data = [0_u8; 64];
    data[0..4].copy_from_slice(&number.to_le_bytes());
    data[4..8].copy_from_slice(&audit_number.to_le_bytes());
    data[16..24].copy_from_slice(&argument.to_le_bytes());
    let (mut at, mut accumulator, mut steps) = (0, 0_u32, 0);
    loop {
        let libc::sock_filter { code, jt, jf, k } = filter.0[at];
        (at, steps) = (at + 1, steps + 1);
        let mut branch = |taken: bool| at += usize::from(if taken { jt } else { jf });
        // `linux/bpf_common.h`, written out: the compiler has the other words.
        match code {
            0x20 => {
                let at = usize::try_from(k).unwrap();
                accumulator = u32::from_le_bytes(data[at..at + 4].try_into().unwrap());
            }
            0x05 => at += usize::try_from(k).unwrap(),
            0x15 => branch(accumulator == k),
            0x35 => branch(accumulator >= k),
            0x45 => branch(accumulator & k != 0),
            0x06 => {
                let errno = i32::try_from(k & 0xffff).unwrap();
                let answer = match k & 0xffff_0000 {
                    0x7fff_0000 => Allowed,
                    0x0005_0000 => Refused(errno),
                    0x8000_0000 => Killed,
                    _ => panic!("{k:#x}"),
                };
                return (answer, steps);
            }
            _ => panic!("{code:#x}"),
        }
    }
}

/// A filter with the architecture that it is for.
struct Under(Architecture, Filter);

impl Under {
    fn new(architecture: Architecture, capabilities: u64) -> Self {
        Self(architecture, Filter::of(architecture, capabilities))
    }

    fn number(&self, number: u32, argument: u64) -> Answer {
        run(&self.1, self.0.audit_number(), number, argument).0
    }

    fn call(&self, name: &str, argument: u64) -> Answer {
        let call = CALLS.iter().find(|call| call.name == name).unwrap();
        self.number(call.number(self.0).unwrap(), argument)
    }
}

#[test]
fn every_number_gets_what_the_table_says() {
    for architecture in ALL {
        for capabilities in [0, EVERY_CAPABILITY, 1 << cap::SYS_ADMIN, 1 << cap::SYSLOG] {
            let under = Under::new(architecture, capabilities);
            let newest = 466;
            for number in (0..NUMBERS).chain(0xf_0000..0xf_0010) {
                let mut listed = CALLS.iter().filter(|c| c.number(architecture) == Some(number));
                let call = listed.next();
                assert!(listed.next().is_none(), "two are {number} on {architecture:?}");
                let holds = |number: u8| capabilities >> number & 1 == 1;
                let expected = match call.map(|call| call.rule) {
                    None if number <= newest => NOT_PERMITTED,
                    None => NO_SUCH_CALL,
                    Some(Rule::Clone3) if !holds(cap::SYS_ADMIN) => NO_SUCH_CALL,
                    Some(Rule::With(one)) if !holds(one) => NOT_PERMITTED,
                    Some(Rule::WithEither(one, other)) if !holds(one) && !holds(other) => {
                        NOT_PERMITTED
                    }
                    // An argument of 0 is fine for the others.
                    Some(_) => Allowed,
                };
                let found = under.number(number, 0);
                assert_eq!(found, expected, "{number} on {architecture:?}: {call:?}");
            }
        }
    }
}

#[test]
fn what_a_program_needs_is_allowed_and_what_breaks_out_is_not() {
    for architecture in ALL {
        let under = Under::new(architecture, 0);
        for name in ["read", "write", "execve", "exit_group", "futex", "rt_sigreturn", "getpid"] {
            assert_eq!(under.call(name, u64::MAX), Allowed, "{name} on {architecture:?}");
        }
        for name in ["mount", "umount2", "setns", "bpf", "open_by_handle_at", "reboot", "syslog"] {
            assert_eq!(under.call(name, 0), NOT_PERMITTED, "{name} on {architecture:?}");
        }
    }
    // keyctl, kexec_load, io_uring_setup, userfaultfd.
    for (architecture, numbers) in [
        (Architecture::X86_64, [250, 246, 425, 323]),
        (Architecture::Aarch64, [219, 104, 425, 282]),
        (Architecture::Arm, [311, 347, 425, 388]),
    ] {
        for number in numbers {
            let under = Under::new(architecture, EVERY_CAPABILITY);
            assert_eq!(under.number(number, 0), NOT_PERMITTED, "{number} on {architecture:?}");
        }
    }
}

#[test]
fn a_capability_brings_its_own_calls_and_no_others() {
    for (capability, name, other) in [
        (cap::DAC_READ_SEARCH, "open_by_handle_at", "mount"),
        (cap::SYS_ADMIN, "mount", "open_by_handle_at"),
        (cap::SYS_BOOT, "reboot", "chroot"),
        (cap::SYS_CHROOT, "chroot", "setns"),
        (cap::SYS_TIME, "clock_settime", "acct"),
        (cap::SYS_MODULE, "finit_module", "bpf"),
        (cap::BPF, "bpf", "perf_event_open"),
        (cap::PERFMON, "perf_event_open", "bpf"),
        (cap::SYSLOG, "syslog", "vhangup"),
    ] {
        for architecture in ALL {
            let under = Under::new(architecture, 1 << capability);
            assert_eq!(under.call(name, 0), Allowed, "{name} on {architecture:?}");
            assert_eq!(under.call(other, 0), NOT_PERMITTED, "{other} on {architecture:?}");
        }
    }
}

#[test]
fn new_namespaces_need_a_capability_and_new_threads_do_not() {
    let kinds =
        [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
    for architecture in ALL {
        let (without, with) =
            (Under::new(architecture, 0), Under::new(architecture, 1 << cap::SYS_ADMIN));
        for flags in [THREAD, 17, 0x4000 | 17] {
            assert_eq!(without.call("clone", flags), Allowed);
        }
        // CLONE_FS, CLONE_FILES.
        assert_eq!(without.call("unshare", 0x600), Allowed);
        for kind in kinds {
            for upper in [0, 0xdead_beef << 32] {
                for (name, flags) in [("clone", kind | 17), ("unshare", kind), ("unshare", 0x80)] {
                    assert_eq!(
                        without.call(name, upper | flags),
                        NOT_PERMITTED,
                        "{name} {kind:#x}"
                    );
                    assert_eq!(with.call(name, upper | flags), Allowed, "{name} {kind:#x}");
                }
            }
        }
        assert_eq!(without.call("clone3", 0), NO_SUCH_CALL);
        assert_eq!(with.call("clone3", 0), Allowed);
    }
}

#[test]
fn arguments_are_compared_as_the_kernel_reads_them() {
    // The upper half is not looked at there either.
    for upper in [0_u64, 1 << 32, 0xffff_ffff << 32] {
        for architecture in ALL {
            let under = Under::new(architecture, EVERY_CAPABILITY);
            for family in (0..60).chain([u64::from(u32::MAX)]) {
                let expected = if family == 38 || family == 40 { NOT_PERMITTED } else { Allowed };
                assert_eq!(under.call("socket", upper | family), expected, "{family}");
            }
            for (persona, expected) in [
                (0, Allowed),
                (8, Allowed),
                (0x2_0000, Allowed),
                (0x2_0008, Allowed),
                (0xffff_ffff, Allowed),
                (1, NOT_PERMITTED),
                // ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC.
                (0x4_0000, NOT_PERMITTED),
                (0x40_0000, NOT_PERMITTED),
            ] {
                assert_eq!(under.call("personality", upper | persona), expected, "{persona:#x}");
            }
        }
    }
}

#[test]
fn another_architectures_calls_end_the_process() {
    /// `AUDIT_ARCH_I386`.
    const I386: u32 = 0x4000_0003;
    for own in ALL {
        let filter = Filter::of(own, EVERY_CAPABILITY);
        let others = ALL.into_iter().filter(|other| *other != own);
        for other in others.map(Architecture::audit_number).chain([I386, 0]) {
            for number in [0, 1, 20, 39, SET_TLS] {
                assert_eq!(run(&filter, other, number, 0).0, Killed, "{other:#x} on {own:?}");
            }
        }
    }
    // x32 has the architecture of its machine, and a bit.
    let under = Under::new(Architecture::X86_64, EVERY_CAPABILITY);
    for number in [0, 39, 59, 512, 520, 545] {
        assert_eq!(under.number(0x4000_0000 | number, 0), NO_SUCH_CALL, "{number}");
    }
    assert_eq!(under.number(u32::MAX, 0), NO_SUCH_CALL);
}

#[test]
fn arms_own_calls_work_on_arm_and_nowhere_else() {
    let own = [BREAKPOINT, CACHEFLUSH, SET_TLS];
    for architecture in ALL {
        let under = Under::new(architecture, 0);
        let expected = if architecture == Architecture::Arm { Allowed } else { NO_SUCH_CALL };
        for number in own {
            assert_eq!(under.number(number, 0), expected, "{number:#x} on {architecture:?}");
        }
        for number in [0xf_0000, 0xf_0003, 0xf_0004, 0xf_0006] {
            assert_eq!(under.number(number, 0), NO_SUCH_CALL, "{number:#x} on {architecture:?}");
        }
    }
}

#[test]
fn filters_are_short_and_quick() {
    for architecture in ALL {
        for capabilities in [0, EVERY_CAPABILITY, 1 << cap::SYS_ADMIN] {
            let filter = Filter::of(architecture, capabilities);
            let longest = (0..NUMBERS)
                .map(|number| run(&filter, architecture.audit_number(), number, 0).1)
                .max()
                .unwrap();
            // The kernel takes 4096 (`BPF_MAXINSNS`).
            assert!(filter.0.len() < 300, "{} on {architecture:?}", filter.0.len());
            assert!(longest <= 20, "{longest} on {architecture:?}");
        }
    }
}

#[test]
fn long_halves_are_skipped_too() {
    use super::policy::Verdict;
    let verdict = |number: u32| {
        if number.is_multiple_of(2) {
            Verdict::Allow
        } else {
            Verdict::Refuse(1 + (number % 100) as i32)
        }
    };
    let spans: Vec<_> = (0..1500).map(|number| (number, verdict(number))).collect();
    let filter = Filter(compile::program(7, &spans));
    assert!(filter.0.len() < 4096);
    for (number, verdict) in spans {
        let expected = match verdict {
            Verdict::Refuse(errno) => Refused(errno),
            _ => Allowed,
        };
        assert_eq!(run(&filter, 7, number, 0).0, expected, "{number}");
    }
}

#[test]
fn a_kernel_without_filters_is_told_by_the_option_that_it_lacks() {
    // It says the same of an empty program.
    let error = Filter(Vec::new()).install().unwrap_err().to_string();
    assert!(error.contains("CONFIG_SECCOMP_FILTER"), "{error}");
}

#[test]
fn the_table_is_in_order() {
    let names: Vec<&str> = CALLS.iter().map(|call| call.name.trim_start_matches('_')).collect();
    assert!(names.is_sorted(), "{names:?}");
    for call in CALLS {
        assert!(call.numbers.iter().any(|number| *number != NONE), "{}", call.name);
    }
}

/// Those that all three have: two sources, one of which is of this
/// architecture only.
#[test]
fn numbers_are_the_c_librarys() {
    macro_rules! known {
        ($($name:ident)*) => { [$((stringify!($name), libc::$name)),*] };
    }
    let known = known! {
        SYS_accept SYS_accept4 SYS_adjtimex SYS_bind SYS_brk SYS_capget SYS_capset SYS_chdir
        SYS_clock_adjtime SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_close
        SYS_close_range SYS_connect SYS_copy_file_range SYS_dup SYS_dup3 SYS_epoll_create1
        SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_execve SYS_execveat
        SYS_exit SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fallocate SYS_fanotify_mark
        SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync
        SYS_fgetxattr SYS_flistxattr SYS_flock SYS_fremovexattr SYS_fsetxattr SYS_fstat
        SYS_fstatfs SYS_fsync SYS_ftruncate SYS_futex SYS_futex_waitv SYS_get_robust_list
        SYS_getcpu SYS_getcwd SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups
        SYS_getitimer SYS_getpeername SYS_getpgid SYS_getpid SYS_getppid SYS_getpriority
        SYS_getrandom SYS_getresgid SYS_getresuid SYS_getrusage SYS_getsid SYS_getsockname
        SYS_getsockopt SYS_gettid SYS_gettimeofday SYS_getuid SYS_getxattr SYS_inotify_add_watch
        SYS_inotify_init1 SYS_inotify_rm_watch SYS_io_cancel SYS_io_destroy SYS_io_getevents
        SYS_io_setup SYS_io_submit SYS_ioctl SYS_ioprio_get SYS_ioprio_set SYS_kill
        SYS_landlock_add_rule SYS_landlock_create_ruleset SYS_landlock_restrict_self SYS_lgetxattr
        SYS_linkat SYS_listen SYS_listxattr SYS_llistxattr SYS_lremovexattr SYS_lseek
        SYS_lsetxattr SYS_madvise SYS_membarrier SYS_memfd_create SYS_mincore SYS_mkdirat
        SYS_mknodat SYS_mlock SYS_mlock2 SYS_mlockall SYS_mprotect SYS_mq_getsetattr SYS_mq_notify
        SYS_mq_open SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink SYS_mremap SYS_msgctl
        SYS_msgget SYS_msgrcv SYS_msgsnd SYS_msync SYS_munlock SYS_munlockall SYS_munmap
        SYS_name_to_handle_at SYS_nanosleep SYS_openat SYS_openat2 SYS_pidfd_open
        SYS_pidfd_send_signal SYS_pipe2 SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect SYS_ppoll
        SYS_prctl SYS_pread64 SYS_preadv SYS_preadv2 SYS_prlimit64 SYS_process_mrelease
        SYS_pselect6 SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_read SYS_readahead SYS_readlinkat
        SYS_readv SYS_recvfrom SYS_recvmmsg SYS_recvmsg SYS_remap_file_pages SYS_removexattr
        SYS_renameat SYS_renameat2 SYS_restart_syscall SYS_rt_sigaction SYS_rt_sigpending
        SYS_rt_sigprocmask SYS_rt_sigqueueinfo SYS_rt_sigreturn SYS_rt_sigsuspend
        SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo SYS_sched_get_priority_max
        SYS_sched_get_priority_min SYS_sched_getaffinity SYS_sched_getattr SYS_sched_getparam
        SYS_sched_getscheduler SYS_sched_rr_get_interval SYS_sched_setaffinity SYS_sched_setattr
        SYS_sched_setparam SYS_sched_setscheduler SYS_sched_yield SYS_seccomp SYS_semctl
        SYS_semget SYS_semop SYS_semtimedop SYS_sendfile SYS_sendmmsg SYS_sendmsg SYS_sendto
        SYS_set_robust_list SYS_set_tid_address SYS_setfsgid SYS_setfsuid SYS_setgid SYS_setgroups
        SYS_setitimer SYS_setpgid SYS_setpriority SYS_setregid SYS_setresgid SYS_setresuid
        SYS_setreuid SYS_setrlimit SYS_setsid SYS_setsockopt SYS_setuid SYS_setxattr SYS_shmat
        SYS_shmctl SYS_shmdt SYS_shmget SYS_shutdown SYS_sigaltstack SYS_signalfd4 SYS_socketpair
        SYS_splice SYS_statfs SYS_statx SYS_symlinkat SYS_sync SYS_syncfs SYS_sysinfo SYS_tee
        SYS_tgkill SYS_timer_create SYS_timer_delete SYS_timer_getoverrun SYS_timer_gettime
        SYS_timer_settime SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime SYS_times
        SYS_tkill SYS_truncate SYS_umask SYS_uname SYS_unlinkat SYS_utimensat SYS_vmsplice
        SYS_wait4 SYS_waitid SYS_write SYS_writev
    };
    for (name, number) in known {
        let name = name.trim_start_matches("SYS_");
        let call = CALLS.iter().find(|call| call.name == name).unwrap();
        assert_eq!(call.number(Architecture::OWN), u32::try_from(number).ok(), "{name}");
    }
}
