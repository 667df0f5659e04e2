//! A situation and what the reconciler makes of it, in short lines.
//!
//! `step` asks for a plan, compares it, and then does at once all that was
//! asked for, unless the test said that it fails or is never answered.

use std::collections::{BTreeMap, BTreeSet};

use wherry_bundle::message::{EventKind, Exit};
use wherry_bundle::model::{Layer, RestartPolicy, Role, Strategy};
use wherry_bundle::{Digest, Generation, Name};
use wherry_core::{
    Action, Desired, Ledger, Millis, NodeView, Observed, ObservedContainer, ObservedPod, Plan,
    Preparation, Workload, reconcile, status,
};

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// The hash of the form that is called `form`.
pub fn hash(form: &str) -> Digest {
    Digest::of(form.as_bytes())
}

pub fn layer(form: &str) -> Layer {
    Layer { digest: Digest::of(format!("layer of {form}").as_bytes()), size_bytes: 100 }
}

/// One container `main`, one replica, surge 1, nothing special.
pub fn workload(form: &str) -> Workload {
    Workload {
        hash: hash(form),
        replicas: 1,
        strategy: Strategy::RollingUpdate { max_unavailable: 0, max_surge: 1 },
        min_ready: Millis(0),
        progress_deadline: Millis(600_000),
        after: BTreeSet::new(),
        restart_policy: RestartPolicy::Always,
        job: None,
        grace: Millis(10_000),
        containers: vec![(name("main"), Role::Main)],
        layers: BTreeSet::from([layer(form)]),
        host_network: false,
        ports: Vec::new(),
        has_device: false,
        has_claim: false,
        memory_bytes: 0,
    }
}

#[derive(Debug, Default)]
pub struct Scenario {
    pub desired: Desired,
    pub observed: Observed,
    pub ledger: Ledger,
    pub now: Millis,
    pub last: Plan,
    /// Actions that begin so fail, as `create web-1`.
    pub failing: BTreeSet<String>,
    /// Actions that begin so are done without effect.
    pub futile: BTreeSet<String>,
    /// Of pods that are made from now on.
    pub preparation: Preparation,
}

impl Scenario {
    pub fn new() -> Self {
        Self::default()
    }

    /// A newer bundle, with these deployments only. Their layers are there.
    pub fn bundle<const N: usize>(&mut self, workloads: [(&str, Workload); N]) {
        self.bundle_without_layers(workloads);
        let layers = self.desired.workloads.values().flat_map(|w| &w.layers);
        self.observed.layers.extend(layers.map(|layer| layer.digest));
    }

    pub fn bundle_without_layers<const N: usize>(&mut self, workloads: [(&str, Workload); N]) {
        self.desired.generation = Generation(self.desired.generation.0 + 1);
        self.desired.workloads = workloads.map(|(text, w)| (name(text), w)).into();
    }

    /// The plan at `now` milliseconds has to be these actions; they are done.
    pub fn step(&mut self, now: u64, expected: &[&str]) {
        self.plan(now);
        let lines: Vec<String> = self.last.actions.iter().map(line).collect();
        assert_eq!(lines, expected, "at {now} ms; wake {:?}", self.last.wake_at);
        for action in self.last.actions.clone() {
            self.perform(&action);
        }
    }

    /// Steps until nothing is asked for any more: what was asked for.
    pub fn settle(&mut self, now: u64) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..100 {
            self.plan(now);
            if self.last.actions.is_empty() {
                return all;
            }
            for action in self.last.actions.clone() {
                all.push(line(&action));
                self.perform(&action);
            }
        }
        panic!("goes in circles: {all:?}");
    }

    pub fn plan(&mut self, now: u64) {
        self.now = Millis(now);
        self.last = reconcile(&self.desired, &self.observed, &self.ledger, self.now);
        self.ledger = self.last.ledger.clone();
        self.observed.succeeded.extend(self.last.succeeded.clone());
        self.observed.failures.clear();
        self.desired.replace.clear();
    }

    /// Nothing to do, nothing to wait for.
    pub fn rests(&mut self, now: u64) {
        self.step(now, &[]);
        assert_eq!(self.last.wake_at, None);
    }

    pub fn wakes_at(&self, at: u64) {
        assert_eq!(self.last.wake_at, Some(Millis(at)));
    }

    pub fn exits(&mut self, pod: &str, exit: Exit, at: u64) {
        for state in self.pod(pod).containers.values_mut() {
            if let ObservedContainer::Running { since } = *state {
                *state = ObservedContainer::Exited { exit, started: since, at: Millis(at) };
            }
        }
    }

    /// One container, at a time of its own.
    pub fn ends(&mut self, pod: &str, container: &str, exit: Exit, at: u64) {
        self.container_exits(pod, &name(container), exit, Millis(at));
    }

    fn container_exits(&mut self, pod: &str, container: &Name, exit: Exit, at: Millis) {
        let found = self.pod(pod);
        found.unhealthy.remove(container);
        if let Some(state) = found.containers.get_mut(container)
            && let ObservedContainer::Running { since } = *state
        {
            *state = ObservedContainer::Exited { exit, started: since, at };
        }
    }

    pub fn pod(&mut self, pod: &str) -> &mut ObservedPod {
        self.observed.pods.get_mut(&name(pod)).unwrap()
    }

    pub fn pods(&self) -> Vec<&str> {
        self.observed.pods.keys().map(Name::as_str).collect()
    }

    pub fn told(&self, kind: EventKind) -> Vec<String> {
        let notices = self.last.notices.iter().filter(|notice| notice.kind == kind);
        notices.map(|notice| format!("{}: {}", notice.subject, notice.text)).collect()
    }

    pub fn status(&self) -> NodeView {
        status(&self.desired, &self.observed, &self.ledger)
    }

    /// The supervisor died; with `ledger` lost or not.
    pub fn supervisor_restarts(&mut self, ledger: Ledger) {
        self.ledger = ledger;
        self.observed.publication = None;
        self.observed.fetching.clear();
    }

    pub fn perform(&mut self, action: &Action) {
        let text = line(action);
        if self.failing.iter().any(|start| text.starts_with(start.as_str())) {
            self.observed.failures.insert(action.clone(), "no luck".into());
            if matches!(action, Action::Publish { .. }) {
                self.observed.publication = None;
            }
            return;
        }
        if self.futile.iter().any(|start| text.starts_with(start.as_str())) {
            return;
        }
        match action {
            Action::Fetch { layers } => self.observed.fetching.clone_from(layers),
            Action::CreatePod { pod, deployment, address } => {
                let workload = &self.desired.workloads[deployment];
                let containers = workload.containers.iter().map(|(name, _)| name.clone());
                let made = ObservedPod {
                    deployment: deployment.clone(),
                    hash: workload.hash,
                    generation: self.desired.generation,
                    address: *address,
                    complete: true,
                    containers: containers.map(|c| (c, ObservedContainer::Defined)).collect(),
                    order: workload.containers.clone(),
                    restart_policy: workload.restart_policy,
                    grace: workload.grace,
                    health: BTreeMap::new(),
                    unhealthy: BTreeSet::new(),
                    preparation: self.preparation,
                };
                self.observed.pods.insert(pod.clone(), made);
            }
            Action::StartContainer { pod, container } => {
                let since = self.now;
                let running = ObservedContainer::Running { since };
                self.pod(pod.as_str()).containers.insert(container.clone(), running);
            }
            Action::TerminateContainer { pod, container } => {
                self.container_exits(pod.as_str(), container, Exit::Signal(15), self.now);
            }
            Action::KillContainer { pod, container } => {
                self.container_exits(pod.as_str(), container, Exit::Signal(9), self.now);
            }
            Action::PreStop { .. } => {}
            Action::TerminatePod { pod } => self.exits(pod.as_str(), Exit::Signal(15), self.now.0),
            Action::KillPod { pod } => self.exits(pod.as_str(), Exit::Signal(9), self.now.0),
            Action::RemovePod { pod } => {
                self.observed.pods.remove(pod);
            }
            Action::Publish { publication } => {
                self.observed.publication = Some(publication.clone());
            }
        }
    }
}

/// Such as `create web-1`; what is published as `publish db 1, web 2`, with
/// the number of pods of each service.
pub fn line(action: &Action) -> String {
    match action {
        Action::Fetch { layers } => format!("fetch {}", layers.len()),
        Action::CreatePod { pod, .. } => format!("create {pod}"),
        Action::StartContainer { pod, container } => format!("start {pod}/{container}"),
        Action::TerminateContainer { pod, container } => format!("terminate {pod}/{container}"),
        Action::KillContainer { pod, container } => format!("kill {pod}/{container}"),
        Action::PreStop { pod } => format!("prepare {pod}"),
        Action::TerminatePod { pod } => format!("terminate {pod}"),
        Action::KillPod { pod } => format!("kill {pod}"),
        Action::RemovePod { pod } => format!("remove {pod}"),
        Action::Publish { publication } => {
            let counts: BTreeMap<_, _> =
                publication.services.iter().map(|(name, s)| (name, s.pods.len())).collect();
            let counts: Vec<String> = counts.iter().map(|(n, c)| format!("{n} {c}")).collect();
            format!("publish {}", counts.join(", "))
        }
    }
}
