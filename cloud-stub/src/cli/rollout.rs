//! `rollout`: versions on their way to nodes.

use anyhow::Result;
use clap::Subcommand;
use wherry_bundle::Name;

use super::client::Api;
use super::table::{Output, columns, print};
use crate::view::{self, RolloutRequest, VersionId, phase_text};

#[derive(Debug, Subcommand)]
pub enum Rollout {
    /// Issue a version to every node that the selector finds.
    Start {
        /// APPLICATION@X.Y.Z.N
        #[arg(long)]
        version: VersionId,
        /// `*`, `name=gw-1`, `site=berlin,role!=test` …
        #[arg(long)]
        nodes: String,
        /// Only say which nodes would get it, and whether they could take it.
        #[arg(long)]
        dry_run: bool,
    },
    /// How far rollouts are on each of their nodes.
    Status {
        /// Only this one; else all, newest first.
        id: Option<u64>,
        #[arg(long)]
        application: Option<Name>,
    },
}

impl Rollout {
    pub(super) fn run(self, api: &Api, output: Output) -> Result<()> {
        match self {
            Self::Start { version, nodes, dry_run } => {
                let request = RolloutRequest { version, nodes, dry_run };
                let started: view::Rollout = api.post("/v1/rollouts", &request)?;
                print(output, &started, table)
            }
            Self::Status { id: Some(id), application: _ } => {
                let one: view::Rollout = api.get(&format!("/v1/rollouts/{id}"), &[])?;
                print(output, &one, table)
            }
            Self::Status { id: None, application } => {
                let application = application.map(|name| name.to_string());
                let query: Vec<_> =
                    application.as_deref().map(|name| ("application", name)).into_iter().collect();
                let all: Vec<view::Rollout> = api.get("/v1/rollouts", &query)?;
                print(output, &all, |all| all.iter().map(table).collect::<Vec<_>>().join("\n"))
            }
        }
    }
}

fn table(rollout: &view::Rollout) -> String {
    let title = match rollout.id {
        Some(id) => format!("rollout {id}: {} to {}\n", rollout.version, rollout.selector),
        None => format!("dry run: {} to {}\n", rollout.version, rollout.selector),
    };
    let rows = rollout.nodes.iter().map(|node| {
        let state = serde_json::to_value(node.state).unwrap_or_default();
        let phase = match &node.refused {
            Some(refused) => refused.reason.clone(),
            None => node.phase.as_ref().map(phase_text).unwrap_or_default(),
        };
        [
            node.name.to_string(),
            state.as_str().unwrap_or_default().to_owned(),
            format!("{}/{}", node.generation, node.generation_wanted),
            if node.online { "online".into() } else { "offline".to_owned() },
            format!("{}/{}", node.pods_available, node.pods_total),
            phase,
        ]
    });
    title + &columns(["NODE", "STATE", "GENERATION", "LINE", "PODS", "PHASE"], rows)
}
