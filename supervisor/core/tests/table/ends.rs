//! Exits, back-off, restart policies, and a pod's way out.

use wherry_bundle::message::{EventKind, Exit, Phase, PodPhase};
use wherry_bundle::model::RestartPolicy;
use wherry_core::backoff::STABLE_RUN;
use wherry_core::{Millis, Workload};

use crate::scenario::{Scenario, layer, name, workload};

#[test]
fn a_container_that_ends_is_started_again_later_and_later() {
    let mut s = Scenario::new();
    s.bundle([("web", workload("a"))]);
    s.settle(0);
    let mut now = 1_000;
    for (restarts, wait) in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300].into_iter().enumerate() {
        s.exits("web-1", Exit::Code(3), now);
        s.step(now, &["publish web 0"]);
        let told = format!("web-1: container main ended: exit code 3; starts again after {wait} s");
        assert_eq!(s.told(EventKind::ContainerExited), [told]);
        now += wait * 1_000;
        s.wakes_at(now);
        let view = &s.status().pods[&name("web-1")];
        assert_eq!(view.phase, PodPhase::BackOff);
        assert_eq!(view.last_error.as_deref(), Some("container main ended: exit code 3"));
        assert_eq!(view.containers[&name("main")].restarts, u32::try_from(restarts).unwrap());
        s.step(now - 1, &[]);
        s.step(now, &["start web-1/main"]);
        s.step(now, &["publish web 1"]);
    }
    now += STABLE_RUN.0;
    s.exits("web-1", Exit::Code(3), now);
    s.step(now, &["publish web 0"]);
    s.wakes_at(now + 1_000);
}

#[test]
fn a_failed_start_waits_like_an_end() {
    let mut s = Scenario::new();
    s.bundle([("web", workload("a"))]);
    s.failing.insert("start".into());
    s.step(0, &["publish web 0", "create web-1"]);
    s.step(0, &["start web-1/main"]);
    s.step(500, &[]);
    s.wakes_at(1_500);
    let told = "web-1: container main cannot be started: no luck";
    assert_eq!(s.told(EventKind::ContainerFailed), [told]);
    assert_eq!(s.status().pods[&name("web-1")].phase, PodPhase::BackOff);
    s.step(1_500, &["start web-1/main"]);
    s.step(1_600, &[]);
    s.wakes_at(3_600);
}

#[test]
fn an_answer_that_never_comes_is_not_waited_for_for_ever() {
    let mut s = Scenario::new();
    s.bundle([("web", workload("a"))]);
    s.futile.insert("start".into());
    s.step(0, &["publish web 0", "create web-1"]);
    s.step(0, &["start web-1/main"]);
    s.wakes_at(1_000);
    s.step(10, &[]);
    s.step(1_000, &["start web-1/main"]);
}

#[test]
fn what_is_done_stays_done() {
    for (policy, exit, phase) in [
        (RestartPolicy::Never, Exit::Code(0), Phase::Stabilising),
        (RestartPolicy::OnFailure, Exit::Code(0), Phase::Stabilising),
        (RestartPolicy::Never, Exit::Code(1), Phase::Rolling { pods_done: 0, pods_total: 1 }),
    ] {
        let done = if exit == Exit::Code(0) { PodPhase::Succeeded } else { PodPhase::Failed };
        let mut s = Scenario::new();
        s.bundle([("job", Workload { restart_policy: policy, ..workload("a") })]);
        s.settle(0);
        s.exits("job-1", exit, 1_000);
        s.step(1_000, &["publish job 0"]);
        s.rests(1_010);
        assert_eq!(s.status().phase, phase);
        assert_eq!(s.status().pods[&name("job-1")].phase, done);
    }
}

#[test]
fn on_failure_a_failure_is_repaired() {
    let mut s = Scenario::new();
    s.bundle([("job", Workload { restart_policy: RestartPolicy::OnFailure, ..workload("a") })]);
    s.settle(0);
    s.exits("job-1", Exit::OutOfMemory, 1_000);
    s.step(1_000, &["publish job 0"]);
    s.step(2_000, &["start job-1/main"]);
}

#[test]
fn a_dependent_may_wait_for_a_job_that_is_done() {
    let mut s = Scenario::new();
    let job = Workload {
        restart_policy: RestartPolicy::OnFailure,
        min_ready: Millis(2_000),
        ..workload("a")
    };
    let mut web = workload("b");
    web.after.insert(name("job"));
    s.bundle([("job", job), ("web", web)]);
    s.settle(0);
    s.exits("job-1", Exit::Code(0), 500);
    s.step(500, &[]);
    s.wakes_at(2_000);
    s.step(2_000, &["create web-1"]);
}

#[test]
fn a_deployment_that_is_no_longer_desired_goes_step_by_step() {
    let mut s = Scenario::new();
    s.bundle([("web", workload("a"))]);
    s.settle(0);
    s.futile.insert("terminate".into());
    s.bundle([]);
    s.step(1_000, &["publish "]);
    s.step(1_100, &[]);
    s.wakes_at(2_100);
    assert_eq!(s.status().pods[&name("web-1")].phase, PodPhase::Terminating);
    s.step(2_100, &["terminate web-1"]);
    s.step(2_110, &[]);
    s.wakes_at(12_100);
    // The signal is not sent twice.
    s.step(5_000, &[]);
    s.step(12_100, &["kill web-1"]);
    s.step(12_110, &["remove web-1"]);
    assert_eq!(s.told(EventKind::ContainerExited), ["web-1: container main ended: signal 9"]);
    s.rests(12_120);
    assert_eq!(s.told(EventKind::PodRemoved), ["web-1: removed"]);
    assert_eq!(s.status().phase, Phase::Stabilising);
}

#[test]
fn each_failing_step_of_stopping_is_tried_again_with_back_off() {
    let mut s = Scenario::new();
    s.bundle([("web", workload("a"))]);
    s.settle(0);
    s.failing.extend(["terminate", "kill", "remove"].map(String::from));
    s.bundle([]);
    s.settle(1_000);
    s.step(2_000, &["terminate web-1"]);
    s.step(2_010, &[]);
    s.step(3_010, &["terminate web-1"]);
    s.step(3_020, &[]);
    s.wakes_at(5_020);
    s.step(12_000, &["kill web-1"]);
    s.step(12_010, &[]);
    s.step(13_010, &["kill web-1"]);
    s.exits("web-1", Exit::Signal(9), 13_020);
    s.step(13_020, &["remove web-1"]);
    s.step(13_030, &[]);
    let view = &s.status().pods[&name("web-1")];
    assert_eq!(view.last_error.as_deref(), Some("cannot be stopped: no luck"));
    s.failing.clear();
    s.step(14_029, &[]);
    s.step(14_030, &["remove web-1"]);
    s.rests(14_040);
}

#[test]
fn a_publication_that_fails_delays_a_stop_but_not_for_ever() {
    let mut s = Scenario::new();
    s.bundle([("web", workload("a"))]);
    s.settle(0);
    s.failing.insert("publish".into());
    s.bundle([]);
    s.step(1_000, &["publish "]);
    s.step(1_010, &[]);
    s.wakes_at(2_010);
    s.step(2_010, &["publish "]);
    s.step(2_020, &[]);
    s.wakes_at(4_020);
    s.step(30_999, &["publish "]);
    s.step(31_000, &["terminate web-1"]);
}

#[test]
fn a_pod_that_never_served_is_not_drained() {
    let mut s = Scenario::new();
    let slow = Workload { min_ready: Millis(60_000), ..workload("a") };
    s.bundle([("web", slow)]);
    s.settle(0);
    s.bundle([]);
    s.step(1_000, &["publish ", "terminate web-1"]);
}

#[test]
fn a_damaged_layer_stops_nothing_and_what_ended_waits_for_it() {
    let mut s = Scenario::new();
    s.bundle([("db", workload("b")), ("web", workload("a"))]);
    s.settle(0);
    let damaged = layer("a").digest;
    s.observed.layers.remove(&damaged);
    s.observed.damaged.insert(damaged, "layer a is damaged".into());
    s.step(1_000, &["fetch 1"]);
    let error = |s: &Scenario| s.status().pods[&name("web-1")].last_error.clone();
    assert_eq!(s.status().pods[&name("web-1")].phase, PodPhase::Available);
    assert_eq!(error(&s), None, "it runs, and needs nothing");

    s.exits("web-1", Exit::Code(1), 2_000);
    s.exits("db-1", Exit::Code(1), 2_000);
    s.step(2_000, &["publish db 0, web 0"]);
    s.step(60_000, &["start db-1/main"]);
    assert_eq!(error(&s).as_deref(), Some("layer a is damaged"));
    s.settle(61_000);
    s.step(900_000, &[]);
    assert_eq!(s.last.wake_at, None, "only the layer can change anything");

    s.observed.layers.insert(damaged);
    s.observed.damaged.clear();
    s.step(900_100, &["start web-1/main"]);
    s.settle(900_200);
    assert_eq!(s.status().pods[&name("web-1")].containers[&name("main")].restarts, 1);
}
