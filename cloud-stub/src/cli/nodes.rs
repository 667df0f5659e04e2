//! `wherry-cloud node …`, `events` and `key`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use wherry_bundle::Name;
use wherry_bundle::message::{Event, FlashUse, PodStatus};

use super::client::{CliError, Client};
use super::output::{fields, line, list, print, progress, size, table};
use super::{Output, carried, time};
use crate::api::{self, NewNodeRequest};
use crate::clock::now_millis;
use crate::version::ProductType;
use crate::view::{self, NodeAdded, NodeDetail, container_text, phase_text};

#[derive(Debug, Subcommand)]
pub(super) enum Node {
    /// Add a node; prints its password at the broker.
    Add(Add),
    /// All nodes.
    List,
    /// Everything that is known of a node.
    Show { name: Name },
    /// The node's configuration file, with its password in it.
    Config { name: Name },
    /// Take in what a gateway without a line wrote to a file for the cloud.
    ImportStatus { file: PathBuf },
    /// Remove a node with its events; what runs on it runs on.
    Remove { name: Name },
}

#[derive(Debug, Args)]
pub(super) struct Add {
    name: Name,
    #[arg(long)]
    project: Name,
    /// gateway-single-node, extensive-single-node or extensive-multiple-nodes.
    #[arg(long, default_value_t = ProductType::GatewaySingleNode)]
    product_type: ProductType,
    /// As images name it (amd64, arm64, arm/v7 …), or as `uname -m` does.
    #[arg(long)]
    arch: String,
    /// May be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(super) struct Events {
    node: Name,
    /// Only the newest so many.
    #[arg(long, default_value_t = 100)]
    tail: u32,
}

#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// The public key, in hexadecimal.
    Show,
}

impl Node {
    pub fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        match self {
            Self::Add(add) => {
                let added: NodeAdded = client.post("/v1/nodes", &add.request()?)?;
                print(output, &added, |added| format!("{}\n", added.token))?;
                if output == Output::Table {
                    eprintln!(
                        "node {0} added; above is its password, `wherry-cloud node config {0}` \
                         prints its configuration",
                        added.name
                    );
                }
                Ok(())
            }
            Self::List => {
                let all: Vec<view::Node> = client.get("/v1/nodes", &[])?;
                print(output, &all, |all| rows(all))
            }
            Self::Show { name } => {
                let one: NodeDetail = client.get(&format!("/v1/nodes/{name}"), &[])?;
                print(output, &one, detail)
            }
            Self::Config { name } => {
                let config = client.text(&format!("/v1/nodes/{name}/config"))?;
                print(output, &BTreeMap::from([("config", &config)]), |_| config.clone())
            }
            Self::ImportStatus { file } => carried::import_status(client, &file, output),
            Self::Remove { name } => client.delete(&format!("/v1/nodes/{name}"), &[]),
        }
    }
}

impl Add {
    fn request(self) -> Result<NewNodeRequest, CliError> {
        let mut labels = BTreeMap::new();
        for (key, value) in self.labels {
            if labels.insert(key.clone(), value).is_some() {
                return Err(CliError::input(format!("the label `{key}` is given twice")));
            }
        }
        Ok(NewNodeRequest {
            name: self.name,
            project: self.project,
            product_type: self.product_type,
            architecture: self.arch,
            labels,
        })
    }
}

impl Events {
    pub fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        let tail = self.tail.to_string();
        let path = format!("/v1/nodes/{}/events", self.node);
        let events: Vec<Event> = client.get(&path, &[("tail", &tail)])?;
        print(output, &events, |events| {
            let rows: Vec<_> = events.iter().map(event_row).collect();
            table(["SEQ", "TIME", "GENERATION", "WHAT", "SUBJECT", "TEXT"], &rows)
        })
    }
}

impl Key {
    pub fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        match self {
            Self::Show => {
                let key: api::Key = client.get("/v1/key", &[])?;
                match output {
                    Output::Json => print(output, &key, |_| String::new()),
                    Output::Table => line(&key.public_key),
                }
            }
        }
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn event_row(event: &Event) -> [String; 6] {
    let kind = serde_json::to_value(event.kind).ok();
    let kind = kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or("?").to_owned();
    [
        event.seq.to_string(),
        time::text(event.wall_time.0),
        event.generation.to_string(),
        kind,
        event.subject.clone(),
        event.text.clone(),
    ]
}

fn rows(all: &[view::Node]) -> String {
    let now = now_millis();
    let row = |node: &view::Node| {
        let labels = node.labels.iter().map(|(key, value)| format!("{key}={value}"));
        [
            node.name.to_string(),
            node.project.to_string(),
            if node.online { "online".into() } else { "offline".into() },
            time::ago(now, node.last_seen),
            format!("{}/{}", node.generation, node.generation_wanted),
            node.phase.as_ref().map_or("-".into(), phase_text),
            format!("{}/{}", node.pods_available, node.pods_total),
            node.architecture.clone(),
            list(labels),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let headings =
        ["NAME", "PROJECT", "STATE", "SEEN", "GENERATION", "PHASE", "PODS", "ARCH", "LABELS"];
    table(headings, &rows)
}

fn detail(detail: &NodeDetail) -> String {
    let node = &detail.node;
    let now = now_millis();
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let state = match (node.online, node.offline_since) {
        (true, _) => "online".into(),
        (false, Some(since)) => format!("offline since {}", time::text(since)),
        (false, None) => "never seen".into(),
    };
    let uptime = detail.uptime_seconds.map(|s| time::short(Duration::from_secs(s)));
    let failed = node.failed.as_ref().map_or("-".into(), |failed| {
        let lines = failed.lines.iter().map(|line| format!("\n    {line}"));
        format!("generation {}: {}{}", failed.generation, failed.cause, lines.collect::<String>())
    });
    let held = node
        .held
        .as_ref()
        .map_or("-".into(), |held| format!("generation {} by {}", held.generation, held.by));
    let refused = node.refused.as_ref().map_or("-".into(), |refused| {
        format!("generation {}: {}", refused.generation, refused.reason)
    });
    let last_error = detail.last_error.as_ref().map_or("-".into(), |event| {
        format!("{} {} {}", time::text(event.wall_time.0), event.subject, event.text)
    });
    let labels = node.labels.iter().map(|(key, value)| format!("{key}={value}"));
    let mut text = fields(&[
        ("Name", node.name.to_string()),
        ("Project", node.project.to_string()),
        ("Product type", node.product_type.to_string()),
        ("Architecture", node.architecture.clone()),
        ("Labels", list(labels)),
        ("State", state),
        ("Seen", time::ago(now, node.last_seen)),
        ("Applications", list(&detail.applications)),
        ("Generation", format!("{} of {}", node.generation, node.generation_wanted)),
        (
            "Carried",
            detail.carried.as_ref().map_or("-".into(), |carried| {
                format!("generation {} with {}", carried.generation, carried.version)
            }),
        ),
        ("Phase", node.phase.as_ref().map_or("-".into(), phase_text)),
        ("Transfer", progress(node.transfer.as_ref())),
        ("Refused", refused),
        ("Failed", failed),
        ("Held", held),
        ("Last error", last_error),
        ("Wherry", or_dash(&detail.wherry_version)),
        ("Kernel", or_dash(&detail.kernel)),
        ("Uptime", or_dash(&uptime)),
        ("Written to flash", detail.node.flash.map_or("-".into(), flash_text)),
        (
            "Events",
            format!(
                "{} waiting, {} dropped on the node, {} missing here",
                detail.events_waiting, detail.events_dropped, detail.events_missing
            ),
        ),
    ]);
    let rows: Vec<_> = detail.pods.iter().map(pod_row).collect();
    text.push('\n');
    text += &table(["POD", "PHASE", "ADDRESS", "RESTARTS", "CONTAINERS", "LAST ERROR"], &rows);
    text
}

fn flash_text(flash: FlashUse) -> String {
    let (layers, state) = (size(flash.layer_bytes), size(flash.state_bytes));
    format!("{layers} of layers, {state} of state, {} of logs", size(flash.log_bytes))
}

fn pod_row(pod: &PodStatus) -> [String; 6] {
    let phase = serde_json::to_value(pod.phase).ok();
    let containers = pod.containers.iter().map(|container| {
        let exit = container.last_exit.map(|exit| format!(", last {exit}")).unwrap_or_default();
        format!("{}: {}{exit}", container.name, container_text(container.state))
    });
    [
        pod.name.to_string(),
        phase.as_ref().and_then(|phase| phase.as_str()).unwrap_or("?").to_owned(),
        if pod.address.is_empty() { "host".into() } else { pod.address.clone() },
        pod.containers.iter().map(|c| u64::from(c.restarts)).sum::<u64>().to_string(),
        list(containers),
        pod.last_error.clone().unwrap_or_else(|| "-".into()),
    ]
}
