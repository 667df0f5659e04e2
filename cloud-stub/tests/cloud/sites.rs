//! The nodes of one site are upgraded one after the other.

use crate::cloud_support::Cloud;
use crate::cloud_support::node::{Login, Node, name, online};
use crate::cloud_support::package::{deployment, write};
use nix::sys::signal::Signal;
use serde_json::Value;
use wherry_bundle::message::{Cause, Exit, Failed, Phase, Status};
use wherry_bundle::topic::Topic;
use wherry_bundle::{Bundle, Generation, envelope};

/// Two sites, `berlin` with three nodes and `wien` with one, and a version for
/// them.
fn two_sites() -> (Cloud, Vec<Login>) {
    let cloud = Cloud::start();
    cloud.organise();
    cloud.cli(&["node", "remove", "gw-1"]);
    cloud.import_lion();
    let kind = ["--product-type", "extensive-multiple-nodes", "--label"];
    let nodes = [
        ("b-1", "site=berlin"),
        ("b-2", "site=berlin"),
        ("b-3", "site=berlin"),
        ("w-1", "site=wien"),
    ];
    let logins = nodes.map(|(node, label)| {
        cloud.add_node(node, &[&kind[..], &[label]].concat());
        Login::new(cloud.mqtt, node, &cloud.token(node))
    });
    let dir = cloud.dir.path().join("package");
    write(&dir, "shop", "1.0.0", "lion:1.0", &deployment("web"));
    let file = dir.join("version.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("gateway-single-node", "extensive-multiple-nodes");
    std::fs::write(&file, text).unwrap();
    cloud.cli(&["version", "create", "-f", crate::cloud_support::text(&file)]);
    (cloud, logins.into())
}

fn connect(login: &Login) -> Node {
    let node = login.connect().unwrap();
    node.subscribe();
    node
}

/// The generation that a node is asked to run.
fn desired(node: &Node) -> u64 {
    let payload = node.message(Topic::Desired).payload;
    let bundle: Bundle = envelope::open_kept(&payload, &node.name.parse().unwrap()).unwrap();
    bundle.generation.0
}

/// State and reason of each node in the newest rollout.
fn states(cloud: &Cloud) -> Vec<String> {
    let Value::Array(nodes) = cloud.json(&["rollout", "status"])["nodes"].clone() else {
        panic!("no nodes")
    };
    nodes.iter().map(|node| node["state"].as_str().unwrap().to_owned()).collect()
}

fn wait_states(cloud: &Cloud, wanted: [&str; 4]) {
    crate::cloud_support::wait(&format!("{wanted:?}"), || (states(cloud) == wanted).then_some(()));
}

fn rolled_back(node: &Node, failed: u64) {
    let Status::Online(mut status) = online(&node.name, failed - 1, Phase::Good) else {
        unreachable!()
    };
    let cause = Cause::CrashLoop {
        pod: name("web-2"),
        container: name("lion"),
        starts: 6,
        exit: Exit::Code(3),
    };
    status.failed = Some(Failed { generation: Generation(failed), cause, lines: Vec::new() });
    node.send(Topic::Status, &Status::Online(status));
}

#[test]
fn one_node_of_a_site_after_the_other_and_sites_side_by_side() {
    let (mut cloud, logins) = two_sites();
    let nodes: Vec<Node> = logins[..2].iter().map(connect).collect();
    let other = connect(&logins[3]);
    cloud.roll_out("shop@1.0.0.1", "*");
    wait_states(&cloud, ["issued", "queued", "queued", "issued"]);
    assert_eq!((desired(&nodes[0]), desired(&other)), (1, 1));
    nodes[1].assert_none(Topic::Desired);
    // Neither taken up nor available for a moment is enough.
    for phase in [Phase::Rolling { pods_done: 0, pods_total: 1 }, Phase::Stabilising] {
        nodes[0].send_status(1, phase);
    }
    wait_states(&cloud, ["stabilising", "queued", "queued", "issued"]);
    nodes[1].assert_none(Topic::Desired);
    nodes[0].send_status(1, Phase::Good);
    assert_eq!(desired(&nodes[1]), 1);
    wait_states(&cloud, ["done", "issued", "queued", "issued"]);

    // A cloud that comes back goes on; a node that is away is waited for.
    drop((nodes, other));
    cloud.end(Signal::SIGKILL);
    cloud.begin();
    wait_states(&cloud, ["done", "issued", "queued", "issued"]);
    let second = connect(&logins[1]);
    second.send_status(1, Phase::Good);
    wait_states(&cloud, ["done", "done", "issued", "issued"]);
    assert_eq!(desired(&connect(&logins[2])), 1);
}

#[test]
fn a_node_that_goes_back_stops_its_site_until_something_newer_comes() {
    let (cloud, logins) = two_sites();
    let nodes: Vec<Node> = logins.iter().map(connect).collect();
    cloud.roll_out("shop@1.0.0.1", "*");
    for node in &nodes {
        assert_eq!(desired(node), 1);
        node.send_status(1, Phase::Good);
    }
    wait_states(&cloud, ["done"; 4]);

    cloud.roll_out("shop@1.0.0.1", "*");
    assert_eq!(desired(&nodes[0]), 2);
    rolled_back(&nodes[0], 2);
    wait_states(&cloud, ["rolled-back", "stopped", "stopped", "issued"]);
    nodes[1].assert_none(Topic::Desired);
    let text = cloud.cli(&["rollout", "status"]);
    assert!(text.contains("web-2 does not stay up after 6 starts: exit code 3"), "{text}");
    assert!(text.contains("b-1 of its site did not get there"), "{text}");

    // What waited is forgotten for something newer, also for one node alone.
    cloud.roll_out("shop@1.0.0.1", "name=b-2");
    assert_eq!(desired(&nodes[1]), 3);
    nodes[1].send_status(3, Phase::Good);
    cloud.roll_out("shop@1.0.0.1", "site=berlin");
    assert_eq!(desired(&nodes[0]), 3);
    nodes[0].send_status(3, Phase::Good);
    assert_eq!(desired(&nodes[1]), 4);
    nodes[1].send_status(4, Phase::Good);
    assert_eq!(desired(&nodes[2]), 3, "the second one never reached it");
}

#[test]
fn rollouts_that_overlap_take_turns_at_a_site() {
    let (cloud, logins) = two_sites();
    let nodes: Vec<Node> = logins.iter().map(connect).collect();
    let start = |selector: &str| {
        cloud.roll_out("shop@1.0.0.1", selector);
        states(&cloud)
    };
    assert_eq!(start("name=b-1"), ["issued"]);
    assert_eq!(start("name=b-3"), ["queued"]);
    assert_eq!(start("name=b-2"), ["queued"]);
    assert_eq!(start("name=w-1"), ["issued"], "another site has its own turn");
    nodes[2].assert_none(Topic::Desired);
    // Something newer for the node that is on its way takes its place at once.
    assert_eq!(desired(&nodes[0]), 1);
    nodes[0].send_status(1, Phase::Rolling { pods_done: 0, pods_total: 1 });
    assert_eq!(start("name=b-1"), ["issued"]);
    assert_eq!(desired(&nodes[0]), 2);
    for phase in [Phase::Rolling { pods_done: 0, pods_total: 1 }, Phase::Stabilising] {
        nodes[0].send_status(2, phase);
    }
    nodes[1].assert_none(Topic::Desired);
    nodes[2].assert_none(Topic::Desired);
    // The older rollout first.
    nodes[0].send_status(2, Phase::Good);
    assert_eq!(desired(&nodes[2]), 1);
    nodes[1].assert_none(Topic::Desired);
    // One that goes back ends its own rollout, and lets the next one begin.
    rolled_back(&nodes[2], 1);
    assert_eq!(desired(&nodes[1]), 1);
}
