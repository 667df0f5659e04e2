//! The command line as a person uses it, against a running server.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::cloud_support::package::layout;
use crate::cloud_support::{Cloud, text};
use crate::image_support::run;
use ed25519_dalek::VerifyingKey;
use nix::sys::signal::Signal;
use wherry_bundle::envelope;

#[test]
fn every_reading_command_prints_tables_and_json() {
    let cloud = Cloud::start();
    cloud.organise();
    cloud.import_lion();
    let version = cloud.create_version("shop", "1.0.0", "web");
    cloud.roll_out(&version, "*");
    for words in [
        &["customer", "list"][..],
        &["customer", "show", "acme"],
        &["project", "list"],
        &["project", "show", "plant"],
        &["application", "list"],
        &["application", "show", "shop"],
        &["node", "list"],
        &["node", "show", "gw-1"],
        &["image", "list"],
        &["image", "show", "docker.io/library/lion:1.0"],
        &["version", "list"],
        &["version", "list", "--application", "shop"],
        &["version", "show", "shop@1.0.0.1"],
        &["rollout", "list"],
        &["rollout", "status"],
        &["rollout", "status", "1"],
        &["rollout", "status", "--application", "shop"],
        &["events", "gw-1"],
        &["key", "show"],
    ] {
        let table = cloud.cli(words);
        assert!(!table.is_empty() && !table.starts_with(['{', '[']), "{words:?}: {table}");
        cloud.json(words);
    }
    let node = cloud.json(&["node", "show", "gw-1"]);
    assert_eq!((&node["online"], &node["pods"]), (&false.into(), &serde_json::json!([])));
    assert!(!cloud.cli(&["node", "show", "gw-1", "-o", "json"]).contains("token"));
}

#[test]
fn what_a_node_needs_is_in_its_configuration() {
    let cloud = Cloud::start();
    cloud.organise();
    let token = cloud.add_node("gw-2", &[]);
    let config: toml::Table = cloud.cli(&["node", "config", "gw-2"]).parse().unwrap();
    assert_eq!(config["node"].as_str(), Some("gw-2"));
    assert_eq!(config["broker"]["password"].as_str(), Some(token.as_str()));
    assert_eq!(config["broker"]["port"].as_integer(), Some(cloud.mqtt.into()));
    let key = cloud.cli(&["key", "show"]);
    assert_eq!(config["trusted_keys"][0].as_str(), Some(key.trim()));
}

#[test]
fn images_come_from_folders_and_archives_and_go_away() {
    let cloud = Cloud::start();
    cloud.organise();
    let layout = layout("lion:1.0", "roar", &["amd64"]);
    let folder = cloud.json(&["image", "import", text(layout.path())]);
    assert_eq!(
        (&folder[0]["reference"], &folder[0]["layers_new"]),
        (&"lion:1.0".into(), &1.into())
    );
    let archive = cloud.dir.path().join("lion.tar");
    run("tar", &["-cf", text(&archive), "-C", text(layout.path()), "."]);
    let again = cloud.json(&["image", "import", text(&archive), "--name", "lion:1.1"]);
    assert_eq!((&again[0]["digest"], &again[0]["layers_new"]), (&folder[0]["digest"], &0.into()));
    let layers = || fs::read_dir(cloud.data().join("layers")).unwrap().count();
    assert_eq!(layers(), 1);
    cloud.cli(&["image", "remove", "lion:1.0"]);
    assert_eq!(layers(), 1, "the other image needs it");
    cloud.cli(&["image", "remove", "lion:1.1"]);
    assert_eq!(layers(), 0);

    fs::write(&archive, "no image at all").unwrap();
    cloud.fails(&["image", "import", text(&archive)], &["not an image"]);
    cloud.fails(&["image", "import", "/nowhere"], &["/nowhere"]);
    cloud.fails(&["image", "import", text(cloud.dir.path())], &["no OCI layout"]);
    cloud.fails(&["image", "import", text(layout.path()), "--name", "a b"], &["`a b`"]);
    assert_eq!(fs::read_dir(cloud.data().join("uploads")).unwrap().count(), 0);
}

#[test]
fn errors_say_what_to_do() {
    let mut cloud = Cloud::start();
    cloud.fails(
        &["node", "show", "gw-1"],
        &["error: there is no node `gw-1`", "hint: `wherry-cloud node list`"],
    );
    cloud.fails(&["rollout", "status"], &["no rollout yet"]);
    cloud.fails(
        &["rollout", "start", "--version", "shop", "--nodes", "*"],
        &["APPLICATION@X.Y.Z.N"],
    );
    cloud.fails(&["node", "add", "A", "--project", "p", "--arch", "amd64"], &["is not a name"]);
    let serve =
        ["serve", "--data", text(&cloud.data()), "--api-listen", "127.0.0.1:0"].map(str::to_owned);
    let serve: Vec<&str> = serve.iter().map(String::as_str).collect();
    cloud.fails(&serve, &["in use by another wherry-cloud"]);
    cloud.end(Signal::SIGINT);
    cloud.fails(&["customer", "list"], &["cannot reach the API", "wherry-cloud serve"]);
}

#[test]
fn it_keeps_its_secrets_and_stops_when_told() {
    let mut cloud = Cloud::start();
    cloud.organise();
    let key = cloud.cli(&["key", "show"]);
    let mode =
        |path: &str| fs::metadata(cloud.data().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("keys"), mode("keys/signing.key")), (0o700, 0o700, 0o600));
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        assert!(cloud.end(signal).success(), "{signal}: {}", cloud.log());
        cloud.begin();
    }
    cloud.end(Signal::SIGKILL);
    cloud.begin();
    assert_eq!(cloud.cli(&["key", "show"]), key);
    assert_eq!(cloud.json(&["node", "list"])[0]["name"], "gw-1");
    let token = cloud.token("gw-1");
    assert!(!cloud.log().contains(&token), "a password is in the log");
}

#[test]
fn what_is_issued_opens_with_the_key_that_is_shown() {
    let cloud = Cloud::start();
    cloud.organise();
    cloud.import_lion();
    let version = cloud.create_version("shop", "1.0.0", "web");
    cloud.roll_out(&version, "*");
    let node = crate::cloud_support::node::Login::new(cloud.mqtt, "gw-1", &cloud.token("gw-1"));
    let node = node.connect().unwrap();
    node.subscribe();
    let desired = node.message(wherry_bundle::topic::Topic::Desired);
    let hex = cloud.cli(&["key", "show"]);
    let digits = hex.trim().as_bytes().chunks(2);
    let bytes: Vec<u8> = digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let key = VerifyingKey::from_bytes(&bytes.try_into().unwrap()).unwrap();
    let bundle = envelope::open(&desired.payload, &[key], &"gw-1".parse().unwrap()).unwrap();
    assert_eq!(bundle.generation.0, 1);
    assert_eq!(bundle.deployments[0].name.as_str(), "web");
    assert_eq!(bundle.deployments[0].pod.containers[0].args, ["/bin/lion"]);
    let layer = bundle.images[0].layers[0];
    let file = cloud.data().join(format!("layers/{}.squashfs", layer.digest.hex()));
    assert_eq!(fs::metadata(file).unwrap().len(), layer.size_bytes);
}
