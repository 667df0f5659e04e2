//! Layer files that are replaced while containers run: who sees which.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::path::Path;

use support::{Layers, Node, eventually, name, pod, script};
use wherry_bundle::Digest;
use wherry_bundle::message::Exit;
use wherry_runtime::proto::{ContainerSpec, Request};

/// Reads the layer's file when told to, and not before.
const PATIENT: &str = "trap 'cat /srv/text; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
const HASTY: &str = "cat /srv/text";

#[test]
fn a_replaced_layer_is_mounted_anew_and_what_runs_keeps_the_old_one() {
    let mut node = Node::new("re");
    let layers = node.layers();
    let layer = Digest([77; 32]);
    write(layers, layer, "damaged");
    node.create(&pod("old-0", &["main"], None), &[on(layer, "main", PATIENT)]);
    node.create(&pod("new-0", &["main"], None), &[on(layer, "main", HASTY)]);
    let (old, new) =
        (node.reader("old-0", "main", "stdout"), node.reader("new-0", "main", "stdout"));
    node.start_container("old-0", "main");
    old.wait_for("ready");
    let run = |node: &mut Node| {
        node.start_container("new-0", "main");
        assert_eq!(node.exit_of("main"), Exit::Code(0));
        new.read()
    };
    assert_eq!(run(&mut node), "damaged\n");
    assert_eq!(layers.devices(&layer), 1, "both have the same mount");

    fs::remove_file(layers.file(&layer)).unwrap();
    let start = Request::StartContainer { pod: name("new-0"), container: name("main") };
    let error = node.ask(start).unwrap_err();
    assert!(error.contains("has to be fetched first"), "{error}");
    write(layers, layer, "mended");
    assert_eq!(run(&mut node), "mended\n");
    assert_eq!(layers.devices(&layer), 2);
    let mounts = || fs::read_dir(node.run_dir.join("layers")).unwrap().count();
    eventually("the old mount is there", || (mounts() == 3).then_some(()));

    // The next launcher knows which file is mounted.
    node.kill_launcher();
    node.start();
    assert_eq!(run(&mut node), "mended\n");
    assert_eq!(layers.devices(&layer), 2, "it is not mounted once more");

    node.ask(Request::TerminatePod { pod: name("old-0") }).unwrap();
    assert_eq!(node.exit_of("main"), Exit::Code(9));
    assert_eq!(old.read(), "damaged\n", "what ran had the old file to its end");
    eventually("the old file is held", || (layers.devices(&layer) == 1).then_some(()));
    node.ask(Request::Purge).unwrap();
    eventually("something is left", || node.leftovers().is_empty().then_some(()));
    fs::remove_file(layers.file(&layer)).unwrap();
}

fn write(layers: &Layers, layer: Digest, text: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("srv")).unwrap();
    fs::write(folder.path().join("srv/text"), format!("{text}\n")).unwrap();
    let path: &Path = folder.path();
    layers.pack(path, |_| layer);
}

fn on(layer: Digest, container: &str, text: &str) -> ContainerSpec {
    let mut spec = script(container, text);
    spec.layers.push(layer).unwrap();
    spec
}
