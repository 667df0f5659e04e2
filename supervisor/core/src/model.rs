//! Inputs and outputs of the reconciler.
//!
//! Desired state comes from a bundle, observed state from the kernel (through
//! the launcher), the ledger ([`crate::ledger`]) from the plan before. No type
//! here has a setter: each is built whole from what was read.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use wherry_bundle::message::{EventKind, Exit};
use wherry_bundle::model::{Job, Layer, Protocol, RestartPolicy, Role, Strategy};
use wherry_bundle::{Digest, Generation, Name};

use crate::ledger::Ledger;

/// Milliseconds on the boot clock (`CLOCK_BOOTTIME`), or a length of time.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// What has to run, from [`wherry_bundle::Bundle`] by [`Desired::of`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// 0 when no bundle was ever taken up: then nothing is desired, and
    /// nothing that runs is touched.
    pub generation: Generation,
    pub workloads: BTreeMap<Name, Workload>,
    /// Pods that a person asked to have replaced: they count as pods of
    /// another hash. Names that no longer exist mean nothing. Naming a pod to
    /// one reconcile is enough: the ledger remembers it.
    pub replace: BTreeSet<Name>,
}

/// A deployment, as far as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// [`wherry_bundle::Bundle::pod_hash`]: what a pod must be made of.
    pub hash: Digest,
    pub replicas: u16,
    pub strategy: Strategy,
    pub min_ready: Millis,
    /// Without progress for this long, an upgrade of it has failed.
    pub progress_deadline: Millis,
    pub after: BTreeSet<Name>,
    pub restart_policy: RestartPolicy,
    /// Its pod runs until it has succeeded once.
    pub job: Option<Job>,
    /// Between SIGTERM and SIGKILL.
    pub grace: Millis,
    /// In the order in which they start.
    pub containers: Vec<(Name, Role)>,
    pub layers: BTreeSet<Layer>,
    pub host_network: bool,
    pub ports: Vec<PublishedPort>,
    /// It has a device of the host.
    pub has_device: bool,
    /// It writes to a claim that only one of them at a time may write to.
    pub has_claim: bool,
    /// The most that the limits of its containers come to at one time; one
    /// that has none counts as 0.
    pub memory_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    pub protocol: Protocol,
    pub host_port: u16,
    pub container_port: u16,
}

/// What is, at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// As far as they are known: what a `CreatePod` that failed left behind
    /// need not be here.
    pub pods: BTreeMap<Name, ObservedPod>,
    /// Layers whose files are whole and verified.
    pub layers: BTreeSet<Digest>,
    /// Of the layers that are missing, those that were damaged on this node,
    /// with what people are to be told of it.
    pub damaged: BTreeMap<Digest, String>,
    /// The form of each job that has succeeded, as the supervisor remembers it:
    /// over reboots, which the pod in which it did does not outlive.
    pub succeeded: BTreeMap<Name, Digest>,
    /// What the kernel publishes; `None` when that is not known: after a
    /// restart of the supervisor, and after a `Publish` that failed, since it
    /// may have been done in part.
    pub publication: Option<Publication>,
    /// What new processes can have without swapping (`MemAvailable`), if it
    /// is known.
    pub memory_available_bytes: Option<u64>,
    /// The layers that the agent was told to fetch and has not fetched; empty
    /// when it knows of none, as after a restart of the supervisor. One that
    /// was fetched and lost again is not among them: it has to be asked for.
    pub fetching: Vec<Layer>,
    /// Requests that were given to the executor and have not been answered:
    /// they are not to be repeated. `Fetch` is never among them.
    pub in_flight: BTreeSet<Action>,
    /// Requests that were answered with an error since the last reconcile.
    /// Each failure is given to one reconcile only: it counts, and sets the
    /// time of the next try.
    pub failures: BTreeMap<Action, String>,
}

impl Observed {
    /// The job has succeeded in this form, and somebody remembers.
    #[must_use]
    pub fn is_done(&self, name: &Name, workload: &Workload) -> bool {
        self.succeeded.get(name) == Some(&workload.hash)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedPod {
    pub deployment: Name,
    pub hash: Digest,
    pub generation: Generation,
    /// Host number in the pods' subnet; `None` on the host network.
    pub address: Option<u16>,
    /// Its network namespace, cgroup and volumes are there, and all its
    /// containers are defined.
    pub complete: bool,
    pub containers: BTreeMap<Name, ObservedContainer>,
    /// All that it is to have, in the order in which they start.
    pub order: Vec<(Name, Role)>,
    /// What a pod of an older bundle was made with; a new bundle no longer
    /// says so.
    pub restart_policy: RestartPolicy,
    pub grace: Millis,
    /// What the readiness probes of running containers say; a container
    /// without a word here is ready from its start.
    pub health: BTreeMap<Name, Health>,
    /// Running containers whose startup or liveness probe has failed.
    pub unhealthy: BTreeSet<Name>,
    pub preparation: Preparation,
}

/// What is done in a pod before its containers are told to stop (`preStop`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preparation {
    /// Something is run in a container ([`Action::PreStop`]).
    pub runs: bool,
    /// The longest time that a container asked to be left alone.
    pub sleep: Millis,
}

/// What a running container's probes have come to, by their thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It ran before anybody who is there now asked: what was known of it
    /// holds until the first verdict.
    Unknown,
    NotReady,
    /// After [`Self::Unknown`], since its start.
    Ready {
        since: Millis,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObservedContainer {
    /// Defined, never started.
    Defined,
    Running {
        since: Millis,
    },
    Exited {
        exit: Exit,
        started: Millis,
        at: Millis,
    },
}

/// Which pods each service leads to. The launcher makes nftables rules and
/// every pod's `/etc/hosts` from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Publication {
    pub services: BTreeMap<Name, Service>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Service {
    /// Host number in the services' subnet.
    pub address: u16,
    /// Host numbers of available pods, ordered.
    pub pods: BTreeSet<u16>,
    pub ports: Vec<PublishedPort>,
}

/// An idempotent verb. The executor does it and reports what came of it; it
/// decides nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Get these layers, in this order of urgency; replaces the list before.
    /// Bounded by `IMAGES_MAX` × `LAYERS_MAX`. Trying again is the agent's.
    Fetch {
        layers: Vec<Layer>,
    },
    /// Namespace, cgroup, volumes and definitions of all containers, from the
    /// desired generation's bundle. Also completes a pod that is there in
    /// part.
    CreatePod {
        pod: Name,
        deployment: Name,
        address: Option<u16>,
    },
    StartContainer {
        pod: Name,
        container: Name,
    },
    /// Ask one running container to stop, by its signal.
    TerminateContainer {
        pod: Name,
        container: Name,
    },
    /// SIGKILL to everything in the container's cgroup.
    KillContainer {
        pod: Name,
        container: Name,
    },
    /// Do what the containers that run ask for before they are told to stop;
    /// answered when all of that is over, or failed.
    PreStop {
        pod: Name,
    },
    /// Ask all of the pod's running containers to stop, each by its signal.
    TerminatePod {
        pod: Name,
    },
    /// SIGKILL to everything in the pod's cgroup.
    KillPod {
        pod: Name,
    },
    /// Takes away what is left of a pod of which nothing runs. Succeeds if
    /// there is nothing.
    RemovePod {
        pod: Name,
    },
    Publish {
        publication: Publication,
    },
}

/// What to do, what to remember, and when to look again at the latest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub ledger: Ledger,
    /// Always after `now`. `None`: only an observation can change anything.
    pub wake_at: Option<Millis>,
    /// What became true just now, to be told to people.
    pub notices: Vec<CoreNotice>,
    /// Jobs that have succeeded and that [`Observed::succeeded`] does not have:
    /// to be remembered before an action is begun, since what depends on them
    /// may be among those.
    pub succeeded: BTreeMap<Name, Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreNotice {
    pub kind: EventKind,
    /// A pod's name, or empty.
    pub subject: String,
    pub text: String,
}
