//! One plan with its inputs, seen from outside: readings, and what must hold
//! for a plan by itself.

use std::collections::BTreeSet;

use wherry_bundle::Name;
use wherry_bundle::message::Exit;
use wherry_bundle::model::{RestartPolicy, Strategy};
use wherry_core::ledger::Stopping;
use wherry_core::memory::MEMORY_MARGIN_BYTES;
use wherry_core::{
    Action, Desired, Health, Ledger, Millis, Observed, ObservedContainer, ObservedPod, Plan,
    Workload,
};

use crate::bugs::{Bug, decide};
use crate::world::World;

/// One plan and its inputs.
pub struct Turn<'a> {
    pub desired: &'a Desired,
    pub observed: &'a Observed,
    pub before: &'a Ledger,
    pub plan: &'a Plan,
    pub now: Millis,
    pub bug: Option<Bug>,
}

impl Turn<'_> {
    pub fn is_orderly(&self) {
        let mut asked = BTreeSet::new();
        for action in &self.plan.actions {
            assert!(!self.observed.in_flight.contains(action), "{action:?} is under way");
            assert!(asked.insert(action), "{action:?} twice");
        }
        assert!(self.plan.wake_at.is_none_or(|at| at > self.now), "wakes in the past");
        let again = decide(self.bug, self.desired, self.observed, self.before, self.now);
        assert_eq!(&again, self.plan, "the same inputs, another plan");
        // With all of it under way, there is nothing new to tell.
        let mut observed = self.observed.clone();
        observed.failures.clear();
        observed.in_flight.extend(self.plan.actions.iter().cloned());
        let next = decide(self.bug, self.desired, &observed, &self.plan.ledger, self.now);
        assert!(next.notices.is_empty(), "told twice: {:?}", next.notices);
    }

    pub fn pods_of(&self, deployment: &Name) -> impl Iterator<Item = (&Name, &ObservedPod)> {
        self.observed.pods.iter().filter(move |(_, pod)| pod.deployment == *deployment)
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
        let creates = |action: &Action| match action {
            Action::CreatePod { pod, deployment: of, .. } if of == deployment => Some(pod.clone()),
            _ => None,
        };
        let coming = self.observed.in_flight.iter().chain(&self.plan.actions).filter_map(creates);
        let there = self.pods_of(deployment).map(|(pod, _)| pod.clone());
        let places: BTreeSet<Name> = there.chain(coming).filter(|pod| holds(pod)).collect();
        let (_, most) = bounds(workload, short);
        assert!(places.len() <= most, "{deployment}: {places:?}, {most} allowed");
        if workload.strategy == Strategy::Recreate {
            let old = self.pods_of(deployment).find(|(_, pod)| pod.hash != workload.hash);
            assert!(old.is_none(), "{deployment}: a new pod beside {old:?}");
        }
    }

    /// Old pods are stopped first for want of memory; and that is so.
    pub fn is_short(&self, deployment: &Name, workload: &Workload) -> bool {
        let of = |ledger: &Ledger| {
            let entry = ledger.deployments.get(deployment);
            entry.is_some_and(|entry| entry.short == Some(workload.hash))
        };
        let (before, now) = (of(self.before), of(&self.plan.ledger));
        if now && !before {
            let needed = workload.memory_bytes.unwrap() + MEMORY_MARGIN_BYTES;
            let free = self.observed.memory_available_bytes.unwrap();
            assert!(free < needed, "{deployment}: {free} bytes are enough");
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
        assert_eq!(address.is_none(), workload.host_network, "{pod}");
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
        assert!(!used.contains(&address), "{pod}: address {address} is used");
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
    workload.strategy == Strategy::Recreate || (workload.host_network && !workload.ports.is_empty())
}

pub fn is_running(state: &ObservedContainer) -> bool {
    matches!(state, ObservedContainer::Running { .. })
}

pub fn ready_since(pod: &ObservedPod) -> Option<Millis> {
    let mut latest = None;
    for (name, state) in &pod.containers {
        let start = match *state {
            ObservedContainer::Running { .. } if pod.unhealthy.contains(name) => return None,
            ObservedContainer::Running { since } => match pod.health.get(name) {
                Some(Health::NotReady) => return None,
                Some(Health::Ready { since: ready }) => since.max(*ready),
                Some(Health::Unknown) | None => since,
            },
            ObservedContainer::Exited { exit: Exit::Code(0), started, .. }
                if pod.restart_policy != RestartPolicy::Always =>
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
