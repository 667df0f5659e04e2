//! What containers print, while one of them floods and the supervisor dies.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::container_pids;
use crate::rig::{Rig, bundle, deployment};

const FLOOD: &str = "exec busybox yes";
const QUIET: &str = "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); sleep 0.01; done; \
                     echo -n half; sleep 1; echo ' a line'; exec sleep 1000000";
/// Two files of the default size.
const LOG_BYTES_MAX: u64 = 2 * 262_144;

#[test]
fn a_flood_and_a_death_cost_the_others_no_line() {
    let mut rig = Rig::new("flood");
    let layer = rig.layer();
    let one = |name, script| deployment(name, 1, &[], &[("main", script)]);
    rig.take_up(&bundle(1, layer, vec![one("flood", FLOOD), one("quiet", QUIET)]));
    rig.start();
    rig.wait_running();
    let containers = container_pids(&rig);
    let (begin, supervisor) = (Instant::now(), rig.pids().1);
    let before = cpu(supervisor);
    std::thread::sleep(Duration::from_secs(1));
    let share = (cpu(supervisor) - before).as_secs_f64() / begin.elapsed().as_secs_f64();
    println!("the supervisor takes {:.1} % of a core", share * 100.0);

    kill(Pid::from_raw(supervisor), Signal::SIGKILL).unwrap();
    let file = rig.run_dir().join("logs/quiet-1/main.log");
    rig.wait("half a line", |_| fs::read_to_string(&file).unwrap().contains("stdout P half\n"));
    kill(Pid::from_raw(rig.pids().1), Signal::SIGKILL).unwrap();
    let mut log = String::new();
    rig.wait("the last line", |rig| {
        log = String::from_utf8(rig.cli(&["logs", "quiet"]).stdout).unwrap();
        log.contains("half a line")
    });
    let lines = (0..200).map(|number| format!("line {number}")).chain(["half a line".into()]);
    assert!(log.lines().zip(lines.clone()).all(|(line, wanted)| line.ends_with(&wanted)), "{log}");
    assert_eq!(log.lines().count(), lines.count());
    let folder = rig.run_dir().join("logs/flood-1");
    let sizes = fs::read_dir(folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len());
    let bytes: u64 = sizes.sum();
    assert!(bytes > 0 && bytes <= LOG_BYTES_MAX, "{bytes}");
    assert_eq!(container_pids(&rig), containers);
}

/// By all its threads (`proc_pid_schedstat`: nanoseconds first).
fn cpu(pid: i32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let texts = threads.filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
    Duration::from_nanos(texts.filter_map(|t| t.split(' ').next()?.parse::<u64>().ok()).sum())
}
