//! A simulated node: the supervisor's loop around the real reconciler, its
//! store, and what goes wrong.

use std::collections::BTreeMap;

use wherry_bundle::message::{Cause, Phase};
use wherry_bundle::{Digest, Generation, Name};
use wherry_core::upgrade::Verdict;
use wherry_core::{Desired, Ledger, Millis, Observed, Plan, reconcile, status};

use crate::bugs::{Bug, decide};
use crate::checker::Checker;
use crate::generate::{self, Doom};
use crate::jobs;
use crate::life::Life;
use crate::promise::keeps;
use crate::rng::Rng;
use crate::store::Store;
use crate::turn::Turn;
use crate::world::World;

/// A node that needs more than this to come to rest is going in circles.
const CALM_STEPS_MAX: u32 = 3_000;
/// The longest back-off, several times.
const CALM_MILLIS_MAX: u64 = 3_600_000;

/// Of so many plans one is made twice, to see that nothing but its inputs is
/// in it, and told to people: what is wrong with that is wrong with most.
const PLANS_PER_REPEAT: u64 = 16;

/// Salts of what comes after all steps.
const SOUND: u32 = u32::MAX;
const DOOMED: u32 = u32::MAX - 1;

pub struct Node {
    life: Life,
    /// Plans that were made and checked.
    pub plans: u64,
    /// Faulty steps so far, and those of them at which something happened.
    pub steps: u32,
    pub events: Vec<u32>,
    /// What happened, if it is wanted.
    pub trace: Vec<String>,
    traced: bool,
    world: World,
    store: Store,
    desired: Desired,
    ledger: Ledger,
    checker: Checker,
    /// When the generation is to be judged again.
    wake_at: Option<Millis>,
    /// Jobs that have succeeded; the flash may not have it yet.
    succeeded: BTreeMap<Name, Digest>,
    /// What has to fail in the generation under way.
    doom: Option<(Name, Doom)>,
}

impl Node {
    pub fn new(life: Life, traced: bool) -> Self {
        Self {
            world: World::new(Rng::new(life.seed), !life.smooth),
            life,
            plans: 0,
            steps: 0,
            events: Vec::new(),
            trace: Vec::new(),
            traced,
            store: Store::default(),
            desired: Desired::default(),
            ledger: Ledger::default(),
            checker: Checker::default(),
            wake_at: None,
            succeeded: BTreeMap::new(),
            doom: None,
        }
    }

    /// Things go wrong; then the node is left in peace, and has to come to
    /// rest; then comes a generation that has to fail, and it has to rest on
    /// the one before it.
    pub fn live(&mut self) {
        for _ in 0..self.life.steps {
            let plan = self.supervise();
            self.mischief();
            self.wait(&plan);
        }
        self.world.faults = false;
        self.world.cloud_is_back();
        self.with_rng_of(SOUND, |node| node.next_generation(true));
        self.come_to_rest();
        if self.with_rng_of(DOOMED, Self::next_doomed) {
            self.come_to_rest();
            keeps!(Judged, self.doom.is_none(), "what has to fail did not: {:?}", self.doom);
        }
    }

    /// One turn of the supervisor's loop.
    fn supervise(&mut self) -> Plan {
        self.plans += 1;
        let now = self.world.now;
        let mut observed = self.observe();
        self.judge(&observed);
        // It may have been judged to have failed.
        observed.succeeded = self.remembered();
        let plan = decide(self.life.bug, &self.desired, &observed, &self.ledger, now);
        self.note(|| format!("{} ms: {:?}; wake {:?}", now.0, plan.actions, plan.wake_at));
        for notice in &plan.notices {
            self.note(|| format!("    {:?} {}: {}", notice.kind, notice.subject, notice.text));
        }
        let desired = jobs::outstanding(&self.desired, &observed, &plan.ledger);
        let turn = Turn {
            desired: &desired,
            observed: &observed,
            before: &self.ledger,
            plan: &plan,
            now,
            bug: self.life.bug,
            again: self.plans.is_multiple_of(PLANS_PER_REPEAT),
        };
        self.checker.check(&turn, &self.world);
        if turn.again {
            let view = status(&self.desired, &observed, &plan.ledger);
            keeps!(Orderly, view.pods.len() == plan.ledger.pods.len(), "{:?}", view.pods);
        }
        self.ledger = plan.ledger.clone();
        self.desired.replace.clear();
        self.remember(&plan);
        let asked_by = self.desired.clone();
        observed.succeeded = self.remembered();
        self.judge(&observed);
        for action in plan.actions.clone() {
            self.world.ask(action, &asked_by);
        }
        plan
    }

    fn observe(&mut self) -> Observed {
        let succeeded = self.remembered();
        Observed { succeeded, ..self.world.observe() }
    }

    /// All jobs of a generation that was good have succeeded.
    fn remembered(&self) -> BTreeMap<Name, Digest> {
        let mut all = self.succeeded.clone();
        if self.desired.generation == self.store.last_good() {
            all.extend(jobs_of(&self.desired));
        }
        all
    }

    /// In RAM at once, and on the flash if that takes it, or later.
    fn remember(&mut self, plan: &Plan) {
        self.succeeded.extend(plan.succeeded.clone());
        let fails = self.world.faults && self.world.rng.chance(50);
        if self.world.succeeded != self.succeeded && !fails {
            self.world.succeeded.clone_from(&self.succeeded);
        }
    }

    /// What happens to the node by itself. It follows from the seed and the
    /// number of the step alone.
    fn mischief(&mut self) {
        self.steps += 1;
        if self.life.calm.contains(&self.steps) {
            return;
        }
        if self.with_rng_of(self.steps, Self::happen) {
            self.events.push(self.steps);
        }
    }

    /// Does something that follows from the seed and `salt` alone.
    fn with_rng_of<T>(&mut self, salt: u32, what: impl FnOnce(&mut Self) -> T) -> T {
        let seed = self.life.seed.wrapping_mul(1_000_003).wrapping_add(salt.into());
        let worlds = std::mem::replace(&mut self.world.rng, Rng::new(seed));
        let result = what(self);
        self.world.rng = worlds;
        result
    }

    fn happen(&mut self) -> bool {
        match self.world.rng.below(200) {
            0..=7 => self.next_generation(false),
            8..=10 => {
                self.note(|| "supervisor restarts".into());
                self.world.restart_supervisor();
                self.store.restarted();
                self.succeeded.clone_from(&self.world.succeeded);
            }
            11..=12 => {
                self.note(|| "supervisor restarts, ledger lost".into());
                self.world.restart_supervisor();
                self.store.restarted();
                self.succeeded.clone_from(&self.world.succeeded);
                self.lose_ledger();
            }
            13 => {
                self.note(|| "reboot".into());
                self.world.reboot();
                self.store.rebooted();
                self.succeeded.clone_from(&self.world.succeeded);
                self.lose_ledger();
            }
            14..=19 => self.world.crash_one(),
            20..=21 => self.world.lose_one(),
            22 => self.world.lose_a_layer(),
            23..=25 => {
                let pods = self.world.seen();
                if !pods.is_empty() {
                    let pod = self.world.rng.pick(&pods).clone();
                    self.note(|| format!("{pod} is to be replaced"));
                    self.desired.replace.insert(pod);
                }
            }
            26 => {
                self.note(|| "much time passes".into());
                let later = Millis(self.world.now.0 + 2_000_000);
                self.world.pass_to(later);
            }
            27..=31 => self.world.unready_one(),
            32..=35 => self.world.sicken_one(),
            36 => {
                self.note(|| "offline".into());
                self.world.online = false;
            }
            37..=38 => {
                self.note(|| "the cloud is back".into());
                self.world.cloud_is_back();
            }
            39 => {
                self.note(|| "the cloud lost layers".into());
                let layers = self.desired.workloads.values().flat_map(|w| &w.layers);
                self.world.withheld.extend(layers.map(|layer| layer.digest));
            }
            _ => return false,
        }
        true
    }

    fn next_generation(&mut self, sound: bool) {
        let generation = self.store.next_generation();
        let desired = generate::desired(&mut self.world.rng, generation, sound);
        self.take_up(desired);
    }

    /// A generation that has to fail; false if there can be none.
    fn next_doomed(&mut self) -> bool {
        let generation = self.store.next_generation();
        let doomed = generate::doomed(&mut self.world.rng, &self.desired, generation);
        let Some((desired, name, doom)) = doomed else { return false };
        let layers = &desired.workloads[&name].layers;
        if doom == Doom::NoLayers {
            let own = layers.difference(&self.desired.workloads[&name].layers);
            let own: Vec<_> = own.map(|layer| layer.digest).collect();
            self.world.layers.retain(|layer| !own.contains(layer));
            self.world.withheld.extend(own);
        }
        self.note(|| format!("{name}: {doom:?}"));
        self.doom = Some((name, doom));
        self.take_up(desired);
        true
    }

    fn take_up(&mut self, desired: Desired) {
        self.note(|| format!("generation {}", desired.generation));
        for (name, workload) in &desired.workloads {
            self.note(|| format!("    {name} {workload:?}"));
        }
        self.store.taken_up(&desired);
        self.desired = desired;
    }

    fn lose_ledger(&mut self) {
        self.ledger = Ledger::default();
        self.checker = Checker::default();
        self.checker.adopt(&self.world);
    }

    /// Whether the generation is good or has failed, and what follows.
    fn judge(&mut self, observed: &Observed) {
        let (online, now) = (self.world.online, self.world.now);
        let verdict = self.store.judge(&self.desired, observed, &self.ledger, online, now);
        let verdict = match self.life.bug {
            Some(Bug::BelievesAnything) if self.desired.generation.0 > 0 => Verdict::Good,
            _ => verdict,
        };
        self.wake_at = None;
        match verdict {
            Verdict::Settled => {}
            Verdict::UnderWay { wake_at } => self.wake_at = wake_at,
            Verdict::Good => {
                let rest = jobs::outstanding(&self.desired, observed, &self.ledger);
                self.checker.check_good(&rest, observed, &self.ledger);
                self.succeeded = jobs_of(&self.desired).collect();
                let generation = self.desired.generation;
                self.note(|| format!("generation {generation} is good"));
                self.store.good(&self.desired);
            }
            Verdict::Failed(cause) => {
                self.check_cause(&cause);
                let Some(back) = self.store.failed(&self.desired, self.life.bug) else { return };
                self.note(|| format!("failed: {cause}; back to generation {}", back.generation));
                self.desired = back;
                self.wake_at = Some(now);
            }
        }
    }

    /// In peace only what is doomed fails, and by what is wrong with it.
    fn check_cause(&mut self, cause: &Cause) {
        if self.steps < self.life.steps {
            return;
        }
        let doom = self.doom.take();
        let fits = match (&doom, cause) {
            (
                Some((name, Doom::Crashes)),
                Cause::CrashLoop { pod, .. } | Cause::Job { pod, .. },
            ) => pod.as_str().starts_with(name.as_str()),
            (Some((name, Doom::NeverReady)), Cause::ProgressDeadline { deployment, .. })
            | (Some((name, Doom::NoLayers)), Cause::Layers { deployment, .. }) => {
                deployment == name
            }
            (_, _) => false,
        };
        keeps!(Judged, fits, "{doom:?} fails: {cause}");
    }

    /// Until something happens, or the plan says so; sometimes a bit longer,
    /// so that several things have happened.
    fn wait(&mut self, plan: &Plan) -> bool {
        let next =
            self.world.next_event().into_iter().chain(plan.wake_at).chain(self.wake_at).min();
        let Some(next) = next else { return false };
        let slack = if self.world.rng.chance(200) { self.world.rng.below(1_500) } else { 0 };
        self.world.pass_to(Millis(next.0.max(self.world.now.0) + slack));
        true
    }

    fn come_to_rest(&mut self) {
        let since = self.world.now.0;
        for _ in 0..CALM_STEPS_MAX {
            let plan = self.supervise();
            let late = self.world.now.0 >= since + CALM_MILLIS_MAX;
            keeps!(ComesToRest, !late, "still not at rest");
            if !self.wait(&plan) && plan.actions.is_empty() {
                self.check_rest(&plan);
                return;
            }
        }
        keeps!(ComesToRest, false, "goes in circles");
    }

    fn check_rest(&mut self, plan: &Plan) {
        let observed = self.observe();
        let desired = jobs::outstanding(&self.desired, &observed, &plan.ledger);
        keeps!(AtRest, observed.in_flight.is_empty(), "{:?}", observed.in_flight);
        let view = status(&self.desired, &observed, &plan.ledger);
        keeps!(AtRest, view.phase == Phase::Stabilising, "stalled: {:#?}", view.pods);
        for (name, workload) in &desired.workloads {
            let own = observed.pods.values().filter(|pod| pod.deployment == *name);
            let own: Vec<_> = own.collect();
            keeps!(AtRest, own.len() == usize::from(workload.replicas), "{name}: {}", own.len());
            keeps!(AtRest, own.iter().all(|pod| pod.hash == workload.hash), "{name}: {own:?}");
            let ports = self.world.published.services.get(name).map(|s| &s.ports);
            let wanted = (!workload.host_network).then_some(&workload.ports);
            keeps!(AtRest, ports == wanted, "{name}: {ports:?} published");
        }
        let total: usize = desired.workloads.values().map(|w| usize::from(w.replicas)).sum();
        keeps!(NothingLeft, self.world.pods.len() == total, "{:?}", self.world.pods.keys());
        let generation = self.desired.generation;
        keeps!(AtRest, plan.ledger.running == generation, "{generation} is not told");
        keeps!(AtRest, self.store.last_good() == generation, "{generation} is not good");
        // Asked again, much later: nothing.
        let later = Millis(self.world.now.0 + 10_000_000);
        let again = reconcile(&self.desired, &observed, &plan.ledger, later);
        let nothing = Plan { ledger: plan.ledger.clone(), ..Plan::default() };
        keeps!(AtRest, again == nothing, "no rest: {again:?}");
        keeps!(AtRest, generation != Generation(0), "nothing is desired");
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.traced {
            self.trace.push(line());
        }
    }
}

fn jobs_of(desired: &Desired) -> impl Iterator<Item = (Name, Digest)> + '_ {
    let jobs = desired.workloads.iter().filter(|(_, workload)| workload.job.is_some());
    jobs.map(|(name, workload)| (name.clone(), workload.hash))
}
