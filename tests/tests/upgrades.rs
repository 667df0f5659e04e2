//! Upgrades under load, and those that undo themselves.

#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wherry_tests::cloud::Cloud;
use wherry_tests::host::Host;
use wherry_tests::node::Node;
use wherry_tests::observe::under_traffic;
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

        let never = Shop {
            number: "3.0.0",
            deadline_seconds: 5,
            env: &[("LION_READY", "503")],
            ..good.clone()
        };
        let failed = try_one(site, 3, &never)?;
        ensure!(failed["cause"]["progress-deadline"]["deployment"] == "web", "{failed}");

        // The cloud has lost a layer that the node does not have.
        let missing =
            Shop { number: "4.0.0", lion: "lion:2.0.0", deadline_seconds: 5, ..good.clone() };
        lose_layers(host)?;
        let failed = try_one(site, 4, &missing)?;
        ensure!(failed["cause"]["layers"]["deployment"] == "web", "{failed}");
        answers(node, "1.0.0", "mane=long\n")
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
