//! Inputs and outputs of the reconciler.
//!
//! Desired state comes from a bundle, observed state from the kernel (through
//! the launcher), the ledger from the plan before. No type here has a setter:
//! each is built whole from what was read.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use wherry_bundle::message::{EventKind, Exit};
use wherry_bundle::model::{Layer, Protocol, RestartPolicy, Strategy};
use wherry_bundle::{Digest, Generation, Name};

/// Milliseconds on the boot clock (`CLOCK_BOOTTIME`), or a length of time.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

/// What has to run, from [`wherry_bundle::Bundle`] by [`Desired::of`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// 0 when no bundle was ever taken up: then nothing is desired, and
    /// nothing that runs is touched.
    pub generation: Generation,
    pub workloads: BTreeMap<Name, Workload>,
    /// Pods that a person asked to have replaced: they count as pods of
    /// another hash. Names that no longer exist mean nothing.
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
    pub after: BTreeSet<Name>,
    pub restart_policy: RestartPolicy,
    /// Between SIGTERM and SIGKILL.
    pub grace: Millis,
    pub containers: Vec<Name>,
    pub layers: BTreeSet<Layer>,
    pub host_network: bool,
    pub ports: Vec<PublishedPort>,
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
    pub pods: BTreeMap<Name, ObservedPod>,
    /// Layers whose files are whole and verified.
    pub layers: BTreeSet<Digest>,
    /// What the kernel publishes; `None` when that is not known, as after a
    /// restart of the supervisor.
    pub publication: Option<Publication>,
    /// Requests that were given to the executor and have not been answered:
    /// they are not to be repeated.
    pub in_flight: BTreeSet<Action>,
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
    /// What a pod of an older bundle was made with; a new bundle no longer
    /// says so.
    pub restart_policy: RestartPolicy,
    pub grace: Millis,
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

/// What only the reconciler knows: kept in RAM, and in a file below the run
/// folder so that a supervisor that comes back goes on where it was. It dies
/// with a reboot, as all pods do. Losing it costs promptness, never safety.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The serial that a deployment's next pod gets.
    pub next_serial: BTreeMap<Name, u32>,
    /// The host number of a deployment's service address; never reused while
    /// the ledger lives, so that a name looked up once stays right.
    pub service_addresses: BTreeMap<Name, u16>,
    pub pods: BTreeMap<Name, PodLedger>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodLedger {
    pub containers: BTreeMap<Name, ContainerLedger>,
    /// When all containers were first seen running together, as far as they
    /// still do.
    pub ready_since: Option<Millis>,
    /// It was available once: reported, and published.
    pub available: bool,
    pub stopping: Option<Stopping>,
    /// The last thing that went wrong with it, for people.
    pub last_error: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerLedger {
    pub restarts: u32,
    pub last_exit: Option<Exit>,
    /// Set while it waits for its next start.
    pub back_off: Option<BackOff>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackOff {
    pub attempt: u32,
    pub retry_at: Millis,
}

/// A pod on its way out. Each stage says when the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stopping {
    /// No longer published; connections under way may end.
    Draining {
        until: Millis,
    },
    /// Told to stop.
    Terminating {
        kill_at: Millis,
    },
    Killing,
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
    Fetch {
        layers: Vec<Layer>,
    },
    /// Namespace, cgroup, volumes and definitions of all containers, from the
    /// desired generation's bundle.
    CreatePod {
        pod: Name,
        deployment: Name,
        address: Option<u16>,
    },
    StartContainer {
        pod: Name,
        container: Name,
    },
    /// Ask all of the pod's running containers to stop, each by its signal.
    TerminatePod {
        pod: Name,
    },
    /// SIGKILL to everything in the pod's cgroup.
    KillPod {
        pod: Name,
    },
    /// Takes away what is left of a pod of which nothing runs.
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
    /// `None`: only an observation can change anything.
    pub wake_at: Option<Millis>,
    /// What became true just now, to be told to people.
    pub notices: Vec<CoreNotice>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreNotice {
    pub kind: EventKind,
    /// A pod's name, or empty.
    pub subject: String,
    pub text: String,
}
