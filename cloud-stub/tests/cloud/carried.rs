//! What a person carries to a node and back.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use crate::cloud_support::node::{Login, Node, name, online};
use crate::cloud_support::package::{big_layers, layers_of, noise};
use crate::cloud_support::{Cloud, text};
use serde_json::Value;
use wherry_bundle::carrier::{self, Item, ReportItem, Start};
use wherry_bundle::chunk::ChunkList;
use wherry_bundle::message::{
    Cause, Event, EventAck, EventKind, Events, Failed, Message, NodeStatus, Phase, Refused, Status,
    WallMillis,
};
use wherry_bundle::model::Layer;
use wherry_bundle::topic::Topic;
use wherry_bundle::{Bundle, Digest, Generation, envelope};

/// Bytes of chunks by their digests.
type Chunks = HashMap<Digest, Vec<u8>>;

/// A carried file, read by the rules of its format.
struct Update {
    start: Start,
    envelopes: Vec<(String, Vec<u8>)>,
    layers: Vec<CarriedLayer>,
}

struct CarriedLayer {
    layer: Layer,
    lists: Vec<Vec<u8>>,
    chunks: Vec<Vec<u8>>,
}

impl Update {
    fn read(file: &Path) -> Self {
        let bytes = fs::read(file).unwrap();
        let mut input = bytes.as_slice();
        let mut next = || carrier::read::<Item, _>(&mut input).unwrap().unwrap();
        let Item::Start(start) = next() else { panic!("no start") };
        let mut update = Self { start, envelopes: Vec::new(), layers: Vec::new() };
        loop {
            match next() {
                Item::Start(_) => panic!("a second start"),
                Item::Envelope { node, bytes } => {
                    assert!(update.layers.is_empty());
                    update.envelopes.push((node.to_string(), bytes));
                }
                Item::Layer(layer) => update.layers.push(CarriedLayer {
                    layer,
                    lists: Vec::new(),
                    chunks: Vec::new(),
                }),
                Item::List(list) => {
                    let layer = update.layers.last_mut().unwrap();
                    assert!(layer.chunks.is_empty());
                    layer.lists.push(list);
                }
                Item::Chunk(chunk) => update.layers.last_mut().unwrap().chunks.push(chunk),
                Item::End => break,
            }
        }
        assert!(input.is_empty());
        update
    }

    /// The bundle for a node.
    fn bundle(&self, node: &str) -> Bundle {
        let (_, bytes) = self.envelopes.iter().find(|(name, _)| name == node).unwrap();
        envelope::open_kept(bytes, &name(node)).unwrap()
    }

    fn nodes(&self) -> Vec<&str> {
        self.envelopes.iter().map(|(node, _)| node.as_str()).collect()
    }

    /// Builds every layer as a node does that holds `held`; all chunks that it
    /// holds then. A node that takes only some layers has to do without the
    /// others' chunks: `alone`.
    fn rebuild(&self, held: &Chunks, alone: bool) -> Chunks {
        let mut has = held.clone();
        let mut all = held.clone();
        for CarriedLayer { layer, lists, chunks } in &self.layers {
            if alone {
                has.clone_from(held);
            }
            has.extend(chunks.iter().map(|chunk| (Digest::of(chunk), chunk.clone())));
            let chunks = ChunkList::join(lists.iter().map(Vec::as_slice), layer.size_bytes);
            let bytes: Vec<&[u8]> =
                chunks.unwrap().iter().map(|chunk| has[&chunk.digest].as_slice()).collect();
            assert_eq!(Digest::of(&bytes.concat()), layer.digest);
            all.extend(has.clone());
        }
        all
    }

    fn count(&self) -> usize {
        self.layers.iter().map(|layer| layer.chunks.len()).sum()
    }
}

/// `shop@1.0.0.1` of two layers of a megabyte, and `shop@1.1.0.1`: one of the
/// layers is the same, and the other one changed in its middle.
fn two_versions() -> Cloud {
    let cloud = Cloud::start();
    cloud.organise();
    cloud.import(&big_layers("lion:1.0", &[1, 2]));
    cloud.create_version("shop", "1.0.0", "web");
    let mut changed = noise(2, 1 << 20);
    changed[500_000..500_100].fill(7);
    let files = vec![("data-1".into(), noise(1, 1 << 20)), ("data-2".into(), changed)];
    cloud.import(&layers_of("lion:1.0", files));
    cloud.create_version("shop", "1.1.0", "web");
    cloud
}

/// Where the export went.
fn export(cloud: &Cloud, version: &str, more: &[&str]) -> PathBuf {
    let file = cloud.dir.path().join("update");
    let words = ["version", "export", version, "-o", text(&file)];
    assert_eq!(cloud.cli(&[&words, more].concat()), "");
    file
}

fn exported(cloud: &Cloud, version: &str, more: &[&str]) -> Update {
    Update::read(&export(cloud, version, more))
}

fn connect(cloud: &Cloud) -> Node {
    let node = Login::new(cloud.mqtt, "gw-1", &cloud.token("gw-1")).connect().unwrap();
    node.subscribe();
    node
}

fn rollout_state(cloud: &Cloud, id: &str) -> Value {
    cloud.json(&["rollout", "status", id])["nodes"][0]["state"].clone()
}

fn status(generation: u64, phase: Phase) -> Box<NodeStatus> {
    let Status::Online(status) = online("gw-1", generation, phase) else { unreachable!() };
    status
}

fn event(seq: u64) -> Event {
    Event {
        seq,
        wall_time: WallMillis(seq),
        boot_millis: seq,
        generation: Generation(1),
        kind: EventKind::PodAvailable,
        subject: "web-1".into(),
        text: format!("event {seq}"),
    }
}

/// A node's report.
fn report(cloud: &Cloud, status: Box<NodeStatus>, events: &[u64]) -> PathBuf {
    let mut file = Vec::new();
    carrier::write(&mut file, &ReportItem::Status(status)).unwrap();
    for seq in events {
        carrier::write(&mut file, &ReportItem::Events(Events(vec![event(*seq)]))).unwrap();
    }
    carrier::write(&mut file, &ReportItem::End).unwrap();
    let path = cloud.dir.path().join("report");
    fs::write(&path, file).unwrap();
    path
}

fn import(cloud: &Cloud, file: &Path) -> Value {
    cloud.json(&["node", "import-status", text(file)])
}

#[test]
fn a_file_for_one_node_has_all_that_it_needs_and_is_not_published() {
    let cloud = two_versions();
    let node = connect(&cloud);
    let update = exported(&cloud, "shop@1.0.0.1", &["--node", "gw-1"]);
    assert_eq!(update.start, Start { version: "shop@1.0.0.1".into(), since: None });
    assert_eq!(update.nodes(), ["gw-1"]);
    let bundle = update.bundle("gw-1");
    assert_eq!((bundle.generation.0, bundle.deployments[0].name.as_str()), (1, "web"));
    let layers: Vec<Layer> = update.layers.iter().map(|layer| layer.layer).collect();
    assert_eq!(layers, bundle.images[0].layers);
    update.rebuild(&Chunks::new(), false);

    node.assert_none(Topic::Desired);
    let shown = cloud.get("/v1/nodes/gw-1");
    assert_eq!(
        (&shown["generation_wanted"], &shown["applications"]),
        (&0.into(), &Value::Array(vec![]))
    );
    assert_eq!(shown["carried"]["generation"], 1);
    assert!(cloud.cli(&["node", "show", "gw-1"]).contains("generation 1 with shop@1.0.0.1"));
    cloud.fails(&["version", "remove", "shop@1.0.0.1"], &["carried to node `gw-1`"]);

    // The same again is the same; something else is another generation.
    let bytes = fs::read(export(&cloud, "shop@1.0.0.1", &["--node", "gw-1"])).unwrap();
    let output = cloud.run(&["version", "export", "shop@1.0.0.1", "--node", "gw-1", "-o", "-"]);
    assert!(output.stdout == bytes);
    let summary = String::from_utf8(output.stderr).unwrap();
    assert!(summary.contains("shop@1.0.0.1 for gw-1: 2 layers"), "{summary}");
    let other = exported(&cloud, "shop@1.1.0.1", &["--node", "gw-1"]);
    assert_eq!(other.bundle("gw-1").generation.0, 2);
}

#[test]
fn what_the_node_has_may_be_left_out() {
    let cloud = two_versions();
    let first = exported(&cloud, "shop@1.0.0.1", &["--node", "gw-1"]);
    let held = first.rebuild(&Chunks::new(), false);
    let since = ["--node", "gw-1", "--since", "shop@1.0.0.1"];
    let second = exported(&cloud, "shop@1.1.0.1", &since);
    assert_eq!(second.start.since.as_deref(), Some("shop@1.0.0.1"));
    assert_eq!(second.layers.len(), 2, "the layer that is the same is named too");
    second.rebuild(&held, false);
    assert!((1..=4).contains(&second.count()), "{} chunks", second.count());
    let whole = exported(&cloud, "shop@1.1.0.1", &["--node", "gw-1"]);
    assert!(whole.count() > 10 * second.count());
    cloud.fails(
        &[
            "version",
            "export",
            "shop@1.1.0.1",
            "-o",
            "x",
            "--node",
            "gw-1",
            "--since",
            "shop@9.0.0.1",
        ],
        &["no version `shop@9.0.0.1`"],
    );
}

#[test]
fn a_file_for_a_project_serves_each_of_its_nodes_alone() {
    let cloud = two_versions();
    cloud.add_node("gw-2", &[]);
    cloud.add_node("gw-9", &["--product-type", "extensive-single-node"]);
    // Two layers with the same contents but for the name.
    let twins = ["one", "two"].map(|name| (name.to_owned(), noise(5, 1 << 20)));
    cloud.import(&layers_of("lion:1.0", twins.into()));
    cloud.create_version("shop", "2.0.0", "web");
    let update = exported(&cloud, "shop@2.0.0.1", &["--any-of-project", "plant"]);
    assert_eq!(update.nodes(), ["gw-1", "gw-2"], "gw-9 is of another kind");
    for node in update.nodes() {
        assert_eq!(update.bundle(node).generation.0, 1);
    }
    update.rebuild(&Chunks::new(), true);
    let alone = exported(&cloud, "shop@2.0.0.1", &["--node", "gw-2"]);
    alone.rebuild(&Chunks::new(), false);
    assert!(alone.count() * 3 < update.count() * 2, "{} of {}", alone.count(), update.count());
    let digests: BTreeSet<Digest> = alone
        .layers
        .iter()
        .flat_map(|layer| &layer.chunks)
        .map(|chunk| Digest::of(chunk))
        .collect();
    assert_eq!(digests.len(), alone.count(), "each once");
}

#[test]
fn what_a_node_took_up_is_issued_to_it() {
    let cloud = two_versions();
    cloud.roll_out("shop@1.0.0.1", "*");
    let update = exported(&cloud, "shop@1.1.0.1", &["--node", "gw-1"]);
    let (_, envelope) = &update.envelopes[0];
    assert_eq!(rollout_state(&cloud, "1"), "issued", "it may still come first");
    let node = connect(&cloud);
    let first = node.message(Topic::Desired).payload;
    // It has the carried one, and cannot go back to what the broker keeps.
    let mut said = status(2, Phase::Rolling { pods_done: 0, pods_total: 1 });
    said.refused = Some(Refused { generation: Generation(1), reason: "not newer than 2".into() });
    node.send(Topic::Status, &Status::Online(said));
    let desired = node.message(Topic::Desired).payload;
    assert!(desired == *envelope && desired != first);
    let shown = cloud.get("/v1/nodes/gw-1");
    assert_eq!((&shown["generation_wanted"], &shown["carried"]), (&2.into(), &Value::Null));
    assert_eq!(shown["applications"][0]["number"], "1.1.0.1");
    assert_eq!(rollout_state(&cloud, "1"), "superseded");
    // The next export of what is issued is that.
    let again = exported(&cloud, "shop@1.1.0.1", &["--node", "gw-1"]);
    assert!(again.envelopes[0].1 == *envelope);
    assert_eq!(cloud.get("/v1/nodes/gw-1")["carried"], Value::Null);
}

#[test]
fn what_was_tried_in_vain_or_is_older_is_not_given_again() {
    let cloud = two_versions();
    let generation =
        || exported(&cloud, "shop@1.0.0.1", &["--node", "gw-1"]).bundle("gw-1").generation.0;
    assert_eq!((generation(), generation()), (1, 1));
    let node = connect(&cloud);
    let mut said = status(0, Phase::Empty);
    let cause = Cause::BootLoop { boots: 4 };
    said.failed = Some(Failed { generation: Generation(1), cause, lines: Vec::new() });
    node.send(Topic::Status, &Status::Online(said));
    cloud.wait_node("gw-1", |node| node["failed"] != Value::Null);
    assert_eq!((generation(), generation()), (2, 2));
    // A rollout is newer than what is under way.
    cloud.roll_out("shop@1.1.0.1", "*");
    assert_eq!(cloud.get("/v1/nodes/gw-1")["carried"], Value::Null);
    node.send_status(2, Phase::Good);
    cloud.wait_node("gw-1", |node| node["generation"] == 2);
    assert_eq!(cloud.get("/v1/nodes/gw-1")["generation_wanted"], 3);
    assert_eq!(generation(), 4);
}

#[test]
fn a_report_counts_once_as_if_it_had_come_by_line() {
    let cloud = two_versions();
    export(&cloud, "shop@1.0.0.1", &["--node", "gw-1"]);
    let file = report(&cloud, status(1, Phase::Good), &[1, 2, 3]);
    let imported = import(&cloud, &file);
    assert_eq!((&imported["node"], &imported["phase"]), (&"gw-1".into(), &"good".into()));
    assert_eq!((&imported["events"], &imported["events_new"]), (&3.into(), &3.into()));
    assert_eq!((&imported["taken_up"], &imported["status_taken"]), (&true.into(), &true.into()));
    let shown = cloud.get("/v1/nodes/gw-1");
    assert_eq!((&shown["online"], &shown["generation_wanted"]), (&false.into(), &1.into()));
    assert!(shown["last_seen"].is_u64() && shown["offline_since"].is_u64(), "{shown}");
    let again = import(&cloud, &file);
    assert_eq!((&again["events_new"], &again["taken_up"]), (&0.into(), &false.into()));

    // The line is back: the same events come again, with more.
    let node = connect(&cloud);
    assert!(!node.message(Topic::Desired).payload.is_empty());
    node.send(Topic::Event, &Events([1, 2, 3, 4].map(event).into()));
    assert_eq!(EventAck::from_bytes(&node.message(Topic::EventAck).payload).unwrap().seq, 4);
    node.send_status(1, Phase::Stabilising);
    cloud.wait_node("gw-1", |node| node["online"] == true);
    let late = import(&cloud, &file);
    assert_eq!((&late["status_taken"], &late["events_new"]), (&false.into(), &0.into()));
    assert!(cloud.cli(&["node", "import-status", text(&file)]).contains("it is connected"));
    assert_eq!(cloud.get("/v1/nodes/gw-1")["phase"], "stabilising");
    let events = cloud.json(&["events", "gw-1"]);
    let texts: Vec<&str> =
        events.as_array().unwrap().iter().map(|event| event["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["event 1", "event 2", "event 3", "event 4"]);
    assert_eq!(cloud.get("/v1/nodes/gw-1")["events_missing"], 0);
}

#[test]
fn a_report_that_is_not_whole_changes_nothing() {
    let cloud = two_versions();
    let update = export(&cloud, "shop@1.0.0.1", &["--node", "gw-1"]);
    let file = report(&cloud, status(1, Phase::Good), &[1, 2]);
    let whole = fs::read(&file).unwrap();
    let refused = |bytes: &[u8], why: &str| {
        fs::write(&file, bytes).unwrap();
        cloud.fails(&["node", "import-status", text(&file)], &[why, "nothing was changed"]);
    };
    refused(&whole[..whole.len() - 3], "in the middle of a frame");
    refused(b"", "it is empty");
    let mut damaged = whole.clone();
    damaged[100] ^= 1;
    refused(&damaged, "checksum");
    refused(&fs::read(update).unwrap(), "no report of a node");
    let mut other = status(1, Phase::Good);
    other.node = name("gw-7");
    let stranger = report(&cloud, other, &[1]);
    cloud.fails(&["node", "import-status", text(&stranger)], &["no node `gw-7`"]);
    cloud.fails(&["node", "import-status", "/nowhere"], &["/nowhere"]);
    assert_eq!(cloud.json(&["events", "gw-1"]), Value::Array(vec![]));
    assert_eq!(cloud.get("/v1/nodes/gw-1")["last_seen"], Value::Null);
}

#[test]
fn an_export_that_cannot_be_says_why_and_leaves_nothing() {
    let cloud = two_versions();
    cloud.cli(&["project", "add", "moon", "--customer", "acme"]);
    let file = cloud.dir.path().join("update");
    let fails = |words: &[&str], parts: &[&str]| {
        let start = ["version", "export", "shop@1.0.0.1", "-o", text(&file)];
        cloud.fails(&[&start, words].concat(), parts);
        assert!(!file.exists() && !file.with_extension("part").exists());
    };
    fails(&["--node", "gw-9"], &["no node `gw-9`"]);
    fails(&["--any-of-project", "moon"], &["project `moon` is not of project `plant`"]);
    fails(&["--any-of-project", "mars"], &["no project `mars`"]);
    fails(&[], &["--node"]);
    cloud.fails(&["version", "export", "shop@1.0.0.1", "--node", "gw-1"], &["-o FILE"]);
    cloud.fails(&["node", "list", "-o", "yaml"], &["`yaml` is no output"]);
    // Found in the middle: what was written goes away, and the log says why.
    for entry in fs::read_dir(cloud.data().join("layers")).unwrap() {
        let layer = entry.unwrap().path();
        let size = usize::try_from(fs::metadata(&layer).unwrap().len()).unwrap();
        fs::write(layer, vec![0; size]).unwrap();
    }
    fails(&["--node", "gw-1"], &["did not send the whole file"]);
    cloud.wait_log("an export broke off: layer ", 1);
}
