//! What an interrupted program leaves behind: nothing.
//!
//! As long as its other threads run, more is made than is taken away. So the
//! program becomes another one, in which nothing else runs, before it sweeps.

use std::os::unix::process::CommandExt;
use std::process::{Command, exit};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::wait;
use nix::unistd::Pid;

use crate::host::sweep;
use crate::observe::children;

/// The first word of a program that has become the one that sweeps.
const ROLE: &str = "sweep-what-was-interrupted";
/// The exit status of what SIGINT ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// To be called first in `main`: SIGINT, SIGTERM and SIGHUP end this program,
/// whatever it has started, and what was made under these ids.
pub fn sweeps(ids: &'static [&'static str]) {
    if std::env::args().nth(1).as_deref() == Some(ROLE) {
        end_children();
        ids.iter().for_each(|id| sweep(id));
        exit(INTERRUPTED);
    }
    let interrupted = ctrlc::set_handler(|| {
        println!("interrupted: cleaning up");
        // Other threads end here; children stay this process' own.
        let error = Command::new("/proc/self/exe").arg(ROLE).exec();
        eprintln!("cannot clean up: {error}");
        exit(INTERRUPTED);
    });
    if let Err(error) = interrupted {
        eprintln!("an interruption will not be cleaned up: {error}");
    }
}

/// Kills every descendant, and waits for those that are children: a tool that
/// was at work makes nothing more.
fn end_children() {
    let mut found = children(std::process::id().cast_signed());
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(children(pid));
        next += 1;
    }
    for pid in found {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    while wait().is_ok() {}
}
