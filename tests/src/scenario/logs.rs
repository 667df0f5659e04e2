//! What containers print, where it is kept, and who can read it.

use anyhow::{Context, Result, ensure};

use crate::cloud::Cloud;
use crate::node::Node;
use crate::run::wait_for;

/// Of a node that runs two web pods of the shop.
///
/// # Errors
/// What is not so.
pub fn are_kept_and_found(cloud: &Cloud<'_>, node: &Node<'_>) -> Result<()> {
    let pod = node.pod("bus")?;
    let name = pod["name"].as_str().context("a name")?;
    let log = node.cli(&["logs", name])?;
    ensure!(log.contains("mosquitto version"), "{log}");
    let one = node.cli(&["logs", name, "--tail", "1"])?;
    ensure!(one.lines().count() == 1 && log.ends_with(&one), "{one}");
    ensure!(node.cli(&["logs", name, "--since", "1h"])? == log, "--since 1h cuts something");
    let both = node.cli(&["logs", "web", "-c", "lion"])?;
    ensure!(both.matches("listening on").count() == 2, "{both}");
    let Err(missing) = node.cli(&["logs", "nothing"]) else {
        anyhow::bail!("there are logs of a pod that is not there");
    };
    ensure!(missing.to_string().contains("nothing"), "{missing}");

    let file = node.place().text(&format!("{}/logs/{name}/mosquitto.log", node.run_dir()))?;
    let line = file.lines().next().context("a line")?;
    let words: Vec<&str> = line.splitn(4, ' ').collect();
    let right = words.len() == 4 && ["stdout", "stderr"].contains(&words[1]) && words[2] == "F";
    ensure!(right && words[0].ends_with('Z') && words[0].contains('T'), "{line}");

    wait_for("the bus' lines in the cloud", node.place().patience(), || {
        let log = cloud.cli(&["logs", "gw-1", name])?;
        ensure!(log.contains("mosquitto version"), "{log}");
        Ok(Some(()))
    })?;
    let said = cloud.cli(&["exec", "gw-1", name, "--", "/bin/busybox", "echo", "roar"])?;
    ensure!(said == "roar\n", "a command of the cloud's says {said}");
    wait_for("who ran it, in the cloud", node.place().patience(), || {
        let events = cloud.cli(&["events", "gw-1"])?;
        Ok(events.contains("runs from the cloud `/bin/busybox echo roar`").then_some(()))
    })?;
    for words in [&["ps"][..], &["events"], &["status"], &["describe", name]] {
        ensure!(!node.cli(words)?.trim().is_empty(), "`wherry {words:?}` prints nothing");
        node.json(words)?;
    }
    Ok(())
}
