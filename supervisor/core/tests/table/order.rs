//! Init containers and sidecars: what goes before what in a pod.

use wherry_bundle::message::{Exit, PodPhase};
use wherry_bundle::model::{RestartPolicy, Role};
use wherry_core::{Health, Millis, Workload};

use crate::scenario::{Scenario, name, workload};

/// Two init containers with a sidecar between them, then two main ones.
fn ordered(restart_policy: RestartPolicy) -> Workload {
    let roles = [
        ("zero", Role::Init),
        ("helper", Role::Sidecar),
        ("after", Role::Init),
        ("main", Role::Main),
        ("aside", Role::Main),
    ];
    Workload { restart_policy, ..with(&roles) }
}

fn with(roles: &[(&str, Role)]) -> Workload {
    let containers = roles.iter().map(|(text, role)| (name(text), *role)).collect();
    Workload { containers, ..workload("a") }
}

fn created(restart_policy: RestartPolicy) -> Scenario {
    let mut s = Scenario::new();
    s.bundle([("web", ordered(restart_policy))]);
    s.step(0, &["publish web 0", "create web-1"]);
    s.step(10, &["start web-1/zero"]);
    s
}

fn why(s: &Scenario) -> String {
    s.status().pods[&name("web-1")].last_error.clone().unwrap()
}

#[test]
fn one_after_the_other_and_then_all_main_ones() {
    let mut s = created(RestartPolicy::Always);
    s.rests(20);
    assert_eq!(why(&s), "container helper waits for zero");
    assert_eq!(s.status().pods[&name("web-1")].phase, PodPhase::Starting);
    s.exits("web-1", Exit::Code(0), 1_000);
    s.step(1_000, &["start web-1/helper"]);
    s.pod("web-1").health.insert(name("helper"), Health::NotReady);
    s.rests(1_010);
    assert_eq!(why(&s), "container after waits for helper");
    s.pod("web-1").health.insert(name("helper"), Health::Ready { since: Millis(2_000) });
    s.step(2_000, &["start web-1/after"]);
    s.rests(2_010);
    s.ends("web-1", "after", Exit::Code(0), 3_000);
    s.step(3_000, &["start web-1/main", "start web-1/aside"]);
    s.step(3_010, &["publish web 1"]);
    s.rests(3_020);
    assert_eq!(s.status().pods[&name("web-1")].phase, PodPhase::Available);
}

#[test]
fn an_init_container_that_fails_is_tried_again_and_nothing_else_begins() {
    let mut s = created(RestartPolicy::Always);
    s.ends("web-1", "zero", Exit::Code(3), 1_000);
    s.step(1_000, &[]);
    s.wakes_at(2_000);
    assert_eq!(why(&s), "container zero ended: exit code 3");
    s.step(2_000, &["start web-1/zero"]);
    s.ends("web-1", "zero", Exit::Code(0), 3_000);
    s.step(3_000, &["start web-1/helper"]);
}

#[test]
fn in_a_pod_that_never_restarts_it_ends_all() {
    let mut s = created(RestartPolicy::Never);
    s.ends("web-1", "zero", Exit::Code(3), 1_000);
    s.rests(1_000);
    s.rests(1_000_000);
}

#[test]
fn later_a_sidecar_and_a_main_one_fail_by_themselves() {
    let mut s = Scenario::new();
    s.bundle([("web", with(&[("helper", Role::Sidecar), ("main", Role::Main)]))]);
    s.settle(0);
    s.ends("web-1", "helper", Exit::Code(0), 5_000);
    s.ends("web-1", "main", Exit::Code(1), 5_000);
    s.step(5_000, &["publish web 0"]);
    s.step(6_000, &["start web-1/helper", "start web-1/main"]);
    s.step(6_010, &["publish web 1"]);
    s.rests(6_020);
}

#[test]
fn what_is_adopted_is_not_prepared_once_more() {
    let mut s = Scenario::new();
    s.bundle([("web", with(&[("zero", Role::Init), ("main", Role::Main)]))]);
    s.step(0, &["publish web 0", "create web-1"]);
    s.step(10, &["start web-1/zero"]);
    s.ends("web-1", "zero", Exit::Code(0), 1_000);
    s.settle(1_000);
    s.supervisor_restarts(wherry_core::Ledger::default());
    s.step(2_000, &["publish web 1"]);
    s.rests(2_010);
}

/// A sidecar before two others, and what it serves.
fn served(restart_policy: RestartPolicy) -> Scenario {
    let roles = [
        ("proxy", Role::Sidecar),
        ("helper", Role::Sidecar),
        ("main", Role::Main),
        ("aside", Role::Main),
    ];
    let mut s = Scenario::new();
    s.bundle([("web", Workload { restart_policy, ..with(&roles) })]);
    s.settle(0);
    s
}

#[test]
fn sidecars_stop_last_and_in_reverse() {
    let mut s = served(RestartPolicy::Always);
    s.futile.insert("terminate".into());
    s.bundle([]);
    s.step(1_000, &["publish "]);
    s.step(1_100, &[]);
    s.step(2_100, &["terminate web-1/aside", "terminate web-1/main"]);
    s.step(2_110, &[]);
    s.ends("web-1", "main", Exit::Code(0), 4_000);
    s.step(4_000, &[]);
    s.ends("web-1", "aside", Exit::Code(0), 5_000);
    s.step(5_000, &["terminate web-1/helper"]);
    s.step(5_010, &[]);
    s.ends("web-1", "helper", Exit::Code(0), 6_000);
    s.step(6_000, &["terminate web-1/proxy"]);
    // All of it together has the grace of the pod.
    s.step(6_010, &[]);
    s.wakes_at(12_100);
    s.step(12_100, &["kill web-1"]);
    s.step(12_110, &["remove web-1"]);
}

#[test]
fn what_takes_all_the_grace_leaves_none_for_the_sidecars() {
    let mut s = served(RestartPolicy::Always);
    s.futile.insert("terminate".into());
    s.bundle([]);
    s.step(1_000, &["publish "]);
    s.step(1_100, &[]);
    s.step(2_100, &["terminate web-1/aside", "terminate web-1/main"]);
    s.step(12_099, &[]);
    s.step(12_100, &["kill web-1"]);
}

#[test]
fn a_signal_that_could_not_be_sent_is_sent_again() {
    let mut s = served(RestartPolicy::Always);
    s.futile.insert("terminate web-1/aside".into());
    s.failing.insert("terminate web-1/main".into());
    s.bundle([]);
    s.step(1_000, &["publish "]);
    s.step(1_100, &[]);
    s.step(2_100, &["terminate web-1/aside", "terminate web-1/main"]);
    s.step(2_110, &[]);
    s.step(3_110, &["terminate web-1/main"]);
}

#[test]
fn what_has_done_its_work_takes_its_sidecars_with_it() {
    for (policy, exit, phase) in [
        (RestartPolicy::OnFailure, Exit::Code(0), PodPhase::Succeeded),
        (RestartPolicy::Never, Exit::Code(1), PodPhase::Failed),
    ] {
        let mut s = served(policy);
        s.ends("web-1", "aside", Exit::Code(0), 1_000);
        s.step(1_000, &["publish web 0"]);
        s.rests(1_010);
        s.futile.insert("terminate web-1/proxy".into());
        s.ends("web-1", "main", exit, 2_000);
        s.step(2_000, &["terminate web-1/helper"]);
        s.step(2_010, &["terminate web-1/proxy"]);
        assert_eq!(s.status().pods[&name("web-1")].phase, PodPhase::Terminating);
        s.step(2_020, &[]);
        s.wakes_at(12_000);
        s.step(12_000, &["kill web-1/proxy"]);
        s.rests(12_010);
        assert_eq!(s.status().pods[&name("web-1")].phase, phase);
    }
}
