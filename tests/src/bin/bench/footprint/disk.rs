//! A data disk of its own: an ext4 in a file, so that its writes can be told
//! from everybody else's.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use wherry_tests::host::Host;
use wherry_tests::run::{run, tool};

const SIZE_BYTES: u64 = 256 << 20;
/// The kernel's unit in `/sys/block/*/stat`, whatever the device's own is.
const SECTOR_BYTES: u64 = 512;

/// Mounted where a test's node keeps its data.
#[derive(Debug)]
pub struct DataDisk {
    mount: PathBuf,
    /// `/sys/block/loopN/stat`.
    statistics: PathBuf,
}

impl DataDisk {
    pub fn mount(host: &Host) -> Result<Self> {
        let (image, mount) = (host.folder().join("disk.img"), host.folder().join("data"));
        fs::File::create(&image)?.set_len(SIZE_BYTES)?;
        // Nothing of making it is to be left for later.
        let now = ["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        run(tool("mkfs.ext4", now).arg(&image))?;
        fs::create_dir_all(&mount)?;
        run(tool("mount", ["-o", "loop"]).arg(&image).arg(&mount))?;
        let source = run(tool("findmnt", ["-n", "-o", "SOURCE"]).arg(&mount))?;
        let device = source.trim().strip_prefix("/dev/").context("a loop device")?;
        let statistics = PathBuf::from(format!("/sys/block/{device}/stat"));
        Ok(Self { mount, statistics })
    }

    /// Since it was mounted, after everything that waits in the page cache
    /// was written.
    pub fn written_bytes(&self) -> Result<u64> {
        run(tool("sync", ["-f"]).arg(&self.mount))?;
        // The seventh number is sectors written
        // (Documentation/block/stat.rst).
        let text = fs::read_to_string(&self.statistics)?;
        let sectors = text.split_whitespace().nth(6).context("no sectors written")?;
        Ok(sectors.parse::<u64>()? * SECTOR_BYTES)
    }

    pub fn unmount(self) -> Result<()> {
        run(tool("umount", []).arg(&self.mount)).map(drop)
    }
}
