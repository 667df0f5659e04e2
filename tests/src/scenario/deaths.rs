//! What dies, and what goes on: supervisor, launcher, broker, line.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::cloud::Cloud;
use crate::node::{Node, pid};
use crate::run::wait_for;

/// Of a node that runs `generation` of the shop: its own processes die
/// `rounds` times in every way, and no container does; then a container that
/// was adopted ends, and that is seen and answered.
///
/// # Errors
/// What is not so.
pub fn touch_no_container(node: &mut Node<'_>, generation: u64, rounds: u32) -> Result<()> {
    let before = node.processes()?;
    for _ in 0..rounds {
        node.kill_supervisor()?;
        node.wait_running(generation)?;
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            node.restart(signal)?;
            node.wait_running(generation)?;
        }
        ensure!(before == node.processes()?, "a process was restarted");
    }
    let told = tells_exits(node)?;
    let bus = pid(&node.pod("bus")?, "mosquitto")?;
    node.place().kill(bus, Signal::SIGTERM)?;
    wait_for("the exit of an adopted container", node.place().patience(), || {
        let bus = node.pod("bus")?;
        let container = &bus["containers"][0];
        let exit = &container["last_exit"];
        ensure!(*exit == json!({ "code": 0 }) || (!told && *exit == "unknown"), "{container}");
        Ok((container["restarts"] == 1).then_some(()))
    })?;
    node.wait_running(generation)
}

/// The cloud with its broker goes away and comes back, then the line does:
/// the node is in sync again, and no container was restarted.
///
/// # Errors
/// What is not so.
pub fn of_the_broker(cloud: &mut Cloud<'_>, node: &Node<'_>) -> Result<()> {
    let before = node.processes()?;
    cloud.end(Signal::SIGTERM)?;
    std::thread::sleep(Duration::from_secs(1));
    ensure!(before == node.processes()?, "some process was restarted without the cloud");
    cloud.start()?;
    cloud.wait_node("the node online again", |node| node["online"] == true)?;
    node.place().uplink(false)?;
    std::thread::sleep(Duration::from_millis(300));
    node.place().uplink(true)?;
    cloud.wait_node("the node still there", |node| node["online"] == true)?;
    ensure!(before == node.processes()?, "some process was restarted");
    Ok(())
}

/// Whether the kernel tells how a process ended that is nobody's child here:
/// if not, that is known only to who looks before its parent does.
fn tells_exits(node: &Node<'_>) -> Result<bool> {
    let report = node.json(&["check"])?;
    let rows = report["rows"].as_array().context("rows")?;
    let row = rows.iter().find(|row| row["name"] == "exit-status").context("exit-status")?;
    Ok(row["state"] == "ok")
}
