//! One plan with its inputs, seen from outside: readings, and what must hold
//! for a plan by itself.

use std::borrow::Cow;
use std::collections::BTreeSet;

use wherry_bundle::Name;
use wherry_bundle::message::Exit;
use wherry_bundle::model::{RestartPolicy, Role, Strategy};
use wherry_core::ledger::{JobRun, Stopping};
use wherry_core::surge::MEMORY_MARGIN_BYTES;
use wherry_core::{
    Action, Desired, Health, Ledger, Millis, Observed, ObservedContainer, ObservedPod, Plan,
    Workload,
};

use crate::bugs::{Bug, decide};
use crate::promise::keeps;
use crate::world::{World, role_of};

/// One plan and its inputs.
pub struct Turn<'a> {
    pub desired: &'a Desired,
    pub observed: &'a Observed,
    pub before: &'a Ledger,
    pub plan: &'a Plan,
    pub now: Millis,
    pub bug: Option<Bug>,
    /// The plan is to be made a second time.
    pub again: bool,
}

impl Turn<'_> {
    pub fn is_orderly(&self) {
        let mut asked = BTreeSet::new();
        for action in &self.plan.actions {
            keeps!(Once, !self.observed.in_flight.contains(action), "{action:?} is under way");
            keeps!(Once, asked.insert(action), "{action:?} twice");
        }
        keeps!(Orderly, self.plan.wake_at.is_none_or(|at| at > self.now), "wakes in the past");
        if self.again {
            let again = decide(self.bug, self.desired, self.observed, self.before, self.now);
            keeps!(Orderly, again == *self.plan, "the same inputs, another plan");
        }
        // With all of it under way, there is nothing new to tell.
        let mut observed = Cow::Borrowed(self.observed);
        if !observed.failures.is_empty() || !self.plan.actions.is_empty() {
            let observed = observed.to_mut();
            observed.failures.clear();
            observed.in_flight.extend(self.plan.actions.iter().cloned());
        }
        let next = decide(self.bug, self.desired, &observed, &self.plan.ledger, self.now);
        keeps!(Once, next.notices.is_empty(), "told twice: {:?}", next.notices);
    }

    pub fn pods_of(&self, deployment: &Name) -> impl Iterator<Item = (&Name, &ObservedPod)> {
        self.observed.pods.iter().filter(move |(_, pod)| pod.deployment == *deployment)
    }

    /// It is to end, in order: it stops, or it is over.
    pub fn ends(&self, name: &Name, pod: &ObservedPod) -> bool {
        let Some(entry) = self.plan.ledger.pods.get(name) else { return false };
        entry.stopping.is_some() || is_over(pod) || entry.job == Some(JobRun::Failed)
    }

    pub fn begins_to_stop(&self, pod: &Name) -> bool {
        let stops = |ledger: &Ledger| ledger.pods.get(pod).is_some_and(|e| e.stopping.is_some());
        stops(&self.plan.ledger) && !stops(self.before)
    }

    pub fn is_creating(&self, name: &Name) -> bool {
        let creates =
            |action: &Action| matches!(action, Action::CreatePod { pod, .. } if pod == name);
        self.observed.in_flight.iter().any(creates)
    }

    /// A pod of `deployment` is being made: that many places are there.
    pub fn check_places(&self, deployment: &Name, workload: &Workload) {
        let short = self.is_short(deployment, workload);
        let exclusive = is_exclusive(workload) || short;
        let holds = |pod: &Name| {
            let stage = self.plan.ledger.pods.get(pod).and_then(|entry| entry.stopping);
            exclusive || !matches!(stage, Some(Stopping::Killing | Stopping::Removing))
        };
        let in_flight = self.observed.in_flight.iter();
        let coming = in_flight.chain(&self.plan.actions).filter_map(|a| created(a, deployment));
        let there = self.pods_of(deployment).map(|(pod, _)| pod.clone());
        let places: BTreeSet<Name> = there.chain(coming).filter(|pod| holds(pod)).collect();
        let (_, most) = bounds(workload, short);
        keeps!(Places, places.len() <= most, "{deployment}: {places:?}, {most} allowed");
        if workload.strategy == Strategy::Recreate {
            let old = self.pods_of(deployment).find(|(_, pod)| pod.hash != workload.hash);
            keeps!(Places, old.is_none(), "{deployment}: a new pod beside {old:?}");
        }
    }

    /// Pods that come beside old ones fit, all together, into what is free.
    pub fn check_memory(&self) {
        let Some(free) = self.observed.memory_available_bytes else { return };
        let mut spent = 0;
        let mut set_aside = 0;
        for (name, workload) in &self.desired.workloads {
            let entry = |pod: &Name| self.before.pods.get(pod);
            let stands = |pod: &Name| entry(pod).is_some_and(|entry| entry.stopping.is_none());
            let is_current = |pod: &Name, seen: &ObservedPod| {
                let replace = self.plan.ledger.pods.get(pod).is_some_and(|entry| entry.replace);
                seen.hash == workload.hash && !replace
            };
            let asked = |pod: &Name| {
                self.observed.pods.contains_key(pod)
                    || entry(pod).is_some_and(|entry| entry.attempts.count > 0)
            };
            let new = self.plan.actions.iter().filter_map(|action| created(action, name));
            let new = new.filter(|pod| !asked(pod)).count();
            let in_place = self.pods_of(name).filter(|(pod, _)| stands(pod)).count();
            let beside = (in_place + new).saturating_sub(usize::from(workload.replicas));
            let mut own = self.pods_of(name);
            if own.any(|(pod, seen)| seen.complete && stands(pod) && !is_current(pod, seen)) {
                spent += workload.memory_bytes * beside.min(new) as u64;
            }
            let unused = self.pods_of(name).filter(|(pod, seen)| {
                let started = seen.containers.values().any(|c| *c != ObservedContainer::Defined);
                !started && stands(pod) && is_current(pod, seen)
            });
            set_aside += workload.memory_bytes * unused.count() as u64;
        }
        let needed = spent + set_aside + MEMORY_MARGIN_BYTES;
        keeps!(Memory, spent == 0 || needed <= free, "{needed} bytes of {free} are spent");
    }

    /// Old pods are stopped first for want of memory; and that is so.
    pub fn is_short(&self, deployment: &Name, workload: &Workload) -> bool {
        let of = |ledger: &Ledger| {
            let entry = ledger.deployments.get(deployment);
            entry.is_some_and(|entry| entry.stop_first == Some(workload.hash))
        };
        let (before, now) = (of(self.before), of(&self.plan.ledger));
        if now && !before && !is_exclusive(workload) {
            let needed = workload.memory_bytes + MEMORY_MARGIN_BYTES;
            let free = self.observed.memory_available_bytes.unwrap();
            keeps!(Memory, free < needed, "{deployment}: {free} bytes are enough");
        }
        now
    }

    pub fn check_address(
        &self,
        pod: &Name,
        address: Option<u16>,
        workload: &Workload,
        world: &World,
    ) {
        keeps!(Orderly, address.is_none() == workload.host_network, "{pod}");
        let Some(address) = address else { return };
        let others = world.pods.iter().filter(|(name, _)| *name != pod);
        let mut used: Vec<u16> = others.filter_map(|(_, pod)| pod.address).collect();
        for action in self.observed.in_flight.iter().chain(&self.plan.actions) {
            if let Action::CreatePod { pod: other, address: Some(address), .. } = action
                && other != pod
            {
                used.push(*address);
            }
        }
        keeps!(Orderly, !used.contains(&address), "{pod}: address {address} is used");
    }
}

/// The pod of `deployment` that is made by `action`.
fn created(action: &Action, deployment: &Name) -> Option<Name> {
    match action {
        Action::CreatePod { pod, deployment: of, .. } if of == deployment => Some(pod.clone()),
        _ => None,
    }
}

/// Fewest pods available, most pods in place.
pub fn bounds(workload: &Workload, short: bool) -> (usize, usize) {
    let replicas = usize::from(workload.replicas);
    match workload.strategy {
        Strategy::Recreate => (0, replicas),
        Strategy::RollingUpdate { max_unavailable, .. } if is_exclusive(workload) || short => {
            (replicas.saturating_sub(usize::from(max_unavailable).max(1)), replicas)
        }
        Strategy::RollingUpdate { max_unavailable, max_surge } => (
            replicas.saturating_sub(usize::from(max_unavailable)),
            replicas + usize::from(max_surge),
        ),
    }
}

fn is_exclusive(workload: &Workload) -> bool {
    workload.strategy == Strategy::Recreate
        || workload.has_device
        || workload.has_claim
        || (workload.host_network && !workload.ports.is_empty())
}

pub fn is_running(state: &ObservedContainer) -> bool {
    matches!(state, ObservedContainer::Running { .. })
}

/// To be started, now or later.
pub fn wants_start(pod: &ObservedPod, name: &Name, state: ObservedContainer) -> bool {
    !is_over(pod) && wants_by_policy(pod, name, state)
}

/// What it was there for is done, or can no more be done.
pub fn is_over(pod: &ObservedPod) -> bool {
    let ended = |name: &Name, state: &ObservedContainer| {
        !is_running(state) && !wants_by_policy(pod, name, *state)
    };
    let mut mains = pod.containers.iter().filter(|(name, _)| role_of(pod, name) == Role::Main);
    let mut inits = pod.containers.iter().filter(|(name, _)| role_of(pod, name) == Role::Init);
    pod.complete
        && (mains.all(|(name, state)| ended(name, state))
            || inits.any(|(name, state)| ended(name, state) && !ended_well(state)))
}

pub fn has_succeeded(pod: &ObservedPod) -> bool {
    let mut own = pod.containers.iter().filter(|(name, _)| role_of(pod, name) != Role::Sidecar);
    is_over(pod) && own.all(|(_, state)| ended_well(state))
}

fn ended_well(state: &ObservedContainer) -> bool {
    matches!(state, ObservedContainer::Exited { exit: Exit::Code(0), .. })
}

fn wants_by_policy(pod: &ObservedPod, name: &Name, state: ObservedContainer) -> bool {
    let policy = match (role_of(pod, name), pod.restart_policy) {
        (Role::Main, policy) | (Role::Init, policy @ RestartPolicy::Never) => policy,
        (Role::Init, _) => RestartPolicy::OnFailure,
        (Role::Sidecar, _) => RestartPolicy::Always,
    };
    match (state, policy) {
        (ObservedContainer::Running { .. }, _) => false,
        (ObservedContainer::Defined, _) => true,
        (ObservedContainer::Exited { .. }, RestartPolicy::Always) => true,
        (ObservedContainer::Exited { .. }, RestartPolicy::Never) => false,
        (ObservedContainer::Exited { exit, .. }, RestartPolicy::OnFailure) => exit != Exit::Code(0),
    }
}

/// All run that are to run on.
pub fn runs_on(pod: &ObservedPod) -> bool {
    let mut all = pod.containers.iter();
    all.all(|(name, state)| is_running(state) || role_of(pod, name) == Role::Init)
}

/// A container before `name` is not where it has to be for it to start.
pub fn is_held(pod: &ObservedPod, name: &Name) -> bool {
    let is_first = pod.containers[name] == ObservedContainer::Defined;
    pod.order.iter().take_while(|(other, _)| other != name).any(|(other, role)| {
        let state = pod.containers[other];
        match role {
            Role::Main => false,
            Role::Init => !matches!(state, ObservedContainer::Exited { exit: Exit::Code(0), .. }),
            Role::Sidecar => {
                let sick = pod.unhealthy.contains(other);
                let ready = pod.health.get(other) != Some(&Health::NotReady);
                is_first && !(is_running(&state) && ready && !sick)
            }
        }
    })
}

pub fn ready_since(pod: &ObservedPod) -> Option<Millis> {
    let mut latest = None;
    let over = is_over(pod);
    let counts = |name: &Name| !over || role_of(pod, name) != Role::Sidecar;
    for (name, state) in pod.containers.iter().filter(|(name, _)| counts(name)) {
        let start = match *state {
            ObservedContainer::Running { .. } if pod.unhealthy.contains(name) => return None,
            ObservedContainer::Running { .. } if role_of(pod, name) == Role::Init => return None,
            ObservedContainer::Running { since } => match pod.health.get(name) {
                Some(Health::NotReady) => return None,
                Some(Health::Ready { since: ready }) => since.max(*ready),
                Some(Health::Unknown) | None => since,
            },
            ObservedContainer::Exited { exit: Exit::Code(0), started, .. }
                if !wants_start(pod, name, *state) =>
            {
                started
            }
            ObservedContainer::Exited { .. } | ObservedContainer::Defined => return None,
        };
        latest = latest.max(Some(start));
    }
    latest.filter(|_| pod.complete)
}

/// 1, 2, 4 … 300 s, in milliseconds.
pub fn wait(row: u32) -> u64 {
    (1_000_u64 << row.saturating_sub(1).min(20)).min(300_000)
}
