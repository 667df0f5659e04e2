//! `init`, `reboot`, `poweroff`: the machine of which this program is the
//! first.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wherry_runtime::init::{self, InitError, PROCESS_NAME, Told};

use crate::{config, logger};

#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    #[error(transparent)]
    Init(#[from] InitError),
    #[error("this machine's first program is `{0}`, not wherry: use its own command")]
    Foreign(String),
    #[error("/proc/1/comm: {0}")]
    Who(#[source] io::Error),
    #[error("telling the first program: {0} (only root may)")]
    Kill(#[source] Errno),
}

/// Is the machine's first program.
pub(super) fn init(config: &Path) -> Result<(), MachineError> {
    Ok(init::run(|| logger::init("init"), || told(config))?)
}

fn told(path: &Path) -> Told {
    let (config, problems) = config::init::salvage(path);
    let words = |command: &[&str]| -> Vec<CString> {
        let words = ["wherry"].iter().chain(command).map(|word| word.as_bytes());
        let all = words.chain([b"--config".as_slice(), path.as_os_str().as_bytes()]);
        // Words of a command line hold no NUL.
        all.filter_map(|word| CString::new(word).ok()).collect()
    };
    Told { config, problems, launcher: words(&["run"]), stop: words(&["stop", "--all"]) }
}

pub(super) fn reboot() -> Result<(), MachineError> {
    tell(Signal::SIGTERM)
}

pub(super) fn power_off() -> Result<(), MachineError> {
    tell(Signal::SIGUSR2)
}

/// The first program asks the node to stop its pods, so that it works
/// whatever state the node is in.
fn tell(signal: Signal) -> Result<(), MachineError> {
    let name = fs::read_to_string("/proc/1/comm").map_err(MachineError::Who)?;
    if name.trim_end() != PROCESS_NAME {
        return Err(MachineError::Foreign(name.trim_end().to_owned()));
    }
    kill(Pid::from_raw(1), signal).map_err(MachineError::Kill)
}

/// The kernel gives its first program those words of its command line that it
/// does not know itself; an init that refuses them is a kernel panic.
#[must_use]
pub(super) fn is_first_program() -> bool {
    Pid::this().as_raw() == 1
}
