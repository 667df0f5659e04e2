//! A disk of this machine with a record of all that goes to it: an ext4 file
//! system on a loop device, on a file that `qemu-storage-daemon` exports by
//! FUSE and behind which QEMU's `blklogwrites` driver stands.
//!
//! Its mounts are seen by the thread that called [`own_mounts`] and its
//! children only, and end with them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wherry_rig::replay::{Image, Log, Replay, Syncs};

use crate::run::{run, tool, wait_for};

/// Room for a few versions; small, since it is copied for each state.
pub const DISK_BYTES: u64 = 96 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);

/// Mounted as long as it lives.
#[derive(Debug)]
pub struct RecordedDisk {
    point: PathBuf,
    device: String,
    daemon: Child,
    image: PathBuf,
    /// The disk before its first mount.
    pub base: PathBuf,
    /// All writes and flushes since then.
    pub record: PathBuf,
}

impl RecordedDisk {
    /// Makes the file system below `folder` and mounts it at `point`.
    ///
    /// # Errors
    /// A tool is not installed, or says no.
    pub fn mount(folder: &Path, point: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        fs::create_dir_all(point)?;
        let [base, image, record, export] =
            ["base.img", "disk.img", "record", "export"].map(|name| folder.join(name));
        make_ext4(&base)?;
        run(tool("cp", ["--sparse=always"]).args([&base, &image]))?;
        File::create(&record)?;
        File::create(&export)?;
        let daemon = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &format!("driver=file,filename={},node-name=f", image.display())])
            .args(["--blockdev", "driver=raw,file=f,node-name=disk"])
            .args(["--blockdev", &format!("driver=file,filename={},node-name=r", record.display())])
            .args(["--blockdev", "driver=blklogwrites,file=disk,log=r,node-name=recorded"])
            .args([
                "--export",
                &format!(
                    "fuse,id=e,node-name=recorded,mountpoint={},writable=on",
                    export.display()
                ),
            ])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start qemu-storage-daemon: is it installed?")?;
        let mut disk =
            Self { point: point.to_owned(), device: String::new(), daemon, image, base, record };
        wait_for("the exported disk", PATIENCE, || {
            if let Some(status) = disk.daemon.try_wait()? {
                bail!("qemu-storage-daemon ended: {status}");
            }
            Ok((fs::metadata(&export)?.len() == DISK_BYTES).then_some(()))
        })?;
        // Not with direct I/O: requests that overlap spoil each other in the
        // daemon. The exported file's pages are written through at once.
        disk.device = run(tool("losetup", ["--find", "--show"]).arg(&export))?.trim().to_owned();
        mount(Some(disk.device.as_str()), point, Some("ext4"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {}", disk.device))?;
        Ok(disk)
    }

    /// Ends the record, and sees that it tells all: what was written is what
    /// the disk holds.
    ///
    /// # Errors
    /// Something is still open on it, or a write is missing in the record.
    pub fn unmount(&mut self) -> Result<()> {
        // sled's last thread closes its file a moment after the database was
        // dropped.
        wait_for("the end of what is on the disk", PATIENCE, || {
            Ok(Some(umount2(&self.point, MntFlags::empty())?))
        })?;
        run(&mut tool("losetup", ["--detach", &self.device]))?;
        self.device.clear();
        self.end_daemon()?;
        is_told(&self.base, &self.record, &self.image)
    }

    /// By SIGTERM: a daemon that is killed leaves a dead mount behind.
    fn end_daemon(&mut self) -> Result<()> {
        let pid = Pid::from_raw(self.daemon.id().cast_signed());
        let daemon = &mut self.daemon;
        if daemon.try_wait()?.is_none() {
            kill(pid, Signal::SIGTERM)?;
            wait_for("the daemon's end", PATIENCE, || Ok(daemon.try_wait()?))?;
        }
        Ok(())
    }
}

impl Drop for RecordedDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.point, MntFlags::MNT_DETACH);
        if !self.device.is_empty() {
            let _ = run(&mut tool("losetup", ["--detach", &self.device]));
        }
        if self.end_daemon().is_err() {
            let _ = self.daemon.kill();
            let _ = self.daemon.wait();
        }
    }
}

/// Everything that `image` holds is in the `record` of writes to `base`.
///
/// # Errors
/// It is not; or a file that cannot be read.
pub fn is_told(base: &Path, record: &Path, image: &Path) -> Result<()> {
    let log = Log::read(record)?;
    let told = Replay::new(&log, Image::read(base)?, Syncs::Honoured).finish();
    if let Some(offset) = told.first_difference(&Image::read(image)?) {
        bail!("the record and the disk differ at byte {offset}");
    }
    Ok(())
}

/// An empty ext4 file system in a new file, with blocks as a gateway's larger
/// disk has them, and nothing left for the kernel to initialise later.
fn make_ext4(path: &Path) -> Result<()> {
    File::create(path)?.set_len(DISK_BYTES)?;
    let words = ["-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
    run(tool("mkfs.ext4", words).arg(path)).map(drop)
}

/// Gives this thread, and those that it makes from now on, mounts of their
/// own.
///
/// # Errors
/// Not root.
pub fn own_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot have own mounts")?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).context("cannot make / private")
}
