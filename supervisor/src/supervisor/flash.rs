//! What Wherry wrote to the flash since the node booted, by purpose.
//!
//! Counted are the bytes of files, as the kernel does (`write_bytes` of
//! `proc_pid_io(5)`): not what the file system and the flash add to them. What
//! keepers wrote is known when each of them has ended. Never here: writing to
//! flash for the sake of counting; the sum outlives a supervisor in a file below
//! the run folder.

use std::path::PathBuf;

use nix::sys::resource::{UsageWho, getrusage};
use wherry_bundle::message::FlashUse;

use super::run_file;

/// Changes whenever the postcard form of [`FlashUse`] does.
const SCHEMA: u8 = 1;
/// What `ru_oublock` counts (`getrusage(2)`).
const BLOCK_BYTES: u64 = 512;

#[derive(Debug)]
pub struct FlashCount {
    path: PathBuf,
    /// By supervisors before this one.
    before: FlashUse,
    kept: FlashUse,
}

impl FlashCount {
    /// Goes on with what `path` says.
    #[must_use]
    pub fn load(path: PathBuf) -> Self {
        let before = run_file::load(SCHEMA, &path).unwrap_or_else(|error| {
            log::warn!("what was written to the flash is counted anew: {error}");
            None
        });
        let before: FlashUse = before.unwrap_or_default();
        Self { path, before, kept: before }
    }

    /// Since the boot, with `own` since this process began.
    #[must_use]
    pub fn total(&self, own: FlashUse) -> FlashUse {
        FlashUse {
            layer_bytes: self.before.layer_bytes.saturating_add(own.layer_bytes),
            state_bytes: self.before.state_bytes.saturating_add(own.state_bytes),
            log_bytes: self.before.log_bytes.saturating_add(own.log_bytes),
        }
    }

    /// Remembers `total` for the next supervisor.
    pub fn keep(&mut self, total: FlashUse) {
        if total == self.kept {
            return;
        }
        match run_file::save(SCHEMA, &self.path, &total) {
            Ok(()) => self.kept = total,
            Err(error) => log::warn!("{error}"),
        }
    }
}

/// Bytes that this process's children wrote until they ended.
#[must_use]
pub fn children_bytes() -> u64 {
    let blocks = getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0, |usage| usage.block_writes());
    // Its type differs between architectures.
    #[allow(clippy::useless_conversion)]
    let blocks = u64::try_from(blocks).unwrap_or(0);
    blocks.saturating_mul(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    fn bytes(layer_bytes: u64, state_bytes: u64) -> FlashUse {
        FlashUse { layer_bytes, state_bytes, log_bytes: 0 }
    }

    #[test]
    fn a_new_supervisor_goes_on_counting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flash.bin");
        let mut count = FlashCount::load(path.clone());
        assert_eq!(count.total(bytes(10, 5)), bytes(10, 5));
        count.keep(bytes(10, 5));
        let mut count = FlashCount::load(path.clone());
        assert_eq!(count.total(bytes(1, 2)), bytes(11, 7));
        // What did not change is not written.
        fs::remove_file(&path).unwrap();
        count.keep(bytes(10, 5));
        assert!(!path.exists());
        fs::write(&path, [255]).unwrap();
        assert_eq!(FlashCount::load(path).total(bytes(1, 2)), bytes(1, 2));
    }

    #[test]
    fn what_a_child_wrote_is_counted_at_its_end() {
        // Not on a tmpfs: what is in RAM only does not count.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let before = children_bytes();
        let status = Command::new("dd")
            .args(["if=/dev/zero", "bs=64K", "count=16", "status=none"])
            .arg(format!("of={}", dir.path().join("file").display()))
            .status();
        assert!(status.unwrap().success());
        let written = children_bytes() - before;
        assert!(written >= 1 << 20, "{written}");
    }
}
