//! The running kernel's own cgroups, in whatever layout this machine has.
//! Needs root.
//!
//! A test of its own kind, without the usual harness: this program is also
//! the single-threaded process that moves itself into a cgroup and then does
//! something there (`kernel work PREFIX POD CONTAINER TASK`).

#![allow(clippy::unwrap_used)] // without the harness, clippy does not know a test

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use wherry_cgroups::{CgroupPath, Controller, Devices, Error, Limits, Mounts, Tree};

const TESTS: [(&str, Needs, fn()); 11] = [
    ("limits_are_read_back", Needs::Root, limits_are_read_back),
    ("a_process_joins_every_hierarchy", Needs::Root, a_process_joins_every_hierarchy),
    ("joining_does_not_stall_on_v1", Needs::V1, joining_does_not_stall_on_v1),
    ("devices_are_limited", Needs::V1Devices, devices_are_limited),
    ("memory_and_its_limit_are_counted", Needs::Root, memory_and_its_limit_are_counted),
    ("the_number_of_processes_is_limited", Needs::Root, the_number_of_processes_is_limited),
    ("processor_time_is_limited", Needs::Root, processor_time_is_limited),
    ("frozen_processes_stand_still", Needs::Root, frozen_processes_stand_still),
    ("kill_reaches_all_below", Needs::Root, kill_reaches_all_below),
    ("kill_works_without_cgroup_kill", Needs::V1, kill_works_without_cgroup_kill),
    ("removal_waits_and_leaves_nothing", Needs::Root, removal_waits_and_leaves_nothing),
];

/// What a machine must have for a test; each includes those before.
#[derive(Clone, Copy)]
enum Needs {
    Root,
    V1,
    V1Devices,
}

impl Needs {
    /// What this machine lacks of it.
    fn lack(self) -> Option<&'static str> {
        if !is_root() {
            return Some("cgroups are root's, and this is not root");
        }
        let v1 = Mounts::detect().unwrap().v1;
        match self {
            Self::Root => None,
            Self::V1 => v1.is_empty().then_some("this machine has no v1 hierarchy"),
            Self::V1Devices => {
                let there = v1.iter().any(|(_, list)| list.contains(&Controller::Devices));
                (!there).then_some("this machine has no v1 hierarchy for devices")
            }
        }
    }
}

/// How long a worker lives if nobody ends it.
const WORK_MAX: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [first, rest @ ..] = args.as_slice()
        && first == "work"
    {
        return work(rest);
    }
    if args.iter().any(|arg| arg == "--list") {
        TESTS.iter().for_each(|(name, ..)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filter = args.iter().find(|arg| !arg.starts_with('-'));
    // In the words of the usual harness, which whoever counts tests reads.
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for (name, needs, test) in TESTS {
        if filter.is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        if let Some(lack) = needs.lack() {
            println!("test {name} ... ignored, {lack}");
            ignored += 1;
        } else if catch_unwind(test).is_ok() {
            println!("test {name} ... ok");
            passed += 1;
        } else {
            println!("test {name} ... FAILED");
            failed += 1;
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn limits_are_read_back() {
    let site = Site::new("limits");
    let nginx = path("web-1", "nginx");
    let limits = Limits {
        cpu_millis: Some(250),
        memory_bytes: Some(32 << 20),
        pids: Some(20),
        devices: Devices::Container,
    };
    for limits in [limits, limits, Limits { memory_bytes: Some(64 << 20), ..limits }] {
        site.tree.create(&nginx, &limits).unwrap();
        let bytes = limits.memory_bytes.unwrap().to_string();
        assert_eq!(site.limit(Controller::Memory, "memory.limit_in_bytes", "memory.max"), bytes);
    }
    let (cpu, expected) = if site.is_v1(Controller::Cpu) {
        (site.limit(Controller::Cpu, "cpu.cfs_quota_us", ""), "25000")
    } else {
        (site.limit(Controller::Cpu, "", "cpu.max"), "25000 100000")
    };
    assert_eq!(cpu, expected);
    // Too little for the usual period.
    site.tree.create(&nginx, &Limits { cpu_millis: Some(5), ..limits }).unwrap();
    if site.is_v1(Controller::Cpu) {
        assert_eq!(site.limit(Controller::Cpu, "cpu.cfs_quota_us", ""), "5000");
        assert_eq!(site.limit(Controller::Cpu, "cpu.cfs_period_us", ""), "1000000");
    } else {
        assert_eq!(site.limit(Controller::Cpu, "", "cpu.max"), "5000 1000000");
    }
    assert_eq!(site.limit(Controller::Pids, "pids.max", "pids.max"), "20");
    site.tree.create(&nginx, &Limits { memory_bytes: Some(16 << 20), ..limits }).unwrap();
    let lifted = Limits { devices: Devices::Container, ..Limits::default() };
    site.tree.create(&nginx, &lifted).unwrap();
    assert_eq!(site.limit(Controller::Pids, "pids.max", "pids.max"), "max");
    let memory = site.limit(Controller::Memory, "memory.limit_in_bytes", "memory.max");
    // v1 writes "none" as the largest multiple of a page.
    assert!(memory == "max" || memory.parse::<u64>().unwrap() > 1 << 62, "{memory}");
}

fn a_process_joins_every_hierarchy() {
    let site = Site::new("join");
    let nginx = path("web-1", "tasks");
    site.tree.create(&nginx, &Limits::default()).unwrap();
    let worker = site.start("web-1", "tasks", "wait");
    let listed = fs::read_to_string(format!("/proc/{}/cgroup", worker.pid())).unwrap();
    let joined = listed.lines().filter(|line| line.ends_with("/web-1/tasks_")).count();
    assert_eq!(joined, site.folders("web-1/tasks_").len(), "{listed}");
    assert!(joined > 0);
    assert_eq!(site.tree.pids(&nginx).unwrap(), [worker.pid()]);
    assert_eq!(site.tree.pids(&nginx.to_pod()).unwrap(), [worker.pid()]);
    assert_eq!(site.tree.children(&nginx.to_pod()).unwrap(), ["tasks"]);
    assert_eq!(site.tree.pods().unwrap(), ["web-1"]);
    assert_eq!(site.tree.usage(&nginx).unwrap().pids, 1);
}

/// `tasks` instead of `cgroup.procs`: the difference shows after idleness.
fn joining_does_not_stall_on_v1() {
    let site = Site::over("v1", "stall");
    site.tree.create(&path("web-1", "nginx"), &Limits::default()).unwrap();
    let fastest = (0..5).map(|_| {
        sleep(Duration::from_millis(100));
        let mut worker = site.start("web-1", "nginx", "wait");
        worker.joined_micros.take().unwrap()
    });
    let fastest = fastest.min().unwrap();
    assert!(fastest < 3000, "joining took {fastest} µs at best");
}

fn devices_are_limited() {
    const CONTAINER: &str = "null=ok kmsg=refused node=refused";
    let site = Site::new("devices");
    let limits = Limits { devices: Devices::Container, ..Limits::default() };
    site.tree.create(&path("web-1", "nginx"), &limits).unwrap();
    site.tree.create(&path("web-1", "free"), &Limits::default()).unwrap();
    assert_eq!(site.start("web-1", "nginx", "devices").output(), CONTAINER);
    assert_eq!(site.start("web-1", "free", "devices").output(), "null=ok kmsg=ok node=ok");
    // Again, with a process in it: it is never without /dev/null.
    let worker = site.start("web-1", "nginx", "open 20000");
    let mut again = 0;
    while site.tree.pids(&path("web-1", "nginx")).unwrap().contains(&worker.pid()) && again < 200 {
        site.tree.create(&path("web-1", "nginx"), &limits).unwrap();
        again += 1;
    }
    assert_eq!(worker.output(), "refused 0");
    assert_eq!(site.start("web-1", "nginx", "devices").output(), CONTAINER);
}

fn memory_and_its_limit_are_counted() {
    let site = Site::new("memory");
    let nginx = path("web-1", "nginx");
    let limits = Limits { memory_bytes: Some(24 << 20), ..Limits::default() };
    site.tree.create(&nginx, &limits).unwrap();
    let worker = site.start("web-1", "nginx", "take 8");
    wait_for("8 MiB in use", || site.tree.usage(&nginx).unwrap().memory_bytes > 8 << 20);
    assert_eq!(site.tree.usage(&nginx).unwrap().oom_kills, 0);
    drop(worker);

    let side = path("web-1", "side");
    site.tree.create(&side, &limits).unwrap();
    for (name, path) in [("nginx", &nginx), ("side", &side)] {
        let mut hog = site.start("web-1", name, "take 64");
        assert_eq!(hog.signal(), Some(9));
        let usage = site.tree.usage(path).unwrap();
        assert_eq!(usage.oom_kills, 1, "{path}");
        assert!((20 << 20..=25 << 20).contains(&usage.memory_bytes_peak), "{usage:?}");
    }
    assert_eq!(site.tree.usage(&nginx.to_pod()).unwrap().oom_kills, 2);
}

fn the_number_of_processes_is_limited() {
    let site = Site::new("pids");
    let limits = Limits { pids: Some(4), ..Limits::default() };
    site.tree.create(&path("web-1", "nginx"), &limits).unwrap();
    let worker = site.start("web-1", "nginx", "fork 10");
    assert_eq!(worker.output(), "forked 3");
}

fn processor_time_is_limited() {
    let site = Site::new("cpu");
    let nginx = path("web-1", "nginx");
    site.tree.create(&nginx, &Limits { cpu_millis: Some(100), ..Limits::default() }).unwrap();
    let _worker = site.start("web-1", "nginx", "spin");
    let before = site.tree.usage(&nginx).unwrap().cpu_micros;
    let from = Instant::now();
    sleep(Duration::from_millis(800));
    let used = site.tree.usage(&nginx).unwrap().cpu_micros - before;
    // 10 % of 800 ms, and a period's worth to either side.
    let wall = u64::try_from(from.elapsed().as_micros()).unwrap();
    assert!(used > 30_000, "{used} µs of {wall} µs");
    assert!(used < wall / 10 + 40_000, "{used} µs of {wall} µs");
}

fn frozen_processes_stand_still() {
    let site = Site::new("freeze");
    let nginx = path("web-1", "nginx");
    site.tree.create(&nginx, &Limits::default()).unwrap();
    let _worker = site.start("web-1", "nginx", "spin");
    let used = || site.tree.usage(&nginx).unwrap().cpu_micros;
    site.tree.freeze(&nginx.to_pod()).unwrap();
    let before = used();
    sleep(Duration::from_millis(100));
    assert!(used() - before < 1_000, "it ran on");
    site.tree.thaw(&nginx.to_pod()).unwrap();
    wait_for("it to go on", || used() - before > 10_000);
}

fn kill_reaches_all_below() {
    check_kill(&Site::new("kill"));
}

/// What v1 machines and kernels before 5.14 get, and with no freezer at all.
fn kill_works_without_cgroup_kill() {
    check_kill(&Site::over("v1", "killv1"));
    let site = Site::over("v1 without freezer", "killv0");
    check_kill(&site);
    assert!(matches!(site.tree.freeze(&path("web-1", "nginx")), Err(Error::NoFreezer)));
}

fn check_kill(site: &Site) {
    let (nginx, other) = (path("web-1", "nginx"), path("web-2", "nginx"));
    let pod = nginx.to_pod();
    for path in [&nginx, &path("web-1", "side"), &other] {
        site.tree.create(path, &Limits::default()).unwrap();
    }
    let mut workers =
        [site.start("web-1", "nginx", "fork 20"), site.start("web-1", "side", "wait")];
    let neighbour = site.start("web-2", "nginx", "wait");
    wait_for("forks", || site.tree.pids(&pod).unwrap().len() == 22);
    site.tree.kill(&pod).unwrap();
    for worker in &mut workers {
        assert_eq!(worker.signal(), Some(9));
    }
    wait_for("forks to die", || site.tree.pids(&pod).unwrap().is_empty());
    assert_eq!(site.tree.pids(&other).unwrap(), [neighbour.pid()]);
    site.tree.kill(&pod).unwrap();
    site.tree.remove(&pod).unwrap();
    assert_eq!(site.tree.pods().unwrap(), ["web-2"]);
}

fn removal_waits_and_leaves_nothing() {
    let site = Site::new("remove");
    let nginx = path("web-1", "nginx");
    site.tree.create(&nginx, &Limits::default()).unwrap();
    let worker = site.start("web-1", "nginx", "take 200");
    wait_for("memory", || site.tree.usage(&nginx).unwrap().memory_bytes > 200 << 20);
    let error = site.tree.remove(&nginx.to_pod()).unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    assert!(Path::new(&format!("/proc/{}", worker.pid())).exists());
    site.tree.remove_all().unwrap();
    assert!(site.folders("").is_empty());
    assert!(site.tree.usage(&nginx).unwrap_err().is_missing());
    site.tree.remove_all().unwrap();
    site.tree.create(&nginx, &Limits::default()).unwrap();
    assert_eq!(site.tree.usage(&nginx).unwrap().pids, 0);
    assert!(!site.folders("web-1/nginx").is_empty());
}

/// A prefix of this test's own, taken away at its end, however it ends.
struct Site {
    tree: Tree,
    /// As [`mounts`] takes it.
    hierarchies: &'static str,
    mounts: Mounts,
    prefix: String,
}

impl Site {
    fn new(name: &str) -> Self {
        Self::over("all", name)
    }

    fn over(hierarchies: &'static str, name: &str) -> Self {
        let prefix = format!("wherry-test-{}-{name}", std::process::id());
        let mounts = mounts(hierarchies);
        let tree = Tree::over(&mounts, &prefix).unwrap();
        Self { tree, hierarchies, mounts, prefix }
    }

    /// Starts this program as a worker and waits until it has joined.
    fn start(&self, pod: &str, container: &str, task: &str) -> Worker {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["work", self.hierarchies, &self.prefix, pod, container, task])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let joined = line.trim().strip_prefix("joined ").map(|micros| micros.parse().unwrap());
        assert!(joined.is_some(), "worker said {line:?}");
        Worker { child, output, joined_micros: joined }
    }

    /// Where a cgroup exists.
    fn folders(&self, path: &str) -> Vec<PathBuf> {
        let v1 = self.mounts.v1.iter().map(|(mount, _)| mount);
        let folders =
            self.mounts.unified.iter().chain(v1).map(|mount| mount.join(&self.prefix).join(path));
        folders.filter(|folder| folder.exists()).collect()
    }

    fn is_v1(&self, controller: Controller) -> bool {
        self.mounts.v1.iter().any(|(_, list)| list.contains(&controller))
    }

    /// The text of a limit of `web-1/nginx`.
    fn limit(&self, controller: Controller, v1: &str, v2: &str) -> String {
        let found = self.mounts.v1.iter().find(|(_, list)| list.contains(&controller));
        let file = match found {
            Some((mount, _)) => mount.join(&self.prefix).join("web-1/nginx").join(v1),
            None => self.folders("web-1/nginx").remove(0).join(v2),
        };
        fs::read_to_string(file).unwrap().trim().to_owned()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let Err(error) = self.tree.remove_all() else { return };
        eprintln!("taken away by the test itself: {error}");
        for mount in self.mounts.unified.iter().chain(self.mounts.v1.iter().map(|(path, _)| path)) {
            sweep(&mount.join(&self.prefix));
        }
    }
}

/// What [`Tree::remove_all`] does, in plain steps: it may be what is broken.
fn sweep(folder: &Path) {
    for (file, text) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        if folder.join(file).exists() {
            let _ = fs::write(folder.join(file), text);
        }
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            sweep(&entry.path());
        }
    }
    for pid in fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default().lines() {
        let _ = Command::new("kill").args(["-KILL", pid]).status();
    }
    for _ in 0..100 {
        if fs::remove_dir(folder).is_ok() || !folder.exists() {
            return;
        }
        sleep(Duration::from_millis(10));
    }
}

struct Worker {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    joined_micros: Option<u64>,
}

impl Worker {
    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// The signal that ended it.
    fn signal(&mut self) -> Option<i32> {
        let mut status = None;
        wait_for("end of a worker", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().signal()
    }

    /// What came of its task.
    fn output(mut self) -> String {
        let mut text = String::new();
        self.output.read_line(&mut text).unwrap();
        text.trim().to_owned()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The worker: joins, says so, and does its task.
fn work(args: &[String]) -> ExitCode {
    let [hierarchies, prefix, pod, container, task] = args else {
        println!("wrong arguments");
        return ExitCode::FAILURE;
    };
    let tree = Tree::over(&mounts(hierarchies), prefix).unwrap();
    let from = Instant::now();
    tree.join_self(&path(pod, container)).unwrap();
    println!("joined {}", from.elapsed().as_micros());
    let (task, number) = task.split_once(' ').unwrap_or((task, "0"));
    let number: usize = number.parse().unwrap();
    match task {
        "wait" => {}
        "spin" => loop {
            std::hint::spin_loop();
        },
        "take" => {
            let memory = std::hint::black_box(vec![1_u8; number << 20]);
            println!("took {}", memory.len());
            sleep(WORK_MAX);
            drop(memory);
        }
        "fork" => {
            let sleeper = || Command::new("sleep").arg("60").spawn();
            println!("forked {}", (0..number).map_while(|_| sleeper().ok()).count());
        }
        "open" => {
            let refused = (0..number).filter(|_| fs::File::open("/dev/null").is_err()).count();
            println!("refused {refused}");
        }
        "devices" => println!("{}", devices()),
        other => println!("unknown task {other}"),
    }
    sleep(WORK_MAX);
    ExitCode::SUCCESS
}

/// This machine's hierarchies, or as if it had less.
fn mounts(hierarchies: &str) -> Mounts {
    let mut mounts = Mounts::detect().unwrap();
    if hierarchies != "all" {
        mounts.unified = None;
    }
    if hierarchies == "v1 without freezer" {
        mounts.v1.retain(|(_, list)| !list.contains(&Controller::Freezer));
    }
    mounts
}

fn devices() -> String {
    let word = |ok: bool| if ok { "ok" } else { "refused" };
    let opens = |path: &str| fs::File::open(path).is_ok();
    let node = std::env::temp_dir().join(format!("wherry-test-{}", std::process::id()));
    // A loop device: nothing that a container is to make.
    let made =
        Command::new("mknod").arg(&node).args(["b", "7", "0"]).stderr(Stdio::null()).status();
    let made = made.is_ok_and(|status| status.success());
    let _ = fs::remove_file(&node);
    format!(
        "null={} kmsg={} node={}",
        word(opens("/dev/null")),
        word(opens("/dev/kmsg")),
        word(made)
    )
}

fn path(pod: &str, container: &str) -> CgroupPath {
    CgroupPath::container(pod, container).unwrap()
}

#[track_caller]
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < until, "no {what} within 5 s");
        sleep(Duration::from_millis(5));
    }
}

fn is_root() -> bool {
    let mut status = String::new();
    let file = fs::File::open("/proc/self/status");
    file.and_then(|mut file| file.read_to_string(&mut status)).is_ok()
        && status.lines().any(|line| line.starts_with("Uid:\t0\t0\t"))
}
