//! Layers in chunks, over the embedded broker.

use std::fs;

use crate::cloud_support::Cloud;
use crate::cloud_support::node::{Login, Node, name};
use crate::cloud_support::package::{big_layers, small_chunks};
use rumqttc::{Publish, QoS};
use wherry_bundle::chunk::ChunkList;
use wherry_bundle::message::{ChunkContents, ChunkData, Message};
use wherry_bundle::model::Layer;
use wherry_bundle::topic::Topic;
use wherry_bundle::{Bundle, Digest, envelope, wire};

/// A cloud that rolled out an image of two layers of a megabyte each, and the
/// node that it is for.
fn rolled_out() -> (Cloud, Node) {
    let cloud = Cloud::start();
    cloud.organise();
    cloud.import(&big_layers("lion:1.0", &[1, 2]));
    cloud.create_version("shop", "1.0.0", "web");
    cloud.roll_out("shop@1.0.0.1", "*");
    let node = connect(&cloud, "gw-1");
    (cloud, node)
}

fn connect(cloud: &Cloud, node: &str) -> Node {
    let node = Login::new(cloud.mqtt, node, &cloud.token(node)).connect().unwrap();
    node.subscribe();
    node
}

fn desired(node: &Node) -> Bundle {
    let payload = node.message(Topic::Desired).payload;
    envelope::open_kept(&payload, &name(&node.name)).unwrap()
}

/// The layers of the bundle, with their lists.
fn layers(bundle: &Bundle) -> Vec<(Layer, &[Digest])> {
    let layers = bundle.images.iter().flat_map(|image| &image.layers);
    layers.map(|layer| (*layer, bundle.chunk_lists[&layer.digest].as_slice())).collect()
}

/// Why there is no such chunk.
fn missing(node: &Node, digest: Digest) -> String {
    node.ask(&[digest]);
    let answer = ChunkData::from_bytes(&node.message(Topic::ChunkData).payload).unwrap();
    assert_eq!(answer.chunk, digest);
    match answer.contents {
        ChunkContents::Missing(why) => why,
        ChunkContents::Bytes(bytes) => panic!("{} bytes", bytes.len()),
    }
}

/// A counter of `/metrics`.
fn counter(cloud: &Cloud, name: &str) -> u64 {
    let text = cloud.get("/metrics");
    let mut lines = text.as_str().unwrap().lines();
    let value = lines.find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap();
    value.parse().unwrap()
}

#[test]
fn a_layer_travels_in_chunks_and_is_read_once_for_all_nodes() {
    let (cloud, node) = rolled_out();
    cloud.add_node("gw-2", &[]);
    let other = connect(&cloud, "gw-2");
    let bundle = desired(&node);
    for (layer, lists) in layers(&bundle) {
        let file = cloud.data().join(format!("layers/{}.squashfs", layer.digest.hex()));
        assert!(node.layer(lists, layer) == fs::read(file).unwrap());
    }
    let read = counter(&cloud, "wherry_chunks_read_total");
    assert_eq!(counter(&cloud, "wherry_chunks_sent_total"), read);
    assert!(read > 40, "{read} chunks in two megabytes");
    let bytes = counter(&cloud, "wherry_chunk_bytes_total");
    for (layer, lists) in layers(&bundle) {
        other.layer(lists, layer);
    }
    assert_eq!(counter(&cloud, "wherry_chunks_read_total"), read);
    assert_eq!(counter(&cloud, "wherry_chunks_sent_total"), 2 * read);
    assert_eq!(counter(&cloud, "wherry_chunk_bytes_total"), 2 * bytes);
}

#[test]
fn a_chunk_that_is_damaged_or_unknown_is_not_sent() {
    let (cloud, node) = rolled_out();
    let bundle = desired(&node);
    assert_eq!(missing(&node, Digest::of(b"x")), "there is no such chunk");
    let (layer, lists) = layers(&bundle)[0];
    let encoded = node.chunks(lists);
    let chunks = ChunkList::join(encoded.iter().map(Vec::as_slice), layer.size_bytes).unwrap();
    let file = cloud.data().join(format!("layers/{}.squashfs", layer.digest.hex()));
    let good = fs::read(&file).unwrap();
    let mut bytes = good.clone();
    bytes[0] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let why = missing(&node, chunks[0].digest);
    assert!(why.contains("damaged"), "{why}");
    node.chunks(&[chunks[1].digest]);
    fs::remove_file(&file).unwrap();
    assert!(missing(&node, chunks[2].digest).contains("No such file"));
    node.chunks(&[chunks[1].digest]);
    fs::write(&file, &good).unwrap();
    node.chunks(&[chunks[0].digest]);
    // More at once than there may be: the cloud answers nothing at all.
    let many = wire::encode(2, &vec![chunks[0].digest; 17]).unwrap();
    node.client.publish(Topic::ChunkGet.of(&name("gw-1")), QoS::AtLeastOnce, false, many).unwrap();
    cloud.wait_log("chunk/get is dropped", 1);
    node.assert_none(Topic::ChunkData);
}

#[test]
fn layers_of_an_earlier_version_are_cut_at_the_start() {
    let (mut cloud, node) = rolled_out();
    let before = desired(&node).chunk_lists;
    drop(node);
    assert!(cloud.end(nix::sys::signal::Signal::SIGTERM).success());
    let database = rusqlite::Connection::open(cloud.data().join("cloud.db")).unwrap();
    database.execute_batch("DELETE FROM chunk; DELETE FROM chunk_list").unwrap();
    drop(database);
    cloud.begin();
    cloud.roll_out("shop@1.0.0.1", "*");
    let bundle = desired(&connect(&cloud, "gw-1"));
    assert_eq!((bundle.generation.0, &bundle.chunk_lists), (2, &before));

    // One whose file is gone cannot be cut, and nothing is given out with it.
    assert!(cloud.end(nix::sys::signal::Signal::SIGTERM).success());
    let database = rusqlite::Connection::open(cloud.data().join("cloud.db")).unwrap();
    database.execute_batch("DELETE FROM chunk; DELETE FROM chunk_list").unwrap();
    drop(database);
    let layer = layers(&bundle)[0].0.digest;
    fs::remove_file(cloud.data().join(format!("layers/{}.squashfs", layer.hex()))).unwrap();
    cloud.begin();
    cloud.fails(
        &["rollout", "start", "--version", "shop@1.0.0.1", "--nodes", "*"],
        &["gw-1: layer ", &layer.short(), "import its image again"],
    );
}

#[test]
fn a_window_of_small_chunks_passes_before_any_is_acknowledged() {
    let (mut cloud, _) = rolled_out();
    let digests = small_chunks(&mut cloud, 64);
    let mut login = Login::new(cloud.mqtt, "gw-1", &cloud.token("gw-1"));
    login.manual_acks = true;
    let node = login.connect().unwrap();
    node.subscribe();
    node.acknowledge(&[node.message(Topic::Desired)]);
    for _ in 0..10 {
        node.ask(&digests);
        let window: Vec<Publish> = digests.iter().map(|_| node.message(Topic::ChunkData)).collect();
        for (message, digest) in window.iter().zip(&digests) {
            assert_eq!(ChunkData::from_bytes(&message.payload).unwrap().chunk, *digest);
        }
        node.acknowledge(&window);
    }
}
