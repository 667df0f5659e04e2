//! A node of its own for a test: network namespace, folders, a layer of
//! busybox, and a bundle put into the store as if the cloud had sent it.
//!
//! Everything carries the prefix `wherry-test`, and goes when the rig is
//! dropped, however the test ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use wherry::layers::Layers;
use wherry::store::Store;
use wherry_bundle::envelope;
use wherry_bundle::health::{Probes, UpgradePolicy};
use wherry_bundle::model::{
    Config, ConfigKind, ConfigRef, ConfigVolume, Container, Deployment, Dns, Image, Layer, Mount,
    PodTemplate, Port, Protocol, Resources, RestartPolicy, Role, Seccomp, Strategy, User,
    VersionRef, Volume, VolumeSource,
};
use wherry_bundle::{Bundle, Digest, Generation, Name};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Rig {
    id: String,
    dir: PathBuf,
    node: Option<Child>,
    /// The mount namespace of the machine's present boot, if it has its own.
    boot: Option<PathBuf>,
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// The envelope of `bundle`, by the key that the node trusts.
pub fn sealed(bundle: &Bundle) -> Vec<u8> {
    envelope::seal(bundle, &key()).unwrap()
}

impl Rig {
    /// `id` is short: an interface is named after it.
    pub fn new(id: &str) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "containers need root");
        let rig = Self {
            id: id.to_owned(),
            dir: PathBuf::from(format!("/var/tmp/wherry-test-{id}")),
            node: None,
            boot: None,
        };
        rig.sweep();
        fs::create_dir_all(&rig.dir).unwrap();
        run("ip", &["netns", "add", &rig.netns()]);
        run("ip", &["-n", &rig.netns(), "link", "set", "lo", "up"]);
        rig.configure("");
        rig
    }

    /// The configuration, with `more` tables; for the next start.
    pub fn configure(&self, more: &str) {
        fs::write(self.config(), self.config_text() + more).unwrap();
    }

    /// With boots of its own: mounts, and a boot id, that end with the power.
    /// What is mounted there is seen from there only.
    pub fn with_boots(id: &str) -> Self {
        let mut rig = Self::new(id);
        rig.boot();
        rig
    }

    fn boot(&mut self) {
        let folder = self.dir.join("boot");
        let (namespace, boot_id) = (folder.join("mnt"), self.dir.join("boot-id"));
        // A mount namespace can be pinned on a private mount only. The one of
        // the boot before went with all that was mounted.
        fs::create_dir_all(&folder).unwrap();
        let path = folder.to_str().unwrap();
        run("mount", &["--bind", "--make-private", path, path]);
        fs::write(&namespace, "").unwrap();
        fs::write(&boot_id, fs::read("/proc/sys/kernel/random/uuid").unwrap()).unwrap();
        let (namespace_path, boot_id) = (namespace.to_str().unwrap(), boot_id.to_str().unwrap());
        run(
            "unshare",
            &[
                &format!("--mount={namespace_path}"),
                "mount",
                "--bind",
                boot_id,
                "/proc/sys/kernel/random/boot_id",
            ],
        );
        self.boot = Some(namespace);
    }

    /// A program in the node's network namespace and its present boot.
    fn command(&self, program: &str) -> Command {
        // `ip netns exec` would mount another /sys, without cgroups.
        let mut command = Command::new("nsenter");
        command.arg(self.enter());
        command.args(self.boot.iter().map(|path| format!("--mount={}", path.display())));
        command.arg(program);
        command
    }

    pub fn netns(&self) -> String {
        format!("wherry-test-{}", self.id)
    }

    pub fn enter(&self) -> String {
        format!("--net=/run/netns/{}", self.netns())
    }

    pub fn config(&self) -> PathBuf {
        self.dir.join("wherry.toml")
    }

    pub fn layers(&self) -> PathBuf {
        self.dir.join("data/layers")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    fn config_text(&self) -> String {
        let key = Digest(key().verifying_key().to_bytes()).hex();
        let (dir, netns) = (self.dir.display(), self.netns());
        format!(
            "node = \"gw-1\"\ntrusted_keys = [\"{key}\"]\ndata_dir = \"{dir}/data\"\n\
             run_dir = \"{dir}/run\"\ncgroup = \"{netns}\"\n\
             [broker]\nhost = \"127.0.0.1\"\n\
             [network]\nbridge = \"whtest{}\"\ndns = [\"10.0.0.53\"]\n",
            self.id
        )
    }

    /// Makes the layer of busybox that all containers use.
    pub fn layer(&self) -> Layer {
        let root = self.dir.join("root");
        for folder in ["bin", "tmp", "etc", "proc", "sys", "dev"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777)).unwrap();
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in ["sh", "sleep", "httpd", "wget", "cat", "echo", "ip"] {
            let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(applet));
        }
        let file = self.dir.join("layer.squashfs");
        let [from, to] = [&root, &file].map(|path| path.to_str().unwrap());
        run("mksquashfs", &[from, to, "-comp", "zstd", "-noappend", "-all-root", "-quiet"]);
        let bytes = fs::read(&file).unwrap();
        let layer = Layer { digest: Digest::of(&bytes), size_bytes: bytes.len() as u64 };
        let layers = Layers::open(&self.layers()).unwrap();
        fs::rename(file, layers.path(&layer.digest)).unwrap();
        layer
    }

    /// Puts a bundle into the store, as if the cloud had sent it.
    pub fn take_up(&self, bundle: &Bundle) {
        let envelope = sealed(bundle);
        let (store, _) = Store::open(&self.dir.join("data/state")).unwrap();
        store.take_up(bundle.generation, &envelope).unwrap();
    }

    /// Starts `wherry run` and waits until it answers.
    pub fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let mut command = self.command(env!("CARGO_BIN_EXE_wherry"));
        command.arg("run").arg("--config").arg(self.config()).env("WHERRY_LOG", "debug");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.node = Some(command.spawn().unwrap());
        self.wait("the node's answer", |rig| rig.cli(&["status"]).status.success());
    }

    /// Kills the launcher, as a crash would.
    pub fn kill(&mut self) {
        let mut node = self.node.take().unwrap();
        node.kill().unwrap();
        node.wait().unwrap();
    }

    /// As when the power goes away, but for the disk's cache: all processes
    /// and all that was in RAM are gone.
    pub fn lose_power(&mut self) {
        self.kill();
        self.clear();
        fs::remove_dir_all(self.run_dir()).unwrap();
        let bridge = format!("whtest{}", self.id);
        let _ = Command::new("ip").args(["-n", &self.netns(), "link", "del", &bridge]).output();
        if self.boot.is_some() {
            self.boot();
        }
    }

    /// Waits for the end of a launcher that was told to end.
    pub fn ended(&mut self) -> bool {
        self.wait("the node's end", |rig| {
            rig.node.as_mut().is_none_or(|node| node.try_wait().unwrap().is_some())
        });
        self.node.take().is_none_or(|mut node| node.wait().unwrap().success())
    }

    /// Pids of launcher and supervisor.
    pub fn pids(&self) -> (i32, i32) {
        let launcher = i32::try_from(self.node.as_ref().unwrap().id()).unwrap();
        let path = format!("/proc/{launcher}/task/{launcher}/children");
        let children = fs::read_to_string(path).unwrap();
        let is_supervisor = |pid: &i32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|&byte| byte == 0).nth(1) == Some(b"supervisor")
        };
        let mut pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        (launcher, pids.find(is_supervisor).expect("no supervisor"))
    }

    pub fn cli(&self, words: &[&str]) -> Output {
        self.command_line(words).output().unwrap()
    }

    /// Of the node's own command; what it is told to run is its own.
    pub fn command_line(&self, words: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_wherry"));
        let (topic, words) = words.split_first().unwrap();
        command.arg(topic).arg("--config").arg(self.config()).args(words);
        command
    }

    /// What a command that succeeds prints.
    pub fn out(&self, words: &[&str]) -> String {
        let output = self.cli(words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {text}{error}\n{}", self.log());
        text
    }

    pub fn json(&self, words: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.out(&[words, &["-o", "json"]].concat())).unwrap()
    }

    pub fn wait_running(&mut self) {
        self.wait("phase running", |rig| is_running(&rig.json(&["status"])["phase"]));
    }

    pub fn wait(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "no {what}");
            if let Some(node) = &mut self.node
                && what != "the node's end"
            {
                assert_eq!(node.try_wait().unwrap(), None, "the node ended");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a program of the machine in the node's network namespace.
    pub fn inside(&self, words: &[&str]) -> String {
        run("nsenter", &[&[self.enter().as_str()], words].concat())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// What is left of this node outside of its data folder.
    pub fn leftovers(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = self.dir.to_str().unwrap();
        let mut left: Vec<String> =
            mounts.lines().filter(|line| line.contains(own)).map(str::to_owned).collect();
        left.extend(cgroups(&self.netns()).iter().map(|path| path.display().to_string()));
        let links = run("ip", &["-n", &self.netns(), "-o", "link"]);
        left.extend(links.lines().filter(|line| line.contains("whtest")).map(str::to_owned));
        let rules = self.inside(&["nft", "list", "tables"]);
        left.extend(rules.lines().map(str::to_owned));
        left
    }

    fn sweep(&self) {
        self.clear();
        let _ = Command::new("ip").args(["netns", "del", &self.netns()]).output();
        let _ = fs::remove_dir_all(&self.dir);
    }

    /// Ends all processes and takes away cgroups and mounts.
    fn clear(&self) {
        for path in cgroups(&self.netns()) {
            for pid in fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
                let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) && !cgroups(&self.netns()).is_empty() {
            for path in cgroups(&self.netns()) {
                let _ = fs::remove_dir(path);
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for line in mounts.lines().rev() {
            let point = line.split(' ').nth(4).unwrap_or_default();
            if Path::new(point).starts_with(&self.dir) {
                let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
            }
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        if let Some(mut node) = self.node.take() {
            let _ = node.kill();
            let _ = node.wait();
        }
        self.sweep();
    }
}

/// The node's cgroups in all hierarchies, deepest first.
fn cgroups(prefix: &str) -> Vec<PathBuf> {
    fn below(path: PathBuf, found: &mut Vec<PathBuf>) {
        let entries = fs::read_dir(&path).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.path().is_dir()) {
            below(entry.path(), found);
        }
        found.push(path);
    }
    let mut found = Vec::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let path = hierarchy.path().join(prefix);
        if path.is_dir() {
            below(path, &mut found);
        }
    }
    found
}

pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {text}{error}");
    text
}

/// Generation `generation`: what `deployments` says, with a config map.
pub fn bundle(generation: u64, layer: Layer, deployments: Vec<Deployment>) -> Bundle {
    let files = BTreeMap::from([("greeting".to_owned(), b"hello from a config map\n".to_vec())]);
    Bundle {
        node: name("gw-1"),
        generation: Generation(generation),
        versions: vec![VersionRef {
            application: name("shop"),
            number: "1.0.0.1".parse().unwrap(),
            description: "of a test".into(),
        }],
        deployments,
        configs: vec![Config { key: greeting(), files }],
        claims: Vec::new(),
        images: vec![Image {
            digest: Digest::of(b"image"),
            reference: "busybox:1".into(),
            layers: vec![layer],
        }],
        // The layer is there already.
        chunk_lists: BTreeMap::from([(layer.digest, vec![Digest::of(b"a list")])]),
        upgrade: UpgradePolicy::default(),
    }
}

fn greeting() -> ConfigRef {
    ConfigRef { kind: ConfigKind::ConfigMap, name: name("greeting") }
}

pub fn deployment(
    text: &str,
    replicas: u16,
    after: &[&str],
    shells: &[(&str, &str)],
) -> Deployment {
    Deployment {
        name: name(text),
        application: name("shop"),
        replicas,
        strategy: Strategy::RollingUpdate { max_unavailable: 0, max_surge: 1 },
        min_ready_seconds: 0,
        progress_deadline_seconds: 60,
        after: after.iter().map(|text| name(text)).collect(),
        pod: PodTemplate {
            host_network: false,
            restart_policy: RestartPolicy::Always,
            termination_grace_seconds: 2,
            containers: shells.iter().map(|(text, script)| container(text, script)).collect(),
            volumes: vec![Volume {
                name: name("greeting"),
                source: VolumeSource::Config(ConfigVolume {
                    config: greeting(),
                    items: BTreeMap::new(),
                    mode: 0o444,
                }),
            }],
            fs_group: None,
            host_aliases: Vec::new(),
            dns: Dns::default(),
        },
        job: None,
    }
}

pub fn container(text: &str, script: &str) -> Container {
    Container {
        name: name(text),
        role: Role::Main,
        image: Digest::of(b"image"),
        args: ["/bin/sh", "-c", script].map(Into::into).to_vec(),
        env: vec![("GREETED".into(), "world".into())],
        working_dir: "/".into(),
        user: User { uid: 1000, gid: 1000, additional_gids: vec![] },
        capabilities: BTreeSet::new(),
        ports: vec![],
        resources: Resources { memory_bytes: Some(32 << 20), ..Resources::default() },
        mounts: vec![Mount {
            volume: name("greeting"),
            path: "/etc/greeting".into(),
            sub_path: None,
            read_only: true,
        }],
        stop_signal: 15,
        probes: Probes::default(),
        pre_stop: None,
        read_only_root: true,
        image_volumes: Vec::new(),
        seccomp: Seccomp::RuntimeDefault,
    }
}

pub fn published(mut deployment: Deployment, container_port: u16, host_port: u16) -> Deployment {
    deployment.pod.containers[0].ports = vec![Port {
        name: String::new(),
        protocol: Protocol::Tcp,
        container_port,
        host_port: Some(host_port),
    }];
    deployment
}

/// Whether a status' phase says that all pods are available.
pub fn is_running(phase: &serde_json::Value) -> bool {
    phase == "stabilising" || phase == "good"
}
