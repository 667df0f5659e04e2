//! A simulated node: the supervisor's loop around the real reconciler, its
//! store, and what goes wrong.

use std::collections::VecDeque;

use wherry_bundle::Generation;
use wherry_bundle::message::Phase;
use wherry_core::upgrade::Verdict;
use wherry_core::{Desired, Ledger, Millis, Observed, Plan, reconcile, status};

use crate::bugs::{Bug, decide};
use crate::checker::Checker;
use crate::generate;
use crate::rng::Rng;
use crate::store::Store;
use crate::turn::Turn;
use crate::world::World;

/// A node that needs more than this to come to rest is going in circles.
const CALM_STEPS_MAX: u32 = 3_000;
/// The longest back-off, several times.
const CALM_MILLIS_MAX: u64 = 3_600_000;
const TRACE_LINES: usize = 60;

pub struct Node {
    seed: u64,
    bug: Option<Bug>,
    pub steps: u64,
    world: World,
    store: Store,
    desired: Desired,
    ledger: Ledger,
    checker: Checker,
    trace: VecDeque<String>,
    /// When the generation is to be judged again.
    wake_at: Option<Millis>,
}

impl Node {
    pub fn new(seed: u64, bug: Option<Bug>) -> Self {
        Self {
            seed,
            bug,
            steps: 0,
            world: World::new(Rng::new(seed)),
            store: Store::default(),
            desired: Desired::default(),
            ledger: Ledger::default(),
            checker: Checker::default(),
            trace: VecDeque::new(),
            wake_at: None,
        }
    }

    /// One turn of the supervisor's loop.
    pub fn supervise(&mut self) -> Plan {
        self.steps += 1;
        let now = self.world.now;
        let observed = self.world.observe();
        self.judge(&observed);
        let plan = decide(self.bug, &self.desired, &observed, &self.ledger, now);
        self.note(format!("{} ms: {:?}; wake {:?}", now.0, plan.actions, plan.wake_at));
        for notice in &plan.notices {
            self.note(format!("    {:?} {}: {}", notice.kind, notice.subject, notice.text));
        }
        let turn = Turn {
            desired: &self.desired,
            observed: &observed,
            before: &self.ledger,
            plan: &plan,
            now,
            bug: self.bug,
        };
        self.checker.check(&turn, &self.world);
        // It has to be readable at any moment.
        let view = status(&self.desired, &observed, &plan.ledger);
        assert_eq!(view.pods.len(), plan.ledger.pods.len());
        self.ledger = plan.ledger.clone();
        self.desired.replace.clear();
        let asked_by = self.desired.clone();
        self.judge(&observed);
        for action in plan.actions.clone() {
            self.world.ask(action, &asked_by);
        }
        plan
    }

    pub fn mischief(&mut self) {
        match self.world.rng.below(200) {
            0..=7 => self.next_generation(false),
            8..=10 => {
                self.note("supervisor restarts".into());
                self.world.restart_supervisor();
                self.store.restarted();
            }
            11..=12 => {
                self.note("supervisor restarts, ledger lost".into());
                self.world.restart_supervisor();
                self.store.restarted();
                self.lose_ledger();
            }
            13 => {
                self.note("reboot".into());
                self.world.reboot();
                self.store.rebooted();
                self.lose_ledger();
            }
            14..=19 => self.world.crash_one(),
            20..=21 => self.world.lose_one(),
            22 => self.world.lose_a_layer(),
            27..=31 => self.world.unready_one(),
            32..=35 => self.world.sicken_one(),
            23..=25 => {
                let pods = self.world.seen();
                if !pods.is_empty() {
                    let pod = self.world.rng.pick(&pods).clone();
                    self.note(format!("{pod} is to be replaced"));
                    self.desired.replace.insert(pod);
                }
            }
            26 => {
                let later = Millis(self.world.now.0 + 2_000_000);
                self.world.pass_to(later);
            }
            _ => {}
        }
    }

    fn next_generation(&mut self, sound: bool) {
        let generation = self.store.next_generation();
        self.desired = generate::desired(&mut self.world.rng, generation, sound);
        self.store.taken_up(&self.desired);
        for (name, workload) in &self.desired.workloads {
            let text = format!("    {name} {workload:?}");
            self.trace.push_back(text);
        }
        self.note(format!("generation {generation}"));
    }

    fn lose_ledger(&mut self) {
        self.ledger = Ledger::default();
        self.checker = Checker::default();
        self.checker.adopt(&self.world);
    }

    /// Whether the generation is good or has failed, and what follows.
    fn judge(&mut self, observed: &Observed) {
        let verdict = self.store.judge(&self.desired, observed, &self.ledger, self.world.now);
        let verdict = match self.bug {
            Some(Bug::BelievesAnything) if self.desired.generation.0 > 0 => Verdict::Good,
            _ => verdict,
        };
        self.wake_at = None;
        match verdict {
            Verdict::Settled => {}
            Verdict::UnderWay { wake_at } => self.wake_at = wake_at,
            Verdict::Good => {
                self.checker.check_good(&self.desired, observed, &self.ledger);
                self.note(format!("generation {} is good", self.desired.generation));
                self.store.good(&self.desired);
            }
            Verdict::Failed(cause) => {
                assert!(self.world.faults, "a sound generation fails: {cause}");
                let Some(back) = self.store.failed(&self.desired, self.bug) else { return };
                self.note(format!("failed: {cause}; back to generation {}", back.generation));
                self.desired = back;
            }
        }
    }

    /// Until something happens, or the plan says so; sometimes a bit longer,
    /// so that several things have happened.
    pub fn wait(&mut self, plan: &Plan) -> bool {
        let next =
            self.world.next_event().into_iter().chain(plan.wake_at).chain(self.wake_at).min();
        let Some(next) = next else { return false };
        let slack = if self.world.rng.chance(200) { self.world.rng.below(1_500) } else { 0 };
        self.world.pass_to(Millis(next.0.max(self.world.now.0) + slack));
        true
    }

    pub fn come_to_rest(&mut self) {
        self.world.faults = false;
        self.next_generation(true);
        let since = self.world.now.0;
        for _ in 0..CALM_STEPS_MAX {
            let plan = self.supervise();
            assert!(self.world.now.0 < since + CALM_MILLIS_MAX, "still not at rest");
            if !self.wait(&plan) && plan.actions.is_empty() {
                self.check_rest(&plan);
                return;
            }
        }
        panic!("goes in circles");
    }

    fn check_rest(&mut self, plan: &Plan) {
        let observed = self.world.observe();
        assert!(observed.in_flight.is_empty());
        let view = status(&self.desired, &observed, &plan.ledger);
        assert_eq!(view.phase, Phase::Stabilising, "stalled: {:#?}", view.pods);
        for (name, workload) in &self.desired.workloads {
            let own = observed.pods.values().filter(|pod| pod.deployment == *name);
            let own: Vec<_> = own.collect();
            assert_eq!(own.len(), usize::from(workload.replicas), "{name}");
            assert!(own.iter().all(|pod| pod.hash == workload.hash), "{name}");
            let ports = self.world.published.services.get(name).map(|s| &s.ports);
            assert_eq!(ports, (!workload.host_network).then_some(&workload.ports), "{name}");
        }
        let total: usize = self.desired.workloads.values().map(|w| usize::from(w.replicas)).sum();
        assert_eq!(self.world.pods.len(), total, "something is left behind");
        assert_eq!(plan.ledger.running, self.desired.generation);
        assert_eq!(self.store.last_good(), self.desired.generation, "it is not good");
        // Asked again, much later: nothing.
        let later = Millis(self.world.now.0 + 10_000_000);
        let again = reconcile(&self.desired, &observed, &plan.ledger, later);
        assert_eq!(again, Plan { ledger: plan.ledger.clone(), ..Plan::default() });
        assert_ne!(self.desired.generation, Generation(0));
    }

    fn note(&mut self, line: String) {
        self.trace.push_back(line);
        while self.trace.len() > TRACE_LINES {
            self.trace.pop_front();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in &self.trace {
                eprintln!("{line}");
            }
            eprintln!("repeat with WHERRY_SIM_SEED={}", self.seed);
        }
    }
}
