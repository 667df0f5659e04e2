//! `wherry-cloud rollout …`

use clap::Subcommand;
use wherry_bundle::Name;

use super::client::{CliError, Client};
use super::output::{print, progress, table};
use super::{Output, time};
use crate::clock::now_millis;
use crate::view::{self, RolloutNode, RolloutRequest, RolloutState, VersionId, phase_text};

#[derive(Debug, Subcommand)]
pub(super) enum Rollout {
    /// Give nodes a version: of all their applications one signed bundle.
    Start {
        /// APPLICATION@X.Y.Z.N.
        #[arg(long)]
        version: VersionId,
        /// label=value, label!=value, name=NODE, joined by commas; or `*`.
        #[arg(long)]
        nodes: String,
        /// Only say whether it could be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// How far a rollout is: of this number, else the newest.
    Status {
        id: Option<u64>,
        /// The newest of this application.
        #[arg(long, conflicts_with = "id")]
        application: Option<Name>,
    },
    /// All rollouts, newest first.
    List {
        #[arg(long)]
        application: Option<Name>,
    },
}

impl Rollout {
    pub fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        match self {
            Self::Start { version, nodes, dry_run } => {
                let request = RolloutRequest { version, nodes, dry_run };
                let started: view::Rollout = client.post("/v1/rollouts", &request)?;
                print(output, &started, status)
            }
            Self::Status { id: Some(id), application: _ } => {
                let one: view::Rollout = client.get(&format!("/v1/rollouts/{id}"), &[])?;
                print(output, &one, status)
            }
            Self::Status { id: None, application } => {
                let newest = fetch(client, application.as_ref(), &[("limit", "1")])?;
                let Some(one) = newest.first() else {
                    return Err(CliError::input("there is no rollout yet"));
                };
                print(output, one, status)
            }
            Self::List { application } => {
                let all = fetch(client, application.as_ref(), &[])?;
                print(output, &all, |all| rows(all))
            }
        }
    }
}

fn fetch(
    client: &Client,
    application: Option<&Name>,
    more: &[(&str, &str)],
) -> Result<Vec<view::Rollout>, CliError> {
    let mut query = more.to_vec();
    query.extend(application.map(|name| ("application", name.as_str())));
    client.get("/v1/rollouts", &query)
}

fn status(rollout: &view::Rollout) -> String {
    let title = match rollout.id {
        Some(id) => format!("rollout {id}: {} to {}\n", rollout.version, rollout.selector),
        None => format!("could be done: {} to {}\n", rollout.version, rollout.selector),
    };
    let now = now_millis();
    let row = |node: &RolloutNode| {
        let state = serde_json::to_value(node.state).ok();
        [
            node.name.to_string(),
            state.as_ref().and_then(|state| state.as_str()).unwrap_or("?").to_owned(),
            format!("{}/{}", node.generation, node.generation_wanted),
            node.phase.as_ref().map_or("-".into(), phase_text),
            progress(node.transfer.as_ref()),
            format!("{}/{}", node.pods_available, node.pods_total),
            if node.online { "online".into() } else { "offline".into() },
            time::ago(now, node.last_seen),
            why(node),
        ]
    };
    let rows: Vec<_> = rollout.nodes.iter().map(row).collect();
    let headings =
        ["NODE", "STATE", "GENERATION", "PHASE", "TRANSFER", "PODS", "CONNECTION", "SEEN", "WHY"];
    title + &table(headings, &rows)
}

/// Why it is not there, or not yet.
fn why(node: &RolloutNode) -> String {
    let text = match node.state {
        RolloutState::Refused => node.refused.as_ref().map(|refused| refused.reason.clone()),
        RolloutState::RolledBack | RolloutState::Failed => {
            node.failed.as_ref().map(|failed| failed.cause.to_string())
        }
        RolloutState::Held => node.held.as_ref().map(|held| held.by.clone()),
        RolloutState::Stopped => {
            node.stopped_by.as_ref().map(|by| format!("{by} of its site did not get there"))
        }
        RolloutState::Queued
        | RolloutState::Issued
        | RolloutState::UnderWay
        | RolloutState::Stabilising
        | RolloutState::Done
        | RolloutState::Superseded => None,
    };
    text.unwrap_or_else(|| "-".into())
}

fn rows(all: &[view::Rollout]) -> String {
    let row = |rollout: &view::Rollout| {
        let done = rollout.nodes.iter().filter(|n| n.state == RolloutState::Done).count();
        [
            rollout.id.map_or("-".into(), |id| id.to_string()),
            rollout.version.to_string(),
            rollout.selector.clone(),
            format!("{done}/{}", rollout.nodes.len()),
            time::text(rollout.created_at),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(["ID", "VERSION", "SELECTOR", "DONE", "CREATED"], &rows)
}
