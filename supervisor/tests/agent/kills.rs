//! One download, and a node that is killed again and again in the middle of
//! it.

use std::env;
use std::hash::{BuildHasher, RandomState};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use wherry::layers::WantedLayer;
use wherry_bundle::Digest;
use wherry_bundle::limits::TRANSFER_WINDOW_BYTES;
use wherry_bundle::message::ChunkGet;
use wherry_bundle::model::Layer;
use wherry_bundle::topic::Topic;

use super::rig::{Broker, Cloud, Node, NodeDisk};
use super::{Offered, blob, layer_done};

const KILLS: usize = 200;
const LAYER_BYTES: usize = 40_000_000;
/// What the cloud answers before a kill: the download must not end early.
const CHUNKS_PER_LIFE: usize = 6;
/// Every other life ends at some moment of its first so many milliseconds,
/// which may be before it has connected; the others so long after they asked for
/// something, however slow this machine is.
const LIFE_MILLIS: u64 = 100;
/// A life that asks for nothing.
const PATIENCE: Duration = Duration::from_secs(20);
const CHUNK_PAUSE: Duration = Duration::from_millis(4);

/// Runs in a process of its own, to be killed; ends when the layer is there.
#[test]
fn downloader() {
    let Ok(port) = env::var("WHERRY_TEST_DOWNLOAD_PORT") else { return };
    let path = env::var("WHERRY_TEST_DOWNLOAD_DISK").unwrap();
    // Computing them would take longer than most lives do.
    let digests = env::var("WHERRY_TEST_DOWNLOAD_DIGESTS").unwrap();
    let mut digests = digests.split(' ').map(|text| Digest::parse(text).unwrap());
    let layer = Layer { digest: digests.next().unwrap(), size_bytes: LAYER_BYTES as u64 };
    let node = Node::start_at(path.into(), port.parse().unwrap());
    node.agent().want(vec![WantedLayer { layer, lists: digests.collect() }]);
    while node.next_within(Duration::from_secs(60), layer_done).is_none() {}
}

#[test]
fn a_download_outlives_two_hundred_kills() {
    let broker = Broker::start();
    let cloud = Cloud::connect(&broker);
    let disk = NodeDisk::new();
    let bytes = blob(LAYER_BYTES, 7);
    let mut offered = Offered::default();
    let wanted = offered.add(&bytes);
    let mut served = Served { cloud: &cloud, offered: &offered, bytes: 0 };
    let hex = wanted.layer.digest.hex();
    let part = disk.path().join("layers").join(format!("{hex}.part"));
    let mut done = 0;
    for kill in 0..KILLS {
        let mut child = Life::begin(&disk, broker.port, &wanted);
        let (born, length) = (Instant::now(), Duration::from_millis(random() % LIFE_MILLIS));
        served.serve(CHUNKS_PER_LIFE, |asked| {
            let since = if kill % 2 == 0 { Some(born) } else { asked };
            since.is_none_or(|since| since.elapsed() < length) && born.elapsed() < PATIENCE
        });
        child.0.kill().unwrap();
        drop(child);
        let length = part.metadata().map_or(0, |found| found.len());
        assert!(length >= done, "kill {kill}: {length} bytes of {done} are left");
        done = length;
    }
    assert!(done > LAYER_BYTES as u64 / 20, "{done} bytes: it was killed before it did anything");
    let mut last = Life::begin(&disk, broker.port, &wanted);
    served.serve(usize::MAX, |_| last.0.try_wait().unwrap().is_none());
    assert!(last.0.wait().unwrap().success());
    let whole = disk.path().join("layers").join(format!("{hex}.squashfs"));
    assert_eq!(Digest::of(&std::fs::read(whole).unwrap()), wanted.layer.digest);
    let most = bytes.len() + KILLS * TRANSFER_WINDOW_BYTES;
    assert!(served.bytes <= most, "{} bytes, where {most} would do", served.bytes);
    let again = served.bytes - bytes.len();
    assert!(again <= KILLS * CHUNKS_PER_LIFE * super::CHUNK, "{again} bytes came twice");
}

/// A node that lives for a while.
struct Life(Child);

impl Life {
    fn begin(disk: &NodeDisk, port: u16, wanted: &WantedLayer) -> Self {
        let digests = [&[wanted.layer.digest], wanted.lists.as_slice()].concat();
        let digests: Vec<String> = digests.iter().map(Digest::hex).collect();
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "kills::downloader"])
            .env("WHERRY_TEST_DOWNLOAD_PORT", port.to_string())
            .env("WHERRY_TEST_DOWNLOAD_DISK", disk.path())
            .env("WHERRY_TEST_DOWNLOAD_DIGESTS", digests.join(" "))
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The cloud, and what it was asked for.
struct Served<'a> {
    cloud: &'a Cloud,
    offered: &'a Offered,
    bytes: usize,
}

impl Served<'_> {
    /// Answers at most so many chunks, while `goes_on`, which is told when the
    /// first one was asked for.
    fn serve(&mut self, mut most: usize, mut goes_on: impl FnMut(Option<Instant>) -> bool) {
        let mut asked = None;
        while goes_on(asked) {
            let get: Option<ChunkGet> =
                self.cloud.next_within(Topic::ChunkGet, Duration::from_millis(2));
            if get.is_some() {
                asked = asked.or(Some(Instant::now()));
            }
            for chunk in get.map(|get| get.chunks).unwrap_or_default() {
                if most == 0 {
                    break;
                }
                most -= 1;
                self.cloud.send(Topic::ChunkData, &self.offered.answer(chunk));
                self.bytes += self.offered.0[&chunk].len();
                if most < CHUNKS_PER_LIFE {
                    thread::sleep(CHUNK_PAUSE);
                }
            }
        }
    }
}

fn random() -> u64 {
    RandomState::new().hash_one(0)
}
