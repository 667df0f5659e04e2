//! Generations that fail, and the way back, with real containers.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use wherry_bundle::Bundle;
use wherry_bundle::health::{Check, PreStop, Probe, UpgradePolicy};
use wherry_bundle::message::{Cause, Exit, Failed, Phase};
use wherry_bundle::model::{
    Deployment, HostPath, HostPathKind, Layer, Mount, Volume, VolumeSource,
};

use crate::cloud::Cloud;
use crate::rig::{Rig, bundle, deployment, name, sealed};
use crate::{container_pids, pods};

const SERVES: &str = "exec sleep 1000000";
/// Doubles what it holds until its cgroup ends it.
const GROWS: &str = "sleep 1; x=0123456789abcdef; while true; do x=$x$x; done";

/// Good after a second on end.
fn quick(generation: u64, layer: Layer, deployments: Vec<Deployment>) -> Bundle {
    let upgrade = UpgradePolicy { stable_seconds: 1, ..UpgradePolicy::default() };
    Bundle { upgrade, ..bundle(generation, layer, deployments) }
}

fn web(script: &str) -> Deployment {
    // So that one that crashes never counts as available.
    Deployment { min_ready_seconds: 2, ..deployment("web", 2, &[], &[("main", script)]) }
}

fn wait_good(rig: &mut Rig, generation: u64) {
    rig.wait(&format!("good generation {generation}"), |rig| {
        let status = rig.json(&["status"]);
        status["generation"] == generation && status["phase"] == "good"
    });
}

/// The node is back on generation 1, says why, and no pod of it was touched.
fn back_on_the_first(rig: &mut Rig, before: &[(String, i64)]) -> Failed {
    rig.wait("the way back", |rig| {
        let status = rig.json(&["status"]);
        status["generation"] == 1 && status["phase"] == "good" && !status["failed"].is_null()
    });
    assert_eq!(container_pids(rig), before);
    serde_json::from_value(rig.json(&["status"])["failed"].clone()).unwrap()
}

#[test]
fn one_that_crashes_is_left_and_not_tried_again() {
    let mut rig = Rig::new("crash");
    let layer = rig.layer();
    let cloud = Cloud::start(&rig);
    rig.start();
    cloud.desire(sealed(&quick(1, layer, vec![web(SERVES)])));
    cloud.event("generation 1 is good");
    let before = container_pids(&rig);

    cloud.desire(sealed(&quick(2, layer, vec![web("echo no config >&2; exit 3")])));
    cloud.event("generation 2 failed");
    let failed = back_on_the_first(&mut rig, &before);
    let Cause::CrashLoop { pod, container, starts, exit } = &failed.cause else {
        panic!("{failed:?}")
    };
    assert!(pod.as_str().starts_with("web-") && *container == name("main"), "{failed:?}");
    assert_eq!((*starts, *exit), (6, Exit::Code(3)));
    assert_eq!(failed.lines.last().map(String::as_str), Some("no config"));
    cloud.status("what failed", |status| {
        status.failed.as_ref() == Some(&failed) && status.phase == Phase::Good
    });

    // A supervisor that comes back is sent it once more by the broker.
    kill(Pid::from_raw(rig.pids().1), Signal::SIGKILL).unwrap();
    cloud.status("the node again", |status| status.failed.as_ref() == Some(&failed));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(back_on_the_first(&mut rig, &before), failed);
    assert!(rig.json(&["status"])["refused"].is_null(), "it is no refusal");

    cloud.desire(sealed(&quick(3, layer, vec![web("exec sleep 2000000")])));
    wait_good(&mut rig, 3);
    assert!(rig.json(&["status"])["failed"].is_null());
    assert!(pods(&rig, "web").iter().all(|pod| pod["generation"] == 3));
}

#[test]
fn without_a_cloud_too_and_with_the_right_cause() {
    let mut rig = Rig::new("alone");
    let layer = rig.layer();
    rig.take_up(&quick(1, layer, vec![web(SERVES)]));
    rig.start();
    wait_good(&mut rig, 1);
    let before = container_pids(&rig);
    let mut try_it = |generation, web: Deployment| {
        rig.kill();
        rig.take_up(&quick(generation, layer, vec![web]));
        rig.start();
        back_on_the_first(&mut rig, &before)
    };

    let never = Deployment {
        min_ready_seconds: 1_000,
        progress_deadline_seconds: 3,
        ..web("echo waiting; exec sleep 3000000")
    };
    let failed = try_it(2, never);
    match &failed.cause {
        Cause::ProgressDeadline { deployment, seconds: 3, pod: Some(_), exit: None } => {
            assert_eq!(*deployment, name("web"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(failed.lines, ["waiting"]);

    let failed = try_it(3, web(GROWS));
    match &failed.cause {
        Cause::CrashLoop { exit: Exit::OutOfMemory, .. } => {}
        other => panic!("{other:?}"),
    }
    let Value::Array(events) = rig.json(&["events"]) else { panic!("not a list") };
    let told = events.iter().filter(|event| event["kind"] == "generation-failed").count();
    assert_eq!(told, 2, "each once, and kept for the cloud");
    rig.out(&["stop", "--all"]);
    assert!(rig.ended());
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

fn probe(script: &str, failure_threshold: u32) -> Probe {
    Probe {
        check: Check::Exec { args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec() },
        initial_delay_seconds: 0,
        period_seconds: 1,
        timeout_seconds: 5,
        success_threshold: 1,
        failure_threshold,
    }
}

fn restarts(rig: &Rig) -> i64 {
    pods(rig, "web")[0]["containers"][0]["restarts"].as_i64().unwrap()
}

#[test]
fn probes_decide_what_is_available_and_what_is_restarted() {
    let mut rig = Rig::new("probe");
    let layer = rig.layer();
    // Ready after a while, and sick some time later.
    let script = "sleep 2; echo > /tmp/ready; sleep 3; echo > /tmp/sick; exec sleep 1000000";
    let mut web = deployment("web", 1, &[], &[("main", script)]);
    let main = &mut web.pod.containers[0];
    main.probes.readiness = Some(probe("cat /tmp/ready", 1));
    main.probes.liveness = Some(probe("! cat /tmp/sick", 2));
    rig.take_up(&quick(1, layer, vec![web.clone()]));
    rig.start();
    rig.wait(
        "a pod that runs and is not ready",
        |rig| matches!(&pods(rig, "web")[..], [pod] if pod["phase"] == "starting"),
    );
    wait_good(&mut rig, 1);
    assert_eq!(restarts(&rig), 0);
    rig.wait("the restart", |rig| restarts(rig) == 1);
    let events = rig.out(&["events"]);
    assert!(events.contains("liveness probe: exit code 1"), "{events}");
    rig.wait("readiness again", |rig| pods(rig, "web")[0]["phase"] == "available");

    // A supervisor that comes back takes no pod out of service.
    let before = container_pids(&rig);
    kill(Pid::from_raw(rig.pids().1), Signal::SIGKILL).unwrap();
    rig.wait("another supervisor", |rig| rig.cli(&["ps"]).status.success());
    assert_eq!(pods(&rig, "web")[0]["phase"], "available");
    assert_eq!(container_pids(&rig), before);

    // A version that is never ready does not replace the one that is.
    rig.kill();
    let main = &mut web.pod.containers[0];
    main.args[2] = "exec sleep 1000000".into();
    main.probes.liveness = None;
    web.progress_deadline_seconds = 3;
    rig.take_up(&quick(2, layer, vec![web]));
    rig.start();
    rig.wait("the way back", |rig| {
        let status = rig.json(&["status"]);
        status["generation"] == 1 && !status["failed"].is_null()
    });
    let failed: Failed = serde_json::from_value(rig.json(&["status"])["failed"].clone()).unwrap();
    assert!(matches!(failed.cause, Cause::ProgressDeadline { .. }), "{failed:?}");
    assert!(pods(&rig, "web").iter().any(|pod| pod["generation"] == 1));
}

#[test]
fn what_a_pod_wants_to_do_before_it_stops_is_done() {
    let mut rig = Rig::new("bye");
    let layer = rig.layer();
    let mut web = deployment("web", 1, &[], &[("main", SERVES)]);
    web.pod.termination_grace_seconds = 6;
    let bye = "echo bye > /proc/1/fd/1; sleep 2";
    let args = ["/bin/sh", "-c", bye].map(str::to_owned).to_vec();
    web.pod.containers[0].pre_stop = Some(PreStop::Run(Check::Exec { args }));
    rig.take_up(&quick(1, layer, vec![web.clone()]));
    rig.start();
    wait_good(&mut rig, 1);
    rig.kill();
    web.pod.containers[0].args[2] = "exec sleep 2000000".into();
    rig.take_up(&quick(2, layer, vec![web]));
    rig.start();
    rig.wait("its last words", |rig| {
        let logs = rig.cli(&["logs", "web-1"]);
        String::from_utf8_lossy(&logs.stdout).contains("bye")
    });
    let old = pods(&rig, "web").into_iter().find(|pod| pod["name"] == "web-1").unwrap();
    let state = &old["containers"][0]["state"];
    assert!(state["running"].is_object(), "it was told to stop before it was done: {old}");
    wait_good(&mut rig, 2);
    assert_eq!(pods(&rig, "web").len(), 1);
}

#[test]
fn what_is_held_waits_and_never_for_longer_than_its_version_allows() {
    let mut rig = Rig::new("held");
    let layer = rig.layer();
    let cloud = Cloud::start(&rig);
    rig.start();
    rig.out(&["hold"]);
    // Nothing runs yet that a hold could protect.
    cloud.desire(sealed(&quick(1, layer, vec![web(SERVES)])));
    cloud.event("generation 1 is good");
    let before = container_pids(&rig);

    cloud.desire(sealed(&quick(2, layer, vec![web("exec sleep 2000000")])));
    cloud.event("generation 2 is held: an operator");
    let held = cloud.status("what is held", |status| status.held.is_some());
    assert_eq!(held.held.map(|held| held.generation.0), Some(2));
    assert!(rig.out(&["status"]).contains("generation 2 by an operator"));
    // It is no refusal, and a supervisor that comes back holds it too.
    kill(Pid::from_raw(rig.pids().1), Signal::SIGKILL).unwrap();
    rig.wait("the hold again", |rig| {
        let status = rig.cli(&["status", "-o", "json"]);
        let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        status["held"]["generation"] == 2
    });
    assert_eq!(container_pids(&rig), before);
    rig.out(&["release"]);
    wait_good(&mut rig, 2);
    assert!(rig.json(&["status"])["held"].is_null());

    rig.out(&["hold"]);
    let mut short = quick(3, layer, vec![web(SERVES)]);
    short.upgrade.hold_seconds_max = 2;
    cloud.desire(sealed(&short));
    cloud.event("generation 3 is held");
    wait_good(&mut rig, 3);
}

fn is_held(rig: &Rig, generation: u64) -> bool {
    rig.json(&["status"])["held"]["generation"] == generation
}

/// A window of a minute, twelve hours from now.
fn closed_window() -> String {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let hour = (now / 3_600 + 12) % 24;
    format!("[update]\nwindows = [\"daily {hour:02}:00-{hour:02}:01\"]\n")
}

#[test]
fn a_closed_window_is_waited_for_however_long_a_hold_may_last() {
    let mut rig = Rig::new("window");
    let layer = rig.layer();
    let cloud = Cloud::start(&rig);
    rig.configure(&closed_window());
    rig.start();
    cloud.desire(sealed(&quick(1, layer, vec![web(SERVES)])));
    cloud.event("generation 1 is good");
    let mut next = quick(2, layer, vec![web("exec sleep 2000000")]);
    next.upgrade.hold_seconds_max = 1;
    cloud.desire(sealed(&next));
    cloud.event("generation 2 is held: outside of its update windows");
    // Looked at again after ten seconds: the longest hold is over since nine.
    std::thread::sleep(Duration::from_secs(12));
    assert!(is_held(&rig, 2), "a window opens by the clock only");

    // An operator may hold what the window lets through, for its own time.
    rig.out(&["hold"]);
    rig.kill();
    rig.configure("[update]\nwindows = [\"daily 00:00-24:00\"]\n");
    rig.start();
    cloud.event("generation 2 is held: an operator");
    wait_good(&mut rig, 2);
}

#[test]
fn a_program_of_the_site_holds_and_no_restart_prolongs_that() {
    let mut rig = Rig::new("lock");
    let layer = rig.layer();
    let cloud = Cloud::start(&rig);
    let lock = rig.config().with_file_name("busy");
    rig.configure(&format!("[update]\nhold_files = [\"{}\"]\n", lock.display()));
    rig.start();
    cloud.desire(sealed(&quick(1, layer, vec![web(SERVES)])));
    cloud.event("generation 1 is good");

    std::fs::write(&lock, "bottling\n").unwrap();
    cloud.desire(sealed(&quick(2, layer, vec![web("exec sleep 2000000")])));
    cloud.event(&format!("generation 2 is held: {} (bottling)", lock.display()));
    std::fs::remove_file(&lock).unwrap();
    wait_good(&mut rig, 2);

    std::fs::write(&lock, "").unwrap();
    let mut short = quick(3, layer, vec![web(SERVES)]);
    short.upgrade.hold_seconds_max = 6;
    cloud.desire(sealed(&short));
    cloud.event("generation 3 is held");
    // Together longer than it may be held, one by one not.
    let goes_on = (0..6).any(|_| {
        std::thread::sleep(Duration::from_secs(3));
        rig.kill();
        rig.start();
        rig.json(&["status"])["generation"] == 3
    });
    assert!(goes_on, "each restart began the longest hold anew");
    wait_good(&mut rig, 3);
}

#[test]
fn one_that_keeps_the_machine_from_staying_up_is_left() {
    let mut rig = Rig::with_boots("loop");
    let layer = rig.layer();
    rig.take_up(&quick(1, layer, vec![web(SERVES)]));
    rig.start();
    wait_good(&mut rig, 1);

    // It would be good after a while that the machine does not live.
    rig.kill();
    let mut next = quick(2, layer, vec![web("echo up; exec sleep 2000000")]);
    next.upgrade.stable_seconds = 1_000;
    next.upgrade.boots_max = 2;
    rig.take_up(&next);
    rig.start();
    for boots in 0..=2 {
        rig.wait(&format!("all pods after {boots} boots"), |rig| {
            let status = rig.json(&["status"]);
            status["generation"] == 2 && status["phase"] == "stabilising"
        });
        // A supervisor or a launcher that dies is no boot.
        rig.kill();
        rig.start();
        assert!(rig.json(&["status"])["failed"].is_null());
        rig.lose_power();
        rig.start();
    }
    wait_good(&mut rig, 1);
    let failed: Failed = serde_json::from_value(rig.json(&["status"])["failed"].clone()).unwrap();
    assert_eq!(failed.cause, Cause::BootLoop { boots: 3 });
    assert!(pods(&rig, "web").iter().all(|pod| pod["generation"] == 1));
}

#[test]
fn an_application_holds_by_a_file_in_a_folder_that_it_shares() {
    let mut rig = Rig::new("shared");
    let layer = rig.layer();
    let cloud = Cloud::start(&rig);
    let line = rig.config().with_file_name("line");
    let tables = format!(
        "[update]\nhold_files = [\"{0}/busy\"]\n[volumes]\nhost_paths = [\"{0}\"]\n",
        line.display()
    );
    rig.configure(&tables);
    rig.start();
    let shares = |path: &std::path::Path, script: &str| {
        let mut web = deployment("web", 1, &[], &[("main", script)]);
        let path = path.to_str().unwrap().to_owned();
        web.pod.volumes.push(Volume {
            name: name("line"),
            source: VolumeSource::HostPath(HostPath {
                path,
                kind: HostPathKind::DirectoryOrCreate,
            }),
        });
        let (volume, path) = (name("line"), "/line".to_owned());
        web.pod.containers[0].mounts.push(Mount { volume, path, sub_path: None, read_only: false });
        web
    };
    let works = "echo bottling > /line/busy; while [ ! -e /line/full ]; do sleep 0.1; done; \
        /bin/busybox rm /line/busy; exec sleep 1000000";
    cloud.desire(sealed(&quick(1, layer, vec![shares(&line, works)])));
    cloud.event("generation 1 is good");
    rig.wait("the lock file", |_| line.join("busy").exists());

    cloud.desire(sealed(&quick(2, layer, vec![shares(&line, "exec sleep 2000000")])));
    cloud.event(&format!("generation 2 is held: {}/busy (bottling)", line.display()));
    assert!(is_held(&rig, 2));
    std::fs::write(line.join("full"), "").unwrap();
    wait_good(&mut rig, 2);

    // What the node's configuration does not allow is refused before anything
    // changes.
    let elsewhere = line.with_file_name("elsewhere");
    cloud.desire(sealed(&quick(3, layer, vec![shares(&elsewhere, "exec sleep 3000000")])));
    let text = "volume line: the host path";
    cloud.event(text);
    let refused = rig.json(&["status"])["refused"].clone();
    assert_eq!(refused["generation"], 3);
    assert!(refused["reason"].as_str().unwrap().contains(text), "{refused}");
    assert!(!elsewhere.exists());
    wait_good(&mut rig, 2);
}
