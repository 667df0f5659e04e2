//! What outlives what: launcher, supervisor, containers; and that a purge
//! leaves nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{Node, eventually, name, output, pod, script};
use wherry_bundle::message::Exit;
use wherry_runtime::proto::{ContainerState, Request};

const PATIENT: &str = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";

#[test]
fn a_killed_launchers_containers_are_adopted_with_pid_and_exit() {
    let mut node = Node::new("ad");
    let spec = pod("web-0", &["a", "b", "c"], Some([10, 87, 5, 3]));
    let short = script("c", "exit 4");
    node.create(&spec, &[script("a", PATIENT), script("b", PATIENT), short]);
    let pids = [node.start_container("web-0", "a"), node.start_container("web-0", "b")];
    node.start_container("web-0", "c");
    assert_eq!(node.exit_of("c"), Exit::Code(4));
    node.reader("web-0", "a", "stdout").wait_for("ready");

    node.kill_launcher();
    // One ends while nobody is there to see how.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pids[1] as i32), nix::sys::signal::SIGKILL)
        .unwrap();
    eventually("b is still there", || is_gone(pids[1]).then_some(()));
    node.start();

    let state = node.state_of("web-0", "a");
    assert!(matches!(state, ContainerState::Running { pid, .. } if pid == pids[0]), "{state:?}");
    // If whoever reaps orphans was slow, even that can still be told.
    let state = node.state_of("web-0", "b");
    let unseen = [Exit::Unknown, Exit::Signal(9)];
    let ContainerState::Exited { exit, .. } = state else { panic!("{state:?}") };
    assert!(unseen.contains(&exit), "{exit}");
    let state = node.state_of("web-0", "c");
    assert!(matches!(state, ContainerState::Exited { exit: Exit::Code(4), .. }), "{state:?}");
    // What ends under the new launcher ends with its real status, though it
    // is not its child.
    node.ask(Request::TerminatePod { pod: name("web-0") }).unwrap();
    assert_eq!(node.exit_of("a"), Exit::Code(9));
    // And what is started again joins the namespaces that were there.
    node.start_container("web-0", "a");
    node.ask(Request::Purge).unwrap();
    eventually("something is left", || node.leftovers().is_empty().then_some(()));
}

#[test]
fn a_launcher_killed_at_any_moment_of_a_start_leaves_no_stray() {
    let mut node = Node::new("ms");
    node.create(&pod("web-0", &["a"], None), &[script("a", PATIENT)]);
    let mut states = BTreeSet::new();
    for step in 0..20 {
        node.send(Request::StartContainer { pod: name("web-0"), container: name("a") });
        std::thread::sleep(Duration::from_millis(3 * step));
        node.kill_launcher();
        node.start();
        // Either it runs, and is known; or nothing of it does.
        let state = node.state_of("web-0", "a");
        states.insert(format!("{state:?}").chars().take(4).collect::<String>());
        let cgroup = format!("/sys/fs/cgroup/pids/{}/web-0/a/cgroup.procs", node.prefix);
        let alive = || -> Vec<u32> {
            // Not there if the kill came first.
            let procs = fs::read_to_string(&cgroup).unwrap_or_default();
            procs.lines().map(|pid| pid.parse().unwrap()).filter(|&pid| !is_gone(pid)).collect()
        };
        match state {
            ContainerState::Running { pid, .. } => {
                assert_eq!(alive().first(), Some(&pid), "step {step}");
                node.ask(Request::KillPod { pod: name("web-0") }).unwrap();
                assert_eq!(node.exit_of("a"), Exit::Signal(9));
            }
            ContainerState::Defined | ContainerState::Exited { .. } => {
                // The last ones die by themselves, after their SIGKILL.
                eventually("a stray lives on", || alive().is_empty().then_some(()));
            }
        }
    }
    assert!(states.len() > 1, "all kills came at the same moment: {states:?}");
    node.start_container("web-0", "a");
}

/// Kernels from 6.14 on then kill what the launcher forks into a cgroup.
#[test]
fn a_launcher_in_a_cgroup_that_was_killed_before_starts_containers_too() {
    let mut node = Node::new("kb");
    let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .find(|path| fs::exists(format!("{path}/cgroup.procs")).unwrap())
        .expect("no cgroup v2 hierarchy is mounted");
    let own = Folder(format!("{unified}/{}-own", node.prefix));
    fs::create_dir(&own.0).unwrap();
    fs::write(format!("{}/cgroup.kill", own.0), "1").unwrap();
    fs::write(format!("{}/cgroup.procs", own.0), node.launcher_pid().to_string()).unwrap();
    node.create(&pod("web-0", &["a", "b"], None), &[script("a", PATIENT), script("b", PATIENT)]);
    node.start_container("web-0", "a");
    node.start_container("web-0", "b");
    fs::write(format!("{unified}/cgroup.procs"), node.launcher_pid().to_string()).unwrap();
}

/// Removed even if the test fails.
struct Folder(String);

impl Drop for Folder {
    fn drop(&mut self) {
        eventually("the test's own cgroup stays", || fs::remove_dir(&self.0).ok());
    }
}

#[test]
fn hanging_up_leaves_the_containers() {
    let mut node = Node::new("hu");
    node.create(&pod("web-0", &["a"], None), &[script("a", PATIENT)]);
    let pid = node.start_container("web-0", "a");
    assert!(node.hang_up());
    assert!(!is_gone(pid));
    node.start();
    let state = node.state_of("web-0", "a");
    assert!(matches!(state, ContainerState::Running { pid: found, .. } if found == pid));
}

#[test]
fn a_second_launcher_is_refused() {
    let node = Node::new("lk");
    eventually("no lock", || node.run_dir.join("launcher.lock").exists().then_some(()));
    let pid_file = std::env::temp_dir().join("wherry-test-unused");
    let second =
        node.command(&["spawn", pid_file.to_str().unwrap()]).stderr(Stdio::piped()).output();
    let second = second.unwrap();
    assert!(!second.status.success());
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(text.contains("Locked"), "{text}");
}

#[test]
fn a_purge_leaves_nothing() {
    let mut node = Node::new("pu");
    let spec = pod("web-0", &["a", "b"], Some([10, 87, 5, 3]));
    node.create(&spec, &[script("a", PATIENT), script("b", "sleep 1000")]);
    let pids = [node.start_container("web-0", "a"), node.start_container("web-0", "b")];
    node.create(&pod("host-0", &["a"], None), &[script("a", PATIENT)]);
    node.start_container("host-0", "a");
    assert!(node.leftovers().len() > 5, "the check finds nothing while all is there");
    let namespaces = || output("lsns", &["-n", "-t", "net", "-o", "NSFS"]);
    assert!(namespaces().contains(node.run_dir.to_str().unwrap()));
    node.ask(Request::Purge).unwrap();
    assert!(pids.iter().all(|&pid| is_gone(pid)));
    eventually("something is left", || node.leftovers().is_empty().then_some(()));
    assert!(!namespaces().contains(node.run_dir.to_str().unwrap()));
}

#[test]
fn a_killed_supervisor_is_started_again_and_a_stopped_launcher_ends_it() {
    let mut node = Node::new("su");
    assert!(node.hang_up());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pids");
    let mut launcher =
        node.command(&["spawn", file.to_str().unwrap()]).stdout(Stdio::null()).spawn().unwrap();
    let pids = || -> Vec<u32> {
        let text = fs::read_to_string(&file).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    let first = eventually("no supervisor", || pids().first().copied());
    kill(first, nix::sys::signal::SIGKILL);
    let second = eventually("not started again", || pids().get(1).copied());
    assert!(is_gone(first));
    kill(launcher.id(), nix::sys::signal::SIGTERM);
    assert!(launcher.wait().unwrap().success());
    assert!(is_gone(second));

    // A killed launcher takes its supervisor along.
    let mut launcher =
        node.command(&["spawn", file.to_str().unwrap()]).stdout(Stdio::null()).spawn().unwrap();
    let third = eventually("no supervisor", || pids().get(2).copied());
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    eventually("the supervisor outlives its launcher", || is_gone(third).then_some(()));
}

#[test]
fn the_launcher_runs_from_a_sealed_copy() {
    let output = Command::new(support::RIG).arg("seal-only").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "sealed: true\n");
}

fn kill(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}

/// Ended, reaped or not.
fn is_gone(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}
