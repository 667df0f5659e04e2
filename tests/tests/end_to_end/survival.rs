//! What dies, and what goes on: broker, line, supervisor, launcher, transfer.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wherry_tests::node::{PATIENCE, is_running};
use wherry_tests::package::{Component, Package, start_rollout};
use wherry_tests::run::wait_for;
use wherry_tests::scenario::deaths;
use wherry_tests::shop::Shop;
use wherry_tests::templates::{EVERYWHERE, env, lion};
use wherry_tests::world::with_gateway;

#[test]
fn supervisor_and_launcher_die_and_no_container_does() {
    with_gateway("kill", |host, cloud, node| {
        Shop::default().package().roll_out(cloud, host)?;
        node.wait_running(1)?;
        deaths::touch_no_container(node, 1, 3)
    });
}

#[test]
fn broker_and_line_go_and_come_back() {
    with_gateway("broker", |host, cloud, node| {
        Shop::default().package().roll_out(cloud, host)?;
        node.wait_running(1)?;
        deaths::of_the_broker(cloud, node)
    });
}

#[test]
fn events_wait_for_the_cloud_and_none_is_lost() {
    with_gateway("events", |host, cloud, node| {
        let template = lion("well", "", "", &env(&[EVERYWHERE]));
        Package::new("1.0.0", vec![Component::new("well", "lion:1.0.0", template)])
            .roll_out(cloud, host)?;
        node.wait_running(1)?;
        cloud.wait_node("the pod available in the cloud", |node| {
            node["pods"][0]["phase"] == "available"
        })?;
        let before = node.processes()?;
        cloud.end(Signal::SIGKILL)?;
        let pods = node.pods()?;
        let pid = pods[0]["containers"][0]["state"]["running"]["pid"].as_i64().context("pid")?;
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
        wait_for("the restart", PATIENCE, || {
            Ok((node.pods()?[0]["containers"][0]["restarts"] == 1).then_some(()))
        })?;
        wait_for("an event in the outbox", PATIENCE, || {
            Ok((node.json(&["status"])?["events_waiting"].as_u64() > Some(0)).then_some(()))
        })?;
        node.kill_supervisor()?;
        let during = node.processes()?;
        ensure!(before != during, "the container was not restarted");
        cloud.start()?;
        wait_for("the event in the cloud", PATIENCE, || {
            let events = cloud.json(&["events", "gw-1"])?;
            Ok(events.to_string().contains("signal 9").then_some(()))
        })?;
        wait_for("an empty outbox", PATIENCE, || {
            Ok((node.json(&["status"])?["events_waiting"] == 0).then_some(()))
        })?;
        let events = cloud.json(&["events", "gw-1", "--tail", "1000"])?;
        let seqs: Vec<u64> = events
            .as_array()
            .context("a list")?
            .iter()
            .filter_map(|event| event["seq"].as_u64())
            .collect();
        let (first, last) =
            (*seqs.iter().min().context("some")?, *seqs.iter().max().context("some")?);
        ensure!(seqs.len() as u64 == last - first + 1, "gaps or doubles: {seqs:?}");
        ensure!(during == node.processes()?, "reconnecting restarted a process");
        cloud.end(Signal::SIGTERM)?;
        cloud.start()?;
        cloud.wait_node("the node online again", |node| node["online"] == true)?;
        ensure!(during == node.processes()?, "reconnecting restarted a process");
        Ok(())
    });
}

#[test]
fn the_last_will_marks_a_node_offline() {
    with_gateway("will", |host, cloud, node| {
        cloud.wait_node("the node online", |node| node["online"] == true)?;
        let figures = "\nnode_load1{node=\"gw-1\",project=\"plant\",customer=\"acme\"} ";
        wait_for("the node's figures in the cloud", PATIENCE, || {
            Ok(cloud.metrics()?.contains(figures).then_some(()))
        })?;
        node.end(Signal::SIGKILL)?;
        cloud.wait_node("the node offline", |node| node["online"] == false)?;
        ensure!(!cloud.metrics()?.contains(figures), "figures of a node that is away");
        node.start()?;
        cloud.wait_node("the node online again", |node| node["online"] == true)?;
        drop(host.uplink(false));
        std::thread::sleep(Duration::from_millis(300));
        host.uplink(true)?;
        cloud.wait_node("the node still there", |node| node["online"] == true)?;
        Ok(())
    });
}

#[test]
fn a_transfer_goes_on_where_a_kill_stopped_it() {
    with_gateway("resume", |host, cloud, node| {
        Shop::default().package().create(cloud, host)?;
        let part = host.folder().join("data/layers");
        start_rollout(cloud, "shop@1.0.0.1")?;
        let mut kills = 0;
        while kills < 5 {
            match partial(&part)? {
                Some(bytes) if bytes > 0 => {
                    node.kill_supervisor()?;
                    kills += 1;
                }
                _ if is_running(&node.json(&["status"])?["phase"]) => break,
                _ => {}
            }
        }
        ensure!(kills > 0, "the transfer was never seen under way");
        node.wait_running(1)?;
        if partial(&part)?.is_some() {
            bail!("a partial file is left");
        }
        whole(&part)
    });
}

/// The size of the transfer under way, if there is one.
fn partial(folder: &Path) -> Result<Option<u64>> {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let entry = entry?;
        if entry.path().extension().is_some_and(|ending| ending == "part") {
            return Ok(entry.metadata().ok().map(|meta| meta.len()));
        }
    }
    Ok(None)
}

/// Every layer file has the digest that its name says.
fn whole(folder: &Path) -> Result<()> {
    let mut layers = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "squashfs") {
            let name = path.file_stem().context("a name")?.to_string_lossy().into_owned();
            let digest = wherry_bundle::Digest::of(&std::fs::read(&path)?);
            ensure!(digest.hex() == name, "{} is damaged", path.display());
            layers += 1;
        }
    }
    ensure!(layers > 3, "only {layers} layers");
    Ok(())
}
