//! The HTTP API as any program sees it: organisation, versions, rollouts, and
//! every refusal with its status and its hint.

use crate::cloud_support::node::Login;
use crate::cloud_support::package::{deployment, layout, write};
use crate::cloud_support::{Cloud, text, wait};
use serde_json::{Value, json};
use wherry_bundle::Generation;
use wherry_bundle::message::{FlashUse, Phase};
use wherry_bundle::metrics::{Machine, Metrics, Wherry};
use wherry_bundle::topic::Topic;

/// The request must fail with this status and with `parts` in its text.
fn fails(cloud: &Cloud, request: (&str, &str, Option<Value>), status: u16, parts: &[&str]) {
    let (method, path, body) = request;
    let (found, failure) = cloud.request(method, path, body.as_ref()).unwrap();
    assert_eq!(found, status, "{method} {path}: {failure}");
    assert!(failure["error"].is_string(), "{method} {path}: {failure}");
    for part in parts {
        let text = failure.to_string();
        assert!(text.contains(part), "{method} {path}: `{part}` is not in {text}");
    }
}

#[test]
fn names_that_are_wrong_taken_missing_or_in_use() {
    let cloud = Cloud::start();
    cloud.organise();
    let post = |path, body| ("POST", path, Some(body));
    let node = |name: &str, more: Value| {
        let mut node = json!({"name": name, "project": "plant", "architecture": "amd64",
            "product_type": "gateway-single-node"});
        node.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        post("/v1/nodes", node)
    };
    for (request, status, parts) in [
        (post("/v1/customers", json!({"name": "acme"})), 409, &["customer `acme` already"][..]),
        (post("/v1/customers", json!({"name": "../etc"})), 400, &["is not a name"]),
        (post("/v1/customers", json!({"nam": "x"})), 400, &["nam"]),
        (post("/v1/customers", json!({"name": "x", "colour": "red"})), 400, &["colour"]),
        (
            post("/v1/projects", json!({"name": "p", "customer": "nobody"})),
            404,
            &["no customer `nobody`", "wherry-cloud customer list"],
        ),
        (
            post("/v1/applications", json!({"name": "shop", "project": "plant"})),
            409,
            &["application `shop` already"],
        ),
        (node("gw-1", json!({})), 409, &["node `gw-1` already"]),
        (node("gw-2", json!({"project": "moon"})), 404, &["no project `moon`"]),
        (node("gw-2", json!({"architecture": "z80"})), 400, &["`z80`", "arm/v7"]),
        (node("gw-2", json!({"labels": {"name": "x"}})), 400, &["the node's own name"]),
        (node("gw-2", json!({"labels": {"site": "a b"}})), 400, &["no label value"]),
        (node("gw-2", json!({"product_type": "toaster"})), 400, &["toaster"]),
        (("GET", "/v1/customers/nobody", None), 404, &["no customer `nobody`"]),
        (("GET", "/v1/nodes/A", None), 400, &["is not a name"]),
        (("GET", "/v1/nodes/gw-9/events", None), 404, &["no node `gw-9`"]),
        (("GET", "/v1/nodes/gw-9/config", None), 404, &["no node `gw-9`"]),
        (("GET", "/v1/nodes/gw-1/logs?pod=web", None), 503, &["`gw-1` is offline"]),
        (("GET", "/v1/nodes/gw-1/events?tail=x", None), 400, &[]),
        (("GET", "/v1/rollouts/7", None), 404, &["no rollout `7`"]),
        (("GET", "/v1/versions/shop/1.0.0.1", None), 404, &["no version `shop@1.0.0.1`"]),
        (("GET", "/v1/versions/shop/1.0", None), 400, &[]),
        (("GET", "/v1/images?reference=lion", None), 404, &["no image `lion`"]),
        (("DELETE", "/v1/images", None), 400, &["reference"]),
        (("DELETE", "/v1/customers/acme", None), 409, &["project `plant`", "remove what uses"]),
        (("DELETE", "/v1/projects/plant", None), 409, &["node `gw-1`", "application `shop`"]),
        (("GET", "/v2/x", None), 404, &["nothing at this address"]),
    ] {
        fails(&cloud, request, status, parts);
    }
    let large = "x".repeat(100_000);
    fails(&cloud, post("/v1/customers", json!({"name": large})), 413, &["larger"]);
    for path in
        ["/v1/applications/shop", "/v1/nodes/gw-1", "/v1/projects/plant", "/v1/customers/acme"]
    {
        assert_eq!(cloud.request("DELETE", path, None).unwrap().0, 200, "{path}");
    }
    assert_eq!(cloud.get("/v1/customers"), json!([]));
}

#[test]
fn a_browser_is_turned_away() {
    let cloud = Cloud::start();
    let url = format!("http://127.0.0.1:{}/v1/customers", cloud.api);
    let error = ureq::get(&url).header("Origin", "https://evil.example").call().unwrap_err();
    assert!(matches!(error, ureq::Error::StatusCode(403)), "{error}");
    assert!(ureq::get(&url).call().is_ok());
}

#[test]
fn a_version_is_immutable_and_its_builds_are_numbered() {
    let cloud = Cloud::start();
    cloud.organise();
    cloud.import_lion();
    assert_eq!(cloud.create_version("shop", "1.0.0", "web"), "shop@1.0.0.1");
    assert_eq!(cloud.create_version("shop", "1.0.0", "web"), "shop@1.0.0.2");
    let first = cloud.get("/v1/versions/shop/1.0.0.1");
    assert_eq!(first["description"], "New lion enclosure");
    let old_digest = first["images"][0]["digest"].clone();
    // The same name means something else from now on, but not for a version
    // that is there.
    let newer = layout("lion:1.0", "louder", &["amd64", "arm64"]);
    cloud.cli(&["image", "import", text(newer.path())]);
    assert_eq!(cloud.get("/v1/versions/shop/1.0.0.1"), first);
    assert_eq!(cloud.create_version("shop", "1.0.0", "web"), "shop@1.0.0.3");
    let third = cloud.get("/v1/versions/shop/1.0.0.3");
    assert_ne!(third["images"][0]["digest"], old_digest);
    assert_eq!(third["images"].as_array().unwrap().len(), 2);
    // A number is not given twice.
    cloud.cli(&["version", "remove", "shop@1.0.0.3"]);
    assert_eq!(cloud.create_version("shop", "1.0.0", "web"), "shop@1.0.0.4");
    let numbers = &cloud.get("/v1/applications/shop")["versions"];
    assert_eq!(*numbers, json!(["1.0.0.1", "1.0.0.2", "1.0.0.4"]));
}

#[test]
fn every_problem_of_a_version_is_told() {
    let cloud = Cloud::start();
    cloud.organise();
    let dir = cloud.dir.path().join("bad");
    let file = dir.join("version.yaml");
    let create = ["version", "create", "-f", text(&file)];
    write(&dir, "shop", "1.0.0", "lion:1.0", &deployment("web"));
    cloud.fails(&create, &["lion:1.0"]);
    cloud.import_lion();
    write(&dir, "bakery", "1.0.0", "lion:1.0", &deployment("web"));
    cloud.fails(&create, &["no application `bakery`", "hint: "]);
    let bad = deployment("web") + "  paused: true\n  revisionHistoryLimit: 3\n";
    write(&dir, "shop", "1.0.0", "lion:1.0", &bad);
    cloud.fails(&create, &["web.yaml:", "spec.paused", "spec.revisionHistoryLimit"]);
    write(&dir, "shop", "1.0", "lion:1.0", &deployment("web"));
    cloud.fails(&create, &["version.yaml", "X.Y.Z"]);
    assert_eq!(cloud.get("/v1/versions"), json!([]));
}

#[test]
fn a_rollout_goes_to_the_right_nodes_or_to_none() {
    let cloud = Cloud::start();
    cloud.organise();
    cloud.import_lion();
    cloud.add_node("gw-2", &["--label", "site=bonn"]);
    cloud.cli(&["project", "add", "yard", "--customer", "acme"]);
    let foreign = ["node", "add", "gw-3", "--project", "yard", "--arch", "amd64"];
    cloud.cli(&[&foreign[..], &["--label", "site=berlin"]].concat());
    let version = cloud.create_version("shop", "1.0.0", "web");
    let start = |version: &str, nodes: &str, dry_run: bool| {
        let body = json!({"version": {"application": "shop", "number": version},
            "nodes": nodes, "dry_run": dry_run});
        cloud.request("POST", "/v1/rollouts", Some(&body)).unwrap()
    };
    let (status, dry) = start("1.0.0.1", "*", true);
    assert_eq!((status, &dry["id"]), (200, &Value::Null), "{dry}");
    assert_eq!(dry["nodes"].as_array().unwrap().len(), 2);
    assert_eq!(cloud.get("/v1/rollouts"), json!([]), "a dry run did something");
    assert_eq!(cloud.get("/v1/nodes/gw-1")["generation_wanted"], 0);

    let (_, only) = start("1.0.0.1", "site=berlin", false);
    assert_eq!(only["nodes"].as_array().unwrap().len(), 1, "a node of another project: {only}");
    assert_eq!(
        (&only["nodes"][0]["name"], &only["nodes"][0]["state"]),
        (&json!("gw-1"), &json!("issued"))
    );
    let (_, both) = start("1.0.0.1", "*", false);
    let generations: Vec<&Value> =
        both["nodes"].as_array().unwrap().iter().map(|n| &n["generation_wanted"]).collect();
    assert_eq!(generations, [&json!(2), &json!(1)]);
    let first = cloud.get(&format!("/v1/rollouts/{}", only["id"]));
    assert_eq!(first["nodes"][0]["state"], "superseded");

    for (number, nodes, status, part) in [
        ("1.0.0.1", "site=rome", 422, "selects no node of project `plant`"),
        ("1.0.0.1", "gw-1", 400, "neither key=value"),
        ("1.0.0.9", "*", 404, "no version `shop@1.0.0.9`"),
    ] {
        let (found, failure) = start(number, nodes, false);
        assert_eq!(found, status, "{failure}");
        assert!(failure.to_string().contains(part), "{failure}");
    }
    cloud.fails(&["version", "remove", &version], &["used by node `gw-1`, node `gw-2`"]);
    cloud.fails(&["image", "remove", "lion:1.0"], &["used by version `shop@1.0.0.1`"]);
    cloud.fails(&["application", "remove", "shop"], &["used by version"]);
}

#[test]
fn a_node_that_does_not_fit_stops_the_whole_rollout() {
    let cloud = Cloud::start();
    cloud.organise();
    let image = layout("lion:1.0", "roar", &["amd64", "armel"]);
    cloud.cli(&["image", "import", text(image.path())]);
    cloud.create_version("shop", "1.0.0", "web");
    let add = |name: &str, more: &[&str]| {
        cloud.cli(&[&["node", "add", name, "--project", "plant"], more].concat());
    };
    add("gw-arm64", &["--arch", "aarch64"]);
    add("gw-big", &["--arch", "amd64", "--product-type", "extensive-single-node"]);
    add("gw-armv7", &["--arch", "armv7l"]);
    let start =
        |nodes: &'static str| ["rollout", "start", "--version", "shop@1.0.0.1", "--nodes", nodes];
    let parts =
        ["gw-arm64: image `lion:1.0`", "only for amd64, arm/v6", "gw-big: shop@1.0.0.1 is for"];
    cloud.fails(&start("*"), &parts);
    assert_eq!(cloud.get("/v1/nodes/gw-1")["generation_wanted"], 0, "all or nothing");
    // A v7 processor runs what was built for v6.
    cloud.cli(&start("name=gw-armv7"));
}

#[test]
fn applications_share_a_node_by_different_names() {
    let cloud = Cloud::start();
    cloud.organise();
    cloud.import_lion();
    cloud.cli(&["application", "add", "cafe", "--project", "plant"]);
    let shop = cloud.create_version("shop", "1.0.0", "web");
    let same = cloud.create_version("cafe", "1.0.0", "web");
    let other = cloud.create_version("cafe", "1.0.1", "bar");
    cloud.roll_out(&shop, "*");
    let start = ["rollout", "start", "--version", &same, "--nodes", "*"];
    cloud.fails(&start, &["gw-1: the applications `cafe` and `shop` both have a deployment `web`"]);
    cloud.roll_out(&other, "*");
    let node = cloud.get("/v1/nodes/gw-1");
    assert_eq!(
        node["applications"],
        json!([
            {"application": "cafe", "number": "1.0.1.1"},
            {"application": "shop", "number": "1.0.0.1"},
        ])
    );
    assert_eq!(node["generation_wanted"], 2);
}

#[test]
fn metrics_are_prometheus_text() {
    let cloud = Cloud::start();
    cloud.organise();
    let text = || -> String { cloud.get("/metrics").as_str().unwrap().to_owned() };
    assert!(text().contains("# TYPE wherry_nodes gauge\nwherry_nodes 1\n"), "{}", text());
    assert!(text().contains("wherry_nodes_online 0\n"), "{}", text());
    // A node that pushes its figures, as long as it is there.
    let node = Login::new(cloud.mqtt, "gw-1", &cloud.token("gw-1")).connect().unwrap();
    node.send_status(3, Phase::Good);
    node.send(Topic::Metrics, &sample());
    let of = "node=\"gw-1\",project=\"plant\",customer=\"acme\"";
    let line = format!("\nnode_load1{{{of}}} 1.10\n");
    wait("the figures of the node", || text().contains(&line).then_some(()));
    assert!(text().contains("wherry_messages_received_total{topic=\"metrics\"} 1\n"));
    node.vanish();
    wait("their end", || (!text().contains("node_load1")).then_some(()));
    assert!(text().contains(&format!("wherry_node_online{{{of}}} 0\n")), "{}", text());
}

fn sample() -> Metrics {
    Metrics {
        push_seconds: 60,
        machine: Machine { load: Some([110, 0, 0]), ..Machine::default() },
        wherry: Wherry {
            version: "0.1.0".into(),
            architecture: "amd64".into(),
            kernel: "6.1".into(),
            generation: Generation(3),
            phase: Phase::Good,
            applications: Vec::new(),
            refused: false,
            failed: false,
            held: false,
            cloud_connected: true,
            events_waiting: 0,
            events_dropped: 0,
            flash: FlashUse::default(),
            launcher: None,
            supervisor: None,
        },
        pods: Vec::new(),
    }
}
