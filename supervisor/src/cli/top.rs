//! `wherry top`: what the pods use, over a second.

use std::io::Write;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Serialize;
use wherry_bundle::Name;
use wherry_bundle::message::PodPhase;

use super::args::Output;
use super::show::json;
use super::table::{Table, bytes};
use super::{CliError, ask};
use crate::control::{ClientError, PodDescription, PodPressure, Request, Response};

/// Processor time is what was used in this.
const SPAN: Duration = Duration::from_secs(1);
/// Between two tables, less the span.
const PAUSE: Duration = Duration::from_secs(1);
/// Clears a terminal (ECMA-48: ED, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// A pod at a moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Row {
    pod: Name,
    phase: PodPhase,
    /// Thousandths of a processor; absent for one that came just now.
    cpu_millis: Option<u64>,
    memory_bytes: Option<u64>,
    memory_bytes_max: Option<u64>,
    processes: Option<u64>,
    pressure: Option<PodPressure>,
    restarts: u32,
    oom_kills: Option<u64>,
}

pub(super) fn top(
    socket: &Path,
    pod: Option<&Name>,
    follow: bool,
    output: Output,
    out: &mut impl Write,
) -> Result<(), CliError> {
    loop {
        let (began, before) = (Instant::now(), look(socket, pod)?);
        sleep(SPAN);
        let (span, after) = (began.elapsed(), look(socket, pod)?);
        let rows = rows(&before, &after, span);
        if output == Output::Json {
            json(out, &rows)?;
        } else {
            write!(out, "{}{}", if follow { CLEAR } else { "" }, table(&rows))?;
        }
        out.flush()?;
        if !follow {
            return Ok(());
        }
        sleep(PAUSE);
    }
}

fn look(socket: &Path, pod: Option<&Name>) -> Result<Vec<PodDescription>, CliError> {
    match ask(socket, &Request::Describe { pod: pod.cloned() })? {
        Response::Pods(pods) => Ok(pods),
        _ => Err(ClientError::Unexpected.into()),
    }
}

fn rows(before: &[PodDescription], after: &[PodDescription], span: Duration) -> Vec<Row> {
    let row = |pod: &PodDescription| {
        let name = &pod.status.name;
        let earlier = before.iter().find(|other| other.status.name == *name);
        let used = |pod: &PodDescription| pod.usage.map(|usage| usage.cpu_micros);
        let micros = used(pod).zip(earlier.and_then(used)).map(|(b, a)| b.saturating_sub(a));
        Row {
            pod: name.clone(),
            phase: pod.status.phase,
            cpu_millis: micros.map(|micros| per_second(micros, span)),
            memory_bytes: pod.usage.map(|usage| usage.memory_bytes),
            memory_bytes_max: pod.memory_bytes_max,
            processes: pod.usage.map(|usage| usage.processes),
            pressure: pod.usage.and_then(|usage| usage.pressure),
            restarts: pod.status.containers.iter().map(|container| container.restarts).sum(),
            oom_kills: pod.usage.map(|usage| usage.oom_kills),
        }
    };
    let mut rows: Vec<Row> = after.iter().map(row).collect();
    rows.sort_by(|a, b| b.memory_bytes.cmp(&a.memory_bytes).then_with(|| a.pod.cmp(&b.pod)));
    rows
}

/// Thousandths of a processor.
fn per_second(micros: u64, span: Duration) -> u64 {
    let span = u64::try_from(span.as_micros()).unwrap_or(u64::MAX).max(1);
    micros.saturating_mul(1_000) / span
}

fn table(rows: &[Row]) -> Table {
    let heads =
        ["POD", "PHASE", "CPU", "MEMORY", "OF LIMIT", "PROCESSES", "WAITS %", "RESTARTS", "OOM"];
    let mut table = Table::new(&heads);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    for row in rows {
        let share = row.memory_bytes.zip(row.memory_bytes_max.filter(|max| *max > 0));
        let waits = row.pressure.map(|PodPressure { cpu, memory, io }| {
            format!("cpu {cpu:.1}, memory {memory:.1}, io {io:.1}")
        });
        table.row(vec![
            row.pod.to_string(),
            row.phase.as_str().into(),
            or_dash(row.cpu_millis.map(|millis| format!("{millis}m"))),
            or_dash(row.memory_bytes.map(bytes)),
            or_dash(share.map(|(used, max)| format!("{} %", used.saturating_mul(100) / max))),
            or_dash(row.processes.map(|count| count.to_string())),
            or_dash(waits),
            row.restarts.to_string(),
            or_dash(row.oom_kills.map(|count| count.to_string())),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use wherry_bundle::Generation;
    use wherry_bundle::message::PodStatus;

    use super::*;
    use crate::control::PodUsage;

    fn pod(name: &str, usage: Option<(u64, u64)>) -> PodDescription {
        let usage = usage.map(|(cpu_micros, memory_bytes)| PodUsage {
            cpu_micros,
            memory_bytes,
            memory_bytes_peak: memory_bytes,
            processes: 3,
            oom_kills: 1,
            pressure: Some(PodPressure { cpu: 1.25, memory: 0.0, io: 10.0 }),
        });
        PodDescription {
            status: PodStatus {
                name: Name::new(name).unwrap(),
                deployment: Name::new("web").unwrap(),
                generation: Generation(1),
                phase: PodPhase::Available,
                address: String::new(),
                containers: Vec::new(),
                last_error: None,
            },
            hash: String::new(),
            current: true,
            restart_policy: None,
            grace_seconds: 0,
            memory_bytes_max: Some(64 << 20),
            cpu_millis_max: None,
            containers: Vec::new(),
            usage,
            events: Vec::new(),
        }
    }

    #[test]
    fn what_is_used_is_what_came_in_the_span() {
        let before = [pod("web-1", Some((1_000, 16 << 20))), pod("web-2", Some((5, 32 << 20)))];
        let after = [
            pod("web-1", Some((501_000, 16 << 20))),
            pod("web-2", Some((5, 32 << 20))),
            pod("web-3", Some((7, 1 << 20))),
            pod("web-4", None),
        ];
        let rows = rows(&before, &after, Duration::from_secs(2));
        let lines = table(&rows).to_string();
        let lines: Vec<Vec<&str>> = lines
            .lines()
            .map(|line| line.split("  ").filter(|c| !c.is_empty()).collect())
            .collect();
        let waits = "cpu 1.2, memory 0.0, io 10.0";
        let row = |line: usize| lines[line].iter().map(|cell| cell.trim()).collect::<Vec<_>>();
        assert_eq!(row(1), ["web-2", "available", "0m", "32.0 MiB", "50 %", "3", waits, "0", "1"]);
        assert_eq!(
            row(2),
            ["web-1", "available", "250m", "16.0 MiB", "25 %", "3", waits, "0", "1"]
        );
        assert_eq!(row(3), ["web-3", "available", "-", "1.0 MiB", "1 %", "3", waits, "0", "1"]);
        assert_eq!(row(4), ["web-4", "available", "-", "-", "-", "-", "-", "0", "-"]);
    }
}
