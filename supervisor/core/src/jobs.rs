//! Deployments that are jobs: tried until they have succeeded once.
//!
//! - A job has *succeeded* when every ordinary container of a pod of it ended
//!   with 0. It is done then, for this form of its pod: what the supervisor
//!   remembers of that ([`Observed::succeeded`]) outlives pods and reboots, and
//!   a job that is done gets no pod any more. The one that it has stays, for
//!   its output.
//! - A pod that failed stays too, until its back-off is over and another comes
//!   in its place (`Never`); or its containers are started again (`OnFailure`).
//! - With one failure more than `backoffLimit`, or past its deadline, a job has
//!   *failed for good*: nothing of it is started again, what runs is told to
//!   stop, and its generation has failed. Another generation tries it anew.
//! - It takes as long as it takes: no progress is asked of it once it began.

use std::borrow::Cow;
use std::collections::BTreeMap;

use wherry_bundle::message::{EventKind, Exit, JobFailure};
use wherry_bundle::model::{Job, RestartPolicy, Role};
use wherry_bundle::{Digest, Name};

use crate::backoff;
use crate::draft::Draft;
use crate::ledger::{FailedJob, JobLedger, JobRun, Ledger, PodLedger};
use crate::model::{Desired, Millis, Observed, ObservedContainer, ObservedPod, Workload};
use crate::pods;

/// Brings the ledger up to what became of each job; those that have succeeded,
/// which the supervisor does not remember yet.
pub(crate) fn learn(
    desired: &Desired,
    ledger: &mut Ledger,
    draft: &mut Draft<'_>,
) -> BTreeMap<Name, Digest> {
    let Ledger { deployments, pods, .. } = ledger;
    let mut succeeded = BTreeMap::new();
    for (name, entry) in deployments.iter_mut().filter(|(_, entry)| entry.job.is_some()) {
        if desired.workloads.get(name).is_none_or(|workload| workload.job.is_none()) {
            // Should it come back, it begins anew.
            entry.job = None;
        }
    }
    for (name, workload) in &desired.workloads {
        let (Some(job), Some(entry)) = (workload.job, deployments.get_mut(name)) else { continue };
        if draft.observed.is_done(name, workload) {
            entry.job = None;
            continue;
        }
        let fresh = JobLedger::new(workload.hash, desired.generation);
        let before = entry.job.take().filter(|known| known.hash == workload.hash);
        // Whatever it lacked may have come with this generation.
        let lasts =
            |known: &JobLedger| known.failed.is_none() || known.generation == desired.generation;
        let before = before.filter(lasts);
        let anew = before.is_none();
        let mut known = before.unwrap_or(fresh);
        known.generation = desired.generation;
        let observed = draft.observed;
        let own = observed.pods.iter();
        let own = own.filter(|(_, pod)| pod.deployment == *name && pod.hash == workload.hash);
        for (pod, seen) in own {
            let Some(run) = pods.get_mut(pod).filter(|run| run.stopping.is_none()) else {
                continue;
            };
            if anew {
                run.replace |= run.job == Some(JobRun::Failed);
                run.containers.values_mut().for_each(|known| known.failures = 0);
            }
            if run.replace {
                continue;
            }
            known.since = known.since.or_else(|| first_start(seen));
            if run.job == Some(JobRun::Tried) && pods::has_succeeded(seen) {
                succeeded.insert(name.clone(), workload.hash);
            } else {
                known.learn_failures(job, pod, seen, run, draft);
            }
        }
        if !succeeded.contains_key(name) {
            known.learn_deadline(name, job, pods, draft);
        }
        entry.job = Some(known);
    }
    succeeded
}

/// What `desired` still asks for: a job that is done needs no pod, and keeps
/// the one in which it succeeded.
pub(crate) fn outstanding<'a>(
    desired: &'a Desired,
    observed: &Observed,
    ledger: &Ledger,
) -> Cow<'a, Desired> {
    let mut rest = Cow::Borrowed(desired);
    for (name, workload) in &desired.workloads {
        if workload.job.is_none() || !observed.is_done(name, workload) {
            continue;
        }
        let is_kept = observed.pods.iter().any(|(pod, seen)| {
            let entry = ledger.pods.get(pod);
            seen.deployment == *name
                && seen.hash == workload.hash
                && pods::has_succeeded(seen)
                && entry.is_some_and(|entry| entry.stopping.is_none() && !entry.replace)
        });
        if let Some(workload) = rest.to_mut().workloads.get_mut(name) {
            workload.replicas = u16::from(is_kept);
        }
    }
    rest
}

/// How far it is, if it is a job that is not done.
pub(crate) fn known<'a>(
    name: &Name,
    workload: &Workload,
    ledger: &'a Ledger,
) -> Option<&'a JobLedger> {
    workload.job?;
    let known = ledger.deployments.get(name)?.job.as_ref();
    known.filter(|known| known.hash == workload.hash)
}

pub(crate) fn failure_text(why: JobFailure) -> String {
    format!("the job has failed: {why}")
}

impl JobLedger {
    fn learn_failures(
        &mut self,
        job: Job,
        name: &Name,
        pod: &ObservedPod,
        run: &mut PodLedger,
        draft: &mut Draft<'_>,
    ) {
        if run.job == Some(JobRun::Tried) && pods::is_over(pod) {
            run.job = Some(JobRun::Failed);
            self.failures = self.failures.saturating_add(1);
        }
        let restarted = match pod.restart_policy {
            RestartPolicy::Never => 0,
            RestartPolicy::OnFailure | RestartPolicy::Always => failed_runs(pod, run),
        };
        let failures = self.failures.saturating_add(restarted);
        if self.failed.is_none() && failures > job.backoff_limit {
            self.fail(JobFailure::BackoffLimit { failures }, name, run, draft);
        }
        if self.failed.is_none() && run.job == Some(JobRun::Failed) {
            let due = last_end(pod).saturating_add(backoff::delay(self.failures));
            if draft.now >= due {
                run.replace = true;
            } else {
                draft.wake(due);
            }
        }
    }

    fn learn_deadline(
        &mut self,
        deployment: &Name,
        job: Job,
        pods: &mut BTreeMap<Name, PodLedger>,
        draft: &mut Draft<'_>,
    ) {
        let (Some(seconds), Some(since), None) = (job.deadline_seconds, self.since, &self.failed)
        else {
            return;
        };
        let seconds = u64::from(seconds);
        let due = since.saturating_add(Millis(seconds.saturating_mul(1_000)));
        if draft.now < due {
            draft.wake(due);
            return;
        }
        let tried = pods.iter_mut().find(|(name, run)| {
            let seen = draft.observed.pods.get(*name);
            run.stopping.is_none()
                && !run.replace
                && run.job.is_some()
                && seen.is_some_and(|seen| seen.deployment == *deployment && seen.hash == self.hash)
        });
        // Between two pods there is one soon.
        if let Some((name, run)) = tried {
            self.fail(JobFailure::Deadline { seconds }, name, run, draft);
        }
    }

    fn fail(&mut self, why: JobFailure, pod: &Name, run: &mut PodLedger, draft: &mut Draft<'_>) {
        run.job = Some(JobRun::Failed);
        let ended = run.containers.values().filter(|known| known.last_exit.is_some());
        let exit = ended.max_by_key(|known| known.ended).and_then(|known| known.last_exit);
        let text = failure_text(why);
        draft.notice(EventKind::ContainerFailed, pod.as_str(), &text);
        run.last_error = Some(text);
        self.failed = Some(FailedJob { why, pod: pod.clone(), exit });
    }
}

fn first_start(pod: &ObservedPod) -> Option<Millis> {
    let starts = pod.containers.values().filter_map(|state| match state {
        ObservedContainer::Defined => None,
        ObservedContainer::Running { since } => Some(*since),
        ObservedContainer::Exited { started, .. } => Some(*started),
    });
    starts.min()
}

fn last_end(pod: &ObservedPod) -> Millis {
    let ends = pod.containers.iter().filter_map(|(name, state)| match state {
        ObservedContainer::Exited { at, exit, .. } if *exit != Exit::Code(0) => {
            (pods::role(pod, name) != Role::Sidecar).then_some(*at)
        }
        ObservedContainer::Defined
        | ObservedContainer::Running { .. }
        | ObservedContainer::Exited { .. } => None,
    });
    ends.max().unwrap_or_default()
}

fn failed_runs(pod: &ObservedPod, run: &PodLedger) -> u32 {
    let own = run.containers.iter().filter(|(name, _)| pods::role(pod, name) != Role::Sidecar);
    own.map(|(_, known)| known.failures).fold(0, u32::saturating_add)
}
