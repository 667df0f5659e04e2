//! First starts, start order, what is adopted, what people are told.

use wherry_bundle::limits::PODS_MAX;
use wherry_bundle::message::{EventKind, Exit, Phase, PodPhase};
use wherry_core::{Ledger, Millis};

use crate::scenario::{Scenario, layer, name, workload};

#[test]
fn without_a_bundle_nothing_is_touched() {
    let mut s = Scenario::new();
    s.bundle([("web", workload("a"))]);
    s.settle(0);
    s.desired = wherry_core::Desired::default();
    let before = s.ledger.clone();
    s.rests(1_000);
    assert_eq!(s.ledger, before);
    assert_eq!(s.status().phase, Phase::Empty);
}

#[test]
fn a_pod_is_made_when_its_layers_are_there_and_then_rests() {
    let mut s = Scenario::new();
    s.bundle_without_layers([("web", workload("a"))]);
    s.step(0, &["publish web 0", "fetch 1"]);
    s.rests(10);
    assert_eq!(s.status().phase, Phase::Fetching { bytes_done: 0, bytes_total: 100 });
    let waiting = &s.status().pods[&name("web-1")];
    assert_eq!(waiting.phase, PodPhase::Waiting);
    assert_eq!(waiting.last_error.as_deref(), Some("waits for 1 of 1 layers"));

    s.observed.layers.insert(layer("a").digest);
    s.step(20, &["create web-1"]);
    s.step(30, &["start web-1/main"]);
    assert_eq!(s.told(EventKind::PodCreated), ["web-1: created"]);
    s.step(40, &["publish web 1"]);
    assert_eq!(s.told(EventKind::ContainerStarted), ["web-1: container main started"]);
    assert_eq!(s.told(EventKind::PodAvailable), ["web-1: available"]);
    s.rests(50);
    assert_eq!(s.told(EventKind::GenerationRunning), [": generation 1 is running"]);
    s.rests(60);
    assert_eq!(s.last.notices, []);
    assert_eq!(s.status().phase, Phase::Stabilising);
    assert_eq!(s.status().pods[&name("web-1")].phase, PodPhase::Available);
}

#[test]
fn the_fetch_list_is_told_again_only_when_it_grows_or_is_forgotten() {
    let mut s = Scenario::new();
    let mut web = workload("a");
    web.layers.extend([layer("x"), layer("y")]);
    s.bundle_without_layers([("web", web)]);
    s.step(0, &["publish web 0", "fetch 3"]);
    s.observed.layers.insert(layer("x").digest);
    s.step(10, &[]);
    s.observed.fetching.clear();
    s.step(20, &["fetch 2"]);
}

#[test]
fn a_dependent_waits_until_all_replicas_are_available_for_long_enough() {
    let mut s = Scenario::new();
    let mut db = workload("a");
    (db.replicas, db.min_ready) = (2, Millis(5_000));
    let mut web = workload("b");
    web.after.insert(name("db"));
    s.bundle([("db", db), ("web", web)]);
    s.step(0, &["publish db 0, web 0", "create db-1", "create db-2"]);
    s.step(100, &["start db-1/main", "start db-2/main"]);
    s.step(200, &[]);
    s.wakes_at(5_100);
    let view = s.status();
    assert_eq!(view.pods[&name("db-1")].phase, PodPhase::Running);
    assert_eq!(view.pods[&name("web-1")].last_error.as_deref(), Some("waits for deployment db"));
    s.exits("db-2", Exit::Code(1), 4_000);
    s.step(5_100, &["publish db 1, web 0", "start db-2/main"]);
    s.step(10_099, &[]);
    s.step(10_100, &["publish db 2, web 0", "create web-1"]);
}

#[test]
fn what_runs_is_not_stopped_because_of_a_dependency_and_a_new_pod_waits_for_one() {
    let mut s = Scenario::new();
    let mut web = workload("b");
    web.after.insert(name("db"));
    s.bundle([("db", workload("a")), ("web", web)]);
    s.settle(0);
    s.exits("db-1", Exit::Code(1), 1_000);
    s.step(1_000, &["publish db 0, web 1"]);
    // The same container of the same pod does not wait.
    s.exits("web-1", Exit::Code(1), 1_100);
    s.step(1_100, &["publish db 0, web 0"]);
    s.futile.insert("start db".into());
    s.step(2_100, &["start db-1/main", "start web-1/main"]);
    // Another pod does.
    s.observed.pods.remove(&name("web-1"));
    s.step(2_200, &[]);
    assert_eq!(s.told(EventKind::PodRemoved), ["web-1: vanished without having been stopped"]);
    s.futile.clear();
    s.step(9_000, &["start db-1/main"]);
    s.step(9_001, &["publish db 1, web 0", "create web-2"]);
}

#[test]
fn a_stuck_upgrade_below_does_not_keep_what_worked_from_being_mended() {
    let mut s = Scenario::new();
    let mut web = workload("b");
    web.after.insert(name("db"));
    s.bundle([("db", workload("a")), ("web", web.clone())]);
    s.settle(0);
    s.failing.insert("create db-2".into());
    s.bundle([("db", workload("a2")), ("web", web)]);
    s.step(1_000, &["create db-2"]);
    s.observed.pods.remove(&name("web-1"));
    s.step(1_001, &["publish db 1, web 0", "create web-2"]);
}

#[test]
fn a_lost_ledger_restarts_nothing() {
    let mut s = Scenario::new();
    let mut web = workload("a");
    (web.replicas, web.min_ready) = (2, Millis(5_000));
    s.bundle([("web", web.clone())]);
    s.settle(0);
    s.settle(5_000);
    let known = s.observed.publication.clone();
    s.supervisor_restarts(Ledger::default());
    s.step(6_000, &["publish web 2"]);
    assert_eq!(s.observed.publication, known, "the service's address moved");
    s.rests(6_010);
    assert_eq!(s.pods(), ["web-1", "web-2"]);
    web.replicas = 3;
    s.bundle([("web", web)]);
    s.step(7_000, &["create web-3"]);
}

#[test]
fn a_ledger_that_is_kept_means_nothing_is_told_twice() {
    let mut s = Scenario::new();
    s.bundle([("web", workload("a"))]);
    s.settle(0);
    s.supervisor_restarts(s.ledger.clone());
    s.step(1_000, &["publish web 1"]);
    s.rests(1_010);
    assert_eq!(s.last.notices, []);
}

#[test]
fn a_failed_creation_is_tried_again_with_back_off_and_given_up_for_a_newer_bundle() {
    let mut s = Scenario::new();
    s.failing.insert("create".into());
    s.bundle([("web", workload("a"))]);
    s.step(0, &["publish web 0", "create web-1"]);
    s.step(10, &[]);
    s.wakes_at(1_010);
    assert_eq!(s.told(EventKind::ContainerFailed), ["web-1: cannot be created: no luck"]);
    s.step(1_009, &[]);
    s.step(1_010, &["create web-1"]);
    s.step(1_020, &[]);
    s.wakes_at(3_020);
    assert_eq!(s.last.notices, [], "the same error is told once");
    let view = &s.status().pods[&name("web-1")];
    assert_eq!(view.phase, PodPhase::BackOff);
    assert_eq!(view.last_error.as_deref(), Some("cannot be created: no luck"));

    s.failing.clear();
    s.bundle([("web", workload("a"))]);
    s.step(1_030, &["create web-2", "remove web-1"]);
    s.settle(1_040);
    assert_eq!(s.pods(), ["web-2"]);
}

#[test]
fn the_node_holds_so_many_pods_and_no_more() {
    let mut s = Scenario::new();
    let mut old = workload("a");
    old.replicas = u16::try_from(PODS_MAX).unwrap();
    old.grace = Millis(600_000);
    s.bundle([("old", old)]);
    s.settle(0);
    assert_eq!(s.observed.pods.len(), PODS_MAX);
    s.futile.insert("terminate".into());
    s.bundle([("new", workload("b"))]);
    let asked = s.settle(1_000);
    assert!(!asked.iter().any(|line| line.starts_with("create")), "{asked:?}");
    s.settle(3_000);
    s.exits("old-7", Exit::Code(0), 3_000);
    s.step(3_001, &["remove old-7"]);
    s.step(3_002, &["create new-1"]);
}

#[test]
fn addresses_are_used_again_as_late_as_possible() {
    let mut s = Scenario::new();
    s.bundle([("web", workload("a"))]);
    s.settle(0);
    assert_eq!(s.pod("web-1").address, Some(2));
    s.observed.pods.remove(&name("web-1"));
    s.settle(1_000);
    assert_eq!(s.pod("web-2").address, Some(3));
    s.supervisor_restarts(Ledger::default());
    s.observed.pods.clear();
    s.settle(2_000);
    assert_eq!(s.pod("web-1").address, Some(2));
}
