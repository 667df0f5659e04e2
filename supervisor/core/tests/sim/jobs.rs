//! What must hold of jobs, reckoned from the outside as in [`crate::checker`].

use std::collections::BTreeSet;

use wherry_bundle::message::JobFailure;
use wherry_bundle::model::{RestartPolicy, Role};
use wherry_bundle::{Digest, Generation, Name};
use wherry_core::ledger::{JobRun, Ledger, PodLedger};
use wherry_core::{Action, Desired, Millis, Observed, ObservedContainer, ObservedPod, Workload};

use crate::generate::{JOB, name};
use crate::promise::keeps;
use crate::turn::{Turn, has_succeeded, is_over};
use crate::world::role_of;

/// The tries of the one job that there is.
#[derive(Debug, Default)]
pub struct Jobs {
    form: Option<Digest>,
    /// Pods that failed, and ends of containers that are started again.
    failed_pods: BTreeSet<Name>,
    failed_runs: BTreeSet<(Name, Name, Millis)>,
    seen: BTreeSet<(Name, Name, Millis)>,
    first_start: Option<Millis>,
    /// The most that were allowed: another generation may allow fewer.
    most: usize,
    /// It has failed for good in this one.
    failed: Option<Generation>,
}

impl Jobs {
    pub fn check(&mut self, turn: &Turn<'_>) {
        let job = name(JOB);
        let Some(workload) = turn.desired.workloads.get(&job) else {
            let seen = std::mem::take(&mut self.seen);
            *self = Self { seen, ..Self::default() };
            return;
        };
        let limits = workload.job.unwrap();
        let is_done = turn.observed.succeeded.get(&job) == Some(&workload.hash);
        let anew = self.failed.is_some_and(|failed| failed != turn.desired.generation);
        let fresh = self.form != Some(workload.hash) || anew || is_done;
        if fresh {
            let seen = std::mem::take(&mut self.seen);
            *self = Self { form: Some(workload.hash), seen, ..Self::default() };
        }
        let succeeded = self.learn(turn, &job, workload, is_done || anew, fresh);
        keeps!(
            Jobs,
            turn.plan.succeeded.contains_key(&job) == (succeeded && !is_done),
            "{:?} are to be remembered",
            turn.plan.succeeded
        );
        let entry = turn.plan.ledger.deployments.get(&job);
        let failed = entry.and_then(|entry| entry.job.as_ref()?.failed.as_ref());
        let most = usize::try_from(limits.backoff_limit).unwrap();
        let tries = self.failed_pods.len() + self.failed_runs.len();
        match failed.map(|failed| failed.why) {
            None => {
                self.most = self.most.max(most);
                keeps!(Jobs, succeeded || tries <= self.most, "{tries} failures");
            }
            Some(JobFailure::BackoffLimit { .. }) => {
                keeps!(Jobs, self.failed.is_some() || tries > most, "failed for good by {tries}");
            }
            Some(JobFailure::Deadline { seconds }) => {
                let since = self.first_start.map_or(0, |start| turn.now.0 - start.0);
                let late = self.failed.is_some() || since >= seconds * 1_000;
                keeps!(Jobs, late, "late after {since} ms");
            }
        }
        if failed.is_some() {
            self.failed = Some(turn.desired.generation);
        }
        self.check_starts(turn, &job, workload, is_done);
    }

    /// Whether a pod has succeeded.
    fn learn(
        &mut self,
        turn: &Turn<'_>,
        job: &Name,
        workload: &Workload,
        ignored: bool,
        fresh: bool,
    ) -> bool {
        let mut succeeded = false;
        for (name, pod) in turn.pods_of(job).filter(|(_, pod)| pod.hash == workload.hash) {
            let stands = |ledger: &Ledger| {
                ledger.pods.get(name).is_none_or(|entry| {
                    entry.stopping.is_none() && entry.job != Some(JobRun::Failed)
                })
            };
            let stood = stands(turn.before);
            let ends = ends_badly(name, pod).filter(|end| self.seen.insert(end.clone()));
            let ends: Vec<_> = ends.collect();
            let Some(entry) = turn.plan.ledger.pods.get(name) else { continue };
            let replaced = entry.replace && entry.job != Some(JobRun::Failed);
            if ignored || !stood || replaced {
                continue;
            }
            self.first_start = self.first_start.into_iter().chain(starts(pod)).min();
            succeeded |= has_succeeded(pod);
            if pod.restart_policy != RestartPolicy::Never {
                self.failed_runs.retain(|(of, ..)| of == name);
                let winds_down = |entry: &PodLedger| entry.wind_down_until.is_some();
                let told = turn.before.pods.get(name).is_some_and(winds_down);
                self.failed_runs.extend(ends.into_iter().filter(|_| !fresh && !told));
            } else if is_over(pod) && !has_succeeded(pod) {
                self.failed_pods.insert(name.clone());
            }
        }
        succeeded
    }

    /// What has succeeded does not run again, nor what has failed for good.
    fn check_starts(&self, turn: &Turn<'_>, job: &Name, workload: &Workload, is_done: bool) {
        for action in &turn.plan.actions {
            let runs = match action {
                Action::CreatePod { deployment, .. } => deployment == job,
                Action::StartContainer { pod, container } => {
                    let seen = &turn.observed.pods[pod];
                    let is_job = seen.deployment == *job && seen.hash == workload.hash;
                    keeps!(Jobs, !(is_job && has_succeeded(seen)), "{pod} runs again");
                    is_job && role_of(seen, container) != Role::Sidecar
                }
                _ => false,
            };
            keeps!(Jobs, !(runs && is_done), "{action:?}: it has succeeded");
            let failed = self.failed == Some(turn.desired.generation);
            keeps!(Jobs, !(runs && failed), "{action:?}: it has failed for good");
        }
    }
}

/// Without what is done: a job that has succeeded keeps the pod in which it
/// did, and gets no other.
pub fn outstanding(desired: &Desired, observed: &Observed, ledger: &Ledger) -> Desired {
    let mut rest = desired.clone();
    let job = name(JOB);
    if let Some(workload) = rest.workloads.get_mut(&job)
        && observed.succeeded.get(&job) == Some(&workload.hash)
    {
        let kept = observed.pods.iter().filter(|(name, pod)| {
            let entry = ledger.pods.get(*name);
            pod.deployment == job
                && pod.hash == workload.hash
                && has_succeeded(pod)
                && entry.is_some_and(|entry| entry.stopping.is_none() && !entry.replace)
        });
        workload.replicas = kept.count().min(1).try_into().unwrap();
    }
    rest
}

fn ends_badly<'a>(
    name: &'a Name,
    pod: &'a ObservedPod,
) -> impl Iterator<Item = (Name, Name, Millis)> + 'a {
    pod.containers.iter().filter_map(move |(container, state)| match *state {
        ObservedContainer::Exited { exit, at, .. } => {
            let bad = exit != wherry_bundle::message::Exit::Code(0);
            let counts = bad && role_of(pod, container) != Role::Sidecar;
            counts.then(|| (name.clone(), container.clone(), at))
        }
        _ => None,
    })
}

fn starts(pod: &ObservedPod) -> impl Iterator<Item = Millis> + '_ {
    pod.containers.values().filter_map(|state| match *state {
        ObservedContainer::Defined => None,
        ObservedContainer::Running { since } => Some(since),
        ObservedContainer::Exited { started, .. } => Some(started),
    })
}
