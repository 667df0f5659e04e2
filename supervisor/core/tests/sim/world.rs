//! The simulated node: kernel, launcher, executor and agent. It does what it
//! is asked with delays, in any order, and sometimes not; its programs end
//! when they like. It judges nothing.

use std::collections::{BTreeMap, BTreeSet};

use wherry_bundle::message::Exit;
use wherry_bundle::model::{Layer, RestartPolicy, Role};
use wherry_bundle::{Digest, Generation, Name};
use wherry_core::{
    Action, Desired, Health, Millis, Observed, ObservedContainer, ObservedPod, Publication,
    Workload,
};

use crate::generate::{self, Program};
use crate::rng::Rng;

#[derive(Debug)]
pub struct World {
    pub now: Millis,
    pub rng: Rng,
    /// Requests fail, programs crash, kills do nothing: only while this is on.
    pub faults: bool,
    /// The cloud can be reached.
    pub online: bool,
    /// Layers that the cloud does not have.
    pub withheld: BTreeSet<Digest>,
    pub pods: BTreeMap<Name, ObservedPod>,
    /// What a failed request left behind, and the supervisor has not seen.
    hidden: BTreeSet<Name>,
    pub layers: BTreeSet<Digest>,
    /// Jobs that somebody remembers: on the flash.
    pub succeeded: BTreeMap<Name, Digest>,
    /// What the kernel really does, whoever knows it.
    pub published: Publication,
    /// What the supervisor knows of that.
    known: Option<Publication>,
    fetching: Vec<Layer>,
    fetched_at: Option<Millis>,
    requests: BTreeMap<Action, Request>,
    failures: BTreeMap<Action, String>,
    /// When running containers are going to end, and how.
    ends: BTreeMap<(Name, Name), (Millis, Exit)>,
    /// When the readiness probes of running containers come to a verdict.
    ready: BTreeMap<(Name, Name), Millis>,
}

#[derive(Clone, Debug)]
struct Request {
    answer_at: Millis,
    /// What the executor makes a pod from: the bundle of when it was asked.
    pod: Option<(Generation, Workload)>,
}

impl World {
    pub fn new(rng: Rng, faults: bool) -> Self {
        Self {
            now: Millis(1_000),
            rng,
            faults,
            online: true,
            withheld: BTreeSet::new(),
            pods: BTreeMap::new(),
            hidden: BTreeSet::new(),
            layers: BTreeSet::new(),
            succeeded: BTreeMap::new(),
            published: Publication::default(),
            known: None,
            fetching: Vec::new(),
            fetched_at: None,
            requests: BTreeMap::new(),
            failures: BTreeMap::new(),
            ends: BTreeMap::new(),
            ready: BTreeMap::new(),
        }
    }

    /// What the supervisor sees. Failures are handed out once.
    pub fn observe(&mut self) -> Observed {
        let mut pods = self.pods.clone();
        pods.retain(|name, _| !self.hidden.contains(name));
        Observed {
            pods,
            layers: self.layers.clone(),
            damaged: BTreeMap::new(),
            succeeded: BTreeMap::new(),
            publication: self.known.clone(),
            // As programs come and go.
            memory_available_bytes: Some(self.rng.below(256) << 20),
            fetching: self.fetching.clone(),
            in_flight: self.requests.keys().cloned().collect(),
            failures: std::mem::take(&mut self.failures),
        }
    }

    pub fn ask(&mut self, action: Action, desired: &Desired) {
        if let Action::Fetch { layers } = action {
            self.fetching = layers;
            self.fetched_at = Some(self.later(5, 20_000));
            return;
        }
        let pod = match &action {
            Action::CreatePod { deployment, .. } => {
                Some((desired.generation, desired.workloads[deployment].clone()))
            }
            _ => None,
        };
        let slow = if self.faults && self.rng.chance(30) { 40_000 } else { 200 };
        let answer_at = self.later(1, slow);
        self.requests.insert(action, Request { answer_at, pod });
    }

    /// When something happens next by itself.
    pub fn next_event(&self) -> Option<Millis> {
        let answers = self.requests.values().map(|request| request.answer_at);
        let ends = self.ends.values().map(|(at, _)| *at);
        answers.chain(ends).chain(self.ready.values().copied()).chain(self.fetched_at).min()
    }

    /// Lets time pass up to `now`, and everything happen that is due.
    pub fn pass_to(&mut self, now: Millis) {
        self.now = now;
        let due: Vec<_> = self.ends.iter().filter(|(_, (at, _))| *at <= now).collect();
        let due: Vec<_> = due.into_iter().map(|(key, end)| (key.clone(), *end)).collect();
        for ((pod, container), (at, exit)) in due {
            self.end(&pod, &container, exit, at);
        }
        self.pass_probes();
        let due = self.requests.iter().filter(|(_, request)| request.answer_at <= now);
        let due: Vec<Action> = due.map(|(action, _)| action.clone()).collect();
        for action in due {
            let fails = self.faults && self.rng.chance(120);
            self.answer(&action, fails);
        }
        if self.fetched_at.is_some_and(|at| at <= now) {
            let missing: Vec<Layer> = self.fetching.clone();
            let comes = |layer: &&Layer| {
                self.online
                    && !self.layers.contains(&layer.digest)
                    && !self.withheld.contains(&layer.digest)
            };
            let next = missing.iter().find(comes).map(|layer| layer.digest);
            // Tried again by [`Self::cloud_is_back`] else.
            self.fetched_at = next.map(|_| self.later(5, 20_000));
            self.layers.extend(next);
            let Self { fetching, layers, .. } = self;
            fetching.retain(|layer| !layers.contains(&layer.digest));
        }
    }

    /// The supervisor dies and comes back: what was under way was done, or
    /// never heard of.
    pub fn restart_supervisor(&mut self) {
        let under_way: Vec<Action> = self.requests.keys().cloned().collect();
        for action in under_way {
            if self.rng.chance(500) {
                self.answer(&action, false);
            }
        }
        self.hidden.clear();
        self.requests.clear();
        self.failures.clear();
        self.known = None;
        self.fetching.clear();
        self.fetched_at = None;
        let running: Vec<(Name, Name)> = self.running().collect();
        for (pod, container) in running {
            let found = self.pods.get_mut(&pod).unwrap();
            if let Some(health) = found.health.get_mut(&container) {
                *health = Health::Unknown;
                let at = self.later(10, 10_000);
                self.ready.insert((pod, container), at);
            }
        }
    }

    fn pass_probes(&mut self) {
        let due: Vec<_> = self.ready.iter().filter(|(_, at)| **at <= self.now).collect();
        let due: Vec<_> = due.into_iter().map(|(key, at)| (key.clone(), *at)).collect();
        for ((pod, container), at) in due {
            self.ready.remove(&(pod.clone(), container.clone()));
            let Some(found) = self.pods.get_mut(&pod) else { continue };
            let Some(ObservedContainer::Running { since: start }) =
                found.containers.get(&container).copied()
            else {
                continue;
            };
            if generate::program_of(found.hash) == Program::NeverReady {
                found.health.insert(container, Health::NotReady);
                continue;
            }
            let unknown = found.health.get(&container) == Some(&Health::Unknown);
            let since = if unknown { start } else { at };
            found.health.insert(container, Health::Ready { since });
        }
    }

    /// The liveness probe of a program has failed.
    pub fn sicken_one(&mut self) {
        let running: Vec<(Name, Name)> = self.running().collect();
        if running.is_empty() {
            return;
        }
        let (pod, container) = self.rng.pick(&running).clone();
        let found = self.pods.get_mut(&pod).unwrap();
        if may_fail(found) {
            found.unhealthy.insert(container);
        }
    }

    /// A program says that it cannot serve, for a while.
    pub fn unready_one(&mut self) {
        let probed: Vec<(Name, Name)> = self.running().collect();
        let probed: Vec<_> = probed
            .into_iter()
            .filter(|(pod, container)| self.pods[pod].health.contains_key(container))
            .collect();
        if probed.is_empty() {
            return;
        }
        let (pod, container) = self.rng.pick(&probed).clone();
        self.pods.get_mut(&pod).unwrap().health.insert(container.clone(), Health::NotReady);
        let at = self.later(100, 30_000);
        self.ready.insert((pod, container), at);
    }

    /// Whatever kept layers from coming is over.
    pub fn cloud_is_back(&mut self) {
        self.online = true;
        self.withheld.clear();
        self.fetched_at = (!self.fetching.is_empty()).then(|| self.later(5, 20_000));
    }

    /// Only the layers outlive a loss of power.
    pub fn reboot(&mut self) {
        self.requests.clear();
        self.restart_supervisor();
        self.pods.clear();
        self.ends.clear();
        self.ready.clear();
        self.published = Publication::default();
        self.now = Millis(self.rng.between(500, 5_000));
    }

    /// Something makes a running container end, such as a lack of memory.
    pub fn crash_one(&mut self) {
        let running: Vec<(Name, Name)> = self.running().collect();
        if running.is_empty() {
            return;
        }
        let (pod, container) = self.rng.pick(&running).clone();
        // A program that is never started again would never be repaired.
        if may_fail(&self.pods[&pod]) {
            self.end(&pod, &container, Exit::Signal(9), self.now);
        }
    }

    /// A pod is gone without anybody having asked for it.
    pub fn lose_one(&mut self) {
        let pods = self.seen();
        if !pods.is_empty() {
            let pod = self.rng.pick(&pods).clone();
            self.remove(&pod);
        }
    }

    /// The pods that the supervisor knows.
    pub fn seen(&self) -> Vec<Name> {
        let seen = self.pods.keys().filter(|name| !self.hidden.contains(*name));
        seen.cloned().collect()
    }

    pub fn lose_a_layer(&mut self) {
        self.layers.pop_first();
    }

    fn later(&mut self, low: u64, high: u64) -> Millis {
        Millis(self.now.0 + self.rng.between(low, high))
    }

    fn running(&self) -> impl Iterator<Item = (Name, Name)> + '_ {
        self.pods.iter().flat_map(|(name, pod)| {
            let running = pod.containers.iter();
            let running =
                running.filter(|(_, state)| matches!(state, ObservedContainer::Running { .. }));
            running.map(|(container, _)| (name.clone(), container.clone()))
        })
    }

    fn answer(&mut self, action: &Action, fails: bool) {
        let Some(request) = self.requests.remove(action) else { return };
        // What fails may have been done in part.
        if !fails || self.rng.chance(300) {
            self.perform(action, request, fails);
        }
        if fails {
            let text = format!("made to fail, {}", self.rng.below(3));
            self.failures.insert(action.clone(), text);
            if matches!(action, Action::Publish { .. }) {
                self.known = None;
            }
        } else if let Action::Publish { publication } = action {
            self.known = Some(publication.clone());
        }
    }

    fn perform(&mut self, action: &Action, request: Request, in_part: bool) {
        match action {
            Action::Fetch { .. } => unreachable!("is never answered"),
            Action::CreatePod { pod, deployment, address } => {
                let (generation, workload) = request.pod.unwrap();
                let made = self.pods.entry(pod.clone()).or_insert_with(|| ObservedPod {
                    deployment: deployment.clone(),
                    hash: workload.hash,
                    generation,
                    address: *address,
                    complete: false,
                    containers: BTreeMap::new(),
                    order: workload.containers.clone(),
                    restart_policy: workload.restart_policy,
                    grace: workload.grace,
                    health: BTreeMap::new(),
                    unhealthy: BTreeSet::new(),
                    preparation: generate::preparation(deployment),
                });
                assert_eq!(
                    (made.hash, made.generation, made.address),
                    (workload.hash, generation, *address),
                    "{pod} is completed from another bundle"
                );
                if in_part && !made.complete {
                    self.hidden.insert(pod.clone());
                } else {
                    self.hidden.remove(pod);
                    made.complete = true;
                    for (container, _) in workload.containers {
                        made.containers.entry(container).or_insert(ObservedContainer::Defined);
                    }
                }
            }
            Action::StartContainer { pod, container } if !in_part => self.start(pod, container),
            Action::StartContainer { .. } => {}
            Action::TerminatePod { pod } => self.signal(pod, None, 15),
            Action::KillPod { pod } => self.signal(pod, None, 9),
            Action::TerminateContainer { pod, container } => {
                self.signal(pod, Some(container), 15);
            }
            Action::KillContainer { pod, container } => self.signal(pod, Some(container), 9),
            Action::PreStop { .. } => {}
            Action::RemovePod { pod } if !in_part => self.remove(pod),
            Action::RemovePod { .. } => {}
            Action::Publish { publication } => self.published = publication.clone(),
        }
    }

    fn start(&mut self, pod: &Name, container: &Name) {
        let Some(found) = self.pods.get_mut(pod) else { return };
        let state = found.containers.get_mut(container).unwrap();
        if matches!(state, ObservedContainer::Running { .. }) {
            return;
        }
        *state = ObservedContainer::Running { since: self.now };
        let role = role_of(found, container);
        if generate::is_probed(&found.deployment) && role != Role::Init {
            found.health.insert(container.clone(), Health::NotReady);
            let at = self.later(100, 20_000);
            self.ready.insert((pod.clone(), container.clone()), at);
        }
        let found = &self.pods[pod];
        let end = match generate::program_of(found.hash) {
            _ if role == Role::Sidecar => None,
            _ if role == Role::Init => {
                let fails = self.faults && self.rng.chance(250);
                Some((self.later(1, 5_000), Exit::Code(fails.into())))
            }
            Program::RunsOn | Program::NeverReady => None,
            Program::Completes if self.faults && is_job(found) && self.rng.chance(400) => {
                Some((self.later(1, 9_000), Exit::Code(1)))
            }
            Program::Completes => Some((self.later(1, 30_000), Exit::Code(0))),
            // Now and then it runs long enough to count as stable.
            Program::Crashes if self.faults && self.rng.chance(50) => {
                Some((self.later(600_000, 700_000), Exit::OutOfMemory))
            }
            Program::Crashes => Some((self.later(1, 4_000), Exit::Code(1))),
        };
        if let Some(end) = end {
            self.ends.insert((pod.clone(), container.clone()), end);
        }
    }

    fn signal(&mut self, pod: &Name, container: Option<&Name>, signal: u8) {
        let meant = |(of, name): &(Name, Name)| of == pod && container.is_none_or(|c| c == name);
        let hit: Vec<(Name, Name)> = self.running().filter(meant).collect();
        for key in hit {
            let deaf = if signal == 9 { self.faults && self.rng.chance(200) } else { false };
            let slow = signal == 15 && self.rng.chance(250);
            if !deaf && !slow {
                let most = if signal == 9 { 20 } else { 2_000 };
                // A tidy program may take the signal for the end of its work.
                let tidy = signal == 15 && is_job(&self.pods[&key.0]) && self.rng.chance(500);
                let exit = if tidy { Exit::Code(0) } else { Exit::Signal(signal) };
                let end = (self.later(1, most), exit);
                self.ends.insert(key, end);
            }
        }
    }

    fn remove(&mut self, pod: &Name) {
        self.pods.remove(pod);
        self.hidden.remove(pod);
        self.ends.retain(|(name, _), _| name != pod);
        self.ready.retain(|(name, _), _| name != pod);
    }

    fn end(&mut self, pod: &Name, container: &Name, exit: Exit, at: Millis) {
        self.ends.remove(&(pod.clone(), container.clone()));
        self.ready.remove(&(pod.clone(), container.clone()));
        let found = self.pods.get_mut(pod).unwrap();
        found.unhealthy.remove(container);
        let state = found.containers.get_mut(container).unwrap();
        if let ObservedContainer::Running { since } = *state {
            *state = ObservedContainer::Exited { exit, started: since, at };
        }
    }
}

/// A job's pod is replaced.
fn may_fail(pod: &ObservedPod) -> bool {
    pod.restart_policy != RestartPolicy::Never || is_job(pod)
}

pub fn is_job(pod: &ObservedPod) -> bool {
    pod.deployment.as_str() == generate::JOB
}

pub fn role_of(pod: &ObservedPod, container: &Name) -> Role {
    pod.order.iter().find(|(name, _)| name == container).unwrap().1
}
