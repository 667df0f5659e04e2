//! The agent against a real broker: what arrives, what is repeated, what
//! survives.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod kills;
mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::process::{Command, Stdio};
use std::time::Duration;

use rig::{Broker, Cloud, Node, NodeDisk, is_generation, status};
use wherry::agent::{AckToken, AgentEvent, SendError};
use wherry::layers::WantedLayer;
use wherry_bundle::chunk::{Chunk, ChunkList};
use wherry_bundle::limits::TRANSFER_WINDOW_BYTES;
use wherry_bundle::message::{
    ChunkContents, ChunkData, ChunkGet, Command as CloudCommand, EventAck, Events, LogChunk,
    LogLine, LogStream, Message, Order, Outcome, Reply, Status, WallMillis,
};
use wherry_bundle::model::Layer;
use wherry_bundle::topic::Topic;
use wherry_bundle::{Digest, Name};

/// Bytes of a chunk of these tests.
const CHUNK: usize = 30_000;
/// Long enough for something that should not happen.
const A_WHILE: Duration = Duration::from_millis(1500);

fn desired(event: AgentEvent) -> Option<(Vec<u8>, AckToken)> {
    match event {
        AgentEvent::Desired { bytes, token } => Some((bytes, token)),
        _ => None,
    }
}

fn command(event: AgentEvent) -> Option<u64> {
    match event {
        AgentEvent::Command(command) => Some(command.id),
        _ => None,
    }
}

fn blob(length: usize, seed: usize) -> Vec<u8> {
    let byte = |i: usize| u8::try_from((i * seed + i / 256 + i / 65_537) % 256).unwrap();
    (0..length).map(byte).collect()
}

/// Layers that the cloud has, cut.
#[derive(Default)]
struct Offered(BTreeMap<Digest, Vec<u8>>);

impl Offered {
    fn add(&mut self, bytes: &[u8]) -> WantedLayer {
        let layer = Layer { digest: Digest::of(bytes), size_bytes: bytes.len() as u64 };
        let mut chunks = Vec::new();
        for part in bytes.chunks(CHUNK) {
            let size_bytes = u32::try_from(part.len()).unwrap();
            chunks.push(Chunk { digest: Digest::of(part), size_bytes });
            self.0.insert(Digest::of(part), part.to_vec());
        }
        let lists = ChunkList::encode(&chunks).unwrap();
        let wanted = WantedLayer { layer, lists: lists.iter().map(|l| Digest::of(l)).collect() };
        self.0.extend(lists.into_iter().map(|list| (Digest::of(&list), list)));
        wanted
    }

    fn answer(&self, chunk: Digest) -> ChunkData {
        ChunkData { chunk, contents: ChunkContents::Bytes(self.0[&chunk].clone()) }
    }
}

fn layer_done(event: AgentEvent) -> Option<Digest> {
    match event {
        AgentEvent::LayerDone { layer, .. } => Some(layer),
        _ => None,
    }
}

#[test]
fn status_goes_up_and_a_farewell_says_offline() {
    let broker = Broker::start();
    let cloud = Cloud::connect(&broker);
    let disk = NodeDisk::new();
    let mut node = Node::start(&disk, &broker);
    node.agent().publish_status(status(1));
    cloud.wait_status(|status| is_generation(status, 1));
    node.agent().publish_status(status(2));
    cloud.wait_status(|status| is_generation(status, 2));
    node.agent.take().unwrap().shutdown();
    cloud.wait_status(|status| *status == Status::Offline);
    // Retained: one who comes later sees it too.
    drop(cloud);
    let later = Cloud::connect(&broker);
    assert_eq!(later.next::<Status>(Topic::Status), Status::Offline);
}

/// Runs in a process of its own, to be killed.
#[test]
fn victim() {
    let Ok(port) = env::var("WHERRY_TEST_PORT") else { return };
    let disk = NodeDisk::new();
    let node = Node::start_at(disk.path(), port.parse().unwrap());
    node.agent().publish_status(status(7));
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_killed_node_is_offline_by_its_last_will() {
    let broker = Broker::start();
    let cloud = Cloud::connect(&broker);
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "victim"])
        .env("WHERRY_TEST_PORT", broker.port.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let online = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cloud.wait_status(|status| is_generation(status, 7));
    }));
    child.kill().unwrap();
    child.wait().unwrap();
    online.unwrap();
    cloud.wait_status(|status| *status == Status::Offline);
}

#[test]
fn a_desired_envelope_comes_again_until_it_is_confirmed() {
    let broker = Broker::start();
    let cloud = Cloud::connect(&broker);
    let disk = NodeDisk::new();
    let node = Node::start(&disk, &broker);
    node.wait_connected();
    // Not retained, so that only the session can bring it again.
    let envelope = vec![7; 300_000];
    cloud.publish(Topic::Desired, false, envelope.clone());
    assert_eq!(node.next(desired).0, envelope);
    // What comes after it is not held up.
    cloud.send(Topic::Command, &CloudCommand { id: 1, order: Order::End { id: 9 } });
    assert_eq!(node.next(command), 1);
    drop(node);
    let node = Node::start(&disk, &broker);
    let (bytes, token) = node.next(desired);
    assert_eq!(bytes, envelope);
    node.agent().ack_desired(token);
    cloud.send(Topic::Command, &CloudCommand { id: 2, order: Order::End { id: 9 } });
    // The first command was behind the envelope, so it was not confirmed
    // either; it comes again, to a new process, before the second.
    assert_eq!(node.next(command), 1);
    assert_eq!(node.next(command), 2);
    std::thread::sleep(Duration::from_millis(300));
    drop(node);
    let node = Node::start(&disk, &broker);
    node.wait_connected();
    assert_eq!(node.next_within(A_WHILE, |event| desired(event.clone()).map(|_| ())), None);
}

#[test]
fn a_command_is_done_once_and_rubbish_does_no_harm() {
    let broker = Broker::start();
    let cloud = Cloud::connect(&broker);
    let disk = NodeDisk::new();
    let node = Node::start(&disk, &broker);
    node.wait_connected();
    for topic in [Topic::Command, Topic::EventAck, Topic::ChunkData] {
        for rubbish in [vec![], vec![0], vec![1, 255, 255, 255], vec![1; 100_000]] {
            cloud.publish(topic, false, rubbish);
        }
    }
    cloud.publish(Topic::Desired, false, vec![]);
    cloud.publish(Topic::Desired, false, vec![0; 512 * 1024 + 1]);
    cloud.send(Topic::EventAck, &EventAck { seq: u64::MAX });
    for id in [5, 5, 6] {
        cloud.send(Topic::Command, &CloudCommand { id, order: Order::End { id: 9 } });
    }
    assert_eq!(node.next(command), 5);
    assert_eq!(node.next(command), 6);
    assert_eq!(node.next_within(A_WHILE, Some), None, "nothing else was told");
    node.agent().publish_status(status(3));
    cloud.wait_status(|status| is_generation(status, 3));
}

#[test]
fn events_go_up_again_until_the_cloud_has_them() {
    let mut broker = Broker::start();
    let cloud = Cloud::connect(&broker);
    let disk = NodeDisk::new();
    let node = Node::start(&disk, &broker);
    node.wait_connected();
    for text in ["one", "two", "three"] {
        node.push_event(text);
    }
    let seqs = |events: Events| events.0.iter().map(|event| event.seq).collect::<Vec<u64>>();
    assert_eq!(seqs(cloud.next(Topic::Event)), [1, 2, 3]);
    cloud.send(Topic::EventAck, &EventAck { seq: 1 });
    broker.down();
    node.next(|event| matches!(event, AgentEvent::Disconnected(_)).then_some(()));
    node.push_event("while the broker was away");
    broker.up();
    let again = loop {
        let seqs = seqs(cloud.next(Topic::Event));
        if seqs.contains(&4) {
            break seqs;
        }
    };
    assert!(again == [2, 3, 4] || again == [1, 2, 3, 4], "{again:?}");
    assert!(node.store.outbox_status().waiting >= 3);
    cloud.send(Topic::EventAck, &EventAck { seq: 4 });
    node.push_event("five");
    assert_eq!(seqs(cloud.next(Topic::Event)), [5]);
    assert_eq!(node.store.outbox_status().waiting, 1);
}

#[test]
fn a_damaged_chunk_alone_is_fetched_again() {
    let broker = Broker::start();
    let cloud = Cloud::connect(&broker);
    let disk = NodeDisk::new();
    let node = Node::start(&disk, &broker);
    let (bytes, other_bytes) = (blob(1_500_000, 7), blob(70_000, 11));
    let mut offered = Offered::default();
    let (wanted, other) = (offered.add(&bytes), offered.add(&other_bytes));
    let bad = Digest::of(&bytes[20 * CHUNK..21 * CHUNK]);
    node.agent().want(vec![wanted.clone(), other.clone()]);
    let mut asked: BTreeMap<Digest, usize> = BTreeMap::new();
    let mut done = BTreeSet::new();
    while done.len() < 2 {
        let get: Option<ChunkGet> = cloud.next_within(Topic::ChunkGet, Duration::from_millis(20));
        for chunk in get.map(|get| get.chunks).unwrap_or_default() {
            let mut answer = offered.answer(chunk);
            let times = asked.entry(chunk).or_default();
            *times += 1;
            if chunk == bad && *times == 1 {
                answer.contents = ChunkContents::Bytes(vec![0; CHUNK]);
            }
            cloud.send(Topic::ChunkData, &answer);
        }
        match node.next_within(Duration::ZERO, Some) {
            Some(AgentEvent::LayerDone { layer, .. }) => assert!(done.insert(layer)),
            Some(AgentEvent::LayerFailed { error, .. }) => panic!("{error}"),
            _ => {}
        }
    }
    assert_eq!(asked.remove(&bad), Some(2));
    assert!(asked.values().all(|times| *times == 1), "{asked:?}");
    assert!(node.layers.is_whole(&wanted.layer) && node.layers.is_whole(&other.layer));
}

#[test]
fn a_transfer_goes_on_where_it_was_after_a_restart() {
    let broker = Broker::start();
    let cloud = Cloud::connect(&broker);
    let disk = NodeDisk::new();
    let bytes = blob(6_000_000, 7);
    let mut offered = Offered::default();
    let wanted = offered.add(&bytes);
    let serve = |node: &Node, limit: usize| -> (usize, bool) {
        let mut served = 0;
        while served < limit {
            if node.next_within(Duration::ZERO, layer_done).is_some() {
                return (served, true);
            }
            let get: Option<ChunkGet> =
                cloud.next_within(Topic::ChunkGet, Duration::from_millis(20));
            for chunk in get.map(|get| get.chunks).unwrap_or_default() {
                served += offered.0[&chunk].len();
                cloud.send(Topic::ChunkData, &offered.answer(chunk));
            }
        }
        (served, false)
    };
    let node = Node::start(&disk, &broker);
    node.agent().want(vec![wanted.clone()]);
    let (before, done) = serve(&node, 4_000_000);
    assert!(!done);
    std::thread::sleep(Duration::from_millis(500));
    drop(node);
    // What was asked for and not answered before is not counted.
    while cloud.next_within::<ChunkGet>(Topic::ChunkGet, Duration::from_millis(200)).is_some() {}
    let node = Node::start(&disk, &broker);
    node.agent().want(vec![wanted.clone()]);
    let (served, done) = serve(&node, usize::MAX);
    assert!(done && node.layers.is_whole(&wanted.layer));
    let most = bytes.len() + TRANSFER_WINDOW_BYTES + 100_000;
    assert!(before + served <= most, "{before} and {served} bytes, where {most} would do");
}

#[test]
fn a_broker_that_is_away_is_tried_again_and_told_once() {
    let mut broker = Broker::stopped();
    let disk = NodeDisk::new();
    let node = Node::start(&disk, &broker);
    node.agent().publish_status(status(1));
    let reason = node.next(|event| match event {
        AgentEvent::Disconnected(reason) => Some(reason),
        _ => None,
    });
    assert!(reason.contains("refused"), "{reason}");
    assert_eq!(node.next_within(A_WHILE, Some), None, "told once");
    broker.up();
    let cloud = Cloud::connect(&broker);
    cloud.wait_status(|status| is_generation(status, 1));
    for generation in [2, 3] {
        broker.down();
        node.next(|event| matches!(event, AgentEvent::Disconnected(_)).then_some(()));
        node.agent().publish_status(status(generation));
        broker.up();
        cloud.wait_status(|status| is_generation(status, generation));
    }
}

fn log_chunk(seq: u32) -> LogChunk {
    let name = Name::new("web-1").unwrap();
    let line = LogLine {
        pod: name.clone(),
        container: name,
        wall_time: WallMillis(0),
        stream: LogStream::Stdout,
        text: "x".repeat(1000),
    };
    LogChunk { id: 1, seq, lines: vec![line; 5] }
}

#[test]
fn logs_and_replies_arrive_in_order_over_a_lost_connection() {
    let mut broker = Broker::start();
    let cloud = Cloud::connect(&broker);
    let disk = NodeDisk::new();
    let node = Node::start(&disk, &broker);
    node.wait_connected();
    let send = |seq: u32| {
        while let Err(error) = node.agent().uplink().log(&log_chunk(seq)) {
            assert_eq!(error, SendError::Full);
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    (0..50).for_each(send);
    broker.down();
    node.next(|event| matches!(event, AgentEvent::Disconnected(_)).then_some(()));
    (50..60).for_each(send);
    node.agent()
        .uplink()
        .reply(&Reply { id: 1, result: Ok(Outcome::Done("60 chunks".into())) })
        .unwrap();
    broker.up();
    let mut seqs = Vec::new();
    while seqs.last() != Some(&59) {
        seqs.push(cloud.next::<LogChunk>(Topic::Log).seq);
    }
    // At least once: some may come twice, none is missing or out of order.
    let different: BTreeSet<u32> = seqs.iter().copied().collect();
    assert_eq!(different.into_iter().collect::<Vec<_>>(), (0..60).collect::<Vec<_>>());
    let first_seen = |seq: &u32| seqs.iter().position(|s| s == seq).unwrap();
    assert!((1..60).all(|seq| first_seen(&(seq - 1)) < first_seen(&seq)), "{seqs:?}");
    let done = Outcome::Done("60 chunks".into());
    assert_eq!(cloud.next::<Reply>(Topic::Reply).result, Ok(done));
    assert!(log_chunk(0).to_bytes().unwrap().len() > 5000);
}
