//! Whatever comes instead of a good bundle or a good configuration is refused
//! with the reason, and what runs keeps running.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use wherry_bundle::Name;
use wherry_bundle::topic::Topic;
use wherry_tests::host::{Side, binary};
use wherry_tests::mqtt;
use wherry_tests::node::PATIENCE;
use wherry_tests::package::{Component, Package, start_rollout};
use wherry_tests::run::{both, output, wait_for};
use wherry_tests::templates::{EVERYWHERE, env, lion};
use wherry_tests::world::with_gateway;

#[test]
fn bad_bundles_change_nothing() {
    with_gateway("refus", |host, cloud, node| {
        let template =
            |version: &str| lion("well", "", "", &env(&[EVERYWHERE, ("LION_VERSION", version)]));
        let component =
            |version: &str| vec![Component::new("well", "lion:1.0.0", template(version))];
        Package::new("1.0.0", component("1")).roll_out(cloud, host)?;
        node.wait_running(1)?;
        let config = std::fs::read_to_string(node.config())?;
        let password = quoted(&config, "password")?;
        let topic = |node: &str| Ok::<_, anyhow::Error>(Topic::Desired.of(&Name::new(node)?));
        let own = topic("gw-1")?;
        let retained = |topic: &str, user: &str, password: &str| {
            host.inside(Side::Wan, || mqtt::retained(user, password, topic))
        };
        let first = retained(&own, "gw-1", &password)?;
        Package::new("2.0.0", component("2")).roll_out(cloud, host)?;
        node.wait_running(2)?;
        let second = retained(&own, "gw-1", &password)?;

        let mut other = vec!["node", "add", "gw-2", "--project", "plant", "--arch", "amd64"];
        other.extend(["--product-type", "gateway-single-node", "--label", "site=bonn"]);
        cloud.cli(&other)?;
        let words = ["rollout", "start", "--version", "shop@2.0.0.1", "--nodes", "name=gw-2"];
        cloud.cli(&words)?;
        let password2 = quoted(&cloud.cli(&["node", "config", "gw-2"])?, "password")?;
        let foreign = retained(&topic("gw-2")?, "gw-2", &password2)?;

        let mut unsigned = second.clone();
        unsigned[13..77].fill(0);
        let mut other_key = second.clone();
        other_key[5] ^= 1;
        let mut unknown = second.clone();
        unknown[4] = 9;
        let before = node.processes()?;
        for (payload, reason) in [
            (&unsigned, "signature"),
            (&other_key, "does not trust"),
            (&unknown, "version 9"),
            (&second[..second.len() / 2].to_vec(), "signature"),
            (&second[..20].to_vec(), "not a bundle"),
            (&b"hello".to_vec(), "not a bundle"),
            (&Vec::new(), ""),
            (&first, "not newer"),
            (&foreign, "made for node `gw-2`"),
        ] {
            host.inside(Side::Wan, || mqtt::publish("gw-1", &password, &own, payload))?;
            if reason.is_empty() {
                continue;
            }
            wait_for(&format!("refusal for {reason:?}"), PATIENCE, || {
                let status = node.json(&["status"])?;
                let said = status["refused"]["reason"].as_str().unwrap_or_default().to_owned();
                ensure!(said.contains(reason), "{status}");
                Ok(Some(()))
            })?;
            ensure!(node.output().contains(reason), "the log does not say {reason:?}");
        }
        cloud.wait_node("the refusal in the cloud", |node| node.to_string().contains("gw-2"))?;
        ensure!(before == node.processes()?, "a refused bundle touched a process");
        node.wait_running(2)?;

        start_rollout(cloud, "shop@1.0.0.1")?;
        node.wait_running(3)?;
        ensure!(node.json(&["status"])?["refused"].is_null(), "an old refusal stays");
        Ok(())
    });
}

fn quoted(text: &str, key: &str) -> Result<String> {
    let line = text.lines().find(|line| line.starts_with(key)).context(key.to_owned())?;
    Ok(line.split('"').nth(1).context("a quoted text")?.to_owned())
}

#[test]
fn a_wrong_key_in_the_configuration_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wherry.toml");
    std::fs::write(&file, "node = \"gw-1\"\ntrusted_keys = []\nnod_name = \"x\"\n").unwrap();
    let mut command = Command::new(binary("wherry").unwrap());
    let output = output(command.args(["run", "--config"]).arg(&file)).unwrap();
    let text = both(&output);
    assert!(!output.status.success(), "{text}");
    for part in ["wherry.toml", "nod_name", "line 3"] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}
