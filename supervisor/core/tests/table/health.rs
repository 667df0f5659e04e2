//! Readiness, and whether a generation is good.

use std::collections::BTreeMap;

use wherry_bundle::Generation;
use wherry_bundle::health::UpgradePolicy;
use wherry_bundle::message::{Cause, Exit, PodPhase};
use wherry_bundle::model::Role;
use wherry_core::upgrade::{CRASH_LOOP_STARTS, Facts, Verdict, Watch};
use wherry_core::{Health, Ledger, Millis, Preparation, Workload};

use crate::scenario::{Scenario, name, workload};

fn says(s: &mut Scenario, pod: &str, health: Health) {
    s.pod(pod).health = BTreeMap::from([(name("main"), health)]);
}

/// Generation 1 is good; policy: 60 s, 3 boots.
fn judge(s: &Scenario, watch: &mut Watch, boots: u32, fetched: u64) -> Verdict {
    let policy = UpgradePolicy::default();
    let facts =
        Facts { policy, last_good: Generation(1), boots, fetched_bytes: fetched, online: true };
    watch.judge(facts, &s.desired, &s.observed, &s.ledger, s.now)
}

fn upgraded() -> Scenario {
    let mut s = Scenario::new();
    s.bundle([("web", workload("a"))]);
    s.settle(0);
    s.bundle([("web", workload("b"))]);
    s.step(1_000, &["create web-2"]);
    s.step(1_010, &["start web-2/main"]);
    s
}

#[test]
fn what_is_not_ready_is_neither_published_nor_a_reason_to_stop_the_old() {
    let mut s = upgraded();
    says(&mut s, "web-2", Health::NotReady);
    s.rests(1_020);
    assert_eq!(s.status().pods[&name("web-2")].phase, PodPhase::Starting);
    says(&mut s, "web-2", Health::Ready { since: Millis(5_000) });
    s.step(5_000, &["publish web 1"]);
    s.step(5_010, &[]);
    s.step(6_010, &["terminate web-1"]);
    s.settle(6_020);
    // And back: it leaves the service, and is not stopped for it.
    says(&mut s, "web-2", Health::NotReady);
    s.step(9_000, &["publish web 0"]);
    s.rests(9_010);
}

#[test]
fn min_ready_seconds_count_from_readiness() {
    let mut s = Scenario::new();
    s.bundle([("web", Workload { min_ready: Millis(3_000), ..workload("a") })]);
    s.step(0, &["publish web 0", "create web-1"]);
    s.step(10, &["start web-1/main"]);
    says(&mut s, "web-1", Health::Ready { since: Millis(2_000) });
    s.step(4_000, &[]);
    s.wakes_at(5_000);
    s.step(5_000, &["publish web 1"]);
}

#[test]
fn a_new_supervisor_takes_no_pod_out_of_service() {
    for lost in [false, true] {
        let mut s = Scenario::new();
        s.bundle([("web", workload("a"))]);
        s.step(0, &["publish web 0", "create web-1"]);
        s.step(10, &["start web-1/main"]);
        says(&mut s, "web-1", Health::Ready { since: Millis(2_000) });
        s.step(2_000, &["publish web 1"]);
        let ledger = if lost { Ledger::default() } else { s.ledger.clone() };
        s.supervisor_restarts(ledger);
        says(&mut s, "web-1", Health::Unknown);
        s.step(3_000, &["publish web 1"]);
        says(&mut s, "web-1", Health::Ready { since: Millis(10) });
        s.rests(4_000);
    }
}

#[test]
fn what_was_not_ready_is_not_because_the_supervisor_is_new() {
    let mut s = upgraded();
    says(&mut s, "web-2", Health::NotReady);
    s.rests(1_020);
    says(&mut s, "web-2", Health::Unknown);
    s.rests(90_000);
}

#[test]
fn a_generation_is_good_after_its_stability_window() {
    let mut s = upgraded();
    let mut watch = Watch::default();
    assert!(matches!(judge(&s, &mut watch, 0, 0), Verdict::UnderWay { .. }));
    s.settle(1_020);
    s.settle(5_000);
    assert_eq!(s.pods(), ["web-2"]);
    let due = Verdict::UnderWay { wake_at: Some(Millis(65_000)) };
    assert_eq!(judge(&s, &mut watch, 3, 0), due);
    s.rests(64_999);
    assert_eq!(judge(&s, &mut watch, 3, 0), due);
    // A moment without it: all over again.
    says(&mut s, "web-2", Health::NotReady);
    s.settle(64_999);
    assert!(matches!(judge(&s, &mut watch, 0, 0), Verdict::UnderWay { .. }));
    says(&mut s, "web-2", Health::Ready { since: Millis(65_000) });
    s.settle(65_000);
    assert_eq!(judge(&s, &mut watch, 0, 0), Verdict::UnderWay { wake_at: Some(Millis(125_000)) });
    s.rests(125_000);
    assert_eq!(judge(&s, &mut watch, 0, 0), Verdict::Good);
    s.desired.generation = Generation(1);
    assert_eq!(judge(&s, &mut watch, 9, 0), Verdict::Settled);
}

#[test]
fn without_progress_it_fails_at_its_deadline() {
    let mut s = upgraded();
    let mut watch = Watch::default();
    says(&mut s, "web-2", Health::NotReady);
    s.rests(1_020);
    let due = |at| Verdict::UnderWay { wake_at: Some(Millis(at)) };
    assert_eq!(judge(&s, &mut watch, 0, 5), due(601_020));
    // Bytes that came are progress.
    s.rests(101_020);
    assert_eq!(judge(&s, &mut watch, 0, 6), due(701_020));
    s.rests(701_019);
    assert_eq!(judge(&s, &mut watch, 0, 6), due(701_020));
    s.rests(701_020);
    let cause = Cause::ProgressDeadline {
        deployment: name("web"),
        seconds: 600,
        pod: Some(name("web-2")),
        exit: None,
    };
    assert_eq!(judge(&s, &mut watch, 0, 6), Verdict::Failed(cause));
}

#[test]
fn a_new_pod_that_crashes_again_and_again_fails_it() {
    let mut s = upgraded();
    let mut watch = Watch::default();
    let mut now = 1_020;
    for _ in 1..CRASH_LOOP_STARTS {
        s.settle(now);
        assert!(matches!(judge(&s, &mut watch, 0, 0), Verdict::UnderWay { .. }));
        s.exits("web-2", Exit::OutOfMemory, now + 1);
        now += 40_000;
    }
    s.settle(now);
    s.exits("web-2", Exit::OutOfMemory, now + 1);
    s.settle(now + 2);
    let (pod, container) = (name("web-2"), name("main"));
    let cause =
        Cause::CrashLoop { pod, container, starts: CRASH_LOOP_STARTS, exit: Exit::OutOfMemory };
    assert_eq!(judge(&s, &mut watch, 0, 0), Verdict::Failed(cause));
}

#[test]
fn too_many_boots_fail_it() {
    let s = upgraded();
    let mut watch = Watch::default();
    assert!(matches!(judge(&s, &mut watch, 3, 0), Verdict::UnderWay { .. }));
    assert_eq!(judge(&s, &mut watch, 4, 0), Verdict::Failed(Cause::BootLoop { boots: 4 }));
}

#[test]
fn a_sick_container_is_ended_and_started_again_alone() {
    let mut s = Scenario::new();
    let both = ["main", "aside"].map(|text| (name(text), Role::Main)).into();
    s.bundle([("web", Workload { containers: both, ..workload("a") })]);
    s.settle(0);
    s.pod("web-1").unhealthy.insert(name("main"));
    // It leaves the service at once.
    s.step(5_000, &["publish web 0", "terminate web-1/main"]);
    // A restart is back-off's affair, as after any end.
    s.step(5_010, &[]);
    s.wakes_at(6_000);
    s.step(6_000, &["start web-1/main"]);
    s.step(6_010, &["publish web 1"]);
    s.rests(6_020);
}

#[test]
fn a_sick_container_that_does_not_listen_is_killed_even_if_it_feels_better() {
    let mut s = Scenario::new();
    s.bundle([("web", workload("a"))]);
    s.settle(0);
    s.futile.insert("terminate".into());
    s.pod("web-1").unhealthy.insert(name("main"));
    s.step(5_000, &["publish web 0", "terminate web-1/main"]);
    s.pod("web-1").unhealthy.clear();
    s.step(5_010, &["publish web 1"]);
    s.step(14_990, &[]);
    s.wakes_at(15_000);
    s.step(15_000, &["kill web-1/main"]);
    s.step(15_010, &["publish web 0"]);
    s.step(16_000, &["start web-1/main"]);
}

#[test]
fn what_a_pod_asked_for_is_done_once_before_it_is_told_to_stop() {
    let mut s = Scenario::new();
    s.preparation = Preparation { runs: true, sleep: Millis(3_000) };
    s.bundle([("web", workload("a"))]);
    s.settle(0);
    s.bundle([]);
    s.step(5_000, &["publish "]);
    s.step(5_010, &[]);
    s.step(6_010, &["prepare web-1"]);
    s.step(6_020, &[]);
    s.wakes_at(9_010);
    // A supervisor that comes back does not do it once more.
    let ledger = s.ledger.clone();
    s.supervisor_restarts(ledger);
    s.step(7_000, &["publish "]);
    s.futile.insert("terminate".into());
    s.step(9_010, &["terminate web-1"]);
    s.step(16_000, &[]);
    s.wakes_at(16_010);
    s.step(16_010, &["kill web-1"]);
}

#[test]
fn what_takes_all_of_the_grace_leaves_a_last_moment() {
    let mut s = Scenario::new();
    s.preparation = Preparation { runs: false, sleep: Millis(60_000) };
    s.bundle([("web", workload("a"))]);
    s.settle(0);
    s.bundle([]);
    s.step(5_000, &["publish "]);
    s.step(5_010, &[]);
    s.step(6_010, &[]);
    s.futile.insert("terminate".into());
    s.step(16_010, &["terminate web-1"]);
    s.step(18_000, &[]);
    s.wakes_at(18_010);
}
