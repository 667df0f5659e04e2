//! Whether the generation under way is good, has failed, or needs more time.
//!
//! Pure judgement beside the reconciler, on the boot clock. Changes no pod:
//! what follows from a verdict (which bundle is desired next, what is kept on
//! disk) is the supervisor's.
//!
//! - A generation that was good once is not judged again.
//! - It is *good* when all its pods were available for the stability window.
//! - With nothing to go back to, one that failed may still become good.
//! - It has *failed* when the node booted too often, when a container of one of
//!   its pods ends again and again, when a job has failed for good, or when a
//!   deployment came no further for its progress deadline.
//! - Progress is one more pod available, or more bytes of its layers: a thin
//!   uplink takes long, and that alone is no failure. Nor is one that is away:
//!   while layers are missing, only time with the cloud counts. A deployment
//!   that waits for another has no deadline meanwhile; the other one has.

use std::collections::BTreeMap;

use wherry_bundle::health::UpgradePolicy;
use wherry_bundle::message::{Cause, Exit};
use wherry_bundle::model::Role;
use wherry_bundle::{Digest, Generation, Name};

use crate::ledger::{FailedJob, Ledger};
use crate::model::{Desired, Millis, Observed, Workload};
use crate::order::{self, Gate};
use crate::pods::{self, Pod};
use crate::{jobs, publish, status};

/// Starts in a row without a stable run that count as a crash loop: with the
/// back-off between them, half a minute in which whatever it needs may come.
pub const CRASH_LOOP_STARTS: u32 = 6;

/// What the supervisor knows of the generation, apart from its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub policy: UpgradePolicy,
    /// The last generation that was good; 0 when there never was one.
    pub last_good: Generation,
    /// Boots since the generation was taken up, the one of that time not
    /// counted.
    pub boots: u32,
    /// What the node has of its layers, those under way included.
    pub fetched_bytes: u64,
    /// The cloud can be reached.
    pub online: bool,
}

/// How far each deployment came, and when. In RAM: a new supervisor gives the
/// deadline anew, as a reboot does, and the number of boots is bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    generation: Generation,
    progress: BTreeMap<Name, Progress>,
    /// Since when all pods are available.
    running_since: Option<Millis>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    hash: Digest,
    available: usize,
    fetched_bytes: u64,
    since: Millis,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to judge.
    Settled,
    /// To be asked again when something changes, and then at the latest.
    UnderWay {
        wake_at: Option<Millis>,
    },
    Good,
    /// With nothing to go back to this is for people to know.
    Failed(Cause),
}

impl Watch {
    /// Judges the generation of `desired`; `ledger` is that of the last plan.
    #[must_use]
    pub fn judge(
        &mut self,
        facts: Facts,
        desired: &Desired,
        observed: &Observed,
        ledger: &Ledger,
        now: Millis,
    ) -> Verdict {
        if desired.generation == Generation(0) || desired.generation <= facts.last_good {
            return Verdict::Settled;
        }
        if self.generation != desired.generation {
            *self = Self { generation: desired.generation, ..Self::default() };
        }
        let boot_loop = facts.boots > facts.policy.boots_max;
        let boot_loop = boot_loop.then_some(Cause::BootLoop { boots: facts.boots });
        if let Some(cause) = boot_loop.clone().filter(|_| facts.last_good != Generation(0)) {
            return Verdict::Failed(cause);
        }
        let pods = pods::all(observed, ledger);
        let desired = &*jobs::outstanding(desired, observed, ledger);
        let wanted = publish::wanted(desired, ledger, &pods);
        if status::node_phase(desired, observed, &pods, &wanted).is_running() {
            self.progress.clear();
            // A pod may have gone and come back since it was last judged.
            let newest = ledger.pods.values().filter_map(|entry| entry.available_since).max();
            let since = (*self.running_since.get_or_insert(now)).max(newest.unwrap_or_default());
            let stable = Millis(u64::from(facts.policy.stable_seconds).saturating_mul(1_000));
            let due = since.saturating_add(stable);
            return if now < due {
                Verdict::UnderWay { wake_at: Some(due) }
            } else {
                Verdict::Good
            };
        }
        self.running_since = None;
        if let Some(cause) = boot_loop
            .or_else(|| failed_job(desired, ledger))
            .or_else(|| crash_loop(desired, &pods, ledger))
        {
            return Verdict::Failed(cause);
        }
        self.watch_progress(desired, observed, ledger, &pods, facts, now)
    }

    fn watch_progress(
        &mut self,
        desired: &Desired,
        observed: &Observed,
        ledger: &Ledger,
        pods: &BTreeMap<Name, Pod>,
        facts: Facts,
        now: Millis,
    ) -> Verdict {
        let fetched_bytes = facts.fetched_bytes;
        let mut wake_at: Option<Millis> = None;
        for (name, workload) in &desired.workloads {
            let own = || pods.values().filter(|p| p.deployment == *name && is_new(p, workload));
            let available = own().filter(|pod| pod.counts_as_available()).count();
            let (waits, missing) =
                match order::gate(name, workload, desired, observed, ledger, pods) {
                    Gate::Dependency(_) | Gate::Failed(_) => (true, 0),
                    Gate::Layers(missing) => (!facts.online, missing),
                    Gate::Open => (false, 0),
                };
            // How long it takes is its own affair, and its deadline's.
            let has_begun =
                jobs::known(name, workload, ledger).is_some_and(|job| job.since.is_some());
            if waits || has_begun || available >= usize::from(workload.replicas) {
                self.progress.remove(name);
                continue;
            }
            let fresh = Progress { hash: workload.hash, available, fetched_bytes, since: now };
            let known = self.progress.entry(name.clone()).or_insert(fresh);
            let came_on = available > known.available || fetched_bytes > known.fetched_bytes;
            if came_on || known.hash != workload.hash {
                *known = fresh;
            }
            // A pod that was lost and came back is no progress.
            let due = known.since.saturating_add(workload.progress_deadline);
            if now >= due && missing > 0 {
                let seconds = workload.progress_deadline.0 / 1_000;
                let missing = u32::try_from(missing).unwrap_or(u32::MAX);
                let deployment = name.clone();
                return Verdict::Failed(Cause::Layers { deployment, seconds, missing });
            }
            if now >= due {
                let pod = own().find(|pod| !pod.counts_as_available()).map(|pod| pod.name.clone());
                let exit = pod.as_ref().and_then(|pod| last_exit(pod, ledger));
                let seconds = workload.progress_deadline.0 / 1_000;
                let deployment = name.clone();
                return Verdict::Failed(Cause::ProgressDeadline { deployment, seconds, pod, exit });
            }
            wake_at = Some(wake_at.map_or(due, |earlier| earlier.min(due)));
        }
        Verdict::UnderWay { wake_at }
    }
}

/// Of the form that the generation asks for.
fn is_new(pod: &Pod, workload: &Workload) -> bool {
    pod.stopping.is_none() && pod.hash == workload.hash
}

fn failed_job(desired: &Desired, ledger: &Ledger) -> Option<Cause> {
    let mut jobs = desired.workloads.iter();
    let failed = jobs.find_map(|(name, workload)| {
        // Another generation tries it anew.
        let known = jobs::known(name, workload, ledger)?;
        known.failed.clone().filter(|_| known.generation == desired.generation)
    });
    failed.map(|FailedJob { why, pod, exit }| Cause::Job { pod, why, exit })
}

fn crash_loop(desired: &Desired, pods: &BTreeMap<Name, Pod>, ledger: &Ledger) -> Option<Cause> {
    pods.values().find_map(|pod| {
        // Only what this generation brought is its fault.
        let workload = desired.workloads.get(&pod.deployment)?;
        if !is_new(pod, workload) || pod.generation != desired.generation {
            return None;
        }
        let entry = ledger.pods.get(&pod.name)?;
        // A job has its own limit.
        let counts = |container: &Name| {
            let mut own = workload.containers.iter();
            workload.job.is_none()
                || own.any(|(name, role)| name == container && *role == Role::Sidecar)
        };
        let mut containers = entry.containers.iter().filter(|(name, _)| counts(name));
        containers.find_map(|(container, known)| {
            let starts = known.attempts.count;
            // A start that failed has no exit; its deadline ends that.
            let exit = known.last_exit.filter(|_| starts >= CRASH_LOOP_STARTS)?;
            let (pod, container) = (pod.name.clone(), container.clone());
            Some(Cause::CrashLoop { pod, container, starts, exit })
        })
    })
}

fn last_exit(pod: &Name, ledger: &Ledger) -> Option<Exit> {
    let entry = ledger.pods.get(pod)?;
    let last = entry.containers.values().filter(|known| known.last_exit.is_some());
    last.max_by_key(|known| known.ended)?.last_exit
}
