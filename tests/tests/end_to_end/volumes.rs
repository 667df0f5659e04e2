//! Volumes that outlive pods, versions and the node's own processes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use wherry_tests::cloud::Cloud;
use wherry_tests::host::Host;
use wherry_tests::node::{Node, PATIENCE};
use wherry_tests::package::{Component, Package};
use wherry_tests::run::wait_for;
use wherry_tests::templates::{EVERYWHERE, env, lion};
use wherry_tests::world;

/// A lion with claims of these names, sizes and paths.
fn package(number: &str, claims: &[(&str, &str, &str)]) -> Package {
    let (mut pod, mut container) = (String::new(), env(&[EVERYWHERE, ("LION_VERSION", number)]));
    let mut objects = String::new();
    if !claims.is_empty() {
        pod += "volumes:\n";
        container += "volumeMounts:\n";
    }
    for (claim, size, path) in claims {
        pod +=
            &format!("  - {{ name: {claim}, persistentVolumeClaim: {{ claimName: {claim} }} }}\n");
        container += &format!("  - {{ name: {claim}, mountPath: {path} }}\n");
        objects += &format!(
            "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{ name: {claim} }}\n\
             spec:\n  accessModes: [ReadWriteOnce]\n  resources:\n    requests: {{ storage: {size} }}\n"
        );
    }
    let template = lion("box", "", &pod, &container) + &objects;
    let component = Component::new("box", "lion:1.0.0", template);
    Package { stable_seconds: Some(1), ..Package::new(number, vec![component]) }
}

fn shell(node: &Node<'_>, command: &str) -> Result<String> {
    // What the node's command line adds comes behind the command, which ignores it.
    let config = node.config().to_str().unwrap();
    node.cli(&["exec", "--config", config, "box", "--", "/bin/busybox", "sh", "-c", command])
}

fn volume(node: &Node<'_>, name: &str) -> Result<Value> {
    let volumes = node.json(&["volume", "ls"])?;
    let found = volumes.as_array().into_iter().flatten().find(|it| it["name"] == name);
    Ok(found.cloned().unwrap_or_default())
}

fn has_event(node: &Node<'_>, kind: &str, text: &str) -> Result<bool> {
    let events = node.json(&["events"])?;
    Ok(events.as_array().into_iter().flatten().any(|event| {
        event["kind"] == kind && event["text"].as_str().is_some_and(|it| it.contains(text))
    }))
}

/// Why the node refused `generation`.
fn refusal(node: &Node<'_>, generation: u64) -> Result<String> {
    wait_for("a refusal", PATIENCE, || {
        let refused = node.json(&["status"])?["refused"].clone();
        let is_it = refused["generation"] == generation;
        Ok(is_it.then(|| refused["reason"].as_str().unwrap_or_default().to_owned()))
    })
}

#[test]
fn a_claim_outlives_pods_versions_and_restarts() {
    let host = Host::new("vol").unwrap();
    scenario(&host).map_err(|error| panic!("{error:#}")).unwrap();
}

fn scenario(host: &Host) -> Result<()> {
    let cloud = world::cloud(host)?;
    let config = cloud.cli(&["node", "config", "gw-1"])?;
    let mut node = Node::new(host, &format!("{config}\n[volumes]\nmeasure_seconds = 1\n"))?;
    node.start()?;
    let folder = Path::new(node.data()).join("volumes");
    stays(host, &cloud, &mut node, &folder)?;
    is_watched(&node)?;
    is_refused_before_it_hurts(host, &cloud, &node)?;
    goes_when_nobody_claims_it(host, &cloud, &node, &folder)?;
    node.purge()?;
    let left = host.leftovers()?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

fn stays(host: &Host, cloud: &Cloud<'_>, node: &mut Node<'_>, folder: &Path) -> Result<()> {
    package("1.0.0", &[("data", "1Mi", "/data")]).roll_out(cloud, host)?;
    node.wait_running(1)?;
    shell(node, "echo one > /data/file")?;
    let options = shell(node, "grep ' /data ' /proc/mounts")?;
    ensure!(options.contains("rw,nosuid,nodev"), "{options}");
    let found = fs::metadata(folder.join("data"))?;
    ensure!((found.uid(), found.gid()) == (1000, 1000), "{found:?}");

    let two = [("data", "1Mi", "/data"), ("cache", "2Mi", "/var/cache")];
    package("2.0.0", &two).roll_out(cloud, host)?;
    node.wait_running(2)?;
    ensure!(shell(node, "cat /data/file; echo two > /var/cache/file")? == "one\n");
    ensure!(has_event(node, "strategy-changed", "the same ReadWriteOnce claim")?, "both at once");

    let pods = node.processes()?;
    node.kill_supervisor()?;
    node.restart(Signal::SIGKILL)?;
    ensure!(node.processes()? == pods, "a container was touched");
    ensure!(shell(node, "cat /data/file /var/cache/file")? == "one\ntwo\n");
    // A container that starts anew finds it too.
    let _ = shell(node, "kill 1");
    wait_for("another start", PATIENCE, || {
        Ok(node.processes()?.keys().all(|pid| !pods.contains_key(pid)).then_some(()))
    })?;
    node.wait_running(2)?;
    ensure!(shell(node, "cat /data/file")? == "one\n");
    Ok(())
}

fn is_watched(node: &Node<'_>) -> Result<()> {
    let data = volume(node, "data")?;
    ensure!(data["bytes_max"] == 1 << 20 && data["is_limited"] == false, "{data}");
    ensure!(data["used_by"] == serde_json::json!(["box"]), "{data}");
    shell(node, "dd if=/dev/zero of=/data/big bs=1024k count=3 2>/dev/null; sync")?;
    wait_for("the event", PATIENCE, || {
        Ok(has_event(node, "volume-over-limit", "its claim is for 1.1 MB")?.then_some(()))
    })?;
    let data = volume(node, "data")?;
    ensure!(data["bytes_used"].as_u64() >= Some(3 << 20), "{data}");
    for (words, text) in [
        (&["status"][..], "data holds"),
        (&["volume", "ls"], "over its limit"),
        (&["describe", "box"], "over its limit"),
    ] {
        let said = node.cli(words)?;
        ensure!(said.contains(text), "{words:?}: {said}");
    }
    Ok(())
}

fn is_refused_before_it_hurts(host: &Host, cloud: &Cloud<'_>, node: &Node<'_>) -> Result<()> {
    package("2.1.0", &[("data", "2Mi", "/data")]).roll_out(cloud, host)?;
    let reason = refusal(node, 3)?;
    ensure!(reason.contains("volume data holds 3.2 MB, and its claim is for 2.1 MB"), "{reason}");
    package("2.2.0", &[("data", "4Mi", "/data"), ("huge", "1Ti", "/huge")])
        .roll_out(cloud, host)?;
    let reason = refusal(node, 4)?;
    ensure!(reason.contains("needs 10995") && reason.contains(" MB free"), "{reason}");
    // Growing one touches no pod, and what is too much is no longer.
    let pods = node.processes()?;
    let grown = [("data", "8Mi", "/data"), ("cache", "2Mi", "/var/cache")];
    Package { number: "2.3.0".into(), ..package("2.0.0", &grown) }.roll_out(cloud, host)?;
    node.wait_running(5)?;
    ensure!(node.processes()? == pods, "the pod was replaced");
    ensure!(!node.cli(&["status"])?.contains("data holds"));
    Ok(())
}

fn goes_when_nobody_claims_it(
    host: &Host,
    cloud: &Cloud<'_>,
    node: &Node<'_>,
    folder: &Path,
) -> Result<()> {
    let error = node.cli(&["volume", "rm", "data"]).unwrap_err().to_string();
    ensure!(error.contains("claimed by the current generation, 5"), "{error}");
    package("3.0.0", &[("cache", "2Mi", "/var/cache")]).roll_out(cloud, host)?;
    wait_for("a good generation", PATIENCE, || {
        let status = node.json(&["status"])?;
        Ok((status["generation"] == 6 && status["phase"] == "good").then_some(()))
    })?;
    ensure!(folder.join("data/file").exists(), "it went by itself");
    ensure!(shell(node, "cat /var/cache/file")? == "two\n");
    let data = volume(node, "data")?;
    ensure!(data["bytes_max"].is_null() && data["used_by"] == serde_json::json!([]), "{data}");
    ensure!(node.cli(&["volume", "ls"])?.contains("not claimed"));
    node.cli(&["volume", "rm", "data"])?;
    ensure!(!folder.join("data").exists() && folder.join("cache/file").exists());
    ensure!(volume(node, "data")?.is_null(), "still listed");
    for name in ["data", "../cache"] {
        ensure!(node.cli(&["volume", "rm", name]).is_err(), "{name} was removed");
    }
    Ok(())
}
