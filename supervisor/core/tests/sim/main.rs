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

mod bugs;
mod checker;
mod generate;
mod node;
mod rng;
mod store;
mod turn;
mod world;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bugs::Bug;
use node::Node;

/// Enough for the default run to take a few seconds without optimisation.
const RUNS: u64 = 80;
const FAULTY_STEPS: u32 = 250;
/// As many as CI has processors.
const THREADS: usize = 2;
const FAILURES_MAX: u64 = 5;
/// Lives in which each bug has to be found.
const BUG_RUNS: u64 = 400;

#[test]
fn it_holds_its_promises_and_comes_to_rest() {
    let number = |key| std::env::var(key).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("WHERRY_SIM_SEED") {
        live(seed, None);
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

/// An invariant that nothing can break would prove nothing.
#[test]
fn each_deliberate_bug_is_found() {
    let missed: Vec<Bug> = Bug::ALL
        .into_iter()
        .filter(|&bug| {
            let found = |seed| std::panic::catch_unwind(|| live(seed, Some(bug))).is_err();
            let seed = (1..=BUG_RUNS).find(|&seed| found(seed));
            println!("{bug:?}: found in life {seed:?}");
            seed.is_none()
        })
        .collect();
    assert_eq!(missed, [], "not found in {BUG_RUNS} lives");
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
                    match std::panic::catch_unwind(|| live(seed, None)) {
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
fn live(seed: u64, bug: Option<Bug>) -> u64 {
    let mut node = Node::new(seed, bug);
    for _ in 0..FAULTY_STEPS {
        let plan = node.supervise();
        node.mischief();
        node.wait(&plan);
    }
    node.come_to_rest();
    node.steps
}
