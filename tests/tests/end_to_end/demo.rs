//! `wherry-demo` leaves nothing behind, whenever it is interrupted.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wherry_tests::host::{binary, remains};

/// The demo's.
const ID: &str = "demo";
/// So many milliseconds after it said this: namespaces are being made, tools are
/// at work, pods start, pods are replaced.
const MOMENTS: [(&str, u64); 7] = [
    ("on this machine", 2),
    ("on this machine", 10),
    ("on this machine", 20),
    ("on this machine", 40),
    ("organise", 100),
    ("install version 1.0.0", 300),
    ("upgrade to 2.0.0", 300),
];
/// The exit status of what SIGINT ended, as shells have it.
const INTERRUPTED: i32 = 130;

#[test]
fn an_interrupted_demo_leaves_nothing() {
    for (line, millis) in MOMENTS {
        if let Err(error) = interrupted(line, Duration::from_millis(millis)) {
            panic!("{millis} ms after \"{line}\": {error:#}");
        }
    }
}

fn interrupted(after: &str, later: Duration) -> Result<()> {
    let mut demo = Command::new(binary("wherry-demo")?).stdout(Stdio::piped()).spawn()?;
    let mut output = BufReader::new(demo.stdout.take().context("piped")?).lines();
    let begun = output.any(|line| line.is_ok_and(|line| line.contains(after)));
    ensure!(begun, "it ended before");
    sleep(later);
    kill(Pid::from_raw(demo.id().cast_signed()), Signal::SIGINT)?;
    let status = demo.wait()?;
    ensure!(status.code() == Some(INTERRUPTED), "it ended with {status}");
    let left = remains(ID)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}
