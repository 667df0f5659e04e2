//! `ps`, `status`, `describe`, `events`: one question, one page.

use std::io::Write;
use std::path::Path;

use serde::Serialize;
use wherry_bundle::Name;
use wherry_bundle::message::{
    ContainerState, ContainerStatus, Event, FlashUse, NodeStatus, Phase, PodPhase, PodStatus,
    Transfer,
};
use wherry_bundle::model::{Protocol, RestartPolicy};

use super::args::Output;
use super::table::{Table, bytes, length};
use super::volume::over_text;
use super::{CliError, ask};
use crate::clock::millis_text;
use crate::control::{
    ClientError, CloudLink, ContainerDescription, LocalStatus, PodDescription, Request, Response,
    VolumeStatus,
};

pub(super) fn ps(socket: &Path, output: Output, out: &mut impl Write) -> Result<(), CliError> {
    let pods = local_status(socket)?.node.pods;
    if output == Output::Json {
        return json(out, &pods);
    }
    let heads = ["POD", "PHASE", "READY", "RESTARTS", "UP", "ADDRESS", "GENERATION", "NOTE"];
    let mut table = Table::new(&heads);
    for pod in &pods {
        let running = pod.containers.iter().filter_map(running_seconds);
        let restarts: u32 = pod.containers.iter().map(|c| c.restarts).sum();
        table.row(vec![
            pod.name.to_string(),
            pod.phase.as_str().into(),
            format!("{}/{}", running.clone().count(), pod.containers.len()),
            restarts.to_string(),
            running.max().map(length).unwrap_or_default(),
            address(pod),
            pod.generation.to_string(),
            pod.last_error.clone().unwrap_or_default(),
        ]);
    }
    Ok(write!(out, "{table}")?)
}

pub(super) fn status(socket: &Path, output: Output, out: &mut impl Write) -> Result<(), CliError> {
    let LocalStatus { node, cloud, volumes } = local_status(socket)?;
    if output == Output::Json {
        /// The status as the cloud gets it, and what only is shown here.
        #[derive(Serialize)]
        struct Page {
            #[serde(flatten)]
            node: NodeStatus,
            cloud: CloudLink,
            volumes: Vec<VolumeStatus>,
        }
        return json(out, &Page { node, cloud, volumes });
    }
    let mut line = |head: &str, text: String| writeln!(out, "{head:<12}{text}");
    line("node", node.node.to_string())?;
    line("phase", phase(&node.phase))?;
    line("generation", node.generation.to_string())?;
    for version in &node.versions {
        let text = format!("{} {}  {}", version.application, version.number, version.description);
        line("version", text)?;
    }
    if let Some(refused) = &node.refused {
        line("refused", refused.reason.clone())?;
    }
    if let Some(failed) = &node.failed {
        line("failed", format!("generation {}: {}", failed.generation, failed.cause))?;
        for text in &failed.lines {
            line("", text.clone())?;
        }
    }
    if let Some(held) = &node.held {
        line("held", format!("generation {} by {}", held.generation, held.by))?;
    }
    if let Some(transfer) = &node.transfer {
        line("transfer", transfer_text(transfer))?;
    }
    line("pods", pods_text(&node.pods))?;
    for pod in &node.pods {
        if let Some(error) = &pod.last_error {
            line("", format!("{}: {error}", pod.name))?;
        }
    }
    for text in volumes.iter().filter_map(over_text) {
        line("volume", text)?;
    }
    line("cloud", cloud_text(&cloud))?;
    let events = format!("{} wait for the cloud", node.events_waiting);
    let dropped = match node.events_dropped {
        0 => String::new(),
        count => format!(", {count} were dropped for want of room"),
    };
    line("events", events + &dropped)?;
    let FlashUse { layer_bytes, state_bytes, log_bytes } = node.flash;
    let (layers, state, logs) = (bytes(layer_bytes), bytes(state_bytes), bytes(log_bytes));
    line("written", format!("{layers} of layers, {state} of state, {logs} of logs since boot"))?;
    let system = format!("{}, kernel {}", node.architecture, node.kernel);
    line("system", format!("{system}, up {}", length(node.uptime_seconds)))?;
    line("wherry", node.wherry_version)?;
    Ok(())
}

pub(super) fn describe(
    socket: &Path,
    pod: Name,
    output: Output,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let Response::Pods(pods) = ask(socket, &Request::Describe { pod: Some(pod) })? else {
        return Err(ClientError::Unexpected.into());
    };
    if output == Output::Json {
        return json(out, &pods);
    }
    for (number, pod) in pods.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        describe_pod(pod, out)?;
    }
    Ok(())
}

pub(super) fn events(
    socket: &Path,
    tail: u32,
    output: Output,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let Response::Events(events) = ask(socket, &Request::Events { tail })? else {
        return Err(ClientError::Unexpected.into());
    };
    if output == Output::Json {
        return json(out, &events);
    }
    let mut table = Table::new(&["TIME", "EVENT", "POD", "TEXT"]);
    events.iter().for_each(|event| table.row(event_row(event)));
    Ok(write!(out, "{table}")?)
}

/// The node's status, by itself.
pub(super) fn local_status(socket: &Path) -> Result<LocalStatus, CliError> {
    match ask(socket, &Request::Status)? {
        Response::Status(status) => Ok(*status),
        _ => Err(ClientError::Unexpected.into()),
    }
}

pub(super) fn json(out: &mut impl Write, value: &impl Serialize) -> Result<(), CliError> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(out.write_all(text.as_bytes())?)
}

fn describe_pod(pod: &PodDescription, out: &mut impl Write) -> Result<(), CliError> {
    let status = &pod.status;
    let mut line = |head: &str, text: String| writeln!(out, "{head:<12}{text}");
    line("pod", status.name.to_string())?;
    line("deployment", status.deployment.to_string())?;
    line("phase", status.phase.as_str().into())?;
    if let Some(error) = &status.last_error {
        line("last error", error.clone())?;
    }
    let current = if pod.current { "" } else { "  (not what the current generation asks for)" };
    line("generation", format!("{}{current}", status.generation))?;
    line("address", address(status))?;
    if let Some(policy) = pod.restart_policy {
        let policy = match policy {
            RestartPolicy::Always => "always",
            RestartPolicy::OnFailure => "on failure",
            RestartPolicy::Never => "never",
        };
        line("restarts", format!("{policy}; {} s from stop signal to kill", pod.grace_seconds))?;
        line("made of", pod.hash.clone())?;
    }
    if let Some(usage) = &pod.usage {
        let memory = format!("{} of memory (peak {})", bytes(usage.memory_bytes), {
            bytes(usage.memory_bytes_peak)
        });
        let cpu = format!("{} ms of processor time", usage.cpu_micros / 1000);
        line("uses", format!("{memory}, {cpu}, {} processes", usage.processes))?;
        if usage.oom_kills > 0 {
            line("", format!("{} processes were killed for want of memory", usage.oom_kills))?;
        }
    }
    for container in &status.containers {
        writeln!(out, "container {}", container.name)?;
        writeln!(out, "  state       {}", container_state(container))?;
        let known = pod.containers.iter().find(|known| known.name == container.name);
        known.map_or(Ok(()), |known| describe_container(known, out))?;
    }
    if !pod.events.is_empty() {
        writeln!(out, "events")?;
        for event in &pod.events {
            writeln!(out, "  {}  {}", millis_text(event.wall_time), event.text)?;
        }
    }
    Ok(())
}

fn describe_container(known: &ContainerDescription, out: &mut impl Write) -> Result<(), CliError> {
    let mut line = |head: &str, text: String| writeln!(out, "  {head:<12}{text}");
    line("image", known.image.clone())?;
    line("command", known.args.join(" "))?;
    line("user", known.user.to_string())?;
    if !known.capabilities.is_empty() {
        line("may", known.capabilities.join(", "))?;
    }
    let memory = known.memory_bytes.map(|count| format!("{} of memory", bytes(count)));
    let cpu = known.cpu_millis.map(|millis| format!("{millis} thousandths of a processor"));
    let limits: Vec<String> = memory.into_iter().chain(cpu).collect();
    if !limits.is_empty() {
        line("limits", limits.join(", "))?;
    }
    for port in &known.ports {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let host = port.host_port.map(|host| format!(", port {host} of the node"));
        let text = format!("{}/{protocol}{}", port.container_port, host.unwrap_or_default());
        line("port", text)?;
    }
    for mount in &known.mounts {
        line("mount", format!("{} from {}", mount.path, mount.source))?;
    }
    Ok(())
}

fn event_row(event: &Event) -> Vec<String> {
    // Its JSON form is its name for people too.
    let kind = serde_json::to_value(event.kind).ok();
    let kind = kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or_default().to_owned();
    vec![millis_text(event.wall_time), kind, event.subject.clone(), event.text.clone()]
}

fn container_state(container: &ContainerStatus) -> String {
    let state = match container.state {
        ContainerState::Waiting => "waits".to_owned(),
        ContainerState::Running { pid, seconds } => {
            format!("runs as process {pid} for {}", length(seconds))
        }
        ContainerState::Exited => "ended".to_owned(),
    };
    let last = container.last_exit.map(|exit| format!(", last end: {exit}"));
    format!("{state}, {} restarts{}", container.restarts, last.unwrap_or_default())
}

fn running_seconds(container: &ContainerStatus) -> Option<u64> {
    match container.state {
        ContainerState::Running { seconds, .. } => Some(seconds),
        ContainerState::Waiting | ContainerState::Exited => None,
    }
}

fn address(pod: &PodStatus) -> String {
    if pod.address.is_empty() { "host".into() } else { pod.address.clone() }
}

fn phase(phase: &Phase) -> String {
    match phase {
        Phase::Empty => "empty: nothing was ever asked for".into(),
        Phase::Fetching { bytes_done, bytes_total } => {
            format!("fetching layers: {} of {}", bytes(*bytes_done), bytes(*bytes_total))
        }
        Phase::Rolling { pods_done, pods_total } => {
            format!("rolling: {pods_done} of {pods_total} pods")
        }
        Phase::Stabilising => "stabilising: all pods are available".into(),
        Phase::Good => "good: all pods are available".into(),
    }
}

fn pods_text(pods: &[PodStatus]) -> String {
    let count = |phase| pods.iter().filter(|pod| pod.phase == phase).count();
    let (succeeded, failed) = (count(PodPhase::Succeeded), count(PodPhase::Failed));
    let mut text = format!("{} of {} available", count(PodPhase::Available), pods.len());
    for (count, word) in [(succeeded, "succeeded"), (failed, "failed")] {
        if count > 0 {
            text.push_str(&format!(", {count} {word}"));
        }
    }
    text
}

fn transfer_text(transfer: &Transfer) -> String {
    let percent = transfer.percent();
    let (fetched, copied) = (bytes(transfer.bytes_fetched), bytes(transfer.bytes_copied));
    let left = transfer.seconds_left.map_or("unknown".into(), length);
    let rate = bytes(transfer.bytes_per_second);
    let refused = match transfer.chunks_refused {
        0 => String::new(),
        count => format!(", {count} chunks were refused"),
    };
    format!("{percent} %, {fetched} fetched, {copied} copied, {rate}/s, {left} left{refused}")
}

fn cloud_text(cloud: &CloudLink) -> String {
    match (cloud.connected, &cloud.last_error) {
        (true, _) => "connected".into(),
        (false, Some(error)) => format!("not connected: {error}"),
        (false, None) => "not connected yet".into(),
    }
}
