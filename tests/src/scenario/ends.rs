//! How containers end, and what the node says and does about it.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::node::{Node, pid};
use crate::observe::json_field;
use crate::package::{Component, Package};
use crate::place::zombies_of;
use crate::run::wait_for;
use crate::templates::{EVERYWHERE, env, lion};

/// The port of the lion on the machine's own network.
pub const OPEN_PORT: u16 = 9100;

/// One that crashes, one that takes more memory than its limit, one that is
/// well, one on the machine's network, one that ends once.
#[must_use]
pub fn package(number: &str) -> Package {
    let component = |name: &str, pod: &str, container: &str| {
        Component::new(name, "lion:1.0.0", lion(name, "", pod, container))
    };
    let hog =
        format!("resources: {{ limits: {{ memory: 16Mi }} }}\n{}", env(&[("LION_HOG_MB", "64")]));
    let open = env(&[("LISTEN", &format!("0.0.0.0:{OPEN_PORT}"))]);
    let once = "apiVersion: v1\nkind: Pod\nmetadata: { name: once }\nspec:\n  restartPolicy: Never\n  containers:\n    - name: sh\n      command: [/bin/busybox, sh, -c, 'exit 7']\n";
    Package::new(
        number,
        vec![
            component("crash", "", &env(&[("LION_CRASH_MS", "50")])),
            component("hog", "", &hog),
            component("well", "", &env(&[EVERYWHERE])),
            component("open", "hostNetwork: true", &open),
            Component::new("once", "lion:1.0.0", once),
        ],
    )
}

/// Of a node that was told to run [`package`]: each end is reported as what
/// it was, and answered as the policy says.
///
/// # Errors
/// What is not so.
pub fn are_real(node: &Node<'_>) -> Result<()> {
    let patience = node.place().patience();
    for (deployment, wanted) in [
        ("crash", json!({ "code": 4 })),
        ("hog", json!("out-of-memory")),
        ("once", json!({ "code": 7 })),
    ] {
        wait_for(&format!("the end of {deployment}"), patience, || {
            let exit = container(node, deployment)?["last_exit"].clone();
            ensure!(exit == wanted, "{exit}");
            Ok(Some(()))
        })?;
    }
    let well = wait_for("the well one", patience, || {
        let pod = node.pod("well")?;
        Ok((pod["phase"] == "available").then_some(pod))
    })?;
    let lion_pid = pid(&well, "lion")?;
    node.place().kill(lion_pid, Signal::SIGKILL)?;
    wait_for("its restart", patience, || {
        let pod = node.pod("well")?;
        let container = &pod["containers"][0];
        ensure!(container["last_exit"] == json!({ "signal": 9 }), "{container}");
        Ok((container["restarts"] == 1 && pid(&pod, "lion")? != lion_pid).then_some(()))
    })?;
    let body = node.http(OPEN_PORT)?;
    ensure!(json_field(&body, "version") == "0", "the machine's network answers: {body}");
    back_off(node)?;
    let (launcher, _) = node.pids()?;
    let zombies = zombies_of(node.place(), launcher)?;
    ensure!(zombies.is_empty(), "zombies: {zombies:?}");
    Ok(())
}

/// The waits double, and are kept: as the node's own events tell, however
/// busy this machine is.
fn back_off(node: &Node<'_>) -> Result<()> {
    let waits = wait_for("a wait of 8 s", node.place().patience(), || {
        let waits = waits(&node.json(&["events", "--tail", "1000"])?, "crash")?;
        Ok((waits.last().is_some_and(|wait| wait.0 >= 8)).then_some(waits))
    })?;
    let told: Vec<u64> = waits.iter().map(|wait| wait.0).collect();
    ensure!(told.starts_with(&[1, 2, 4, 8]), "{told:?}");
    // What a busy machine is late to note shortens the wait between two notes,
    // or makes it longer.
    let (_, kept) = waits[3];
    ensure!((4_000..40_000).contains(&kept), "8 s were {kept} ms");
    Ok(())
}

/// Each announced wait of a deployment's pod, in seconds, and how long the
/// next start really took, in milliseconds.
fn waits(events: &Value, deployment: &str) -> Result<Vec<(u64, u64)>> {
    let mut waits = Vec::new();
    let mut announced = None;
    for event in events.as_array().context("a list of events")? {
        if !event["subject"].as_str().is_some_and(|pod| pod.starts_with(deployment)) {
            continue;
        }
        let at = event["boot_millis"].as_u64().context("its time")?;
        let text = event["text"].as_str().unwrap_or_default();
        if let Some((_, wait)) = text.rsplit_once("starts again after ") {
            announced = Some((wait.trim_end_matches(" s").parse()?, at));
        } else if event["kind"] == "container-started"
            && let Some((wait, from)) = announced.take()
        {
            waits.push((wait, at - from));
        }
    }
    Ok(waits)
}

fn container(node: &Node<'_>, deployment: &str) -> Result<Value> {
    Ok(node.pod(deployment)?["containers"][0].clone())
}
