//! Jobs: tried until they have succeeded once, and not again.

use wherry_bundle::Generation;
use wherry_bundle::health::UpgradePolicy;
use wherry_bundle::message::{Cause, EventKind, Exit, JobFailure, Phase, PodPhase};
use wherry_bundle::model::{Job, RestartPolicy, Role, Strategy};
use wherry_core::upgrade::{Facts, Verdict, Watch};
use wherry_core::{Ledger, Workload};

use crate::scenario::{Scenario, name, workload};

fn job(form: &str, restart_policy: RestartPolicy) -> Workload {
    let job = Some(Job { backoff_limit: 2, deadline_seconds: None });
    Workload { job, restart_policy, strategy: Strategy::Recreate, ..workload(form) }
}

fn after_it(form: &str) -> Workload {
    Workload { after: [name("job")].into(), ..workload(form) }
}

/// `job-1` runs, and `web` waits for it.
fn begun(restart_policy: RestartPolicy) -> Scenario {
    let mut s = Scenario::new();
    s.bundle([("job", job("a", restart_policy)), ("web", after_it("a"))]);
    s.step(0, &["publish job 0, web 0", "create job-1"]);
    s.step(10, &["start job-1/main"]);
    s.rests(20);
    s
}

fn done() -> Scenario {
    let mut s = begun(RestartPolicy::OnFailure);
    s.exits("job-1", Exit::Code(0), 1_000);
    s.step(1_000, &["create web-1"]);
    assert_eq!(s.told(EventKind::PodAvailable), ["job-1: succeeded"]);
    s.settle(1_010);
    s.rests(1_020);
    s
}

fn phase(s: &Scenario, pod: &str) -> PodPhase {
    s.status().pods[&name(pod)].phase
}

fn verdict(s: &Scenario, last_good: u64) -> Verdict {
    let facts = Facts {
        policy: UpgradePolicy { stable_seconds: 60, boots_max: 3, hold_seconds_max: 0 },
        last_good: Generation(last_good),
        boots: 0,
        fetched_bytes: 0,
        online: true,
    };
    Watch::default().judge(facts, &s.desired, &s.observed, &s.ledger, s.now)
}

#[test]
fn what_depends_on_it_waits_until_it_has_succeeded() {
    let s = begun(RestartPolicy::OnFailure);
    assert_eq!(phase(&s, "job-1"), PodPhase::Starting);
    let s = done();
    assert_eq!(phase(&s, "job-1"), PodPhase::Succeeded);
    assert_eq!(s.status().phase, Phase::Stabilising);
}

#[test]
fn after_a_reboot_it_is_done_without_a_pod() {
    let mut s = done();
    s.observed.pods.clear();
    s.supervisor_restarts(Ledger::default());
    s.step(100, &["publish job 0, web 0", "create web-1"]);
    s.settle(110);
    s.rests(120);
    assert_eq!(s.pods(), ["web-1"]);
    assert_eq!(s.status().phase, Phase::Stabilising);
}

#[test]
fn another_form_of_it_runs_and_the_same_does_not() {
    let mut s = done();
    s.bundle([("job", job("a", RestartPolicy::OnFailure)), ("web", after_it("b"))]);
    assert!(!s.settle(2_000).iter().any(|line| line.contains("job-")));
    s.settle(4_000);
    s.bundle([("job", job("b", RestartPolicy::OnFailure)), ("web", after_it("b"))]);
    s.step(5_000, &["remove job-1"]);
    s.step(5_010, &["create job-2"]);
}

#[test]
fn a_person_cannot_have_it_run_again() {
    let mut s = done();
    s.desired.replace.insert(name("job-1"));
    s.rests(2_000);
}

#[test]
fn one_that_runs_goes_before_its_other_form_comes() {
    let mut s = begun(RestartPolicy::OnFailure);
    s.futile.insert("terminate".into());
    s.bundle([("job", job("b", RestartPolicy::OnFailure)), ("web", after_it("a"))]);
    s.step(1_000, &["terminate job-1"]);
    // That it ends well now is nobody's success.
    s.exits("job-1", Exit::Code(0), 1_100);
    s.step(1_100, &["remove job-1"]);
    s.step(1_110, &["create job-2"]);
    assert!(s.observed.succeeded.is_empty());
}

#[test]
fn on_failure_it_is_started_again_up_to_its_limit() {
    let mut s = begun(RestartPolicy::OnFailure);
    for (at, again) in [(1_000, 2_000), (3_000, 5_000)] {
        s.exits("job-1", Exit::Code(1), at);
        s.step(at, &[]);
        assert!(matches!(verdict(&s, 0), Verdict::UnderWay { .. }));
        s.step(again, &["start job-1/main"]);
    }
    s.exits("job-1", Exit::Code(7), 6_000);
    s.rests(6_000);
    let text = "job-1: the job has failed: it failed 3 times, more than its backoffLimit";
    assert_eq!(s.told(EventKind::ContainerFailed), [text]);
    s.rests(1_000_000);
    assert_eq!(phase(&s, "job-1"), PodPhase::Failed);
    let (pod, why) = (name("job-1"), JobFailure::BackoffLimit { failures: 3 });
    let cause = Cause::Job { pod, why, exit: Some(Exit::Code(7)) };
    assert_eq!(verdict(&s, 0), Verdict::Failed(cause));
}

#[test]
fn never_another_pod_comes_instead_up_to_its_limit() {
    let mut s = begun(RestartPolicy::Never);
    s.exits("job-1", Exit::Code(1), 1_000);
    s.step(1_000, &[]);
    // It stays for its output meanwhile.
    s.wakes_at(2_000);
    assert_eq!(phase(&s, "job-1"), PodPhase::Failed);
    s.step(2_000, &["remove job-1"]);
    s.step(2_010, &["create job-2"]);
    s.step(2_020, &["start job-2/main"]);
    s.exits("job-2", Exit::Code(1), 3_000);
    s.step(3_000, &[]);
    s.wakes_at(5_000);
    s.settle(5_000);
    s.exits("job-3", Exit::Signal(9), 6_000);
    s.rests(6_000);
    assert_eq!(s.pods(), ["job-3"]);
    let (pod, why) = (name("job-3"), JobFailure::BackoffLimit { failures: 3 });
    let cause = Cause::Job { pod, why, exit: Some(Exit::Signal(9)) };
    assert_eq!(verdict(&s, 0), Verdict::Failed(cause));
}

#[test]
fn past_its_deadline_it_is_stopped_and_has_failed() {
    let mut s = Scenario::new();
    let limits = Some(Job { backoff_limit: 2, deadline_seconds: Some(5) });
    let containers = vec![(name("helper"), Role::Sidecar), (name("main"), Role::Main)];
    let late = Workload { job: limits, containers, ..job("a", RestartPolicy::OnFailure) };
    s.bundle([("job", late)]);
    s.step(0, &["publish job 0", "create job-1"]);
    s.step(1_000, &["start job-1/helper"]);
    s.step(1_010, &["start job-1/main"]);
    s.step(1_020, &[]);
    s.wakes_at(6_000);
    s.futile.insert("terminate".into());
    s.step(6_000, &["terminate job-1/main"]);
    let text = "job-1: the job has failed: it did not succeed within 5 s";
    assert_eq!(s.told(EventKind::ContainerFailed), [text]);
    // Too late is too late.
    s.ends("job-1", "main", Exit::Code(0), 7_000);
    s.step(7_000, &["terminate job-1/helper"]);
    s.step(16_000, &["kill job-1/helper"]);
    s.rests(16_010);
    assert_eq!(phase(&s, "job-1"), PodPhase::Failed);
    assert!(s.observed.succeeded.is_empty());
    let (pod, why) = (name("job-1"), JobFailure::Deadline { seconds: 5 });
    assert_eq!(verdict(&s, 0), Verdict::Failed(Cause::Job { pod, why, exit: None }));
}

#[test]
fn another_generation_tries_it_anew() {
    let mut s = begun(RestartPolicy::Never);
    for at in [1_000, 10_000, 20_000] {
        let pod = s.pods()[0].to_owned();
        s.exits(&pod, Exit::Code(1), at);
        s.settle(at);
        s.settle(at + 5_000);
    }
    assert!(matches!(verdict(&s, 0), Verdict::Failed(_)));
    s.bundle([("job", job("a", RestartPolicy::Never)), ("web", after_it("b"))]);
    s.step(30_000, &["remove job-3"]);
    s.step(30_010, &["create job-4"]);
    assert!(matches!(verdict(&s, 0), Verdict::UnderWay { .. }));
}

#[test]
fn it_takes_as_long_as_it_takes() {
    let mut s = begun(RestartPolicy::OnFailure);
    let mut watch = Watch::default();
    for at in [100, 10_000_000] {
        s.step(at, &[]);
        let policy = UpgradePolicy { stable_seconds: 60, boots_max: 3, hold_seconds_max: 0 };
        let last_good = Generation(0);
        let facts = Facts { policy, last_good, boots: 0, fetched_bytes: 0, online: true };
        let verdict = watch.judge(facts, &s.desired, &s.observed, &s.ledger, s.now);
        assert_eq!(verdict, Verdict::UnderWay { wake_at: None });
    }
}

#[test]
fn a_supervisor_that_comes_back_goes_on_counting() {
    let mut s = begun(RestartPolicy::OnFailure);
    s.exits("job-1", Exit::Code(1), 1_000);
    s.step(1_000, &[]);
    let ledger = s.ledger.clone();
    s.supervisor_restarts(ledger);
    s.settle(2_000);
    s.exits("job-1", Exit::Code(1), 3_000);
    s.settle(3_000);
    s.settle(5_000);
    s.exits("job-1", Exit::Code(1), 6_000);
    s.settle(6_000);
    assert_eq!(phase(&s, "job-1"), PodPhase::Failed);
}

#[test]
fn one_that_has_failed_does_not_come_back_when_its_pod_is_lost() {
    let mut s = begun(RestartPolicy::OnFailure);
    for at in [1_000, 10_000, 20_000] {
        s.exits("job-1", Exit::Code(1), at);
        s.settle(at);
        s.settle(at + 5_000);
    }
    s.observed.pods.clear();
    s.rests(30_000);
    let text = s.status().pods[&name("job-2")].last_error.clone().unwrap();
    assert!(text.starts_with("the job has failed"), "{text}");
}
