//! What a node knows of its pods' health, and what it does about versions that
//! do not come up: of one lion, which is ready by what it answers, alive by a
//! command, and says goodbye by an exit code of its own.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cloud::Cloud;
use crate::host::Host;
use crate::node::{Node, pid};
use crate::package::{Component, Package};
use crate::run::wait_for;
use crate::templates::{EVERYWHERE, env, lion};

/// Of the deployment, and the first word of its pods' names.
const CALM: &str = "calm";
/// The exit code that its `preStop` asks for.
const GOODBYE: u8 = 9;
/// With this file a container is ill.
const ILL: &str = "/tmp/ill";
const STABLE_SECONDS: u32 = 3;
/// A lion on an emulated machine is asked for the first time by then; a
/// machine that is slower still gives up for the same reason.
const NEVER_READY_SECONDS: u32 = 12;

/// A version; `variables` make it a good or a bad one.
fn package(number: &str, spec: &str, variables: &[(&str, &str)]) -> Package {
    let container = format!(
        "{}readinessProbe: {{ httpGet: {{ path: /ready, port: 9000 }}, periodSeconds: 1, timeoutSeconds: 10 }}
livenessProbe:
  exec: {{ command: [/bin/busybox, test, '!', -e, {ILL}] }}
  periodSeconds: 1
  timeoutSeconds: 20
  failureThreshold: 2
lifecycle: {{ preStop: {{ httpGet: {{ path: /exit/{GOODBYE}, port: 9000 }} }} }}
",
        env(&[&[EVERYWHERE], variables].concat())
    );
    let template = lion(CALM, spec, "", &container);
    let mut package = Package::new(number, vec![Component::new(CALM, "lion:1.0.0", template)]);
    package.stable_seconds = Some(STABLE_SECONDS);
    package
}

/// A version that is well becomes good, as `generation`; a container that is
/// ill is restarted, by its liveness probe.
///
/// # Errors
/// What is not so.
pub fn good_is_kept(
    host: &Host,
    cloud: &Cloud<'_>,
    node: &Node<'_>,
    (number, generation): (&str, u64),
) -> Result<()> {
    package(number, "", &[]).roll_out(cloud, host)?;
    wait_good(node, generation)?;
    let well = pid(&node.pod(CALM)?, "lion")?;
    node.place().run(&["touch", &format!("/proc/{well}/root{ILL}")])?;
    wait_for("the restart of what is ill", node.place().patience(), || {
        let pod = node.pod(CALM)?;
        ensure!(pod["phase"] == "available" && pid(&pod, "lion")? != well, "{pod}");
        Ok(Some(()))
    })?;
    tells(node, "liveness probe: exit code 1")
}

/// A version whose container crashes is left, after it was started six times.
///
/// # Errors
/// What is not so.
pub fn crashing_is_left(
    host: &Host,
    cloud: &Cloud<'_>,
    node: &Node<'_>,
    (number, generation, good): (&str, u64, u64),
) -> Result<()> {
    let crashing = package(number, "", &[("LION_CRASH_MS", "50")]);
    let failed = is_left(host, cloud, node, (&crashing, generation, good))?;
    let cause = &failed["cause"]["crash-loop"];
    ensure!(cause["container"] == "lion" && cause["exit"]["code"] == 4, "{failed}");
    ensure!(failed["lines"].to_string().contains("crashing as told"), "{failed}");
    Ok(())
}

/// A version that runs and never becomes ready is left at its deadline.
///
/// # Errors
/// What is not so.
pub fn never_ready_is_left(
    host: &Host,
    cloud: &Cloud<'_>,
    node: &Node<'_>,
    (number, generation, good): (&str, u64, u64),
) -> Result<()> {
    let deadline = format!("progressDeadlineSeconds: {NEVER_READY_SECONDS}");
    let silent = package(number, &deadline, &[("LION_READY", "503")]);
    let failed = is_left(host, cloud, node, (&silent, generation, good))?;
    let cause = &failed["cause"]["progress-deadline"];
    ensure!(cause["deployment"] == CALM && cause["exit"].is_null(), "{failed}");
    Ok(())
}

/// The pod that was replaced since has said goodbye before it was told to
/// stop.
///
/// # Errors
/// It has not.
pub fn goodbye_was_said(node: &Node<'_>) -> Result<()> {
    tells(node, &format!("exit code {GOODBYE}"))
}

/// Rolls a bad version out, which becomes `generation`; the node goes back to
/// `good`, whose pods nobody touched, and both say why.
fn is_left(
    host: &Host,
    cloud: &Cloud<'_>,
    node: &Node<'_>,
    (package, generation, good): (&Package, u64, u64),
) -> Result<Value> {
    let before = node.processes_of(CALM)?;
    package.roll_out(cloud, host)?;
    let failed = wait_left(node, generation, good)?;
    let now: BTreeMap<i32, u64> = node.processes_of(CALM)?;
    ensure!(before.iter().all(|process| now.contains_key(process.0)), "a good pod was touched");
    is_told(cloud, node, &failed)?;
    Ok(failed)
}

/// Waits until the node has left `generation` for `good`; what it says of it.
///
/// # Errors
/// Not in time: with the last status.
pub fn wait_left(node: &Node<'_>, generation: u64, good: u64) -> Result<Value> {
    let what = format!("the way from generation {generation} back to {good}");
    wait_for(&what, node.place().patience(), || {
        let status = node.json(&["status"])?;
        let is_back = status["generation"] == good
            && status["phase"] == "good"
            && status["failed"]["generation"] == generation;
        ensure!(is_back, "{status}");
        Ok(Some(status["failed"].clone()))
    })
}

/// Waits until the cloud says of the rollout what the node said.
///
/// # Errors
/// Not in time: with what it says.
pub fn is_told(cloud: &Cloud<'_>, node: &Node<'_>, failed: &Value) -> Result<()> {
    wait_for("the cause in the cloud", node.place().patience(), || {
        let rollout = cloud.json(&["rollout", "status"])?;
        let of_node = rollout["nodes"].get(0).context("a node")?;
        let told = of_node["state"] == "rolled-back" && of_node["failed"] == *failed;
        ensure!(told, "{rollout}");
        Ok(Some(()))
    })
}

fn wait_good(node: &Node<'_>, generation: u64) -> Result<()> {
    wait_for(&format!("a good generation {generation}"), node.place().patience(), || {
        let status = node.json(&["status"])?;
        ensure!(status["generation"] == generation && status["phase"] == "good", "{status}");
        Ok(Some(()))
    })
}

/// One of the node's events, of this deployment's pods, says so.
fn tells(node: &Node<'_>, text: &str) -> Result<()> {
    wait_for(&format!("\"{text}\" among the events"), node.place().patience(), || {
        let events = node.json(&["events", "--tail", "1000"])?;
        let told = |event: &Value| {
            event["subject"].as_str().is_some_and(|pod| pod.starts_with(CALM))
                && event["text"].as_str().is_some_and(|said| said.contains(text))
        };
        Ok(events.as_array().context("a list")?.iter().any(told).then_some(()))
    })
}
