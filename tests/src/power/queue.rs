//! Events that a node has in its queue while its cloud is away: what it made
//! of a container's death, on its disk, and told later.
//!
//! Never here: how the node is reached.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::tap::Tap;
use crate::node::pid;
use crate::run::wait_for;

/// For anything on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// The node commits an event a second after it was made: what has been quiet
/// for so long is done.
const QUIET: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(200);
/// A container ended, and started again.
const EVENTS_OF_A_DEATH: u64 = 2;

/// How a node is asked.
pub trait Ask {
    /// What `wherry WORDS -o json` says.
    ///
    /// # Errors
    /// It says something else.
    fn json(&self, words: &[&str]) -> Result<Value>;

    /// SIGKILL, for a process that the node named.
    ///
    /// # Errors
    /// There is none.
    fn kill(&self, pid: i32) -> Result<()>;

    /// How many events wait.
    ///
    /// # Errors
    /// The node does not say.
    fn waiting(&self) -> Result<u64> {
        self.json(&["status"])?["events_waiting"].as_u64().context("a number of events")
    }
}

/// Takes the broker away, kills a container, waits until the events of that
/// are on the disk whose writes go to `record`, and gives the broker back.
///
/// # Errors
/// The node does none of that.
pub fn fill(tap: &Tap, record: &Path, node: &dyn Ask) -> Result<()> {
    wait_for("an empty outbox", PATIENCE, || Ok((node.waiting()? == 0).then_some(())))?;
    tap.cut_line();
    let pods = node.json(&["ps"])?;
    let mut pods = pods.as_array().context("a list of pods")?.iter();
    let pod = pods.find(|pod| pod["deployment"] == "web").context("a pod")?;
    node.kill(pid(pod, "lion")?)?;
    wait_for("events of a death", PATIENCE, || {
        Ok((node.waiting()? >= EVENTS_OF_A_DEATH).then_some(()))
    })?;
    let count = settled(|| Ok((node.waiting()?, std::fs::metadata(record)?.len())))?;
    tap.note_queued(count);
    tap.mend_line();
    Ok(())
}

/// Waits until `look` says the same for [`QUIET`]: how many events wait, and
/// anything that changes with each write to the disk.
///
/// # Errors
/// It never does, or what `look` says.
pub fn settled<T: PartialEq>(look: impl Fn() -> Result<(u64, T)>) -> Result<u64> {
    let mut seen = look()?;
    let mut since = Instant::now();
    wait_for("a quiet disk", PATIENCE, || {
        std::thread::sleep(POLL);
        let now = look()?;
        if now != seen {
            seen = now;
            since = Instant::now();
        }
        Ok((since.elapsed() >= QUIET).then_some(seen.0))
    })
}
