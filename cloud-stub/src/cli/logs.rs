//! `logs` and `events`: what a node's pods said, and what happened there.

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use wherry_bundle::Name;
use wherry_bundle::message::Event;

use super::client::Api;
use super::table::{Output, columns, print};
use crate::view::LogItem;

#[derive(Debug, Args)]
pub struct Logs {
    node: Name,
    /// A pod, or a deployment: then all its pods.
    pod: Name,
    #[arg(short, long)]
    container: Option<Name>,
    /// Go on with new lines.
    #[arg(short, long)]
    follow: bool,
    /// Only the last so many lines of each container.
    #[arg(long)]
    tail: Option<u32>,
    /// Only lines of the last 30s, 5m, 2h or 1d.
    #[arg(long, value_parser = seconds)]
    since: Option<u64>,
}

impl Logs {
    pub(super) fn run(self, api: &Api, output: Output) -> Result<()> {
        let (pod, container) = (self.pod.to_string(), self.container.map(|name| name.to_string()));
        let (tail, since) = (self.tail.map(|n| n.to_string()), self.since.map(|n| n.to_string()));
        let mut query = vec![("pod", pod.as_str())];
        query.extend(container.as_deref().map(|name| ("container", name)));
        query.extend(tail.as_deref().map(|lines| ("tail", lines)));
        query.extend(since.as_deref().map(|seconds| ("since", seconds)));
        query.extend(self.follow.then_some(("follow", "true")));
        let mut out = std::io::stdout().lock();
        api.lines(&format!("/v1/nodes/{}/logs", self.node), &query, |text| {
            match (output, serde_json::from_str(text)?) {
                (_, LogItem::End { error: Some(error) }) => bail!("{error}"),
                (Output::Json, _) => writeln!(out, "{text}")?,
                (Output::Table, LogItem::End { error: None }) => {}
                (Output::Table, LogItem::Gap { messages }) => {
                    writeln!(out, "-- {messages} message(s) of lines were lost on the way --")?;
                }
                (Output::Table, LogItem::Line(line)) => {
                    writeln!(out, "{}/{} {}", line.pod, line.container, line.text)?;
                }
            }
            out.flush()?;
            Ok(())
        })
    }
}

/// `90`, `90s`, `5m`, `2h`, `1d`.
fn seconds(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3_600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| "write 30s, 5m, 2h or 1d".to_owned())?;
    Ok(number.saturating_mul(unit))
}

#[derive(Debug, Args)]
pub struct Events {
    node: Name,
    /// Only the last so many.
    #[arg(long, default_value_t = 50)]
    tail: u32,
}

impl Events {
    pub(super) fn run(self, api: &Api, output: Output) -> Result<()> {
        let tail = self.tail.to_string();
        let path = format!("/v1/nodes/{}/events", self.node);
        let events: Vec<Event> = api.get(&path, &[("tail", &tail)])?;
        print(output, &events, |events| {
            let rows = events.iter().map(|event| {
                let kind = serde_json::to_value(event.kind).unwrap_or_default();
                [
                    event.seq.to_string(),
                    event.generation.to_string(),
                    kind.as_str().unwrap_or_default().to_owned(),
                    event.subject.clone(),
                    event.text.clone(),
                ]
            });
            columns(["SEQ", "GENERATION", "WHAT", "SUBJECT", "TEXT"], rows)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time() {
        for (text, wanted) in [("90", 90), ("30s", 30), ("5m", 300), ("2h", 7_200), ("1d", 86_400)]
        {
            assert_eq!(seconds(text), Ok(wanted), "{text}");
        }
        for bad in ["", "m", "-1s", "1y", "ä"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
