//! What `/proc` says about one process: memory, and what it does.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// In KiB, as `proc_pid_smaps(5)` counts.
#[derive(Debug, Default)]
pub struct Memory {
    pub pss_kib: u64,
    anonymous_kib: u64,
    /// Proportional, of what is mapped executable.
    text_kib: u64,
    resident_kib: u64,
    threads: usize,
    descriptors: usize,
}

impl Memory {
    pub fn of(pid: i32) -> Result<Self> {
        let mut memory = Self {
            threads: entries(pid, "task")?,
            descriptors: entries(pid, "fd")?,
            ..Self::default()
        };
        let mut executable = false;
        for line in read(pid, "smaps")?.lines() {
            let mut words = line.split_whitespace();
            let (Some(first), Some(second)) = (words.next(), words.next()) else { continue };
            let Some(field) = first.strip_suffix(':') else {
                // A mapping: addresses and rights.
                executable = second.contains('x');
                continue;
            };
            let kib = || second.parse::<u64>().unwrap_or(0);
            match field {
                "Pss" => {
                    memory.pss_kib += kib();
                    memory.text_kib += if executable { kib() } else { 0 };
                }
                "Rss" => memory.resident_kib += kib(),
                "Anonymous" => memory.anonymous_kib += kib(),
                _ => {}
            }
        }
        Ok(memory)
    }

    pub fn json(&self) -> Value {
        json!({
            "pss_kib": self.pss_kib,
            "anonymous_kib": self.anonymous_kib,
            "text_pss_kib": self.text_kib,
            "resident_kib": self.resident_kib,
            "threads": self.threads,
            "descriptors": self.descriptors,
        })
    }
}

/// What the threads of a process did since [`Self::begin`].
#[derive(Debug)]
pub struct Activity {
    pid: i32,
    first: Counts,
    last: Counts,
    /// Of threads that ended meanwhile, as far as was seen.
    ended: Thread,
}

#[derive(Clone, Debug, Default)]
struct Counts {
    threads: BTreeMap<i32, Thread>,
    written_bytes: u64,
}

#[derive(Clone, Debug, Default)]
struct Thread {
    name: String,
    /// Voluntary and involuntary: each is one time that it was woken, or
    /// interrupted and went on.
    switches: u64,
    cpu_nanos: u64,
}

impl Activity {
    pub fn begin(pid: i32) -> Result<Self> {
        let first = Counts::of(pid)?;
        Ok(Self { pid, last: first.clone(), first, ended: Thread::default() })
    }

    /// Looks again; to be called often enough to see short-lived threads.
    pub fn look(&mut self) -> Result<()> {
        let now = Counts::of(self.pid)?;
        for (tid, thread) in &self.last.threads {
            if !now.threads.contains_key(tid) {
                let before = self.first.threads.remove(tid).unwrap_or_default();
                self.ended.switches += thread.switches - before.switches;
                self.ended.cpu_nanos += thread.cpu_nanos - before.cpu_nanos;
            }
        }
        self.last = now;
        Ok(())
    }

    pub fn switches(&self) -> u64 {
        self.sum(|thread| thread.switches)
    }

    pub fn cpu_nanos(&self) -> u64 {
        self.sum(|thread| thread.cpu_nanos)
    }

    /// What the process caused to be written to any disk.
    pub fn written_bytes(&self) -> u64 {
        self.last.written_bytes - self.first.written_bytes
    }

    pub fn json(&self, minutes: f64) -> Value {
        let threads = self.last.threads.iter().map(|(tid, thread)| {
            let before = self.first.threads.get(tid).map_or(0, |thread| thread.switches);
            json!({
                "name": thread.name,
                "wake_ups_per_minute": (thread.switches - before) as f64 / minutes,
            })
        });
        json!({
            "wake_ups_per_minute": self.switches() as f64 / minutes,
            "cpu_ms_per_minute": self.cpu_nanos() as f64 / 1e6 / minutes,
            "write_bytes": self.written_bytes(),
            "threads": threads.collect::<Vec<Value>>(),
        })
    }

    fn sum(&self, of: fn(&Thread) -> u64) -> u64 {
        let total = |counts: &Counts| counts.threads.values().map(of).sum::<u64>();
        total(&self.last) - total(&self.first) + of(&self.ended)
    }
}

impl Counts {
    fn of(pid: i32) -> Result<Self> {
        let io = read(pid, "io")?;
        let written = number(&io, "write_bytes:").context("no write_bytes")?;
        let cancelled = number(&io, "cancelled_write_bytes:").unwrap_or(0);
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            let Ok(tid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            // It may end at any time.
            threads.extend(Thread::of(pid, tid).map(|thread| (tid, thread)));
        }
        Ok(Self { threads, written_bytes: written.saturating_sub(cancelled) })
    }
}

impl Thread {
    fn of(pid: i32, tid: i32) -> Option<Self> {
        let status = read(pid, &format!("task/{tid}/status")).ok()?;
        let times = read(pid, &format!("task/{tid}/schedstat")).ok()?;
        let switches = ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"];
        Some(Self {
            name: read(pid, &format!("task/{tid}/comm")).ok()?.trim().to_owned(),
            switches: switches.iter().filter_map(|name| number(&status, name)).sum(),
            cpu_nanos: times.split_whitespace().next()?.parse().ok()?,
        })
    }
}

/// The children of a process, all its threads'.
pub fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
    let words = lists.flat_map(|list| {
        list.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<i32>>()
    });
    words.collect()
}

fn read(pid: i32, name: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

fn entries(pid: i32, name: &str) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/{name}"))?.count())
}

fn number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}
