//! What runs as launcher cannot be changed (CVE-2019-5736): not through
//! `/proc/PID/exe`, not by more than any container may do.

use anyhow::{Context, Result, ensure};

use crate::node::Node;
use crate::place::Place;

/// The machine's own root user, with every capability and in the launcher's
/// namespaces, tries; a container can do less.
///
/// # Errors
/// The program was changed, or changing it was not refused.
pub fn holds(node: &Node<'_>) -> Result<()> {
    let place = node.place();
    let (launcher, supervisor) = node.pids()?;
    for pid in [launcher, supervisor] {
        let exe = format!("/proc/{pid}/exe");
        let before = digest(place, &exe)?;
        let write = place.run(&[
            "dd",
            "if=/dev/zero",
            &format!("of={exe}"),
            "bs=1",
            "count=1",
            "conv=notrunc",
        ]);
        ensure!(write.is_err(), "{exe} can be written to");
        // A program that runs is busy for writers anyway; its mode is not,
        // and can be changed only where the seal does not hold.
        let mode = place.run(&["chmod", "711", &exe]);
        let said = mode.err().with_context(|| format!("{exe} can be changed"))?.to_string();
        ensure!(said.contains("Read-only file system"), "{exe}: {said}");
        ensure!(before == digest(place, &exe)?, "{exe} has changed");
    }
    Ok(())
}

fn digest(place: &dyn Place, path: &str) -> Result<String> {
    let line = place.run(&["sha256sum", path])?;
    Ok(line.split(' ').next().context("a digest")?.to_owned())
}
