//! One pod at a time: what state it is in, and which of its containers are to
//! be started.
//!
//! Does not know deployments, other pods, or why a pod is there; what is new
//! since the last plan was learnt before ([`crate::learn`]).

use std::collections::BTreeMap;

use wherry_bundle::message::Exit;
use wherry_bundle::model::{RestartPolicy, Role};
use wherry_bundle::{Digest, Generation, Name};

use crate::draft::Draft;
use crate::ledger::{JobRun, Ledger, PodLedger, Stopping};
use crate::model::{Action, Health, Millis, Observed, ObservedContainer, ObservedPod, Workload};

/// A pod that is there or is about to be, as decisions need it.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub name: Name,
    pub deployment: Name,
    /// Whose bundle it was made from, or is to be.
    pub generation: Generation,
    pub hash: Digest,
    pub address: Option<u16>,
    /// The kernel has it, at least in part.
    pub present: bool,
    /// With all its containers defined.
    pub complete: bool,
    /// It was asked for at least once: something of it may be there, unseen.
    pub asked: bool,
    /// It was asked for, and that has not been answered.
    pub creating: bool,
    /// None of its containers ever ran: it takes no memory yet.
    pub unused: bool,
    /// A container is being started.
    pub starting: bool,
    /// A container runs, or is being started.
    pub alive: bool,
    /// Every container runs that is to run on: it can serve.
    pub running: bool,
    pub available: bool,
    pub replace: bool,
    pub stopping: Option<Stopping>,
}

impl Pod {
    /// It is what `workload` asks for, and nobody wants another in its place.
    pub fn is_current(&self, workload: &Workload) -> bool {
        self.hash == workload.hash && !self.replace && self.stopping.is_none()
    }

    /// Nothing was made of it: forgetting it is all it takes.
    pub fn is_mere_plan(&self) -> bool {
        !self.present && !self.asked
    }

    /// It is to be made, or made whole, and that is not under way.
    pub fn is_pending(&self) -> bool {
        !self.complete && !self.creating && self.stopping.is_none()
    }

    pub fn counts_as_available(&self) -> bool {
        self.available && self.stopping.is_none()
    }
}

/// Every pod of the ledger: each observed one and each planned one.
pub(crate) fn all(observed: &Observed, ledger: &Ledger) -> BTreeMap<Name, Pod> {
    let pods = ledger.pods.iter();
    pods.filter_map(|(name, entry)| Some((name.clone(), look(name, entry, observed)?))).collect()
}

fn look(name: &Name, entry: &PodLedger, observed: &Observed) -> Option<Pod> {
    let seen = observed.pods.get(name);
    let planned = entry.planned.as_ref();
    let states = || seen.into_iter().flat_map(|pod| pod.containers.values());
    let runs = |state: &ObservedContainer| matches!(state, ObservedContainer::Running { .. });
    let runs_on = |pod: &ObservedPod| {
        let mut all = pod.containers.iter();
        all.all(|(name, state)| runs(state) || role(pod, name) == Role::Init)
    };
    let ready_since = seen.and_then(|pod| standing(pod, entry, false));
    let starting = is_starting(name, observed);
    Some(Pod {
        name: name.clone(),
        deployment: seen.map(|p| &p.deployment).or(planned.map(|p| &p.deployment))?.clone(),
        generation: seen.map(|p| p.generation).or(planned.map(|p| p.generation))?,
        hash: seen.map(|p| p.hash).or(planned.map(|p| p.hash))?,
        address: seen.map_or_else(|| planned.and_then(|p| p.address), |pod| pod.address),
        present: seen.is_some(),
        complete: seen.is_some_and(|pod| pod.complete),
        asked: entry.attempts.count > 0 || entry.stopping.is_some(),
        creating: is_creating(name, observed),
        unused: states().all(|state| *state == ObservedContainer::Defined),
        starting,
        alive: starting || states().any(runs),
        running: ready_since.is_some() && seen.is_some_and(runs_on),
        available: ready_since.is_some() && entry.available_since == ready_since,
        replace: entry.replace,
        stopping: entry.stopping,
    })
}

/// The moment since which all containers run and are ready, or have done what
/// they were there for.
///
/// It comes from the kernel, so that no loss of memory takes a pod's
/// availability away.
pub(crate) fn ready_since(pod: &ObservedPod) -> Option<Millis> {
    if !pod.complete {
        return None;
    }
    // What a sidecar of it does says nothing any more.
    let over = is_over(pod);
    let counts = |name: &&Name| !over || role(pod, name) != Role::Sidecar;
    let names = pod.containers.keys().filter(counts);
    let starts = names.map(|name| container_ready_since(pod, name));
    starts.collect::<Option<Vec<_>>>()?.into_iter().max()
}

fn container_ready_since(pod: &ObservedPod, name: &Name) -> Option<Millis> {
    match *pod.containers.get(name)? {
        ObservedContainer::Running { .. } if pod.unhealthy.contains(name) => None,
        // What it is there for is not done.
        ObservedContainer::Running { .. } if role(pod, name) == Role::Init => None,
        ObservedContainer::Running { since } => match pod.health.get(name) {
            Some(Health::NotReady) => None,
            // Ready since a moment that its start need not reach.
            Some(Health::Ready { since: ready }) => Some(since.max(*ready)),
            Some(Health::Unknown) | None => Some(since),
        },
        ObservedContainer::Exited { exit: Exit::Code(0), started, .. } => {
            (!restarts(pod, name, Exit::Code(0))).then_some(started)
        }
        ObservedContainer::Exited { .. } | ObservedContainer::Defined => None,
    }
}

/// All that a pod was there for has ended for good, well or not: it only has
/// its sidecars left, if any.
pub(crate) fn is_over(pod: &ObservedPod) -> bool {
    let ended = |name: &Name, state: &ObservedContainer| match *state {
        ObservedContainer::Exited { exit, .. } => !restarts_by(own_policy(pod, name), exit),
        ObservedContainer::Defined | ObservedContainer::Running { .. } => false,
    };
    let failed = |state: &ObservedContainer| !exited_well(state);
    let of = |wanted: Role| pod.containers.iter().filter(move |(n, _)| role(pod, n) == wanted);
    pod.complete
        && ((of(Role::Main).next().is_some() && of(Role::Main).all(|(n, state)| ended(n, state)))
            || of(Role::Init).any(|(n, state)| ended(n, state) && failed(state)))
}

/// Every ordinary container of it has ended well, and none is started again.
pub(crate) fn has_succeeded(pod: &ObservedPod) -> bool {
    let mut all = pod.containers.iter();
    is_over(pod) && all.all(|(n, state)| role(pod, n) == Role::Sidecar || exited_well(state))
}

fn exited_well(state: &ObservedContainer) -> bool {
    matches!(state, ObservedContainer::Exited { exit: Exit::Code(0), .. })
}

pub(crate) fn role(pod: &ObservedPod, container: &Name) -> Role {
    let known = pod.order.iter().find(|(name, _)| name == container);
    known.map_or(Role::Main, |(_, role)| *role)
}

fn policy(pod: &ObservedPod, container: &Name) -> RestartPolicy {
    if is_over(pod) { RestartPolicy::Never } else { own_policy(pod, container) }
}

/// What a container's role makes of its pod's restart policy.
fn own_policy(pod: &ObservedPod, container: &Name) -> RestartPolicy {
    match (role(pod, container), pod.restart_policy) {
        (Role::Sidecar, _) => RestartPolicy::Always,
        (Role::Init, RestartPolicy::Always) => RestartPolicy::OnFailure,
        (Role::Init | Role::Main, policy) => policy,
    }
}

/// The first of those that go before `container` and keep it from starting. A
/// sidecar has to be ready for a first start only: it may fail later, as any
/// other may.
pub(crate) fn held_by<'a>(pod: &'a ObservedPod, container: &Name) -> Option<&'a Name> {
    let is_first = pod.containers.get(container) == Some(&ObservedContainer::Defined);
    let mut before = pod.order.iter().take_while(|(name, _)| name != container);
    let holds = |name: &Name, role: Role| match role {
        Role::Main => false,
        Role::Init => container_ready_since(pod, name).is_none(),
        Role::Sidecar => is_first && container_ready_since(pod, name).is_none(),
    };
    before.find(|(name, role)| holds(name, *role)).map(|(name, _)| name)
}

/// As [`ready_since`], with what was known of it before where nobody could ask
/// since. A pod of which nothing is known is taken for ready: it runs, and
/// taking it out of service would be our own doing. A job's pod is where it has
/// to be when it has succeeded.
pub(crate) fn standing(pod: &ObservedPod, entry: &PodLedger, adopted: bool) -> Option<Millis> {
    let since = ready_since(pod)?;
    match entry.job {
        Some(JobRun::Failed) => return None,
        Some(JobRun::Tried) if !has_succeeded(pod) => return None,
        Some(JobRun::Tried) | None => {}
    }
    let unknown = pod.health.iter().any(|(name, health)| {
        let runs = matches!(pod.containers.get(name), Some(ObservedContainer::Running { .. }));
        runs && *health == Health::Unknown
    });
    if unknown && !adopted {
        return entry.available_since.filter(|known| *known >= since);
    }
    Some(since)
}

/// Whether a container of `pod` that ended by `exit` is to be started again.
pub(crate) fn restarts(pod: &ObservedPod, container: &Name, exit: Exit) -> bool {
    restarts_by(policy(pod, container), exit)
}

fn restarts_by(policy: RestartPolicy, exit: Exit) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => exit != Exit::Code(0),
        RestartPolicy::Never => false,
    }
}

/// Whether the `state` of a container of `pod` calls for a start, now or after a wait.
pub(crate) fn wants_start(pod: &ObservedPod, container: &Name, state: ObservedContainer) -> bool {
    match state {
        ObservedContainer::Defined => !is_over(pod),
        ObservedContainer::Running { .. } => false,
        ObservedContainer::Exited { exit, .. } => restarts(pod, container, exit),
    }
}

/// Starts what is to run and does not, in the pod's order.
pub(crate) fn start_containers(
    name: &Name,
    pod: &ObservedPod,
    entry: &mut PodLedger,
    draft: &mut Draft<'_>,
) {
    let place = |container: &Name| pod.order.iter().position(|(other, _)| other == container);
    let mut waiting: Vec<&Name> = pod
        .containers
        .iter()
        .filter(|(name, state)| wants_start(pod, name, **state))
        .map(|(container, _)| container)
        .filter(|container| held_by(pod, container).is_none())
        .collect();
    waiting.sort_by_key(|container| place(container));
    for container in waiting {
        let known = entry.containers.entry(container.clone()).or_default();
        let start = Action::StartContainer { pod: name.clone(), container: container.clone() };
        draft.attempt(&mut known.attempts, start);
    }
}

pub(crate) fn is_creating(pod: &Name, observed: &Observed) -> bool {
    observed.in_flight.iter().any(|action| match action {
        Action::CreatePod { pod: other, .. } => other == pod,
        Action::Fetch { .. }
        | Action::StartContainer { .. }
        | Action::TerminateContainer { .. }
        | Action::KillContainer { .. }
        | Action::PreStop { .. }
        | Action::TerminatePod { .. }
        | Action::KillPod { .. }
        | Action::RemovePod { .. }
        | Action::Publish { .. } => false,
    })
}

fn is_starting(pod: &Name, observed: &Observed) -> bool {
    observed.in_flight.iter().any(|action| match action {
        Action::StartContainer { pod: other, .. } => other == pod,
        Action::Fetch { .. }
        | Action::CreatePod { .. }
        | Action::TerminateContainer { .. }
        | Action::KillContainer { .. }
        | Action::PreStop { .. }
        | Action::TerminatePod { .. }
        | Action::KillPod { .. }
        | Action::RemovePod { .. }
        | Action::Publish { .. } => false,
    })
}
