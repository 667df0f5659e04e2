//! One disk as a power cut left it: mounted, and checked by a process of its
//! own, so that whatever opening it does is a finding like others, and
//! nothing of one state is left when the next is looked at.

use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};
use wherry_bundle::Name;

use super::check::{Finding, Subject, check};
use super::marks::Known;
use crate::run::{both, run, tool};

/// The word that makes `wherry-crash` answer a [`Look`] on its standard input.
pub const WORD: &str = "--look";
/// For one state; the store itself waits two seconds for a lock at most.
const SECONDS_MAX: &str = "30";
/// Of what a process said that did not end well.
const LINES_TOLD_MAX: usize = 5;

/// What is to be checked.
#[derive(Debug, Serialize, Deserialize)]
pub struct Look {
    /// The node's data folder on the mounted disk.
    pub data: PathBuf,
    pub node: Name,
    pub known: Known,
}

/// Mounts `image` at `point`, has it checked, and unmounts it. Changes the
/// image, as a start of the node would.
///
/// # Errors
/// Something is wrong with this machine; what is wrong with the disk is no
/// error.
pub fn look(image: &Path, point: &Path, look: &Look) -> Result<Vec<Finding>> {
    mounted(image, point, || ask(look)).map(|outcome| {
        outcome.unwrap_or_else(|error| {
            vec![Finding { subject: Subject::Mount, text: error.to_string() }]
        })
    })
}

/// Calls `work` while `image` is mounted at `point`; the inner error says why
/// it cannot be mounted.
///
/// # Errors
/// As [`look`], or what `work` says.
pub fn mounted<T>(
    image: &Path,
    point: &Path,
    work: impl FnOnce() -> Result<T>,
) -> Result<Result<T, Errno>> {
    let device = run(tool("losetup", ["--find", "--show"]).arg(image))?.trim().to_owned();
    let mounted = mount(Some(device.as_str()), point, Some("ext4"), MsFlags::empty(), None::<&str>);
    let outcome = match mounted {
        Err(error @ (Errno::EPERM | Errno::ENODEV | Errno::ENOENT)) => {
            Err(error).with_context(|| format!("cannot mount {device}"))
        }
        Err(error) => Ok(Err(error)),
        Ok(()) => {
            let outcome = work();
            // Not lazily: the device is free only then.
            umount2(point, MntFlags::empty()).context("cannot unmount a state")?;
            outcome.map(Ok)
        }
    };
    run(&mut tool("losetup", ["--detach", &device]))?;
    outcome
}

/// What `wherry-crash --look` does.
///
/// # Errors
/// The request is none, or nobody reads the answer.
pub fn answer() -> Result<()> {
    let Look { data, node, known } = serde_json::from_reader(std::io::stdin().lock())?;
    println!("{}", serde_json::to_string(&check(&data, &node, &known))?);
    Ok(())
}

/// Has a process of its own check the mounted disk.
///
/// # Errors
/// It cannot be started.
pub fn ask(look: &Look) -> Result<Vec<Finding>> {
    let mut question = tempfile::tempfile()?;
    question.write_all(&serde_json::to_vec(look)?)?;
    question.rewind()?;
    let program = crate::host::binary("wherry-crash")?;
    let output = tool("timeout", ["--signal=KILL", SECONDS_MAX])
        .arg(program)
        .arg(WORD)
        .stdin(Stdio::from(question))
        .output()?;
    if output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout);
        return Ok(serde_json::from_str(text.lines().last().context("no answer")?)?);
    }
    let said = both(&output);
    let said: Vec<&str> = said.lines().take(LINES_TOLD_MAX).collect();
    let text = format!("opening it takes the process along: {}: {said:?}", output.status);
    Ok(vec![Finding { subject: Subject::Store, text }])
}
