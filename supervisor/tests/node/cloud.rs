//! A cloud made of a real broker (mosquitto) and a bare MQTT client, both in
//! the node's network namespace.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use wherry_bundle::Digest;
use wherry_bundle::message::{
    ChunkContents, ChunkData, ChunkGet, Command as Order, EventAck, Events, LogChunk, Message,
    NodeStatus, Order as What, Outcome, Reply, Status,
};
use wherry_bundle::metrics::Metrics;
use wherry_bundle::topic::Topic;

use crate::rig::{Rig, name};

pub const PORT: u16 = 1883;
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Cloud {
    client: Client,
    incoming: Receiver<(Topic, Vec<u8>)>,
    /// All that came, in order.
    heard: RefCell<Vec<(Topic, Vec<u8>)>>,
    /// Behind the last status that was waited for.
    status_from: Cell<usize>,
    chunks: Arc<Mutex<Chunks>>,
    broker: Child,
}

/// What the cloud has, and what it was asked for.
#[derive(Default)]
struct Chunks {
    here: BTreeMap<Digest, Vec<u8>>,
    asked: Vec<Digest>,
}

impl Cloud {
    pub fn start(rig: &Rig) -> Self {
        let config = rig.config().with_file_name("mosquitto.conf");
        fs::write(&config, format!("listener {PORT} 127.0.0.1\nallow_anonymous true\nuser root\n"))
            .unwrap();
        let broker = Command::new("nsenter")
            .args([rig.enter().as_str(), "mosquitto", "-c"])
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let netns = File::open(format!("/run/netns/{}", rig.netns())).unwrap();
        let mut options = MqttOptions::new("cloud", "127.0.0.1", PORT);
        options.set_max_packet_size(1 << 20, 1 << 20).set_clean_session(false);
        let (client, mut connection) = Client::new(options, 64);
        let (sender, incoming) = mpsc::channel();
        let (ready, subscribed) = mpsc::channel();
        let subscriber = client.clone();
        let chunks = Arc::new(Mutex::new(Chunks::default()));
        let served = Arc::clone(&chunks);
        thread::spawn(move || {
            // Of this thread only: its sockets are in there.
            setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        for topic in Topic::TO_CLOUD {
                            let filter = topic.of_every_node();
                            subscriber.try_subscribe(filter, QoS::AtLeastOnce).unwrap();
                        }
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(ready.send(())),
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let Some((_, topic)) = Topic::parse(&publish.topic) else { continue };
                        if topic == Topic::Event {
                            let events = Events::from_bytes(&publish.payload).unwrap();
                            let seq = events.0.last().unwrap().seq;
                            let ack = EventAck { seq }.to_bytes().unwrap();
                            let topic = Topic::EventAck.of(&name("gw-1"));
                            subscriber.try_publish(topic, QoS::AtLeastOnce, false, ack).unwrap();
                        }
                        if topic == Topic::ChunkGet {
                            let get = ChunkGet::from_bytes(&publish.payload).unwrap();
                            for answer in answers(&served, get) {
                                let topic = Topic::ChunkData.of(&name("gw-1"));
                                subscriber
                                    .try_publish(topic, QoS::AtLeastOnce, false, answer)
                                    .unwrap();
                            }
                        }
                        if sender.send((topic, publish.payload.to_vec())).is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                    Err(_) => thread::sleep(Duration::from_millis(50)),
                }
            }
        });
        for _ in Topic::TO_CLOUD {
            subscribed.recv_timeout(PATIENCE).expect("the cloud cannot subscribe");
        }
        let (heard, status_from) = (RefCell::default(), Cell::new(0));
        Self { client, incoming, heard, status_from, chunks, broker }
    }

    /// From now on these chunks are to be had.
    pub fn serve(&self, chunks: BTreeMap<Digest, Vec<u8>>) {
        self.chunks.lock().unwrap().here = chunks;
    }

    /// Every chunk that was asked for.
    pub fn asked(&self) -> Vec<Digest> {
        self.chunks.lock().unwrap().asked.clone()
    }

    pub fn desire(&self, payload: Vec<u8>) {
        let topic = Topic::Desired.of(&name("gw-1"));
        self.client.publish(topic, QoS::AtLeastOnce, true, payload).unwrap();
    }

    pub fn order(&self, id: u64, order: What) {
        let payload = Order { id, order }.to_bytes().unwrap();
        let topic = Topic::Command.of(&name("gw-1"));
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).unwrap();
    }

    /// Waits for a status like this, after the one before.
    pub fn status(&self, what: &str, wanted: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
        let (at, status) = self.hear(what, self.status_from.get(), |topic, payload| {
            let is_status = topic == Topic::Status;
            match is_status.then(|| Status::from_bytes(payload).unwrap())? {
                Status::Online(status) => wanted(&status).then_some(*status),
                Status::Offline => None,
            }
        });
        self.status_from.set(at + 1);
        status
    }

    /// Waits for a sample of figures like this.
    pub fn figures(&self, wanted: impl Fn(&Metrics) -> bool) -> Metrics {
        let (_, figures) = self.hear("a sample of figures", 0, |topic, payload| {
            let figures = (topic == Topic::Metrics).then(|| Metrics::from_bytes(payload).unwrap());
            figures.filter(&wanted)
        });
        figures
    }

    pub fn offline(&self) {
        self.hear("the status offline", self.status_from.get(), |topic, payload| {
            (topic == Topic::Status && Status::from_bytes(payload).unwrap() == Status::Offline)
                .then_some(())
        });
    }

    pub fn event(&self, text: &str) {
        self.hear(text, 0, |topic, payload| {
            let is_event = topic == Topic::Event;
            let events = is_event.then(|| Events::from_bytes(payload).unwrap())?;
            events.0.iter().any(|event| event.text.contains(text)).then_some(())
        });
    }

    /// The reply to order `id`, and the log lines before it.
    pub fn reply(&self, id: u64) -> (Result<String, String>, Vec<String>) {
        let (result, lines) = self.outcome(id);
        let text = |outcome| match outcome {
            Outcome::Done(text) => text,
            other => panic!("{other:?}"),
        };
        (result.map(text), lines)
    }

    /// The same, of any order.
    pub fn outcome(&self, id: u64) -> (Result<Outcome, String>, Vec<String>) {
        let (at, result) = self.hear("a reply", 0, |topic, payload| {
            let reply = (topic == Topic::Reply).then(|| Reply::from_bytes(payload).unwrap())?;
            (reply.id == id).then_some(reply.result)
        });
        let heard = self.heard.borrow();
        let chunks = heard[..at].iter().filter(|(topic, _)| *topic == Topic::Log);
        let chunks = chunks.map(|(_, payload)| LogChunk::from_bytes(payload).unwrap());
        let lines = chunks.filter(|chunk| chunk.id == id).flat_map(|chunk| chunk.lines);
        (result, lines.map(|line| line.text).collect())
    }

    fn hear<T>(
        &self,
        what: &str,
        mut from: usize,
        take: impl Fn(Topic, &[u8]) -> Option<T>,
    ) -> (usize, T) {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut heard = self.heard.borrow_mut();
            while let Some((topic, payload)) = heard.get(from) {
                if let Some(found) = take(*topic, payload) {
                    return (from, found);
                }
                from += 1;
            }
            let left = end.saturating_duration_since(Instant::now());
            let next = self.incoming.recv_timeout(left);
            heard.push(next.unwrap_or_else(|_| panic!("no {what}")));
        }
    }
}

/// What is not to be had is not answered at all, as by a cloud that is away.
fn answers(chunks: &Mutex<Chunks>, get: ChunkGet) -> Vec<Vec<u8>> {
    let mut chunks = chunks.lock().unwrap();
    chunks.asked.extend(&get.chunks);
    let answer = |chunk: Digest| {
        let contents = ChunkContents::Bytes(chunks.here.get(&chunk)?.clone());
        Some(ChunkData { chunk, contents }.to_bytes().unwrap())
    };
    get.chunks.into_iter().filter_map(answer).collect()
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.broker.kill();
        let _ = self.broker.wait();
    }
}
