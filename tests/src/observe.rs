//! Eyes that do not ask Wherry: HTTP answers, `/proc`, the state of links.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::host::{Host, Side};

/// How long a client waits for a gateway's answer.
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// `GET path`, one connection; the body of a 200.
///
/// # Errors
/// No connection, no answer in time, or another status.
pub fn http_get(address: &str, path: &str) -> Result<String> {
    let address: SocketAddr = address.parse()?;
    let mut stream = TcpStream::connect_timeout(&address, HTTP_TIMEOUT)?;
    stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an empty answer")?;
    // Small servers answer as HTTP/1.0.
    if !["HTTP/1.1 200", "HTTP/1.0 200"].iter().any(|ok| head.starts_with(ok)) {
        bail!("answered {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

/// What a client that never stops asking saw.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    pub answered: u64,
    /// Each failure: how long after the start, and what.
    pub failed: Vec<(Duration, String)>,
    /// The value of `field` in the JSON answers, and how often.
    pub seen: BTreeMap<String, u64>,
}

/// Calls `address` from outside while `work` runs: every few milliseconds, and
/// half of the time at most, so that an emulated gateway has some left for `work`.
///
/// # Errors
/// What `work` says.
pub fn under_traffic<T>(
    host: &Host,
    address: &str,
    field: &str,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Traffic)> {
    let end = AtomicBool::new(false);
    let asked = AtomicU64::new(0);
    let (result, traffic) = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            host.inside(Side::Wan, || {
                let (start, mut traffic) = (Instant::now(), Traffic::default());
                while !end.load(Ordering::Relaxed) {
                    asked.fetch_add(1, Ordering::Relaxed);
                    let asking = Instant::now();
                    match http_get(address, "/") {
                        Ok(body) => {
                            traffic.answered += 1;
                            *traffic.seen.entry(json_field(&body, field)).or_default() += 1;
                        }
                        Err(error) => traffic.failed.push((start.elapsed(), format!("{error:#}"))),
                    }
                    std::thread::sleep(asking.elapsed().max(Duration::from_millis(5)));
                }
                Ok(traffic)
            })
        });
        let result = work();
        end.store(true, Ordering::Relaxed);
        (result, client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    Ok((result?, traffic?))
}

/// A field of a JSON object as text; empty if it is not there.
#[must_use]
pub fn json_field(text: &str, field: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    match &value[field] {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Field 22 of `/proc/PID/stat` (proc(5)).
#[must_use]
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Proportional set size in KiB: `Pss` of `/proc/PID/smaps_rollup`.
#[must_use]
pub fn pss_kib(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().split(' ').next()?.parse().ok())
}

/// `CLOCK_MONOTONIC`, which all processes of a machine share.
#[must_use]
pub fn monotonic_nanos() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    let now = now.unwrap_or_else(|_| nix::sys::time::TimeSpec::new(0, 0));
    let seconds = u64::try_from(now.tv_sec()).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap_or_default()
}

/// The children of a process, all threads'.
#[must_use]
pub fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|word| word.parse().ok())
        .collect()
}
