//! What the reconciler remembers from one plan to the next.
//!
//! Kept in RAM, and in a file below the run folder so that a supervisor that
//! comes back goes on where it was. It dies with a reboot, as all pods do.
//! Losing it costs promptness, never safety: whatever matters is read from the
//! kernel again. Nobody but the reconciler changes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wherry_bundle::message::{Exit, JobFailure};
use wherry_bundle::{Digest, Generation, Name};

use crate::model::Millis;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub deployments: BTreeMap<Name, DeploymentLedger>,
    /// The highest serial of any deployment that was forgotten: what comes
    /// back under its name goes on above it.
    pub serial_floor: u32,
    /// The host number at which the search for a new pod's address begins: an
    /// address that was just given back is the last to be given out again.
    pub next_address: u16,
    /// Every pod that is there, and those that are about to be made.
    pub pods: BTreeMap<Name, PodLedger>,
    /// The last generation that was reported as running.
    pub running: Generation,
    /// Tries of publishing since it last succeeded.
    pub publish: Attempts,
    pub publish_error: Option<String>,
}

impl Ledger {
    /// Changes whenever the postcard form of this type does. A file of another
    /// schema counts as lost.
    pub const SCHEMA: u8 = 3;
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentLedger {
    /// The highest serial that a pod of it ever had; 0 before the first.
    pub last_serial: u32,
    /// The host number of its service address: never changes while it is
    /// remembered, so that a name looked up once stays right.
    pub service_address: Option<u16>,
    /// The hash of which all its replicas were once available together.
    pub reached: Option<Digest>,
    /// The form to which it goes with old pods stopped first, although its
    /// strategy has it otherwise; until it has reached it.
    pub stop_first: Option<Digest>,
    /// How far it is, if it is a job that is not done.
    pub job: Option<JobLedger>,
}

/// A job that has not succeeded yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLedger {
    /// Another form is another job.
    pub hash: Digest,
    /// The last one that asked for it.
    pub generation: Generation,
    /// The first start of a container of it: its deadline counts from here.
    pub since: Option<Millis>,
    /// Pods of it that have failed.
    pub failures: u32,
    /// For good.
    pub failed: Option<FailedJob>,
}

impl JobLedger {
    pub(crate) fn new(hash: Digest, generation: Generation) -> Self {
        Self { hash, generation, since: None, failures: 0, failed: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedJob {
    pub why: JobFailure,
    pub pod: Name,
    /// The last one that was seen.
    pub exit: Option<Exit>,
}

/// What a job's pod has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobRun {
    Tried,
    /// Nothing of it is started again.
    Failed,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodLedger {
    /// Set until the pod is there with all its containers.
    pub planned: Option<Planned>,
    pub containers: BTreeMap<Name, ContainerLedger>,
    /// The start (of its last container to start) since which it counts as
    /// available; another start means that it has to earn that anew.
    pub available_since: Option<Millis>,
    /// Connections are, or may be, led to it.
    pub published: bool,
    /// When that was last found to have ended.
    pub unpublished_at: Option<Millis>,
    /// A person asked for another in its place.
    pub replace: bool,
    pub stopping: Option<Stopping>,
    /// Of a job.
    pub job: Option<JobRun>,
    /// It stays and is over: what still runs of it is killed then.
    pub wind_down_until: Option<Millis>,
    /// Tries of the verb that its stage calls for: create, terminate, kill or
    /// remove.
    pub attempts: Attempts,
    /// The last thing that went wrong with it, for people.
    pub last_error: Option<String>,
}

/// A pod that is to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    pub deployment: Name,
    pub generation: Generation,
    pub hash: Digest,
    /// Given out when it is first asked for.
    pub address: Option<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerLedger {
    /// Starts after the first one, as far as they were seen.
    pub restarts: u32,
    pub last_exit: Option<Exit>,
    /// Ends by anything but 0, as far as they were seen, while it was to run.
    pub failures: u32,
    /// When the last start that was seen happened.
    pub started: Option<Millis>,
    /// When the last end that was reckoned with happened.
    pub ended: Option<Millis>,
    /// Starts in a row without a stable run.
    pub attempts: Attempts,
    /// It is being stopped for the sake of its health.
    pub ending: Option<Ending>,
}

/// A container that has to end: to be started again by the rules of back-off,
/// or because its pod ends in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// The start of the run that has to end; another one is another story.
    pub started: Millis,
    pub kill_at: Millis,
    /// Out of grace.
    pub killing: bool,
    pub attempts: Attempts,
}

/// How often something was tried, and when it may be tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    pub count: u32,
    /// The last one was answered with an error.
    pub failed: bool,
    pub not_before: Millis,
}

/// A pod on its way out. What is no longer served by anything running goes
/// straight to [`Self::Removing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stopping {
    /// Waits until the kernel no longer leads new connections to it.
    Unpublishing { give_up_at: Millis },
    /// Connections under way may end.
    Draining { until: Millis },
    /// Its own preparations are under way; they count against its grace.
    PreStopping { until: Millis, kill_at: Millis },
    /// Told to stop.
    Terminating { kill_at: Millis },
    /// Out of grace.
    Killing,
    /// Nothing of it runs.
    Removing,
}
