//! Processes as `/proc` shows them: who they are, and what they may do.
//! Reads only.

use std::fs;
use std::io;

use nix::unistd::Pid;
use wherry_bundle::message::Exit;

/// One process since boot: a pid can be used again, not with the same start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub pid: Pid,
    /// Clock ticks after boot, field 22 of `/proc/PID/stat` (`proc(5)`).
    pub start_ticks: u64,
}

/// What of `/proc/PID/stat` is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `Z`: ended, not yet reaped.
    pub state: char,
    pub start_ticks: u64,
    /// As `waitpid(2)` gives it; 0 while it runs. Field 52.
    pub wait_status: i32,
}

impl Stat {
    /// # Errors
    /// There is no such process any more.
    pub fn read(pid: Pid) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat: {text}")))
    }

    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, in which
        // anything may stand.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            state: field(3)?.chars().next()?,
            start_ticks: field(22)?.parse().ok()?,
            wait_status: field(52)?.parse().ok()?,
        })
    }
}

/// A wait status in our words.
#[must_use]
pub fn exit_of(wait_status: i32) -> Exit {
    if libc::WIFSIGNALED(wait_status) {
        Exit::Signal(u8::try_from(libc::WTERMSIG(wait_status)).unwrap_or(0))
    } else if libc::WIFEXITED(wait_status) {
        Exit::Code(u8::try_from(libc::WEXITSTATUS(wait_status)).unwrap_or(u8::MAX))
    } else {
        Exit::Unknown
    }
}

/// What keeps a process from gaining privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privileges {
    pub no_new_privileges: bool,
    pub inheritable: u64,
    pub permitted: u64,
    pub effective: u64,
    pub bounding: u64,
    pub ambient: u64,
}

impl Privileges {
    /// Exactly `capabilities`, with no way to more.
    #[must_use]
    pub fn exactly(capabilities: u64) -> Self {
        Self {
            no_new_privileges: true,
            inheritable: capabilities,
            permitted: capabilities,
            effective: capabilities,
            bounding: capabilities,
            ambient: capabilities,
        }
    }

    /// # Errors
    /// There is no such process any more, or the kernel does not say.
    pub fn read(pid: Pid) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Self::parse(&text).ok_or_else(|| {
            io::Error::other(format!("/proc/{pid}/status does not tell capabilities"))
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
        };
        let set = |key| u64::from_str_radix(value(key)?, 16).ok();
        Some(Self {
            no_new_privileges: value("NoNewPrivs")? == "1",
            inheritable: set("CapInh")?,
            permitted: set("CapPrm")?,
            effective: set("CapEff")?,
            bounding: set("CapBnd")?,
            ambient: set("CapAmb")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let mut fields = vec!["S"];
        fields.extend(["0"; 18]);
        fields.push("4711");
        fields.extend(["0"; 29]);
        fields.push("9");
        let text = format!("17 (a) R (b) {}\n", fields.join(" "));
        let stat = Stat::parse(&text).unwrap();
        assert_eq!(stat, Stat { state: 'S', start_ticks: 4711, wait_status: 9 });
        assert_eq!(Stat::parse("17 (a) S 0"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let own = Stat::read(Pid::this()).unwrap();
        assert!(own.start_ticks > 0);
        assert!(Privileges::read(Pid::this()).is_ok());
    }

    #[test]
    fn privileges_are_read_from_all_lines() {
        let text = "Name:\tx\nCapInh:\t0000000000000001\nCapPrm:\t0000000000000002\n\
            CapEff:\t0000000000000004\nCapBnd:\t0000000000000008\nCapAmb:\t0000000000000010\n\
            NoNewPrivs:\t1\n";
        let found = Privileges::parse(text).unwrap();
        assert_eq!(
            found,
            Privileges {
                no_new_privileges: true,
                inheritable: 1,
                permitted: 2,
                effective: 4,
                bounding: 8,
                ambient: 16,
            }
        );
        assert_eq!(Privileges::parse("NoNewPrivs:\t1\n"), None);
    }

    #[test]
    fn exits_tell_code_or_signal() {
        assert_eq!(exit_of(3 << 8), Exit::Code(3));
        assert_eq!(exit_of(9), Exit::Signal(9));
        assert_eq!(exit_of(0x80 | 11), Exit::Signal(11));
        assert_eq!(exit_of(0x137f), Exit::Unknown);
    }
}
