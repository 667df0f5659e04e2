//! crun and runc, on the same program and the same limits, for comparison.
//!
//! crun 1.8 refuses hybrid cgroups. The peers run in a mount namespace without
//! the unified and the systemd hierarchy, where both work.

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use crate::PREFIX;
use crate::observe::monotonic_nanos;

/// One of the runtimes, and bundles for it: a lion that prints a time stamp
/// and waits to be killed.
#[derive(Debug)]
pub struct Peer {
    program: &'static str,
    folder: PathBuf,
    rootfs: PathBuf,
    /// Containers so far; each has an id of its own.
    count: u32,
    running: Vec<String>,
}

/// As many as are ever there at once.
const LEFTOVERS_MAX: u32 = 4;

/// Namespaces that a container does not make but joins, as `/proc/PID/ns`
/// names them, with their files.
type Joined = Vec<(&'static str, PathBuf)>;

impl Peer {
    /// Containers will have the folder `rootfs` as root file system.
    #[must_use]
    pub fn new(program: &'static str, folder: &Path, rootfs: &Path) -> Self {
        let (folder, rootfs) = (folder.join(program), rootfs.to_owned());
        // A run that was killed may have left some.
        for number in 1..=LEFTOVERS_MAX {
            let id = format!("{PREFIX}-{program}-{number}");
            let mut delete = Command::new(program);
            delete.args(["delete", "--force", &id]).stdout(Stdio::null()).stderr(Stdio::null());
            let _ = delete.status();
        }
        Self { program, folder, rootfs, count: 0, running: Vec::new() }
    }

    /// Starts a container in the network namespace `netns`; nanoseconds until
    /// its first instruction.
    ///
    /// # Errors
    /// The runtime's message.
    pub fn start(&mut self, netns: &Path) -> Result<u64> {
        let (mut reader, writer) = stamps()?;
        let bundle = self.bundle(&vec![("net", netns.to_owned())])?;
        let begin = monotonic_nanos();
        let mut child = self.spawn(&bundle, &writer)?;
        let stamp = last_stamp(&mut reader, 1)?;
        ensure!(child.wait()?.success(), "{} did not start a container", self.program);
        Ok(stamp.saturating_sub(begin))
    }

    /// Starts `count` containers that share network, IPC and UTS namespaces,
    /// which the first one makes; nanoseconds until the first instruction of
    /// the last one. Nobody gives them an address.
    ///
    /// # Errors
    /// The runtime's message.
    pub fn start_pod(&mut self, count: usize) -> Result<u64> {
        let (mut reader, writer) = stamps()?;
        let bundle = self.bundle(&Vec::new())?;
        let begin = monotonic_nanos();
        ensure!(self.spawn(&bundle, &writer)?.wait()?.success(), "{} failed", self.program);
        let pid = fs::read_to_string(bundle.join("pid"))?;
        let shared = |kind| (kind, Path::new("/proc").join(pid.trim()).join("ns").join(kind));
        let joined = ["net", "ipc", "uts"].map(shared).to_vec();
        let mut children = Vec::new();
        for _ in 1..count {
            let bundle = self.bundle(&joined)?;
            children.push(self.spawn(&bundle, &writer)?);
        }
        let stamp = last_stamp(&mut reader, count)?;
        for mut child in children {
            ensure!(child.wait()?.success(), "{} did not start a container", self.program);
        }
        Ok(stamp.saturating_sub(begin))
    }

    /// Kills and deletes all containers; nanoseconds.
    ///
    /// # Errors
    /// The runtime's message.
    pub fn delete(&mut self) -> Result<u64> {
        let begin = monotonic_nanos();
        let delete = |id| Command::new(self.program).args(["delete", "--force", id]).spawn();
        let children: Vec<Child> =
            self.running.iter().map(|id| delete(id)).collect::<std::io::Result<_>>()?;
        for mut child in children {
            ensure!(child.wait()?.success(), "{} did not delete a container", self.program);
        }
        self.running.clear();
        Ok(monotonic_nanos().saturating_sub(begin))
    }

    fn bundle(&mut self, joined: &Joined) -> Result<PathBuf> {
        self.count += 1;
        let bundle = self.folder.join(self.count.to_string());
        fs::create_dir_all(&bundle)?;
        let cgroup = format!("/{PREFIX}-peer-{}-{}", self.program, self.count);
        let config = config(&cgroup, &self.rootfs, joined);
        fs::write(bundle.join("config.json"), serde_json::to_vec(&config)?)?;
        Ok(bundle)
    }

    fn spawn(&mut self, bundle: &Path, stdout: &PipeWriter) -> Result<Child> {
        let id = format!("{PREFIX}-{}-{}", self.program, self.running.len() + 1);
        let mut command = Command::new(self.program);
        command.args(["run", "--detach", "--pid-file"]).arg(bundle.join("pid"));
        command.arg("--bundle").arg(bundle).arg(&id);
        command.stdin(Stdio::null()).stdout(stdout.try_clone()?);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.program))?;
        self.running.push(id);
        Ok(child)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Err(error) = self.delete() {
            eprintln!("{}: {error}", self.program);
        }
    }
}

fn stamps() -> Result<(BufReader<PipeReader>, PipeWriter)> {
    let (reader, writer) = std::io::pipe()?;
    Ok((BufReader::new(reader), writer))
}

/// The latest of `count` time stamps.
fn last_stamp(reader: &mut impl BufRead, count: usize) -> Result<u64> {
    let lines: Vec<String> = reader.lines().take(count).collect::<std::io::Result<_>>()?;
    ensure!(lines.len() == count, "containers ended without a time stamp");
    let stamps: Vec<u64> = lines.iter().map(|line| line.parse()).collect::<Result<_, _>>()?;
    stamps.into_iter().max().context("no container")
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

fn config(cgroup: &str, rootfs: &Path, joined: &Joined) -> serde_json::Value {
    let namespace = |kind: &'static str, name| {
        let mut namespace = json!({ "type": name });
        if let Some((_, path)) = joined.iter().find(|(joined, _)| *joined == kind) {
            namespace["path"] = json!(path);
        }
        namespace
    };
    let namespaces: Vec<serde_json::Value> =
        [("pid", "pid"), ("mnt", "mount"), ("ipc", "ipc"), ("uts", "uts"), ("net", "network")]
            .into_iter()
            .map(|(kind, name)| namespace(kind, name))
            .collect();
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
            "cgroupsPath": cgroup,
            "resources": { "memory": { "limit": 64 << 20 } },
            "namespaces": namespaces,
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
