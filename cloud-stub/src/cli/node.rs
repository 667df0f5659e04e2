//! `node`: gateways, and what is known of them.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;
use wherry_bundle::Name;

use super::client::Api;
use super::table::{Output, ago, columns, facts, list, print};
use crate::version::ProductType;
use crate::view::{self, container_text, phase_text};

#[derive(Debug, Subcommand)]
pub enum Node {
    /// Add a node; prints its token once.
    Add {
        name: Name,
        #[arg(long)]
        project: Name,
        /// gateway-single-node, extensive-single-node or extensive-multiple-nodes.
        #[arg(long, default_value_t = ProductType::GatewaySingleNode)]
        product_type: ProductType,
        /// As images name it: amd64, arm64, arm/v7 …
        #[arg(long)]
        arch: String,
        /// `key=value`; may be given several times.
        #[arg(long = "label", value_parser = label)]
        labels: Vec<(String, String)>,
    },
    /// List all nodes.
    List,
    /// Show all that is known of a node.
    Show { name: Name },
    /// Print a wherry.toml for the node.
    Config { name: Name },
    /// Remove a node; it can no longer log in.
    Remove { name: Name },
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write key=value".into()),
    }
}

impl Node {
    pub(super) fn run(self, api: &Api, output: Output) -> Result<()> {
        match self {
            Self::Add { name, project, product_type, arch, labels } => {
                let labels: BTreeMap<String, String> = labels.into_iter().collect();
                let body = json!({
                    "name": name, "project": project, "product_type": product_type,
                    "architecture": arch, "labels": labels,
                });
                let added: view::NodeAdded = api.post("/v1/nodes", &body)?;
                print(output, &added, |added| {
                    let hint =
                        format!("`wherry-cloud node config {}` prints its wherry.toml", added.name);
                    facts([
                        ("node", added.name.to_string()),
                        ("token", added.token.clone()),
                        ("next", hint),
                    ])
                })
            }
            Self::Config { name } => {
                print!("{}", api.text(&format!("/v1/nodes/{name}/config"))?);
                Ok(())
            }
            Self::Remove { name } => api.delete(&format!("/v1/nodes/{name}"), &[]),
            Self::List => {
                let all: Vec<view::Node> = api.get("/v1/nodes", &[])?;
                print(output, &all, |all| columns(HEAD, all.iter().map(row)))
            }
            Self::Show { name } => {
                let one: view::NodeDetail = api.get(&format!("/v1/nodes/{name}"), &[])?;
                print(output, &one, detail)
            }
        }
    }
}

const HEAD: [&str; 7] = ["NAME", "PROJECT", "ARCH", "STATE", "GENERATION", "PHASE", "PODS"];

fn row(node: &view::Node) -> [String; 7] {
    [
        node.name.to_string(),
        node.project.to_string(),
        node.architecture.clone(),
        state(node),
        format!("{}/{}", node.generation, node.generation_wanted),
        phase(node),
        format!("{}/{}", node.pods_available, node.pods_total),
    ]
}

fn state(node: &view::Node) -> String {
    match (node.online, node.last_seen) {
        (true, _) => "online".into(),
        (false, None) => "never seen".into(),
        (false, Some(_)) => format!("offline, {}", ago(node.offline_since.or(node.last_seen))),
    }
}

fn phase(node: &view::Node) -> String {
    match &node.refused {
        Some(refused) => format!("refused: {}", refused.reason),
        None => node.phase.as_ref().map(phase_text).unwrap_or_default(),
    }
}

fn detail(detail: &view::NodeDetail) -> String {
    let node = &detail.node;
    let labels = node.labels.iter().map(|(key, value)| format!("{key}={value}"));
    let mut text = facts([
        ("name", node.name.to_string()),
        ("project", node.project.to_string()),
        ("product type", node.product_type.to_string()),
        ("architecture", node.architecture.clone()),
        ("labels", list(labels)),
        ("state", state(node)),
        ("last seen", ago(node.last_seen)),
        ("applications", list(&detail.applications)),
        ("generation", format!("{} (wanted: {})", node.generation, node.generation_wanted)),
        ("phase", phase(node)),
        ("wherry", detail.wherry_version.clone().unwrap_or_default()),
        ("kernel", detail.kernel.clone().unwrap_or_default()),
        (
            "last error",
            detail
                .last_error
                .as_ref()
                .map(|e| format!("{}: {}", e.subject, e.text))
                .unwrap_or_default(),
        ),
        (
            "events",
            format!(
                "{} waiting on the node, {} dropped there",
                detail.events_waiting, detail.events_dropped
            ),
        ),
    ]);
    if detail.pods.is_empty() {
        return text;
    }
    let rows = detail.pods.iter().flat_map(|pod| {
        let kind = serde_json::to_value(pod.phase).unwrap_or_default();
        let phase = kind.as_str().unwrap_or_default().to_owned();
        pod.containers.iter().map(move |container| {
            [
                pod.name.to_string(),
                container.name.to_string(),
                phase.clone(),
                container_text(container.state),
                container.restarts.to_string(),
                pod.last_error.clone().unwrap_or_default(),
            ]
        })
    });
    text.push('\n');
    text + &columns(["POD", "CONTAINER", "PHASE", "STATE", "RESTARTS", "LAST ERROR"], rows)
}
