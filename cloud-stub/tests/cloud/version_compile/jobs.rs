//! Jobs: what a template says of them, and what they cannot be.

use std::collections::BTreeSet;

use wherry_bundle::model::{Job, RestartPolicy, Strategy};

use super::{compiled, web};

pub const JOB: &str = "apiVersion: batch/v1
kind: Job
metadata: { name: web }
spec:
  backoffLimit: 3
  activeDeadlineSeconds: 90
  completions: 1
  template:
    spec:
      restartPolicy: OnFailure
      containers:
        - { name: one, ports: [{ containerPort: 80 }] }
";

/// As [`super::HONOURED`].
pub const HONOURED: [(&str, &str, &str); 7] = [
    ("Job.apiVersion", "batch/v1", "batch/v2"),
    ("Job.kind", "kind: Job", "kind: CronJob"),
    ("Job.metadata", "{ name: web }", "{ name: other }"),
    ("Job.spec", "spec:\n  backoff", "other:\n  backoff"),
    ("JobSpec.backoffLimit", "backoffLimit: 3", "backoffLimit: 0"),
    ("JobSpec.activeDeadlineSeconds", "activeDeadlineSeconds: 90", "activeDeadlineSeconds: 9"),
    ("JobSpec.template", "name: one", "name: two"),
];

#[test]
fn a_job_is_a_pod_that_goes_on_until_it_has_succeeded() {
    let compiled = compiled(JOB).unwrap();
    let job = web(&compiled);
    assert_eq!(job.job, Some(Job { backoff_limit: 3, deadline_seconds: Some(90) }));
    assert_eq!((job.replicas, job.strategy), (1, Strategy::Recreate));
    assert_eq!(job.pod.restart_policy, RestartPolicy::OnFailure);
    let text = JOB.replace("  backoffLimit: 3\n  activeDeadlineSeconds: 90\n", "");
    let plain = super::compiled(&text).unwrap();
    assert_eq!(web(&plain).job, Some(Job { backoff_limit: 6, deadline_seconds: None }));
    assert!(plain.deployments.iter().filter(|one| one.job.is_some()).count() == 1);
    assert_eq!(job.after.len(), BTreeSet::from(["db"]).len());
}

#[test]
fn what_a_job_cannot_be_is_told_with_line_and_path() {
    for (line, changed, wanted) in [
        (
            "      restartPolicy: OnFailure\n",
            "",
            "web.yaml:9: spec.template.spec: a Job's restartPolicy has to be there, and is Never or OnFailure",
        ),
        (
            "restartPolicy: OnFailure",
            "restartPolicy: Always",
            "web.yaml:10: spec.template.spec.restartPolicy: a Job's restartPolicy has to be there, and is Never or OnFailure",
        ),
        (
            "completions: 1",
            "completions: 2",
            "web.yaml:7: spec.completions: not supported: a job succeeds once: write more jobs",
        ),
        (
            "completions: 1",
            "parallelism: 2",
            "web.yaml:7: spec.parallelism: not supported: a job has one pod at a time: write more jobs",
        ),
        (
            "completions: 1",
            "ttlSecondsAfterFinished: 60",
            "web.yaml:7: spec.ttlSecondsAfterFinished: not supported: a pod that is done stays for its output, until another form comes or the node boots",
        ),
        (
            "backoffLimit: 3",
            "backoffLimit: -1",
            "web.yaml:5: spec.backoffLimit: must be a whole number from 0 to 1000",
        ),
        (
            "activeDeadlineSeconds: 90",
            "activeDeadlineSeconds: 0",
            "web.yaml:6: spec.activeDeadlineSeconds: must be a whole number from 1 to 2592000",
        ),
        (
            "containerPort: 80",
            "containerPort: 80, hostPort: 80",
            "web.yaml:12: spec.template.spec.containers[0].ports[0].hostPort: not supported: nothing leads to a Job's pod: use a Deployment",
        ),
    ] {
        assert!(JOB.contains(line), "{line}");
        let problems = compiled(&JOB.replacen(line, changed, 1)).unwrap_err();
        assert_eq!(problems, [wanted]);
    }
}
