//! A launcher of its own for each test: run folder, cgroup prefix, network
//! namespace and bridge that no other test has, taken away at the end, also
//! when the test fails.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use wherry_bundle::message::Exit;
use wherry_bundle::model::{RestartPolicy, Role, Seccomp};
use wherry_bundle::{Digest, Generation, Name};
use wherry_runtime::client::LauncherClient;
use wherry_runtime::packet;
use wherry_runtime::proto::{
    ContainerSpec, ContainerState, Dns, MountSource, MountSpec, Notice, Packet, PodReport, PodSpec,
    Request, join_words,
};

pub const RIG: &str = env!("CARGO_BIN_EXE_wherry-launcher-rig");
/// Longer than any answer takes on a busy machine.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(40);

/// Layers are shared by all tests of a binary: one is all of busybox, the
/// other lies on top.
pub struct Layers {
    folder: PathBuf,
    pub base: Digest,
    pub top: Digest,
}

static LAYERS: LazyLock<Layers> = LazyLock::new(Layers::build);
/// libtest runs tests side by side; loop devices and cgroups are the
/// machine's, and deadlines are easier kept alone.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

impl Layers {
    fn build() -> Self {
        // Nothing drops a static: the folder is the target folder's, made anew
        // by each run, so that none piles up.
        let name = concat!("wherry-test-layers-", env!("CARGO_CRATE_NAME"));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        let base = folder.join("base");
        for path in ["bin", "etc", "tmp", "srv", "root"] {
            fs::create_dir_all(base.join(path)).unwrap();
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .expect("needs Debian's busybox-static");
        fs::copy(busybox, base.join("bin/busybox")).unwrap();
        for applet in ["sh", "sleep", "cat", "nc", "ls", "dd", "id", "wget", "httpd", "hostname"] {
            std::os::unix::fs::symlink("busybox", base.join("bin").join(applet)).unwrap();
        }
        fs::write(base.join("etc/layer"), "base\n").unwrap();
        run("chmod", &["1777", base.join("tmp").to_str().unwrap()]);
        let top = folder.join("top");
        fs::create_dir_all(top.join("etc")).unwrap();
        fs::write(top.join("etc/layer"), "top\n").unwrap();
        let mut layers = Self { folder, base: Digest([0; 32]), top: Digest([0; 32]) };
        layers.base = layers.pack(&base, Digest::of);
        layers.top = layers.pack(&top, Digest::of);
        layers
    }

    /// Makes a layer file of a folder, in place of one that is there already.
    pub fn pack(&self, source: &Path, name: impl FnOnce(&[u8]) -> Digest) -> Digest {
        let image = self.folder.join("new.squashfs");
        let (from, to) = (source.to_str().unwrap(), image.to_str().unwrap());
        run("mksquashfs", &[from, to, "-comp", "zstd", "-all-root", "-quiet", "-no-progress"]);
        let digest = name(&fs::read(&image).unwrap());
        fs::rename(&image, self.file(&digest)).unwrap();
        digest
    }

    /// A layer of the files that `fill` puts into its folder.
    pub fn of(&self, fill: impl FnOnce(&Path)) -> Digest {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path());
        self.pack(folder.path(), Digest::of)
    }

    pub fn file(&self, layer: &Digest) -> PathBuf {
        self.folder.join(format!("{}.squashfs", layer.hex()))
    }

    /// Loop devices over this layer's files, those included that have no name
    /// any more.
    pub fn devices(&self, layer: &Digest) -> usize {
        losetup().iter().filter(|file| file.contains(&layer.hex())).count()
    }
}

pub struct Node {
    id: String,
    pub run_dir: PathBuf,
    pub prefix: String,
    pub bridge: String,
    launcher: Option<Launcher>,
    seq: u32,
    /// Notices that were not waited for yet.
    pub seen: Vec<Notice>,
    _alone: std::sync::MutexGuard<'static, ()>,
}

struct Launcher {
    process: Child,
    client: LauncherClient,
    notices: Receiver<Notice>,
}

impl Node {
    /// `id`: a few letters, the test's own.
    pub fn new(id: &str) -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let id = format!("{id}{}", std::process::id() % 100_000);
        let mut node = Self {
            run_dir: PathBuf::from(format!("/run/wherry-test-{id}")),
            prefix: format!("wherry-test-{id}"),
            bridge: format!("wt{id}"),
            id,
            launcher: None,
            seq: 0,
            seen: Vec::new(),
            _alone: alone,
        };
        run("ip", &["netns", "add", &node.netns()]);
        node.start();
        node
    }

    pub fn netns(&self) -> String {
        format!("wherry-test-{}", self.id)
    }

    pub fn layers(&self) -> &'static Layers {
        &LAYERS
    }

    /// The program and arguments that run a launcher for this node.
    pub fn command(&self, mode: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns())).arg(RIG);
        command.arg(&self.run_dir).arg(&LAYERS.folder).arg(&self.prefix);
        command.arg(&self.bridge).arg("10.87.5.0").args(mode);
        command
    }

    pub fn start(&mut self) {
        let (own, its) = packet::pair().unwrap();
        let process = self.command(&["attached"]).stdin(Stdio::from(its)).spawn().unwrap();
        self.launcher = Some(Launcher::new(process, own));
        // Its run folder is there once it answers.
        self.list();
    }

    /// SIGKILL, as when it crashes.
    pub fn kill_launcher(&mut self) {
        let mut launcher = self.launcher.take().unwrap();
        launcher.process.kill().unwrap();
        launcher.process.wait().unwrap();
    }

    pub fn launcher_pid(&self) -> u32 {
        self.launcher.as_ref().unwrap().process.id()
    }

    /// Closes our end, which ends the launcher; its exit status.
    pub fn hang_up(&mut self) -> bool {
        let Launcher { mut process, client, notices } = self.launcher.take().unwrap();
        // The reading thread holds a copy of the socket until it ends.
        client.shutdown();
        drop((client, notices));
        process.wait().unwrap().success()
    }

    pub fn send(&mut self, request: Request) -> u32 {
        self.seq += 1;
        let packet = Packet { seq: self.seq, request };
        self.launcher.as_ref().unwrap().client.send(&packet).unwrap();
        self.seq
    }

    /// As [`Self::send`], with descriptors.
    pub fn send_with(&mut self, request: Request, descriptors: &[OwnedFd]) -> u32 {
        self.seq += 1;
        let packet = Packet { seq: self.seq, request };
        self.launcher.as_ref().unwrap().client.send_with(&packet, descriptors).unwrap();
        self.seq
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, request: Request) -> Result<(), String> {
        let seq = self.send(request);
        self.answer(seq)
    }

    pub fn answer(&mut self, wanted: u32) -> Result<(), String> {
        self.wait_for(|notice| match notice {
            Notice::Done { seq } if *seq == wanted => Some(Ok(())),
            Notice::Failed { seq, error } | Notice::NotTried { seq, error } if *seq == wanted => {
                Some(Err(error.to_string()))
            }
            _ => None,
        })
    }

    /// The first notice, seen or still to come, of which `wanted` makes
    /// something; it is taken out.
    pub fn wait_for<T>(&mut self, wanted: impl Fn(&Notice) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            let found = self.seen.iter().enumerate().find_map(|(at, n)| Some((at, wanted(n)?)));
            if let Some((at, value)) = found {
                self.seen.remove(at);
                return value;
            }
            let left = ANSWER_TIME_MAX.saturating_sub(start.elapsed());
            let notice = self.launcher.as_ref().unwrap().notices.recv_timeout(left);
            self.seen.push(notice.expect("the launcher does not answer"));
        }
    }

    pub fn exit_of(&mut self, wanted: &str) -> Exit {
        self.wait_for(|notice| match notice {
            Notice::Exited { container, exit, .. } if container.as_str() == wanted => Some(*exit),
            _ => None,
        })
    }

    /// The pid that the start reports.
    pub fn start_container(&mut self, pod: &str, wanted: &str) -> u32 {
        let (pod, container) = (name(pod), name(wanted));
        self.ask(Request::StartContainer { pod, container }).unwrap();
        self.wait_for(|notice| match notice {
            Notice::Started { container, pid, .. } if container.as_str() == wanted => Some(*pid),
            _ => None,
        })
    }

    pub fn list(&mut self) -> Vec<PodReport> {
        self.ask(Request::List).unwrap();
        let mut pods = Vec::new();
        self.seen.retain(|notice| match notice {
            Notice::Pod(report) => {
                pods.push((**report).clone());
                false
            }
            _ => true,
        });
        pods
    }

    pub fn state_of(&mut self, pod: &str, container: &str) -> ContainerState {
        let pods = self.list();
        let pod = pods.iter().find(|report| report.name.as_str() == pod).unwrap();
        pod.containers.iter().find(|entry| entry.name.as_str() == container).unwrap().state
    }

    /// A pod with these containers, defined and not started.
    pub fn create(&mut self, pod: &PodSpec, containers: &[ContainerSpec]) {
        self.ask(Request::CreatePod(Box::new(pod.clone()))).unwrap();
        for spec in containers {
            let (pod, spec) = (pod.name.clone(), Box::new(spec.clone()));
            self.ask(Request::DefineContainer { pod, spec }).unwrap();
        }
    }

    /// Runs one shell script in a pod of its own; its exit and its output.
    pub fn run_script(&mut self, container: ContainerSpec) -> (Exit, String) {
        let pod = pod("script-0", &["main"], None);
        self.create(&pod, &[container]);
        let output = self.reader("script-0", "main", "stdout");
        self.start_container("script-0", "main");
        let exit = self.exit_of("main");
        let text = output.read();
        self.ask(Request::RemovePod { pod: pod.name }).unwrap();
        (exit, text)
    }

    pub fn folder(&self, pod: &str, container: &str) -> PathBuf {
        self.run_dir.join("pods").join(pod).join("c").join(container)
    }

    /// What a container writes, as the supervisor reads it.
    pub fn reader(&self, pod: &str, container: &str, stream: &str) -> Fifo {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.folder(pod, container).join(stream);
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).custom_flags(nix::libc::O_NONBLOCK).open(&path).unwrap();
        Fifo(file)
    }

    /// Everything that has to be gone after a purge, as found now.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let run_dir = self.run_dir.to_str().unwrap();
        found.extend(mounts.lines().filter(|line| line.contains(run_dir)).map(str::to_owned));
        if self.run_dir.exists() {
            found.push(run_dir.to_owned());
        }
        for top in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let path = top.unwrap().path().join(&self.prefix);
            if path.exists() {
                found.push(path.display().to_string());
            }
        }
        let links = output("ip", &["-n", &self.netns(), "-o", "link"]);
        found.extend(links.lines().filter(|line| line.contains(&self.bridge)).map(str::to_owned));
        found.extend(
            losetup().into_iter().filter(|line| line.contains(LAYERS.folder.to_str().unwrap())),
        );
        found
    }
}

impl Launcher {
    fn new(process: Child, socket: OwnedFd) -> Self {
        let client = LauncherClient::new(socket);
        let mut reader = client.reader().unwrap();
        let (sender, notices) = channel();
        std::thread::spawn(move || {
            while let Ok(Some(notice)) = reader.recv() {
                if sender.send(notice).is_err() {
                    return;
                }
            }
        });
        Self { process, client, notices }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut launcher) = self.launcher.take() {
            let _ = launcher.process.kill();
            let _ = launcher.process.wait();
        }
        // A last launcher takes away what the test left.
        if self.run_dir.join("launcher.lock").exists() {
            let (own, its) = packet::pair().unwrap();
            if let Ok(process) = self.command(&["attached"]).stdin(Stdio::from(its)).spawn() {
                let mut launcher = Launcher::new(process, own);
                let packet = Packet { seq: 0, request: Request::Purge };
                if launcher.client.send(&packet).is_err() {
                    let _ = launcher.process.kill();
                }
                let _ = launcher.process.wait();
            }
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.netns()]).status();
        let left = self.leftovers_but_netns();
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind: {left:#?}");
        }
    }
}

impl Node {
    fn leftovers_but_netns(&self) -> Vec<String> {
        let run_dir = self.run_dir.to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.lines().filter(|line| line.contains(run_dir)).map(str::to_owned).collect()
    }
}

pub struct Fifo(fs::File);

impl Fifo {
    /// All that is there.
    pub fn read(&self) -> String {
        use std::io::Read;
        let mut bytes = Vec::new();
        // At the end: EAGAIN while a writer lives, else end of file.
        let _ = (&self.0).read_to_end(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    /// Reads until `wanted` was in it.
    pub fn wait_for(&self, wanted: &str) -> String {
        let start = Instant::now();
        let mut text = String::new();
        while !text.contains(wanted) {
            assert!(start.elapsed() < ANSWER_TIME_MAX, "waited for `{wanted}`, got: {text}");
            std::thread::sleep(Duration::from_millis(5));
            text += &self.read();
        }
        text
    }
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn pod(pod: &str, containers: &[&str], address: Option<[u8; 4]>) -> PodSpec {
    PodSpec {
        name: name(pod),
        deployment: name(pod.rsplit_once('-').unwrap().0),
        generation: Generation(1),
        hash: Digest([7; 32]),
        address: address.map(Ipv4Addr::from),
        restart_policy: RestartPolicy::Always,
        grace_millis: 1000,
        containers: containers.iter().map(|text| (name(text), Role::Main)).collect(),
        empty_dirs: heapless::Vec::new(),
        host_aliases: heapless::Vec::new(),
        dns: Dns::default(),
    }
}

pub fn mount(source: MountSource, destination: &str) -> MountSpec {
    MountSpec { source, destination: destination.try_into().unwrap(), read_only: false }
}

/// All of a pod's own volume, or a folder in it.
pub fn empty(volume: &str, sub_path: Option<&str>) -> MountSource {
    let sub_path = sub_path.map(|path| path.try_into().unwrap());
    MountSource::Empty { volume: name(volume), sub_path }
}

/// A container that runs a shell script, as root without capabilities.
pub fn script(container: &str, text: &str) -> ContainerSpec {
    ContainerSpec {
        name: name(container),
        args: join_words(["sh", "-c", text]).unwrap(),
        env: join_words(["PATH=/bin"]).unwrap(),
        working_dir: "/".try_into().unwrap(),
        uid: 0,
        gid: 0,
        additional_gids: heapless::Vec::new(),
        capabilities: 0,
        cpu_millis: None,
        memory_bytes: Some(64 << 20),
        pids: None,
        storage_bytes: None,
        layers: [LAYERS.base, LAYERS.top].into_iter().collect(),
        mounts: heapless::Vec::new(),
        stop_signal: 15,
        read_only_root: false,
        image_volumes: heapless::Vec::new(),
        seccomp: Seccomp::RuntimeDefault,
    }
}

pub fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).stdout(Stdio::null()).status();
    assert!(status.unwrap_or_else(|e| panic!("{program}: {e}")).success(), "{program} {args:?}");
}

pub fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Backing files of loop devices in use.
pub fn losetup() -> Vec<String> {
    let devices = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path());
    devices.filter_map(|path| fs::read_to_string(path.join("loop/backing_file")).ok()).collect()
}

/// Waits until `ready` gives something.
pub fn eventually<T>(what: &str, ready: impl Fn() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < ANSWER_TIME_MAX, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
