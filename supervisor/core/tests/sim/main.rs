//! A node's life by the thousand: random bundles, delays, failures, exits,
//! restarts of the supervisor and reboots against the real reconciler.
//!
//! Every plan is held against the invariants of [`checker`]; once the faults
//! stop, the node has to come to rest with exactly what the last bundle asks
//! for; and then, after one that has to fail, with what it goes back to. A
//! failing run prints its seed and the shortest trace that ends the same way;
//! `WHERRY_SIM_SEED=n cargo test -p wherry-core --test sim` repeats it, and
//! `WHERRY_SIM_RUNS=n` makes more of them. `WHERRY_SIM_STEPS=n` goes on until
//! there were so many plans (with `--profile sim` that is quick), and
//! `WHERRY_SIM_REPORT=file` keeps the count.

#![allow(clippy::unwrap_used)]

mod bugs;
mod checker;
mod generate;
mod jobs;
mod life;
mod node;
mod promise;
mod rng;
mod store;
mod turn;
mod world;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bugs::Bug;
use life::{Ended, Life};

/// Enough for the default run to take a few seconds without optimisation.
const RUNS: u64 = 80;
/// As many as CI has processors.
const THREADS: usize = 2;
const FAILURES_MAX: u64 = 5;
/// Lives in which each bug has to be found.
const BUG_RUNS: u64 = 1_000;

#[test]
fn it_holds_its_promises_and_comes_to_rest() {
    let number = |key| std::env::var(key).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("WHERRY_SIM_SEED") {
        assert!(is_kept(seed), "a promise is broken");
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
fn each_deliberate_bug_is_found_by_the_promise_that_it_breaks() {
    let missed: Vec<Bug> = Bug::ALL
        .into_iter()
        .filter(|&bug| {
            let seed = (1..=BUG_RUNS).find(|&seed| {
                let broken = Life::new(seed, Some(bug)).live(false).broken;
                broken.is_some_and(|broken| broken.promise == bug.breaks())
            });
            println!("{bug:?}: {:?} found in life {seed:?}", bug.breaks());
            seed.is_none()
        })
        .collect();
    assert_eq!(missed, [], "not found in {BUG_RUNS} lives");
}

#[test]
fn a_life_that_ends_badly_is_told_as_short_as_it_can_be() {
    let life = Life::new(1, Some(Bug::LeavesPodsBehind));
    let ended = life.live(false);
    let promise = ended.broken.as_ref().map(|broken| broken.promise);
    assert!(promise.is_some());
    let before = (life.steps, ended.events.len());
    let (short, end) = life::shortened(life, ended);
    let promise_of = |ended: &Ended| ended.broken.as_ref().map(|broken| broken.promise);
    assert_eq!(promise_of(&end), promise);
    assert!(short.steps < before.0 && end.events.len() < before.1, "{short:?}: {end:?}");
    // Nothing in it could be left out, and it ends the same way each time.
    for event in end.events.clone() {
        let mut shorter = short.clone();
        shorter.calm.insert(event);
        assert_ne!(promise_of(&shorter.live(false)), promise, "{event} of {short:?}");
    }
    let again = short.live(true);
    assert_eq!(promise_of(&again), promise);
    assert!(!again.trace.is_empty());
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
                    let ended = Life::new(seed, None).live(false);
                    steps.fetch_add(ended.plans, Relaxed);
                    if ended.broken.is_some() {
                        failures.fetch_add(1, Relaxed);
                        tell(Life::new(seed, None), ended);
                    }
                }
            });
        }
    });
    let [seeds, steps, failures] = [seeds, steps, failures].map(AtomicU64::into_inner);
    Tally { seeds, steps, failures, took: start.elapsed() }
}

/// Lives one life; tells how it ended if that was badly.
fn is_kept(seed: u64) -> bool {
    let life = Life::new(seed, None);
    let ended = life.live(false);
    let is_kept = ended.broken.is_none();
    if !is_kept {
        tell(life, ended);
    }
    is_kept
}

/// The shortest trace that ends the same way.
fn tell(life: Life, ended: Ended) {
    let seed = life.seed;
    let (short, _) = life::shortened(life, ended);
    let ended = short.live(true);
    let mut text = ended.trace.join("\n");
    if let Some(broken) = &ended.broken {
        let _ = write!(text, "\n{:?}: {}", broken.promise, broken.text);
    }
    eprintln!(
        "{text}\nso with {} steps and {} events; repeat with WHERRY_SIM_SEED={seed}",
        short.steps,
        ended.events.len()
    );
}
