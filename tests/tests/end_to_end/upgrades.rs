//! Upgrades under load, and those that undo themselves.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use wherry_tests::cloud::Cloud;
use wherry_tests::host::{Host, Side};
use wherry_tests::node::Node;
use wherry_tests::observe::{Traffic, http_get, json_field, under_traffic};
use wherry_tests::scenario::upgrade::answers;
use wherry_tests::shop::{Shop, WEB_PORT};
use wherry_tests::world::with_gateway;

/// Upgrades on end.
const UPGRADES: u32 = 20;

fn ready(number: &str) -> Shop<'_> {
    Shop { number, ready_path: Some("/ready"), min_ready_seconds: 0, ..Shop::default() }
}

#[test]
fn twenty_upgrades_under_load_lose_no_request() {
    with_gateway("ups", |host, cloud, node| {
        ready("1.0.0").package().roll_out(cloud, host)?;
        node.wait_running(1)?;
        let bus = node.processes_of("bus")?;
        let web = node.place().address(WEB_PORT);
        let ((), traffic) = under_traffic(host, &web, "version", || {
            for upgrade in 1..=UPGRADES {
                ready(&format!("1.0.{upgrade}")).package().roll_out(cloud, host)?;
                node.wait_running(u64::from(upgrade) + 1)?;
            }
            Ok(())
        })?;
        ensure!(traffic.failed.is_empty(), "failed requests: {:?}", traffic.failed);
        let versions = traffic.seen.len();
        ensure!(
            versions > usize::try_from(UPGRADES)?,
            "only {versions} versions answered: {traffic:?}"
        );
        ensure!(bus == node.processes_of("bus")?, "the bus was touched");
        Ok(())
    });
}

/// The node is back on generation 1 and says why.
fn back(node: &Node<'_>, failed: u64) -> Result<Value> {
    let what = format!("the way back from generation {failed}");
    wherry_tests::run::wait_for(&what, node.place().patience(), || {
        let status = node.json(&["status"])?;
        let is_back = status["generation"] == 1
            && status["phase"] == "good"
            && status["failed"]["generation"] == failed;
        ensure!(is_back, "{status}");
        Ok(Some(status["failed"].clone()))
    })
}

/// Rolls out a bad version, which becomes generation `number`; what the cloud
/// says of it.
fn try_one(
    (host, cloud, node): (&Host, &Cloud<'_>, &Node<'_>),
    number: u64,
    shop: &Shop<'_>,
) -> Result<Value> {
    let before = node.processes()?;
    let web = node.place().address(WEB_PORT);
    let (failed, traffic) = under_traffic(host, &web, "version", || {
        shop.package().roll_out(cloud, host)?;
        back(node, number)
    })?;
    ensure!(traffic.failed.is_empty(), "failed requests: {:?}", traffic.failed);
    let after = node.processes()?;
    let lost: Vec<_> = before.keys().filter(|pid| !after.contains_key(pid)).collect();
    ensure!(lost.is_empty(), "processes of the good version are gone: {lost:?}");
    let rollout = cloud.json(&["rollout", "status"])?;
    let of_node = &rollout["nodes"][0];
    ensure!(of_node["state"] == "rolled-back", "{rollout}");
    ensure!(of_node["failed"] == failed, "the cloud says {rollout}, the node {failed}");
    Ok(failed)
}

#[test]
fn bad_versions_undo_themselves_and_the_cloud_knows_why() {
    with_gateway("undo", |host, cloud, node| {
        let good = Shop { ready_path: Some("/ready"), ..Shop::default() };
        good.package().roll_out(cloud, host)?;
        back_to_good(node)?;
        let site = (host, &*cloud, &*node);

        let crashes = Shop { number: "2.0.0", env: &[("LION_CRASH_MS", "100")], ..good.clone() };
        let failed = try_one(site, 2, &crashes)?;
        ensure!(failed["cause"]["crash-loop"]["container"] == "lion", "{failed}");

        let hungry = Shop { number: "2.1.0", env: &[("LION_HOG_MB", "64")], ..good.clone() };
        let failed = try_one(site, 3, &hungry)?;
        ensure!(failed["cause"]["crash-loop"]["exit"] == "out-of-memory", "{failed}");

        let never = Shop {
            number: "3.0.0",
            deadline_seconds: 5,
            env: &[("LION_READY", "503")],
            ..good.clone()
        };
        let failed = try_one(site, 4, &never)?;
        ensure!(failed["cause"]["progress-deadline"]["deployment"] == "web", "{failed}");

        // The cloud has lost a layer that the node does not have.
        let missing =
            Shop { number: "4.0.0", lion: "lion:2.0.0", deadline_seconds: 5, ..good.clone() };
        lose_layers(host)?;
        let failed = try_one(site, 5, &missing)?;
        ensure!(failed["cause"]["layers"]["deployment"] == "web", "{failed}");
        answers(node, "1.0.0", "mane=long\n")
    });
}

#[test]
fn a_crash_while_the_cloud_is_away_is_undone_and_told_when_it_is_back() {
    with_gateway("away", |host, cloud, node| {
        let good = Shop { ready_path: Some("/ready"), ..Shop::default() };
        good.package().roll_out(cloud, host)?;
        back_to_good(node)?;
        let before = node.processes()?;
        let web = node.place().address(WEB_PORT);
        let crashes = Shop { number: "2.0.0", env: &[("LION_CRASH_MS", "100")], ..good.clone() };
        let (failed, traffic) = under_traffic(host, &web, "version", || {
            crashes.package().roll_out(cloud, host)?;
            wherry_tests::run::wait_for("generation 2", node.place().patience(), || {
                Ok((node.json(&["status"])?["generation"] == 2).then_some(()))
            })?;
            // Broker and all: long before six starts are over.
            cloud.end(Signal::SIGKILL)?;
            ensure!(node.json(&["status"])?["failed"].is_null(), "it failed before");
            back(node, 2)
        })?;
        ensure!(traffic.failed.is_empty(), "failed requests: {:?}", traffic.failed);
        let cause = &failed["cause"]["crash-loop"];
        ensure!(cause["container"] == "lion" && cause["exit"]["code"] == 4, "{failed}");
        ensure!(failed["lines"].as_array().is_some_and(|lines| !lines.is_empty()), "{failed}");
        let after = node.processes()?;
        ensure!(before.keys().all(|pid| after.contains_key(pid)), "the good version was touched");

        cloud.start()?;
        wherry_tests::run::wait_for("the cause in the cloud", node.place().patience(), || {
            let rollout = cloud.json(&["rollout", "status"])?;
            let of_node = &rollout["nodes"][0];
            Ok((of_node["state"] == "rolled-back" && of_node["failed"] == failed).then_some(()))
        })
    });
}

#[test]
fn a_pod_that_turns_unready_loses_its_port_until_it_is_ready_again() {
    with_gateway("unr", |host, cloud, node| {
        ready("1.0.0").package().roll_out(cloud, host)?;
        node.wait_running(1)?;
        let web = node.place().address(WEB_PORT);
        let patience = node.place().patience();
        let pods = |traffic: &Traffic| traffic.seen.keys().cloned().collect::<Vec<_>>();
        let look = |seconds| {
            under_traffic(host, &web, "pod", || {
                std::thread::sleep(Duration::from_secs(seconds));
                Ok(())
            })
        };
        let ((), both) = look(1)?;
        ensure!(both.failed.is_empty() && pods(&both).len() == 2, "{both:?}");

        let ask = || http_get(&web, "/unready/20");
        let sick = json_field(&host.inside(Side::Wan, ask)?, "pod");
        let is_available = || -> Result<bool> {
            let pods = node.pods()?;
            let pod = pods.iter().find(|pod| pod["name"] == sick.as_str());
            Ok(pod.context("the pod is gone")?["phase"] == "available")
        };
        // Nobody notices: what still asks it is answered.
        let ((), turning) = under_traffic(host, &web, "pod", || {
            wherry_tests::run::wait_for("an unready pod", patience, || {
                Ok((!is_available()?).then_some(()))
            })
        })?;
        ensure!(turning.failed.is_empty(), "{turning:?}");
        let ((), one) = look(2)?;
        ensure!(!is_available()?, "it was ready again too soon for this test");
        ensure!(one.failed.is_empty() && one.answered > 0, "{one:?}");
        ensure!(pods(&one).len() == 1 && pods(&one) != [sick.clone()], "{sick} is asked: {one:?}");

        wherry_tests::run::wait_for("a ready pod", patience, || Ok(is_available()?.then_some(())))?;
        let ((), again) = look(1)?;
        ensure!(again.failed.is_empty() && pods(&again) == pods(&both), "{again:?}");
        Ok(())
    });
}

/// Takes away from the cloud what the node does not have yet.
fn lose_layers(host: &Host) -> Result<()> {
    let list = |folder: &str| -> Result<Vec<std::ffi::OsString>> {
        let folder = host.folder().join(folder);
        let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        entries.map(|entry| Ok(entry?.file_name())).collect()
    };
    let known = list("data/layers")?;
    let lost: Vec<_> = list("cloud/layers")?.into_iter().filter(|l| !known.contains(l)).collect();
    ensure!(!lost.is_empty(), "the node has every layer");
    for layer in lost {
        std::fs::remove_file(host.folder().join("cloud/layers").join(layer))?;
    }
    Ok(())
}

fn back_to_good(node: &Node<'_>) -> Result<()> {
    wherry_tests::run::wait_for("a good generation 1", node.place().patience(), || {
        let status = node.json(&["status"])?;
        ensure!(status["generation"] == 1 && status["phase"] == "good", "{status}");
        Ok(Some(()))
    })
}
