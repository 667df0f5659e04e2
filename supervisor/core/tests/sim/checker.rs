//! What must hold for every plan, reckoned from the outside: from what is
//! observed and what was asked for, not from the reconciler's own helpers.

use std::collections::{BTreeMap, BTreeSet};

use wherry_bundle::message::EventKind;
use wherry_bundle::model::Role;
use wherry_bundle::{Digest, Generation, Name};
use wherry_core::ledger::{JobRun, Planned, PodLedger};
use wherry_core::stopping::{DRAIN, LAST_GRACE, UNPUBLISH_MAX};
use wherry_core::{
    Action, Desired, Health, Ledger, Millis, Observed, ObservedContainer, ObservedPod, Plan,
    Preparation, Workload,
};

use crate::jobs::Jobs;
use crate::promise::keeps;
use crate::turn::{
    Turn, bounds, has_succeeded, is_held, is_running, ready_since, runs_on, wait, wants_start,
};
use crate::world::{World, is_job, role_of};

/// What the checker remembers; it starts over when the ledger is lost.
#[derive(Debug, Default)]
pub struct Checker {
    /// The start for which a pod was found to be available.
    available: BTreeMap<Name, Millis>,
    reached: BTreeMap<Name, Digest>,
    /// Failures and quick ends in a row, and when the next try may come.
    rows: BTreeMap<Action, (u32, Millis)>,
    asked: BTreeMap<Action, Millis>,
    counted_ends: BTreeSet<(Name, Name, Millis)>,
    replace: BTreeSet<Name>,
    seen: BTreeSet<Name>,
    gone: BTreeSet<Name>,
    published: BTreeMap<Name, Millis>,
    stop_began: BTreeMap<Name, Millis>,
    running_told: Generation,
    /// Since when a pod that stays is over.
    over: BTreeMap<Name, Millis>,
    jobs: Jobs,
}

impl Checker {
    /// What runs when the ledger is lost keeps its names.
    pub fn adopt(&mut self, world: &World) {
        self.seen = world.pods.keys().cloned().collect();
    }

    pub fn check(&mut self, turn: &Turn<'_>, world: &World) {
        let Turn { desired, observed, before, plan, .. } = *turn;
        turn.is_orderly();
        if desired.generation == Generation(0) {
            let nothing = Plan { ledger: before.clone(), ..Plan::default() };
            keeps!(Once, *plan == nothing, "{plan:?} without a bundle");
            return;
        }
        self.learn(turn, world);
        for (name, pod) in &observed.pods {
            if turn.begins_to_stop(name) {
                self.stop_began.insert(name.clone(), turn.now);
                self.check_untouched(turn, name, pod);
            }
        }
        for (name, workload) in &desired.workloads {
            self.check_availability(turn, name, workload);
        }
        turn.check_memory();
        for (name, pod) in &observed.pods {
            if turn.ends(name, pod) && plan.ledger.pods[name].stopping.is_none() {
                self.over.entry(name.clone()).or_insert(turn.now);
            }
        }
        self.jobs.check(turn);
        self.check_no_start_is_late(turn);
        for action in &plan.actions {
            self.forget_earlier_run(turn, action);
            self.check_pace(turn, action);
            match action {
                Action::CreatePod { pod, deployment, address } => {
                    let workload = &desired.workloads[deployment];
                    turn.check_places(deployment, workload);
                    turn.check_address(pod, *address, workload, world);
                    if self.seen.insert(pod.clone()) {
                        self.check_dependencies(turn, workload, deployment);
                    }
                    keeps!(Orderly, !self.gone.contains(pod), "{pod}: serial used twice");
                    let here = workload.layers.iter().all(|l| observed.layers.contains(&l.digest));
                    keeps!(Orderly, here, "{pod} is made without its layers");
                }
                Action::StartContainer { pod, container } => {
                    let held = is_held(&observed.pods[pod], container);
                    keeps!(Order, !held, "{pod}/{container} starts before its time");
                    keeps!(Orderly, observed.pods[pod].complete, "{pod} is started in part");
                    keeps!(
                        Orderly,
                        plan.ledger.pods[pod].stopping.is_none(),
                        "{pod} stops and starts"
                    );
                    let seen = &observed.pods[pod];
                    let own = desired.workloads.get(&seen.deployment);
                    let own = own.filter(|workload| workload.hash == seen.hash);
                    let layers = own.into_iter().flat_map(|workload| &workload.layers);
                    let here = layers.into_iter().all(|l| observed.layers.contains(&l.digest));
                    keeps!(Orderly, here, "{pod} is started without its layers");
                }
                Action::TerminatePod { pod } => {
                    let served = observed.pods[pod].order.iter();
                    let served = served.filter(|(_, role)| *role == Role::Sidecar).count() == 0;
                    keeps!(Order, served, "{pod}: sidecars stop together with the others");
                    self.check_prepared(turn, pod);
                }
                Action::PreStop { pod } => {
                    self.check_drained(turn, pod);
                    keeps!(
                        Once,
                        observed.pods[pod].preparation.runs,
                        "{pod} has nothing to prepare"
                    );
                }
                Action::TerminateContainer { pod, container } => {
                    let seen = &observed.pods[pod];
                    if turn.ends(pod, seen) {
                        check_order_of_ends(turn, pod, container);
                        if plan.ledger.pods[pod].stopping.is_some() {
                            self.check_prepared(turn, pod);
                        }
                        self.ask(action, turn.now);
                        continue;
                    }
                    let sick = seen.unhealthy.contains(container);
                    keeps!(Once, sick || self.rows.contains_key(action), "{pod} is not sick");
                }
                Action::KillContainer { pod, container } => {
                    let (of, grace) = (pod.clone(), observed.pods[pod].grace.0);
                    if let Some(over) = self.over.get(pod) {
                        let grace = observed.pods[pod].grace.0;
                        keeps!(Grace, turn.now.0 - over.0 >= grace, "{pod} is over, killed early");
                        self.ask(action, turn.now);
                        continue;
                    }
                    let told = Action::TerminateContainer { pod: of, container: container.clone() };
                    let told = self.asked.get(&told).map(|at| turn.now.0 - at.0);
                    let early = told.is_none_or(|ago| ago < grace);
                    keeps!(Grace, !early || grace == 0, "{pod} is killed early");
                }
                Action::KillPod { pod } => self.check_grace(turn, pod),
                Action::RemovePod { pod } => {
                    let runs = turn.observed.pods.get(pod);
                    let runs = runs.is_some_and(|p| p.containers.values().any(is_running));
                    keeps!(
                        Grace,
                        !runs || self.asked.contains_key(action),
                        "{pod} is removed alive"
                    );
                }
                Action::Publish { publication } => {
                    for (name, service) in &publication.services {
                        for address in &service.pods {
                            self.check_published(turn, name, *address);
                        }
                    }
                }
                Action::Fetch { .. } => {}
            }
            self.ask(action, turn.now);
        }
        for notice in &plan.notices {
            if notice.kind == EventKind::GenerationRunning {
                keeps!(Once, desired.generation != self.running_told, "told twice");
                self.running_told = desired.generation;
            }
        }
    }

    /// What was done to a container before it was started again is over.
    fn forget_earlier_run(&mut self, turn: &Turn<'_>, action: &Action) {
        let (Action::TerminateContainer { pod, container }
        | Action::KillContainer { pod, container }) = action
        else {
            return;
        };
        let state = turn.observed.pods[pod].containers[container];
        let ObservedContainer::Running { since } = state else { panic!("{action:?}: ended") };
        if self.asked.get(action).is_some_and(|asked| *asked < since) {
            self.asked.remove(action);
            self.rows.remove(action);
        }
    }

    /// A generation that counts as good is there, with all its pods available.
    pub fn check_good(&self, desired: &Desired, observed: &Observed, ledger: &Ledger) {
        for (name, workload) in &desired.workloads {
            let own = observed.pods.iter().filter(|(_, pod)| pod.deployment == *name);
            let up = own.filter(|(name, pod)| {
                pod.hash == workload.hash
                    && ledger.pods.get(*name).is_some_and(|entry| entry.available_since.is_some())
            });
            keeps!(
                Judged,
                up.count() == usize::from(workload.replicas),
                "{name}: good without its pods"
            );
        }
    }

    /// Grace counts from the first signal, should sending it have failed.
    fn ask(&mut self, action: &Action, now: Millis) {
        let asked = self.asked.entry(action.clone()).or_insert(now);
        if !matches!(action, Action::TerminatePod { .. } | Action::TerminateContainer { .. }) {
            *asked = now;
        }
    }

    fn learn(&mut self, turn: &Turn<'_>, world: &World) {
        let is_done = |name: &Name| {
            let pod = turn.observed.pods.get(name);
            pod.is_some_and(|pod| is_job(pod) && has_succeeded(pod))
        };
        let named = turn.desired.replace.iter().filter(|name| !is_done(name));
        self.replace.extend(named.cloned());
        for name in &self.seen {
            let coming = turn.is_creating(name);
            if !turn.observed.pods.contains_key(name)
                && !coming
                && !turn.plan.ledger.pods.contains_key(name)
            {
                self.gone.insert(name.clone());
            }
        }
        for (name, pod) in &turn.observed.pods {
            self.seen.insert(name.clone());
            let min_ready = turn.desired.workloads.get(&pod.deployment).map(|w| w.min_ready);
            let adopted = !turn.before.pods.contains_key(name);
            match self
                .standing(name, pod, adopted)
                .filter(|_| is_where_it_has_to_be(name, pod, turn.before))
            {
                Some(since) if turn.now.0 >= since.0 + min_ready.unwrap_or_default().0 => {
                    if turn.before.pods.get(name).is_none_or(|entry| entry.stopping.is_none()) {
                        self.available.insert(name.clone(), since);
                    }
                }
                Some(since) if self.available.get(name) == Some(&since) => {}
                Some(_) | None => {
                    self.available.remove(name);
                }
            }
            for (container, state) in &pod.containers {
                if let ObservedContainer::Exited { started, at, .. } = *state
                    && self.counted_ends.insert((name.clone(), container.clone(), at))
                {
                    let (pod, container) = (name.clone(), container.clone());
                    let row =
                        self.rows.entry(Action::StartContainer { pod, container }).or_default();
                    row.0 = if at.0 - started.0 >= 600_000 { 1 } else { row.0 + 1 };
                    row.1 = Millis(at.0 + wait(row.0));
                }
            }
            // A dead pod has no connections that could be cut.
            let alive = runs_on(pod);
            let leads = world.published.services.values();
            if alive && leads.flat_map(|s| &s.pods).any(|address| Some(*address) == pod.address) {
                self.published.insert(name.clone(), turn.now);
            }
        }
        for action in turn.observed.failures.keys() {
            let row = self.rows.entry(action.clone()).or_default();
            // A success in between ends the row of publishing.
            let publishes = matches!(action, Action::Publish { .. });
            row.0 = if publishes { 1 } else { row.0 + 1 };
            row.1 = Millis(turn.now.0 + wait(row.0));
        }
        for (name, workload) in &turn.desired.workloads {
            let up = turn.pods_of(name).filter(|(pod, seen)| {
                seen.hash == workload.hash
                    && self.is_available(turn, pod, turn.before)
                    && !self.replace.contains(*pod)
            });
            if up.count() >= usize::from(workload.replicas) {
                self.reached.insert(name.clone(), workload.hash);
            }
        }
    }

    fn is_available(&self, turn: &Turn<'_>, pod: &Name, ledger: &Ledger) -> bool {
        let stopping = ledger.pods.get(pod).is_some_and(|entry| entry.stopping.is_some());
        let seen = turn.observed.pods.get(pod);
        let seen = seen.filter(|seen| is_where_it_has_to_be(pod, seen, ledger));
        let since = seen.and_then(|seen| self.standing(pod, seen, false));
        !stopping && since.is_some() && self.available.get(pod).copied() == since
    }

    /// Since when it is ready; while nobody knows, what was known holds.
    fn standing(&self, name: &Name, pod: &ObservedPod, adopted: bool) -> Option<Millis> {
        let since = ready_since(pod)?;
        let asked = pod.health.values().all(|health| *health != Health::Unknown);
        let known = self.available.get(name).copied().filter(|known| *known >= since);
        if asked || adopted { Some(since) } else { known }
    }

    /// A pod of the desired form stops only because there are too many, or
    /// because a person asked for another.
    fn check_untouched(&self, turn: &Turn<'_>, name: &Name, pod: &ObservedPod) {
        let Some(workload) = turn.desired.workloads.get(&pod.deployment) else { return };
        if pod.hash != workload.hash || !pod.complete || self.replace.contains(name) {
            return;
        }
        // One that has failed makes place for another.
        if turn.plan.ledger.pods[name].job == Some(JobRun::Failed) {
            return;
        }
        let kept = turn.pods_of(&pod.deployment).filter(|(other, seen)| {
            let entry = turn.plan.ledger.pods.get(*other);
            seen.hash == workload.hash
                && !self.replace.contains(*other)
                && entry.is_some_and(|entry| entry.stopping.is_none())
        });
        let coming = turn.plan.ledger.pods.iter().filter(|(other, entry)| {
            let fits = |planned: &Planned| planned.hash == workload.hash;
            entry.planned.as_ref().is_some_and(fits)
                && entry.stopping.is_none()
                && turn.is_creating(other)
        });
        let kept = kept.count() + coming.count();
        keeps!(
            Untouched,
            kept >= usize::from(workload.replicas),
            "{name} is what is desired, and was stopped with {kept} left"
        );
    }

    /// Never fewer than replicas − maxUnavailable by our own doing, and none
    /// at all for the sake of a pod that cannot be made.
    fn check_availability(&self, turn: &Turn<'_>, name: &Name, workload: &Workload) {
        let stops_available = turn
            .pods_of(name)
            .any(|(pod, _)| turn.begins_to_stop(pod) && self.is_available(turn, pod, turn.before));
        if !stops_available {
            return;
        }
        let after = &turn.plan.ledger;
        let left = turn.pods_of(name).filter(|(pod, _)| self.is_available(turn, pod, after));
        let left = left.count();
        let (least, _) = bounds(workload, turn.is_short(name, workload));
        keeps!(Available, left >= least, "{name}: {left} available pods left, {least} promised");
        let cannot = workload.layers.iter().any(|l| !turn.observed.layers.contains(&l.digest));
        let replicas = usize::from(workload.replicas);
        let of_any_kind = turn
            .pods_of(name)
            .filter(|(pod, _)| after.pods.get(*pod).is_some_and(|entry| entry.stopping.is_none()));
        keeps!(
            Available,
            !cannot || of_any_kind.count() >= replicas,
            "{name}: stopped although no new pod can be made"
        );
    }

    /// No try before its time, nothing twice without a reason.
    fn check_pace(&self, turn: &Turn<'_>, action: &Action) {
        if let Some((row, not_before)) = self.rows.get(action) {
            let early = not_before.0.saturating_sub(turn.now.0);
            keeps!(BackOff, early == 0, "{action:?}: {early} ms early after {row} failures");
        }
        let again = self.asked.get(action).map(|asked| turn.now.0 - asked.0);
        match action {
            Action::CreatePod { .. }
            | Action::StartContainer { .. }
            | Action::KillPod { .. }
            | Action::KillContainer { .. }
            | Action::RemovePod { .. } => {
                keeps!(Once, again.is_none_or(|ago| ago >= 1_000), "{action:?}: again at once");
            }
            Action::TerminatePod { .. } => {
                let failed = self.rows.contains_key(action);
                keeps!(Once, again.is_none() || failed, "{action:?}: a second signal");
            }
            Action::PreStop { .. } => keeps!(Once, again.is_none(), "{action:?}: once more"),
            // A run of the container that came later may be sick too.
            Action::TerminateContainer { .. } | Action::Publish { .. } | Action::Fetch { .. } => {}
        }
    }

    /// What has to be started is tried again before the longest back-off is
    /// over, counted from when it was last tried, or ended. One whose layers are
    /// missing, as they were damaged, waits for them.
    fn check_no_start_is_late(&self, turn: &Turn<'_>) {
        for (pod, seen) in turn.observed.pods.iter().filter(|(_, seen)| seen.complete) {
            let starts =
                |entry: &PodLedger| entry.stopping.is_none() && entry.job != Some(JobRun::Failed);
            if !turn.plan.ledger.pods.get(pod).is_some_and(starts) {
                continue;
            }
            let workload = turn.desired.workloads.get(&seen.deployment);
            if workload.filter(|workload| workload.hash == seen.hash).is_some_and(|workload| {
                workload.layers.iter().any(|layer| !turn.observed.layers.contains(&layer.digest))
            }) {
                continue;
            }
            for (container, state) in &seen.containers {
                let start =
                    Action::StartContainer { pod: pod.clone(), container: container.clone() };
                let is_asked =
                    turn.observed.in_flight.contains(&start) || turn.plan.actions.contains(&start);
                if is_asked || !wants_start(seen, container, *state) || is_held(seen, container) {
                    continue;
                }
                let failed = self.rows.get(&start).map(|(row, until)| until.0 - wait(*row));
                let last = failed.max(self.asked.get(&start).map(|at| at.0)).unwrap_or_default();
                let wakes = turn.plan.wake_at.is_some_and(|at| at.0 <= last + wait(u32::MAX));
                keeps!(BackOffBound, wakes, "{start:?}: last tried at {last} ms, waits for longer");
            }
        }
    }

    fn check_dependencies(&self, turn: &Turn<'_>, workload: &Workload, name: &Name) {
        let mends = self.reached.get(name) == Some(&workload.hash);
        for dependency in &workload.after {
            let other = &turn.desired.workloads[dependency];
            let serves = other.replicas == 0
                || turn
                    .pods_of(dependency)
                    .any(|(pod, _)| self.is_available(turn, pod, turn.before));
            keeps!(
                Dependencies,
                serves,
                "a pod of {name} starts while {dependency} has none available"
            );
            let reached = self.reached.get(dependency) == Some(&other.hash);
            keeps!(
                Dependencies,
                reached || mends,
                "a pod of {name} starts before {dependency} was complete"
            );
        }
    }

    /// It was drained, and did what it wants to do before it is told to stop.
    fn check_prepared(&self, turn: &Turn<'_>, pod: &Name) {
        self.check_drained(turn, pod);
        let seen = &turn.observed.pods[pod];
        let due = seen.preparation.runs && seen.grace > Millis(0);
        let prepare = Action::PreStop { pod: pod.clone() };
        keeps!(Grace, !due || self.asked.contains_key(&prepare), "{pod} is not prepared");
    }

    fn check_drained(&self, turn: &Turn<'_>, pod: &Name) {
        let waited = self.stop_began.get(pod).map_or(u64::MAX, |began| turn.now.0 - began.0);
        let since = self.published.get(pod).map_or(u64::MAX, |last| turn.now.0 - last.0);
        keeps!(
            Grace,
            since >= DRAIN.0 || waited >= UNPUBLISH_MAX.0,
            "{pod} is told to stop {since} ms after it was published"
        );
    }

    fn check_grace(&self, turn: &Turn<'_>, pod: &Name) {
        let terminate = Action::TerminatePod { pod: pod.clone() };
        let seen = &turn.observed.pods[pod];
        // What it did before counts against it, but for a last moment.
        let prepared = seen.preparation != Preparation::default();
        let grace = if prepared { seen.grace.0.min(LAST_GRACE.0) } else { seen.grace.0 };
        let to_one = |action: &&Action| matches!(action, Action::TerminateContainer { pod: of, .. } if of == pod);
        let told = self.asked.keys().filter(to_one).chain([&terminate]);
        let told = told.filter_map(|action| self.asked.get(action)).min();
        // Where a sidecar was on its way up there was nobody to tell.
        let began = self.stop_began.get(pod).filter(|_| seen.order.len() > 1);
        let told = told.into_iter().chain(began).min().map(|at| turn.now.0 - at.0);
        for (container, state) in &seen.containers {
            let told =
                Action::TerminateContainer { pod: pod.clone(), container: container.clone() };
            let told = self.asked.contains_key(&told) || self.asked.contains_key(&terminate);
            let known = matches!(*state, ObservedContainer::Running { since }
                if self.stop_began.get(pod).is_some_and(|began| since < *began));
            let due = known && role_of(seen, container) != Role::Sidecar && grace > 0;
            keeps!(Grace, told || !due, "{pod}: {container} is killed untold");
        }
        keeps!(Grace, told.is_some_and(|ago| ago >= grace) || grace == 0, "{pod} is killed early");
    }

    fn check_published(&self, turn: &Turn<'_>, service: &Name, address: u16) {
        let mut leads = turn.pods_of(service).filter(|(_, seen)| seen.address == Some(address));
        let (pod, seen) = leads.next().unwrap();
        keeps!(
            Published,
            self.is_available(turn, pod, &turn.plan.ledger),
            "{pod} is not available"
        );
        keeps!(Published, runs_on(seen), "{pod} does not run");
    }
}

/// A job's pod serves nobody before it has succeeded.
fn is_where_it_has_to_be(name: &Name, pod: &ObservedPod, ledger: &Ledger) -> bool {
    let failed = ledger.pods.get(name).is_some_and(|entry| entry.job == Some(JobRun::Failed));
    !is_job(pod) || (has_succeeded(pod) && !failed)
}

/// A sidecar is told to stop when whatever comes after it has ended.
fn check_order_of_ends(turn: &Turn<'_>, pod: &Name, container: &Name) {
    let seen = &turn.observed.pods[pod];
    if role_of(seen, container) != Role::Sidecar || !turn.ends(pod, seen) {
        return;
    }
    let place = |of: &Name| seen.order.iter().position(|(name, _)| name == of);
    let mut others = seen.containers.iter().filter(|(_, state)| is_running(state));
    let served = others.find(|(other, _)| {
        role_of(seen, other) != Role::Sidecar || place(other) > place(container)
    });
    keeps!(Order, served.is_none(), "{pod}: {container} stops before {served:?}");
}
