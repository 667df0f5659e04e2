//! `wherry-cloud logs`

use std::io::BufRead;

use clap::Args;
use wherry_bundle::Name;

use super::client::{CliError, Client};
use super::output::{line, plain};
use super::{Output, time};
use crate::view::LogItem;

#[derive(Debug, Args)]
pub(super) struct Logs {
    node: Name,
    /// A pod, or a deployment for all its pods.
    pod: Name,
    /// Only this container.
    #[arg(short, long)]
    container: Option<Name>,
    /// Go on with new lines.
    #[arg(short, long)]
    follow: bool,
    /// Only the last so many lines of each container.
    #[arg(long)]
    tail: Option<u32>,
    /// Only lines of this last time, as 30s, 10m, 2h or 3d.
    #[arg(long, value_parser = time::parse_seconds)]
    since: Option<u64>,
}

impl Logs {
    pub fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        let (tail, since) = (self.tail.map(|n| n.to_string()), self.since.map(|n| n.to_string()));
        let mut query = vec![("pod", self.pod.as_str())];
        query.extend(self.container.as_ref().map(|name| ("container", name.as_str())));
        query.extend(tail.as_deref().map(|tail| ("tail", tail)));
        query.extend(since.as_deref().map(|since| ("since_seconds", since)));
        if self.follow {
            query.push(("follow", "true"));
        }
        let stream = client.stream(&format!("/v1/nodes/{}/logs", self.node), &query)?;
        for text in stream.lines() {
            let item = serde_json::from_str(&text?).map_err(std::io::Error::other)?;
            if let LogItem::End { error } = &item {
                return match error {
                    Some(error) => Err(CliError::input(error)),
                    None => Ok(()),
                };
            }
            match output {
                Output::Json => {
                    line(&serde_json::to_string(&item).map_err(std::io::Error::other)?)?;
                }
                Output::Table => show(&item)?,
            }
        }
        Err(CliError::input("the log ended in the middle: the cloud went away"))
    }
}

fn show(item: &LogItem) -> Result<(), CliError> {
    match item {
        LogItem::Line(log) => {
            let at = time::text(log.wall_time.0);
            line(&format!("{at} {}/{} {}", log.pod, log.container, plain(&log.text)))
        }
        LogItem::Gap { messages } => {
            eprintln!("({messages} messages of log lines were lost on the way)");
            Ok(())
        }
        LogItem::End { .. } => Ok(()),
    }
}
