//! Jobs and sidecars of real containers: done once, over a loss of power too;
//! and what ends last.

use std::io::Read;
use std::process::Stdio;

use wherry_bundle::Bundle;
use wherry_bundle::health::UpgradePolicy;
use wherry_bundle::message::{Cause, Exit, Failed, JobFailure};
use wherry_bundle::model::{Deployment, Job, Layer, RestartPolicy, Role, Strategy};

use crate::cloud::Cloud;
use crate::pods;
use crate::prepared::{sharing, web};
use crate::rig::{Rig, bundle, deployment, name, sealed};

/// Good after a second on end.
fn quick(generation: u64, layer: Layer, deployments: Vec<Deployment>) -> Bundle {
    let upgrade = UpgradePolicy { stable_seconds: 1, ..UpgradePolicy::default() };
    Bundle { upgrade, ..bundle(generation, layer, deployments) }
}

/// And the deployment that waits for it.
fn migrate(script: &str) -> Vec<Deployment> {
    let mut job = deployment("migrate", 1, &[], &[("main", script)]);
    job.strategy = Strategy::Recreate;
    job.pod.restart_policy = RestartPolicy::OnFailure;
    job.job = Some(Job { backoff_limit: 1, deadline_seconds: None });
    vec![job, deployment("web", 1, &["migrate"], &[("main", "exec sleep 1000000")])]
}

fn wait_good(rig: &mut Rig, generation: u64) {
    rig.wait(&format!("good generation {generation}"), |rig| {
        let status = rig.json(&["status"]);
        status["generation"] == generation && status["phase"] == "good"
    });
}

#[test]
fn a_job_is_done_once_and_what_fails_is_left() {
    let mut rig = Rig::with_boots("jobs");
    let layer = rig.layer();
    rig.take_up(&quick(1, layer, migrate("echo migrates; sleep 2")));
    rig.start();
    rig.wait("the job", |rig| !pods(rig, "migrate").is_empty());
    assert_eq!(pods(&rig, "web")[0]["last_error"], "waits for deployment migrate");
    wait_good(&mut rig, 1);
    assert_eq!(pods(&rig, "migrate")[0]["phase"], "succeeded");
    let status = rig.out(&["status"]);
    assert!(status.contains("1 of 2 available, 1 succeeded"), "{status}");
    assert!(rig.out(&["describe", "migrate-1"]).contains("phase       succeeded"));

    // Neither a new supervisor nor a boot has it run again.
    rig.kill();
    rig.start();
    rig.wait_running();
    assert_eq!(rig.out(&["logs", "migrate-1"]), "migrates\n");
    rig.lose_power();
    rig.start();
    rig.wait_running();
    assert_eq!((pods(&rig, "migrate").len(), pods(&rig, "web").len()), (0, 1));

    // Another form of it runs; one that fails for good is left.
    rig.kill();
    rig.take_up(&quick(2, layer, migrate("echo no database >&2; exit 3")));
    rig.start();
    rig.wait("the way back", |rig| {
        let status = rig.json(&["status"]);
        status["generation"] == 1 && status["phase"] == "good" && !status["failed"].is_null()
    });
    let failed: Failed = serde_json::from_value(rig.json(&["status"])["failed"].clone()).unwrap();
    let Cause::Job { pod, why, exit } = &failed.cause else { panic!("{failed:?}") };
    assert_eq!(*pod, name("migrate-1"));
    assert_eq!((*why, *exit), (JobFailure::BackoffLimit { failures: 2 }, Some(Exit::Code(3))));
    assert_eq!(failed.lines, ["no database", "no database"]);
    // What was good is not run once more for having been left.
    assert_eq!(pods(&rig, "migrate"), Vec::<serde_json::Value>::new());
}

#[test]
fn a_job_that_succeeded_before_its_generation_was_good_is_done_too() {
    let mut rig = Rig::with_boots("jobs2");
    let layer = rig.layer();
    rig.take_up(&bundle(1, layer, migrate("echo migrates")));
    rig.start();
    rig.wait("the job", |rig| pods(rig, "migrate").iter().any(|pod| pod["phase"] == "succeeded"));
    rig.lose_power();
    rig.start();
    rig.wait_running();
    assert_eq!((pods(&rig, "migrate").len(), pods(&rig, "web").len()), (0, 1));
}

#[test]
fn sidecars_hear_the_last_word() {
    const LISTENS: &str = "trap 'cat /run/app/word; exit' TERM; while true; do sleep 0.1; done";
    let mut rig = Rig::new("sidecars");
    let layer = rig.layer();
    let cloud = Cloud::start(&rig);
    rig.start();
    // One that has done its work.
    let mut once = web(vec![
        sharing(Role::Sidecar, "helper", LISTENS),
        sharing(Role::Main, "main", "sleep 1; echo done > /run/app/word"),
    ]);
    once.pod.restart_policy = RestartPolicy::Never;
    once.name = name("once");
    // One that is told to stop.
    let says = "trap 'sleep 1; echo last > /run/app/word; exit' TERM; echo up; \
        while true; do sleep 0.1; done";
    let mut told =
        web(vec![sharing(Role::Sidecar, "helper", LISTENS), sharing(Role::Main, "main", says)]);
    told.pod.termination_grace_seconds = 20;
    cloud.desire(sealed(&bundle(1, layer, vec![once.clone(), told])));
    rig.wait("what is done", |rig| pods(rig, "once").iter().any(|pod| pod["phase"] == "succeeded"));
    assert_eq!(rig.out(&["logs", "once-1", "-c", "helper"]), "done\n");
    rig.wait("the other one", |rig| rig.out(&["logs", "web-1", "-c", "main"]) == "up\n");
    let mut follows = rig.command_line(&["logs", "web-1", "-c", "helper", "-f"]);
    let mut follows = follows.stdout(Stdio::piped()).spawn().unwrap();
    cloud.desire(sealed(&bundle(2, layer, vec![once])));
    rig.wait("its end", |rig| pods(rig, "web").is_empty());
    let mut text = String::new();
    let mut output = follows.stdout.take().unwrap();
    let mut first = [0; 5];
    output.read_exact(&mut first).unwrap();
    text.push_str(std::str::from_utf8(&first).unwrap());
    follows.kill().unwrap();
    follows.wait().unwrap();
    assert_eq!(text, "last\n");
}
