//! How containers end, and what the node says and does about it.

use std::time::Instant;

use anyhow::{Result, ensure};
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

fn back_off(node: &Node<'_>) -> Result<()> {
    let restarts = |wanted: u64| {
        wait_for(&format!("restart {wanted}"), node.place().patience(), || {
            Ok((container(node, "crash")?["restarts"].as_u64() >= Some(wanted)).then_some(()))
        })
    };
    restarts(3)?;
    let start = Instant::now();
    restarts(4)?;
    ensure!(start.elapsed().as_millis() > 1_500, "it restarts too fast: {:?}", start.elapsed());
    Ok(())
}

fn container(node: &Node<'_>, deployment: &str) -> Result<Value> {
    Ok(node.pod(deployment)?["containers"][0].clone())
}
