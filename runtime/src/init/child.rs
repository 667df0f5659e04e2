//! Programs that the first program starts: in a session of their own, with
//! an environment made for them, and their output in the kernel's log.

use std::ffi::CString;
use std::io;

use nix::unistd::{Pid, execve, setsid};

use crate::sys;

/// Status of the forked child if the program could not be executed.
const EXEC_FAILED: i32 = 127;
const PATH: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
/// Of our own environment, which the kernel's command line makes, only these
/// go on.
const INHERITED: [&str; 3] = ["HOME", "TERM", "WHERRY_LOG"];

/// Starts `program` with `args` (its own name first) and more `variables`
/// (`NAME=value`).
///
/// # Errors
/// A word with a NUL character, or what `fork(2)` says. That the program does
/// not exist shows as its end with status 127.
pub fn start(program: &str, args: &[CString], variables: &[String]) -> io::Result<Pid> {
    let program = CString::new(program)?;
    let own =
        INHERITED.iter().filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)));
    let all = std::iter::once(PATH.to_owned()).chain(own).chain(variables.iter().cloned());
    let env = all.map(CString::new).collect::<Result<Vec<_>, _>>()?;
    sys::fork_child(|| {
        sys::reset_signals();
        // Fails only for a group's leader, which a forked child is not.
        let _ = setsid();
        let Err(error) = execve(&program, args, &env);
        log::error!("executing {}: {error}", program.to_string_lossy());
        EXEC_FAILED
    })
}

/// [`start`] for the words of a configured command.
///
/// # Errors
/// As there; an empty command.
pub fn start_command(command: &[String]) -> io::Result<Pid> {
    let program = command.first().ok_or(io::ErrorKind::InvalidInput)?;
    let args = command.iter().map(|word| CString::new(word.as_str()));
    start(program, &args.collect::<Result<Vec<_>, _>>()?, &[])
}
