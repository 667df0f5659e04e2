//! One gateway's surroundings: two network namespaces joined by a veth pair
//! (`wan`, where cloud and clients are, and `gw`, the gateway), a folder, and
//! a broom that sweeps all of it away.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::PREFIX;
use crate::run::{output, run, tool, wait_for};

/// The cloud's and the clients' address, as the gateway sees it.
pub const WAN_ADDRESS: &str = "192.0.2.1";
/// The gateway's address, as the cloud and the clients see it.
pub const GATEWAY_ADDRESS: &str = "192.0.2.2";

/// Which of the two namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Wan,
    Gateway,
}

/// Everything of one test; dropping it removes everything.
#[derive(Debug)]
pub struct Host {
    id: String,
    folder: PathBuf,
    wan: File,
    gateway: File,
}

impl Host {
    /// `id` tells tests apart that run at the same time: up to six characters
    /// of a-z and 0-9. What an earlier run of the same id left is swept first.
    ///
    /// # Errors
    /// Not root, or `ip` is not installed.
    pub fn new(id: &str) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("end-to-end tests make namespaces and mounts: run them as root");
        }
        sweep(id);
        let folder = folder(id);
        fs::create_dir_all(&folder)?;
        let [wan, gateway] = [Side::Wan, Side::Gateway].map(|side| netns(id, side));
        for name in [&wan, &gateway] {
            ip(&["netns", "add", name])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        let up = ["link", "add", "up0", "netns", &wan, "type", "veth", "peer", "name", "eth0"];
        ip(&[&up[..], &["netns", &gateway]].concat())?;
        for (name, link, address) in
            [(&wan, "up0", WAN_ADDRESS), (&gateway, "eth0", GATEWAY_ADDRESS)]
        {
            ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", link])?;
            ip(&["-n", name, "link", "set", link, "up"])?;
        }
        ip(&["-n", &gateway, "route", "add", "default", "via", WAN_ADDRESS])?;
        let open = |name: &str| {
            File::open(Path::new("/run/netns").join(name)).with_context(|| format!("netns {name}"))
        };
        let (wan, gateway) = (open(&wan)?, open(&gateway)?);
        Ok(Self { id: id.to_owned(), folder, wan, gateway })
    }

    /// A folder on disk for data, images and configuration.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The prefix of this gateway's cgroups, and the name of its run folder.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{PREFIX}-{}", self.id)
    }

    /// The name of its bridge.
    #[must_use]
    pub fn bridge(&self) -> String {
        format!("whtest{}", self.id)
    }

    /// What makes a program enter the wan namespace: words before its own.
    #[must_use]
    pub fn enter_wan(&self) -> [String; 2] {
        ["nsenter".into(), format!("--net=/run/netns/{}", netns(&self.id, Side::Wan))]
    }

    /// Starts `command` in one of the namespaces, with its output in
    /// `FOLDER/LOG.log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, side: Side, command: &mut Command, log: &str) -> Result<Process> {
        let path = self.folder.join(format!("{log}.log"));
        let file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
        command.stdin(std::process::Stdio::null());
        command.stdout(file.try_clone()?).stderr(file);
        crate::sys::run_in_netns(command, self.namespace(side).as_fd());
        let child = command.spawn().with_context(|| format!("cannot start {log}"))?;
        Ok(Process { child, log: path })
    }

    /// Runs `command` to its end in one of the namespaces.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run(&self, side: Side, command: &mut Command) -> Result<String> {
        crate::sys::run_in_netns(command, self.namespace(side).as_fd());
        run(command)
    }

    /// Calls `work` in a thread that is in one of the namespaces: its sockets
    /// are as if a program there had opened them.
    ///
    /// # Errors
    /// What `work` says, or that the thread could not enter.
    pub fn inside<T: Send>(
        &self,
        side: Side,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        let namespace = self.namespace(side);
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Cuts or mends the line between gateway and cloud.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn uplink(&self, up: bool) -> Result<()> {
        let wan = netns(&self.id, Side::Wan);
        ip(&["-n", &wan, "link", "set", "up0", if up { "up" } else { "down" }])
    }

    /// What a clean end leaves: nothing. Lists what is still there.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        leftovers(&self.name(), &self.folder, &self.bridge(), &netns(&self.id, Side::Gateway))
    }

    fn namespace(&self, side: Side) -> &File {
        match side {
            Side::Wan => &self.wan,
            Side::Gateway => &self.gateway,
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("WHERRY_TEST_KEEP").is_some() {
            eprintln!("logs of the failed run: {}", keep_logs(&self.folder, &self.id).display());
        }
        sweep(&self.id);
    }
}

/// A process that is killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// What it printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// What `wait` says.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends `signal` and waits for the end.
    ///
    /// # Errors
    /// It does not end within 20 s.
    pub fn end(&mut self, signal: Signal) -> Result<std::process::ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        kill(self.pid(), signal)?;
        let child = &mut self.child;
        wait_for("end of a process", Duration::from_secs(20), || Ok(child.try_wait()?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.end(Signal::SIGTERM).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A program of this workspace, beside the running one.
///
/// # Errors
/// It is not built: says how.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let mut folder = own.parent().context("a program has a folder")?;
    if folder.ends_with("deps") {
        folder = folder.parent().context("deps has a parent")?;
    }
    let path = folder.join(name);
    if !path.exists() {
        bail!("{} is not there: build it with `cargo build --workspace`", path.display());
    }
    Ok(path)
}

fn folder(id: &str) -> PathBuf {
    PathBuf::from(format!("/tmp/{PREFIX}-{id}"))
}

fn netns(id: &str, side: Side) -> String {
    match side {
        Side::Wan => format!("{PREFIX}-{id}-wan"),
        Side::Gateway => format!("{PREFIX}-{id}-gw"),
    }
}

fn ip(words: &[&str]) -> Result<()> {
    run(&mut tool("ip", words.iter().copied())).map(drop)
}

fn keep_logs(folder: &Path, id: &str) -> PathBuf {
    let kept = PathBuf::from(format!("/tmp/{PREFIX}-logs-{id}"));
    let _ = fs::create_dir_all(&kept);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|ending| ending == "log") {
            let _ = fs::copy(entry.path(), kept.join(entry.file_name()));
        }
    }
    kept
}

/// Takes away whatever a run with this id made: processes in its cgroups and
/// namespaces, cgroups, mounts, namespaces, folder. Every step goes on when
/// there is nothing to do.
pub fn sweep(id: &str) {
    let name = format!("{PREFIX}-{id}");
    // The node first: it would start again what is killed behind its back.
    for side in [Side::Wan, Side::Gateway] {
        let netns = netns(id, side);
        let listed = output(&mut tool("ip", ["netns", "pids", &netns]));
        for pid in listed.iter().flat_map(|out| numbers(&out.stdout)) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let _ = output(&mut tool("ip", ["netns", "delete", &netns]));
    }
    for path in cgroups(&name) {
        for pid in pids(&path) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
    for path in mounts_below(&folder(id)) {
        let _ = nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH);
    }
    for path in cgroups(&name) {
        let gone = || Ok(fs::remove_dir(&path).is_ok().then_some(()));
        let _ = wait_for("removal of a cgroup", Duration::from_secs(5), gone);
    }
    let _ = fs::remove_dir_all(folder(id));
}

/// Every process of this machine in the cgroups below `name`.
#[must_use]
pub fn pids_below(name: &str) -> Vec<i32> {
    let mut found: Vec<i32> =
        cgroups(name).iter().flat_map(|path| pids(path)).map(Pid::as_raw).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// What there is of a run with this id, whoever made it: after [`sweep`],
/// nothing.
///
/// # Errors
/// What cannot be read.
pub fn remains(id: &str) -> Result<Vec<String>> {
    let (name, folder) = (format!("{PREFIX}-{id}"), folder(id));
    let mut found: Vec<String> =
        cgroups(&name).iter().map(|path| format!("cgroup {}", path.display())).collect();
    found.extend(mounts_below(&folder).iter().map(|path| format!("mount {}", path.display())));
    found.extend(loops_of(&folder)?);
    found.extend(folder.exists().then(|| format!("folder {}", folder.display())));
    let namespaces = run(&mut tool("ip", ["netns", "list"]))?;
    let own = namespaces.lines().filter(|line| line.starts_with(&name));
    found.extend(own.map(|line| format!("network namespace {line}")));
    for entry in fs::read_dir("/proc")?.flatten() {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if words.contains(&*folder.to_string_lossy()) {
            found.push(format!("process {words}"));
        }
    }
    Ok(found)
}

fn leftovers(name: &str, folder: &Path, bridge: &str, netns: &str) -> Result<Vec<String>> {
    let mut left: Vec<String> = Vec::new();
    left.extend(cgroups(name).iter().map(|path| format!("cgroup {}", path.display())));
    left.extend(mounts_below(folder).iter().map(|path| format!("mount {}", path.display())));
    let links = run(&mut tool("ip", ["-n", netns, "-o", "link"]))?;
    let known = ["lo", "eth0"];
    for line in links.lines() {
        let link = line.split([':', '@']).nth(1).unwrap_or_default().trim();
        if !known.contains(&link) && (link == bridge || link.starts_with("wh")) {
            left.push(format!("interface {link}"));
        }
    }
    left.extend(loops_of(folder)?);
    Ok(left)
}

/// Loop devices of files below `folder`.
fn loops_of(folder: &Path) -> Result<Vec<String>> {
    let loops = fs::read_dir("/sys/block")?.flatten().filter_map(|entry| {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
        file.trim().starts_with(&*folder.to_string_lossy()).then(|| format!("loop of {file}"))
    });
    Ok(loops.collect())
}

/// The folders of cgroups below `name` in every hierarchy, deepest first.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let roots = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let mut found = Vec::new();
    let mut roots: Vec<PathBuf> = roots.map(|entry| entry.path()).collect();
    roots.push(PathBuf::from("/sys/fs/cgroup"));
    for root in roots {
        collect(&root.join(name), &mut found);
    }
    found
}

fn collect(path: &Path, found: &mut Vec<PathBuf>) {
    if !path.is_dir() {
        return;
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
    }
    found.push(path.to_owned());
}

fn pids(cgroup: &Path) -> Vec<Pid> {
    numbers(&fs::read(cgroup.join("cgroup.procs")).unwrap_or_default())
}

fn numbers(text: &[u8]) -> Vec<Pid> {
    let text = String::from_utf8_lossy(text);
    text.split_whitespace().filter_map(|word| word.parse().ok()).map(Pid::from_raw).collect()
}

/// Mount points below `folder`, the latest first.
fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut points: Vec<PathBuf> = points.filter(|point| point.starts_with(folder)).collect();
    points.reverse();
    points
}
