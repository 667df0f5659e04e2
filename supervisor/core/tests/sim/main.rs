//! A node's life by the thousand: random bundles, delays, failures, exits,
//! restarts of the supervisor and reboots against the real reconciler.
//!
//! Every plan is held against the invariants of [`checker`]; once the faults
//! stop, the node has to come to rest with exactly what the last bundle asks
//! for. A failing run prints its seed:
//! `WHERRY_SIM_SEED=n cargo test -p wherry-core --test sim` repeats it, and
//! `WHERRY_SIM_RUNS=n` makes more of them. `WHERRY_SIM_STEPS=n` goes on until
//! there were so many plans (with `--profile sim` that is quick), and
//! `WHERRY_SIM_REPORT=file` keeps the count.

#![allow(clippy::unwrap_used)]

mod checker;
mod generate;
mod rng;
mod turn;
mod world;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use wherry_bundle::Generation;
use wherry_bundle::message::Phase;
use wherry_core::{Desired, Ledger, Millis, Plan, reconcile, status};

use checker::Checker;
use rng::Rng;
use world::World;

/// Enough for the default run to take a few seconds without optimisation.
const RUNS: u64 = 80;
const FAULTY_STEPS: u32 = 250;
/// A node that needs more than this to come to rest is going in circles.
const CALM_STEPS_MAX: u32 = 3_000;
/// The longest back-off, several times.
const CALM_MILLIS_MAX: u64 = 3_600_000;
/// As many as CI has processors.
const THREADS: usize = 2;
const FAILURES_MAX: u64 = 5;
const TRACE_LINES: usize = 60;

#[test]
fn it_holds_its_promises_and_comes_to_rest() {
    let number = |key| std::env::var(key).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("WHERRY_SIM_SEED") {
        live(seed);
        return;
    }
    let tally = match number("WHERRY_SIM_STEPS") {
        Some(steps) => run(u64::MAX, steps),
        None => run(number("WHERRY_SIM_RUNS").unwrap_or(RUNS), u64::MAX),
    };
    println!("{}", tally.json());
    if let Some(path) = std::env::var_os("WHERRY_SIM_REPORT") {
        std::fs::write(path, tally.json()).unwrap();
    }
    assert_eq!(tally.failures, 0, "the seeds are above");
}

struct Tally {
    seeds: u64,
    steps: u64,
    failures: u64,
    took: Duration,
}

impl Tally {
    fn json(&self) -> String {
        let Self { seeds, steps, failures, took } = self;
        let per_second = u128::from(*steps) * 1_000 / took.as_millis().max(1);
        format!(
            "{{\"seeds\": {seeds}, \"steps\": {steps}, \
             \"steps_per_second\": {per_second}, \"failures\": {failures}}}\n"
        )
    }
}

/// Seeds from 1 on, until there were so many of them or of steps, or too many
/// failed for anybody to read.
fn run(seeds_max: u64, steps_max: u64) -> Tally {
    let start = Instant::now();
    let [seeds, steps, failures] = [const { AtomicU64::new(0) }; 3];
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while steps.load(Relaxed) < steps_max && failures.load(Relaxed) < FAILURES_MAX {
                    let seed = seeds.fetch_add(1, Relaxed) + 1;
                    if seed > seeds_max {
                        seeds.fetch_sub(1, Relaxed);
                        break;
                    }
                    match std::panic::catch_unwind(|| live(seed)) {
                        Ok(count) => steps.fetch_add(count, Relaxed),
                        Err(_) => failures.fetch_add(1, Relaxed),
                    };
                }
            });
        }
    });
    let [seeds, steps, failures] = [seeds, steps, failures].map(AtomicU64::into_inner);
    Tally { seeds, steps, failures, took: start.elapsed() }
}

/// Returns the number of plans that were made and checked.
fn live(seed: u64) -> u64 {
    let mut node = Node::new(seed);
    for _ in 0..FAULTY_STEPS {
        let plan = node.supervise();
        node.mischief();
        node.wait(&plan);
    }
    node.come_to_rest();
    node.steps
}

struct Node {
    seed: u64,
    steps: u64,
    world: World,
    desired: Desired,
    ledger: Ledger,
    checker: Checker,
    trace: VecDeque<String>,
}

impl Node {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            steps: 0,
            world: World::new(Rng::new(seed)),
            desired: Desired::default(),
            ledger: Ledger::default(),
            checker: Checker::default(),
            trace: VecDeque::new(),
        }
    }

    /// One turn of the supervisor's loop.
    fn supervise(&mut self) -> Plan {
        self.steps += 1;
        let now = self.world.now;
        let observed = self.world.observe();
        let plan = reconcile(&self.desired, &observed, &self.ledger, now);
        self.note(format!("{} ms: {:?}; wake {:?}", now.0, plan.actions, plan.wake_at));
        for notice in &plan.notices {
            self.note(format!("    {:?} {}: {}", notice.kind, notice.subject, notice.text));
        }
        self.checker.check(&self.desired, &observed, &self.ledger, &plan, &self.world);
        // It has to be readable at any moment.
        let view = status(&self.desired, &observed, &plan.ledger);
        assert_eq!(view.pods.len(), plan.ledger.pods.len());
        self.ledger = plan.ledger.clone();
        self.desired.replace.clear();
        for action in plan.actions.clone() {
            self.world.ask(action, &self.desired);
        }
        plan
    }

    fn mischief(&mut self) {
        match self.world.rng.below(200) {
            0..=7 => self.next_generation(false),
            8..=10 => {
                self.note("supervisor restarts".into());
                self.world.restart_supervisor();
            }
            11..=12 => {
                self.note("supervisor restarts, ledger lost".into());
                self.world.restart_supervisor();
                self.lose_ledger();
            }
            13 => {
                self.note("reboot".into());
                self.world.reboot();
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
        let generation = self.desired.generation.0 + 1;
        self.desired = generate::desired(&mut self.world.rng, generation, sound);
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

    /// Until something happens, or the plan says so; sometimes a bit longer,
    /// so that several things have happened.
    fn wait(&mut self, plan: &Plan) -> bool {
        let next = self.world.next_event().into_iter().chain(plan.wake_at).min();
        let Some(next) = next else { return false };
        let slack = if self.world.rng.chance(200) { self.world.rng.below(1_500) } else { 0 };
        self.world.pass_to(Millis(next.0.max(self.world.now.0) + slack));
        true
    }

    fn come_to_rest(&mut self) {
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
