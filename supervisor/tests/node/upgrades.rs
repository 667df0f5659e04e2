//! Generations that fail, and the way back, with real containers.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use wherry_bundle::Bundle;
use wherry_bundle::health::UpgradePolicy;
use wherry_bundle::message::{Cause, Exit, Failed, Phase};
use wherry_bundle::model::{Deployment, Layer};

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
