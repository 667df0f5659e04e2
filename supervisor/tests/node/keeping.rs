//! Layer files that are damaged, in the way, or not to be had; bundles that
//! this machine cannot run.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wherry::layers::Layers;
use wherry_bundle::chunk::{Chunk, ChunkList};
use wherry_bundle::health::UpgradePolicy;
use wherry_bundle::message::{Phase, PodPhase};
use wherry_bundle::model::{Deployment, Layer};
use wherry_bundle::{Bundle, Digest};

use crate::cloud::{Cloud, PORT};
use crate::container_pids;
use crate::rig::{Rig, bundle, deployment, published, sealed};

const SERVES: &str = "exec sleep 1000000";
const CHUNK_BYTES: usize = 32 * 1024;

/// A layer and how it is cut.
struct Cut {
    layer: Layer,
    lists: Vec<Digest>,
    chunks: Vec<(Digest, Vec<u8>)>,
}

impl Cut {
    /// With its lists beside the layer, as a transfer leaves them.
    fn new(rig: &Rig) -> Self {
        let layer = rig.layer();
        let layers = Layers::open(&rig.layers()).unwrap();
        let bytes = fs::read(layers.path(&layer.digest)).unwrap();
        let chunks: Vec<(Digest, Vec<u8>)> =
            bytes.chunks(CHUNK_BYTES).map(|part| (Digest::of(part), part.to_vec())).collect();
        let named: Vec<Chunk> = chunks
            .iter()
            .map(|(digest, part)| {
                let size_bytes = u32::try_from(part.len()).unwrap();
                Chunk { digest: *digest, size_bytes }
            })
            .collect();
        let lists = ChunkList::encode(&named).unwrap();
        layers.put_lists(&layer, &lists).unwrap();
        Self { layer, lists: lists.iter().map(|list| Digest::of(list)).collect(), chunks }
    }

    fn bundle(&self, generation: u64, deployments: Vec<Deployment>) -> Bundle {
        let upgrade = UpgradePolicy { stable_seconds: 1, ..UpgradePolicy::default() };
        let chunk_lists = BTreeMap::from([(self.layer.digest, self.lists.clone())]);
        Bundle { upgrade, chunk_lists, ..bundle(generation, self.layer, deployments) }
    }

    /// Changes a bit of each of these chunks on the disk.
    fn damage(&self, rig: &Rig, chunks: &[usize]) {
        let path = Layers::open(&rig.layers()).unwrap().path(&self.layer.digest);
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        for number in chunks {
            let (mut byte, at) = ([0], (number * CHUNK_BYTES + 1000) as u64);
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 4], at).unwrap();
        }
        file.sync_all().unwrap();
    }
}

fn web() -> Deployment {
    deployment("web", 1, &[], &[("main", SERVES)])
}

#[test]
fn a_damaged_layer_is_mended_by_its_bad_chunks_alone() {
    let mut rig = Rig::new("keep");
    let cut = Cut::new(&rig);
    let cloud = Cloud::start(&rig);
    rig.start();
    cloud.desire(sealed(&cut.bundle(1, vec![web()])));
    cloud.event("generation 1 is good");
    let before = container_pids(&rig);

    // As after a boot, but for the pods: nothing counts as checked.
    let bad = [1, cut.chunks.len() - 2];
    cut.damage(&rig, &bad);
    fs::remove_file(rig.run_dir().join("checked.bin")).unwrap();
    kill(Pid::from_raw(rig.pids().1), Signal::SIGKILL).unwrap();
    cloud.event(&format!("is damaged: 2 of {} chunks are fetched again", cut.chunks.len()));
    assert_eq!(container_pids(&rig), before, "what runs is left alone");

    // It needs the layer now, and says so.
    let pid = i32::try_from(before[0].1).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    cloud.status("what the pod waits for", |status| {
        let error = status.pods.first().and_then(|pod| pod.last_error.as_ref());
        error.is_some_and(|error| error.contains("is damaged: 2 of"))
    });
    cloud.serve(cut.chunks.iter().cloned().collect());
    let status = cloud.status("the mended layer", |status| {
        status.phase == Phase::Good && status.pods[0].phase == PodPhase::Available
    });
    assert_eq!((status.failed, &status.pods[0].containers[0].restarts), (None, &1));
    let bad: Vec<Digest> = bad.iter().map(|number| cut.chunks[*number].0).collect();
    let mut asked = cloud.asked();
    asked.sort();
    asked.dedup();
    let mut wanted = bad;
    wanted.sort();
    assert_eq!(asked, wanted, "good chunks are not fetched");
    let layers = Layers::open(&rig.layers()).unwrap();
    let bytes = fs::read(layers.path(&cut.layer.digest)).unwrap();
    assert_eq!(Digest::of(&bytes), cut.layer.digest);
    rig.out(&["stop", "--all"]);
    assert!(rig.ended());
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[test]
fn what_this_machine_cannot_run_is_refused_with_numbers() {
    let mut rig = Rig::new("flight");
    // Nothing that is not needed may stay.
    let mut config = OpenOptions::new().append(true).open(rig.config()).unwrap();
    config.write_all(b"[layers]\nfree_bytes_min = 1152921504606846976\n").unwrap();
    let cut = Cut::new(&rig);
    let stray = Layers::open(&rig.layers()).unwrap().path(&Digest([5; 32]));
    fs::write(&stray, vec![7; 100_000]).unwrap();
    let cloud = Cloud::start(&rig);
    rig.start();
    cloud.desire(sealed(&cut.bundle(1, vec![web()])));
    cloud.event("which nothing needs, made room");
    cloud.event("generation 1 is good");
    assert!(!stray.exists());
    let before = container_pids(&rig);

    // The broker listens at this port.
    let mut greedy = published(web(), 80, PORT);
    greedy.pod.containers[0].resources.memory_bytes = Some(1 << 50);
    let mut second = cut.bundle(2, vec![greedy]);
    let large = Layer { digest: Digest([6; 32]), size_bytes: 1 << 50 };
    second.images[0].layers.push(large);
    second.chunk_lists.insert(large.digest, vec![Digest([7; 32])]);
    cloud.desire(sealed(&second));
    let refused = cloud.status("the refusal", |status| status.refused.is_some()).refused.unwrap();
    for part in [
        "needs 1125899911.",
        "MB free",
        "pods may use 1125899906.9 MB of memory",
        "port 1883/tcp is taken by mosquitto",
    ] {
        assert!(refused.reason.contains(part), "{part}: {}", refused.reason);
    }
    assert_eq!(container_pids(&rig), before);

    cloud.desire(sealed(&cut.bundle(3, vec![published(web(), 80, 8080)])));
    cloud.event("generation 3 is good");
    let written = &rig.json(&["status"])["flash"];
    assert!(written["state_bytes"].as_u64().unwrap() > 0, "{written}");
    assert_eq!(written["layer_bytes"], 0);
    assert!(rig.out(&["status"]).contains("of state"));
    rig.out(&["stop", "--all"]);
    assert!(rig.ended());
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}
