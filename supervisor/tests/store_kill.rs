//! The store under SIGKILL: a process that commits is killed at any moment,
//! again and again, and what it had acknowledged is there each time.
//!
//! `WHERRY_KILLS` sets how often, `WHERRY_SEED` the moments.

#![allow(clippy::unwrap_used)]

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use wherry::store::{NewEvent, Store};
use wherry_bundle::Generation;
use wherry_bundle::message::{EventKind, WallMillis};

const KILLS: u64 = 60;
const DIR: &str = "WHERRY_TEST_STORE";

fn envelope(generation: u64) -> Vec<u8> {
    let length = 1000 + generation * 977 % 30_000;
    (0..length).map(|i| u8::try_from((i + generation) % 251).unwrap()).collect()
}

/// The victim: runs in a process of its own, does nothing in the test run.
#[test]
fn victim() {
    let Some(dir) = env::var_os(DIR) else { return };
    let (store, recoveries) = Store::open(Path::new(&dir)).unwrap();
    let mut generation = store.generations().unwrap().highest_seen.0;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "\nopen {}", recoveries.len()).unwrap();
    loop {
        generation += 1;
        let seq = store.push_event(&NewEvent {
            wall_time: WallMillis(0),
            boot_millis: 0,
            generation: Generation(generation),
            kind: EventKind::BundleTakenUp,
            subject: String::new(),
            text: format!("generation {generation}"),
        });
        store.take_up(Generation(generation), &envelope(generation)).unwrap();
        if generation.is_multiple_of(3) {
            store.mark_good(Generation(generation)).unwrap();
        }
        if seq.is_multiple_of(40) {
            store.ack_events(seq - 20).unwrap();
        }
        writeln!(stdout, "done {generation} {seq}").unwrap();
    }
}

struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lets a victim work on `dir` for a while; returns the last generation and
/// event that it acknowledged.
fn run_victim(dir: &Path, life: Duration) -> Option<(u64, u64)> {
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut victim = Victim(child);
    let stdout = victim.0.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let mut last = None;
        for line in BufReader::new(stdout).lines() {
            let Ok(line) = line else { break };
            let mut words = line.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (Some("open"), Some(recoveries), _) => {
                    assert_eq!(recoveries, "0", "a kill alone must need no recovery");
                }
                (Some("done"), Some(generation), Some(seq)) => {
                    last = Some((generation.parse().unwrap(), seq.parse().unwrap()));
                }
                _ => {}
            }
        }
        last
    });
    thread::sleep(life);
    drop(victim);
    reader.join().unwrap()
}

#[test]
fn a_kill_at_any_moment_loses_nothing_acknowledged() {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (kills, seed) = (number("WHERRY_KILLS").unwrap_or(KILLS), number("WHERRY_SEED"));
    let mut chance = seed.unwrap_or(0x5eed) | 1;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    // What was told, or found since: less than this must never be found.
    let (mut acknowledged, mut rounds_with_work) = ((0, 0), 0);
    for round in 0..kills {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        let last = run_victim(&state, Duration::from_micros(5_000 + chance % 120_000));
        rounds_with_work += u64::from(last.is_some());
        acknowledged = last.unwrap_or(acknowledged);
        let (generation, seq) = acknowledged;
        let (store, recoveries) = Store::open(&state).unwrap();
        assert_eq!(recoveries, [], "round {round}");
        let found = store.generations().unwrap();
        let current = found.current.map_or((0, Vec::new()), |c| (c.generation.0, c.envelope));
        // One more may have been taken up, and not been told.
        let allowed = generation..=generation + 1;
        assert!(allowed.contains(&current.0), "round {round}: {}, not {allowed:?}", current.0);
        if current.0 > 0 {
            assert!(current.1 == envelope(current.0), "round {round}: other bytes");
        }
        let events = store.events_after(0, usize::MAX).unwrap();
        let last_event = events.last().map_or(0, |event| event.seq);
        assert!(last_event >= seq, "round {round}: event {last_event}, not {seq}");
        let first_event = events.first().map_or(1, |event| event.seq);
        let gapless = events.iter().zip(first_event..).all(|(event, seq)| event.seq == seq);
        assert!(gapless, "round {round}");
        acknowledged = (current.0, last_event);
    }
    assert!(rounds_with_work > kills / 3, "the victims hardly came to work");
    let bytes: u64 = fs::read_dir(state.join("sled"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    println!("{} generations, {bytes} bytes", acknowledged.0);
    assert!(bytes < 16 * 1024 * 1024, "{bytes} bytes for two small envelopes");
}
