//! Upgrades, scale, and what is left alone.

use wherry_bundle::message::{EventKind, Exit, Phase};
use wherry_bundle::model::{Protocol, Strategy};
use wherry_core::{Millis, PublishedPort, Workload};

use crate::scenario::{Scenario, layer, name, workload};

fn replicas(form: &str, replicas: u16, strategy: Strategy) -> Workload {
    Workload { replicas, strategy, ..workload(form) }
}

const MIB: u64 = 1 << 20;
const SURGE: Strategy = Strategy::RollingUpdate { max_unavailable: 0, max_surge: 1 };
const STOP_FIRST: Strategy = Strategy::RollingUpdate { max_unavailable: 1, max_surge: 0 };

#[test]
fn pods_are_replaced_one_by_one_the_new_one_first() {
    let mut s = Scenario::new();
    s.bundle([("web", replicas("a", 2, SURGE))]);
    s.settle(0);
    s.bundle([("web", replicas("b", 2, SURGE))]);
    s.step(1_000, &["create web-3"]);
    s.step(1_010, &["start web-3/main"]);
    // In one publication the new one comes and the old one goes.
    s.step(1_020, &["publish web 2"]);
    s.step(1_030, &[]);
    s.wakes_at(2_030);
    assert_eq!(s.status().phase, Phase::Rolling { pods_done: 1, pods_total: 2 });
    s.step(2_030, &["terminate web-1"]);
    s.step(2_040, &["remove web-1"]);
    s.step(2_050, &["create web-4"]);
    s.step(2_060, &["start web-4/main"]);
    s.step(2_070, &["publish web 2"]);
    s.step(2_080, &[]);
    s.step(3_080, &["terminate web-2"]);
    s.step(3_090, &["remove web-2"]);
    s.rests(3_100);
    assert_eq!(s.status().phase, Phase::Stabilising);
}

#[test]
fn without_surge_one_goes_before_one_comes() {
    let mut s = Scenario::new();
    s.bundle([("web", replicas("a", 2, STOP_FIRST))]);
    s.settle(0);
    s.bundle([("web", replicas("b", 2, STOP_FIRST))]);
    s.step(1_000, &["publish web 1"]);
    s.step(1_010, &[]);
    s.step(2_010, &["terminate web-1"]);
    s.step(2_020, &["remove web-1"]);
    s.step(2_030, &["create web-3"]);
    s.step(2_040, &["start web-3/main"]);
    s.step(2_050, &["publish web 1"]);
    assert_eq!(s.pods(), ["web-2", "web-3"]);
}

#[test]
fn recreate_stops_all_before_one_comes() {
    let mut s = Scenario::new();
    s.bundle([("web", replicas("a", 2, Strategy::Recreate))]);
    s.settle(0);
    s.bundle([("web", replicas("b", 2, Strategy::Recreate))]);
    s.step(1_000, &["publish web 0"]);
    s.step(1_010, &[]);
    s.futile.insert("terminate web-2".into());
    s.step(2_010, &["terminate web-1", "terminate web-2"]);
    s.step(2_020, &["remove web-1"]);
    s.step(2_030, &[]);
    s.wakes_at(12_010);
    s.step(12_010, &["kill web-2"]);
    s.step(12_020, &["remove web-2"]);
    s.step(12_030, &["create web-3", "create web-4"]);
}

#[test]
fn pods_with_the_same_ports_of_the_host_never_meet() {
    let port = PublishedPort { protocol: Protocol::Tcp, host_port: 80, container_port: 80 };
    let gate = |form| Workload { host_network: true, ports: vec![port], ..workload(form) };
    let mut s = Scenario::new();
    s.bundle([("gate", gate("a"))]);
    assert_eq!(s.settle(0), ["publish ", "create gate-1", "start gate-1/main"]);
    s.bundle([("gate", gate("b"))]);
    s.futile.insert("kill".into());
    s.futile.insert("terminate".into());
    s.step(1_000, &["terminate gate-1"]);
    assert_eq!(
        s.told(EventKind::StrategyChanged),
        [": gate: old pods are stopped first: two at once would want the same ports"]
    );
    // Not even killed does it give its place away.
    s.step(11_000, &["kill gate-1"]);
    assert_eq!(s.told(EventKind::StrategyChanged), Vec::<String>::new(), "it was said before");
    s.step(11_010, &[]);
    s.futile.clear();
    s.step(12_000, &["kill gate-1"]);
    s.step(12_010, &["remove gate-1"]);
    s.step(12_020, &["create gate-2"]);
    s.settle(12_030);
    // Told once a replacement, and not where the template asked for it.
    let asked = Workload { strategy: STOP_FIRST, ..gate("c") };
    s.bundle([("gate", asked)]);
    s.step(20_000, &["terminate gate-2"]);
    assert_eq!(s.told(EventKind::StrategyChanged), Vec::<String>::new());
    s.settle(20_010);
    s.bundle([("gate", gate("d"))]);
    s.step(30_000, &["terminate gate-3"]);
    assert_eq!(s.told(EventKind::StrategyChanged).len(), 1);
}

#[test]
fn pods_with_the_same_device_never_meet() {
    let modem = |form| Workload { has_device: true, ..workload(form) };
    let mut s = Scenario::new();
    s.bundle([("modem", modem("a"))]);
    s.settle(0);
    s.bundle([("modem", modem("b"))]);
    s.step(1_000, &["publish modem 0"]);
    assert_eq!(
        s.told(EventKind::StrategyChanged),
        [": modem: old pods are stopped first: two at once would want the same device"]
    );
}

#[test]
fn pods_with_a_claim_for_one_never_meet() {
    let db = |form| Workload { has_claim: true, ..workload(form) };
    let mut s = Scenario::new();
    s.bundle([("db", db("a"))]);
    s.settle(0);
    s.bundle([("db", db("b"))]);
    s.step(1_000, &["publish db 0"]);
    assert_eq!(
        s.told(EventKind::StrategyChanged),
        [": db: old pods are stopped first: two at once would want the same ReadWriteOnce claim"]
    );
}

#[test]
fn what_sigkill_does_not_end_keeps_nothing_up() {
    let mut s = Scenario::new();
    s.bundle([("web", replicas("a", 1, STOP_FIRST))]);
    s.settle(0);
    s.futile.extend(["kill".to_owned(), "terminate".to_owned()]);
    s.bundle([("web", replicas("b", 1, STOP_FIRST))]);
    s.settle(1_000);
    s.step(2_000, &["terminate web-1"]);
    s.step(11_999, &[]);
    s.step(12_000, &["kill web-1"]);
    s.step(12_010, &["create web-2"]);
}

#[test]
fn old_pods_that_do_not_serve_go_first() {
    let mut s = Scenario::new();
    s.bundle([("web", replicas("a", 2, STOP_FIRST))]);
    s.settle(0);
    s.exits("web-2", Exit::Code(1), 1_000);
    s.step(1_000, &["publish web 1"]);
    s.bundle([("web", replicas("b", 2, STOP_FIRST))]);
    s.step(1_010, &["remove web-2"]);
    s.step(1_020, &["create web-3"]);
    s.step(1_030, &["start web-3/main"]);
    s.step(1_040, &["publish web 1"]);
    s.step(2_050, &[]);
    s.step(3_050, &["terminate web-1"]);
}

#[test]
fn a_newer_bundle_supersedes_one_that_cannot_start() {
    let mut s = Scenario::new();
    s.bundle([("web", replicas("a", 1, SURGE))]);
    s.settle(0);
    s.bundle([("web", replicas("bad", 1, SURGE))]);
    s.futile.insert("start web-2".into());
    s.step(1_000, &["create web-2"]);
    s.step(1_010, &["start web-2/main"]);
    s.step(1_020, &[]);
    s.bundle([("web", replicas("b", 1, SURGE))]);
    s.step(1_030, &["remove web-2"]);
    s.step(1_040, &["create web-3"]);
    s.step(1_050, &["start web-3/main"]);
    s.step(1_060, &["publish web 1"]);
    assert_eq!(s.pods(), ["web-1", "web-3"]);
}

#[test]
fn pods_that_are_what_is_desired_are_not_touched() {
    let mut s = Scenario::new();
    s.bundle([("db", workload("d")), ("web", replicas("a", 2, SURGE))]);
    s.settle(0);
    let mut web = replicas("a", 2, Strategy::Recreate);
    web.after.insert(name("db"));
    // Longer than any has been running.
    web.min_ready = Millis(60_000);
    s.bundle([("db", workload("d")), ("web", web)]);
    s.rests(1_000);
    assert_eq!(s.told(wherry_bundle::message::EventKind::GenerationRunning).len(), 1);
}

#[test]
fn while_the_new_layers_are_not_there_the_old_pods_stay() {
    for strategy in [SURGE, STOP_FIRST, Strategy::Recreate] {
        let mut s = Scenario::new();
        s.bundle([("web", replicas("a", 2, strategy))]);
        s.settle(0);
        s.bundle_without_layers([("web", replicas("b", 2, strategy))]);
        s.step(1_000, &["fetch 1"]);
        s.rests(1_010);
        s.observed.layers.insert(layer("b").digest);
        s.plan(1_020);
        assert!(!s.last.actions.is_empty(), "{strategy:?}");
    }
}

#[test]
fn where_both_change_the_dependency_rolls_first() {
    let dependent = |form| {
        let mut web = replicas(form, 1, STOP_FIRST);
        web.after.insert(name("db"));
        web
    };
    let mut s = Scenario::new();
    s.bundle([("db", workload("d")), ("web", dependent("a"))]);
    s.settle(0);
    s.bundle([("db", workload("e")), ("web", dependent("b"))]);
    s.step(1_000, &["create db-2"]);
    s.step(1_010, &["start db-2/main"]);
    // Now db is complete in its new form, and web's turn comes.
    s.step(1_020, &["publish db 1, web 0"]);
}

#[test]
fn the_youngest_go_when_there_are_too_many() {
    let mut s = Scenario::new();
    s.bundle([("web", replicas("a", 3, SURGE))]);
    s.settle(0);
    s.bundle([("web", replicas("a", 1, SURGE))]);
    s.step(1_000, &["publish web 1"]);
    s.step(1_010, &[]);
    s.step(2_010, &["terminate web-2", "terminate web-3"]);
    s.step(2_020, &["remove web-2", "remove web-3"]);
    s.rests(2_030);
    s.bundle([("web", replicas("a", 2, SURGE))]);
    s.step(3_000, &["create web-4"]);
}

#[test]
fn a_person_may_ask_for_another_pod_once() {
    let mut s = Scenario::new();
    s.bundle([("web", workload("a"))]);
    s.settle(0);
    s.desired.replace.insert(name("web-1"));
    s.desired.replace.insert(name("nobody-1"));
    s.step(1_000, &["create web-2"]);
    s.step(1_010, &["start web-2/main"]);
    s.step(1_020, &["publish web 1"]);
    s.step(1_030, &[]);
    s.step(2_030, &["terminate web-1"]);
    s.step(2_040, &["remove web-1"]);
    s.rests(2_050);
}

fn big(form: &str) -> Workload {
    Workload { memory_bytes: 64 * MIB, ..workload(form) }
}

#[test]
fn where_memory_is_short_old_pods_are_stopped_first() {
    let mut s = Scenario::new();
    s.bundle([("web", big("a"))]);
    s.settle(0);
    s.bundle([("web", big("b"))]);
    s.observed.memory_available_bytes = Some(40 * MIB);
    s.step(5_000, &["publish web 0"]);
    let told = s.told(EventKind::StrategyChanged);
    assert_eq!(
        told,
        [": web: old pods are stopped first: a new one may take 64 MiB, 40 MiB are free"]
    );
    // What that frees does not change the way that was begun.
    s.observed.memory_available_bytes = Some(500 * MIB);
    s.step(5_010, &[]);
    s.step(6_010, &["terminate web-1"]);
    s.step(6_020, &["remove web-1"]);
    s.step(6_030, &["create web-2"]);
    s.settle(6_040);
    assert_eq!(s.pods(), ["web-2"]);
    // With room, a new one comes first.
    s.bundle([("web", big("c"))]);
    s.step(9_000, &["create web-3"]);
    assert_eq!(s.told(EventKind::StrategyChanged), Vec::<String>::new());
}

#[test]
fn what_one_new_pod_may_take_is_not_there_for_another() {
    let mut s = Scenario::new();
    s.bundle([("db", big("a")), ("web", big("b"))]);
    s.settle(0);
    s.bundle([("db", big("c")), ("web", big("d"))]);
    s.observed.memory_available_bytes = Some(100 * MIB);
    s.step(1_000, &["create db-2"]);
    s.step(1_010, &["start db-2/main"]);
    // It runs, and takes less than it may: web's turn has come.
    s.step(1_020, &["publish db 1, web 1", "create web-2"]);
    assert_eq!(s.told(EventKind::StrategyChanged), Vec::<String>::new());
    s.settle(1_030);
    s.settle(3_000);
    assert_eq!(s.pods(), ["db-2", "web-2"]);

    // One that does not get there keeps the other from coming, not from
    // serving; and where memory is short in earnest, old pods go first.
    s.bundle([("db", big("e")), ("web", big("f"))]);
    s.futile.insert("start db-3".into());
    s.step(10_000, &["create db-3"]);
    s.step(10_010, &["start db-3/main"]);
    s.step(10_020, &[]);
    s.wakes_at(11_010);
    s.observed.memory_available_bytes = Some(40 * MIB);
    s.step(10_030, &["publish db 1, web 0"]);
}

#[test]
fn so_many_pods_surge_as_there_is_memory_for() {
    let strategy = Strategy::RollingUpdate { max_unavailable: 0, max_surge: 3 };
    let three = |form| Workload { replicas: 3, strategy, ..big(form) };
    for (free, coming) in [(72, 1), (135, 1), (136, 2), (200, 3), (1_000, 3)] {
        let mut s = Scenario::new();
        s.bundle([("web", three("a"))]);
        s.settle(0);
        s.bundle([("web", three("b"))]);
        s.observed.memory_available_bytes = Some(free * MIB);
        s.plan(1_000);
        assert_eq!(s.last.actions.len(), coming, "{free} MiB: {:?}", s.last.actions);
    }
}

#[test]
fn a_pod_without_limits_needs_no_more_than_the_margin() {
    for (free, first) in [(7, "publish web 0"), (8, "create web-2")] {
        let mut s = Scenario::new();
        s.bundle([("web", workload("a"))]);
        s.settle(0);
        s.bundle([("web", workload("b"))]);
        s.observed.memory_available_bytes = Some(free * MIB);
        s.step(1_000, &[first]);
    }
}
