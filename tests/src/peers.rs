//! crun and runc, on the same program and the same limits, for comparison.
//!
//! crun 1.8 refuses hybrid cgroups. The peers run in a mount namespace without
//! the unified and the systemd hierarchy, where both work.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use crate::PREFIX;
use crate::observe::monotonic_nanos;

/// An OCI bundle that prints a time stamp and ends.
#[derive(Debug)]
pub struct Peer {
    program: &'static str,
    bundle: PathBuf,
    rounds: u32,
}

impl Peer {
    /// Prepares a bundle over the folder `rootfs`; the container joins the
    /// network namespace `netns`, as one that starts in a pod does.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn new(program: &'static str, folder: &Path, rootfs: &Path, netns: &Path) -> Result<Self> {
        let bundle = folder.join(program);
        fs::create_dir_all(&bundle)?;
        let config = config(program, rootfs, netns);
        fs::write(bundle.join("config.json"), serde_json::to_vec_pretty(&config)?)?;
        Ok(Self { program, bundle, rounds: 0 })
    }

    /// Starts a container; nanoseconds until its first instruction.
    ///
    /// # Errors
    /// The runtime's message.
    pub fn start(&mut self) -> Result<u64> {
        self.rounds += 1;
        let id = format!("{PREFIX}-{}-{}", self.program, self.rounds);
        let begin = monotonic_nanos();
        let mut child = Command::new(self.program)
            .args(["run", "--bundle"])
            .arg(&self.bundle)
            .arg(&id)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.program))?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
        let status = child.wait()?;
        ensure!(status.success(), "{} ended with {status}", self.program);
        Ok(line.trim().parse::<u64>()?.saturating_sub(begin))
    }
}

/// Calls `work` in a thread whose mount namespace has no cgroup v2 hierarchy.
///
/// # Errors
/// What `work` says, or that the namespace cannot be made.
pub fn without_unified<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            for hierarchy in ["unified", "systemd"] {
                let path = Path::new("/sys/fs/cgroup").join(hierarchy);
                if path.exists() {
                    umount2(&path, MntFlags::MNT_DETACH)
                        .with_context(|| path.display().to_string())?;
                }
            }
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn config(program: &str, rootfs: &Path, netns: &Path) -> serde_json::Value {
    let mounts = json!([
        { "destination": "/proc", "type": "proc", "source": "proc" },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
          "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
          "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
        { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
          "options": ["nosuid", "noexec", "nodev"] },
        { "destination": "/sys", "type": "sysfs", "source": "sysfs",
          "options": ["nosuid", "noexec", "nodev", "ro"] },
    ]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 1000, "gid": 1000 },
            "args": ["/bin/wherry-lion"],
            "env": ["PATH=/bin", "LION_STAMP=1"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": { "bounding": [], "effective": [], "permitted": [] },
        },
        "root": { "path": rootfs, "readonly": true },
        "mounts": mounts,
        "linux": {
            "cgroupsPath": format!("/{PREFIX}-peer-{program}"),
            "resources": { "memory": { "limit": 64 << 20 } },
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "network", "path": netns },
            ],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
