//! A node as the broker sees it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rumqttc::{
    Client, ConnectReturnCode, ConnectionError, Event, Incoming, LastWill, MqttOptions, Publish,
    QoS, SubscribeFilter, SubscribeReasonCode,
};
use wherry_bundle::chunk::ChunkList;
use wherry_bundle::limits::CHUNKS_PER_GET_MAX;
use wherry_bundle::message::{
    ChunkContents, ChunkData, ChunkGet, FlashUse, Message, NodeStatus, Phase, Status, WallMillis,
};
use wherry_bundle::model::Layer;
use wherry_bundle::topic::Topic;
use wherry_bundle::{Digest, Generation, Name};

use super::PATIENCE;

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// How a node connects; change what a test is about.
pub struct Login {
    pub port: u16,
    pub user: String,
    pub password: String,
    pub client_id: String,
    pub clean: bool,
    /// The test acknowledges messages itself, with [`Node::acknowledge`].
    pub manual_acks: bool,
    pub will: Option<String>,
}

impl Login {
    pub fn new(port: u16, node: &str, password: &str) -> Self {
        Self {
            port,
            user: node.into(),
            password: password.into(),
            client_id: format!("wherry-{node}"),
            clean: false,
            manual_acks: false,
            will: Some(Topic::Status.of(&name(node))),
        }
    }

    /// Connects, or is refused.
    pub fn connect(&self) -> Result<Node, Box<ConnectionError>> {
        let mut options = MqttOptions::new(&self.client_id, "127.0.0.1", self.port);
        options.set_credentials(&self.user, &self.password);
        options.set_clean_session(self.clean).set_keep_alive(Duration::from_secs(5));
        options.set_max_packet_size(1 << 20, 1 << 20).set_manual_acks(self.manual_acks);
        if let Some(topic) = &self.will {
            let offline = Status::Offline.to_bytes().unwrap();
            options.set_last_will(LastWill::new(topic, offline, QoS::AtLeastOnce, true));
        }
        let (client, mut connection) = Client::new(options, 100);
        let (sender, events) = mpsc::channel();
        thread::spawn(move || {
            for event in connection.iter() {
                let failed = event.is_err();
                // Dropping the connection at its first error is what a node
                // that goes away does.
                if sender.send(event).is_err() || failed {
                    return;
                }
            }
        });
        let messages = RefCell::default();
        let node = Node { client, events, messages, name: self.user.clone() };
        match node.event(Instant::now() + PATIENCE) {
            Some(Ok(Incoming::ConnAck(_))) => Ok(node),
            Some(Err(error)) => Err(Box::new(error)),
            other => panic!("no answer to CONNECT: {other:?}"),
        }
    }

    /// The code that the broker refuses with.
    pub fn refusal(&self) -> ConnectReturnCode {
        match self.connect().err().map(|error| *error) {
            Some(ConnectionError::ConnectionRefused(code)) => code,
            Some(other) => panic!("not refused by a code: {other}"),
            None => panic!("let in"),
        }
    }
}

pub struct Node {
    pub client: Client,
    events: Receiver<Result<Event, ConnectionError>>,
    /// Those that came while something else was waited for.
    messages: RefCell<VecDeque<Publish>>,
    pub name: String,
}

impl Node {
    /// The next packet from the broker; `None` after `end`, or at the end.
    fn event(&self, end: Instant) -> Option<Result<Incoming, ConnectionError>> {
        loop {
            match self.events.recv_timeout(end.checked_duration_since(Instant::now())?).ok()? {
                Ok(Event::Incoming(packet)) => return Some(Ok(packet)),
                Ok(Event::Outgoing(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Waits for a packet; messages are kept.
    fn wait<T>(&self, what: &str, wanted: impl Fn(&Incoming) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.event(end) {
                Some(Ok(packet)) => {
                    if let Some(value) = wanted(&packet) {
                        return value;
                    }
                    if let Incoming::Publish(publish) = packet {
                        self.messages.borrow_mut().push_back(publish);
                    }
                }
                Some(Err(error)) => panic!("{what}: {error}"),
                None => panic!("{what}: nothing came"),
            }
        }
    }

    /// Waits for a message on one of its topics.
    pub fn message(&self, topic: Topic) -> Publish {
        let full = topic.of(&name(&self.name));
        if let Some(message) = self.kept(&full) {
            return message;
        }
        self.wait(&full, |packet| match packet {
            Incoming::Publish(publish) if publish.topic == full => Some(publish.clone()),
            _ => None,
        })
    }

    fn kept(&self, topic: &str) -> Option<Publish> {
        let mut messages = self.messages.borrow_mut();
        let index = messages.iter().position(|message| message.topic == topic)?;
        messages.remove(index)
    }

    /// A message on this topic that is there already.
    pub fn try_message(&self, topic: Topic) -> Option<Publish> {
        let full = topic.of(&name(&self.name));
        if let Some(message) = self.kept(&full) {
            return Some(message);
        }
        while let Ok(Ok(event)) = self.events.try_recv() {
            if let Event::Incoming(Incoming::Publish(publish)) = event
                && publish.topic == full
            {
                return Some(publish);
            }
        }
        None
    }

    pub fn acknowledge(&self, messages: &[Publish]) {
        messages.iter().for_each(|message| self.client.ack(message).unwrap());
    }

    /// Asks for chunks, all at once; the answers, which have to be the bytes
    /// of these chunks in this order.
    pub fn chunks(&self, digests: &[Digest]) -> Vec<Vec<u8>> {
        self.ask(digests);
        let bytes = digests.iter().map(|digest| {
            let answer = ChunkData::from_bytes(&self.message(Topic::ChunkData).payload).unwrap();
            assert_eq!(answer.chunk, *digest);
            let ChunkContents::Bytes(bytes) = answer.contents else { panic!("{answer:?}") };
            assert_eq!(Digest::of(&bytes), *digest);
            bytes
        });
        bytes.collect()
    }

    /// Sends requests for chunks.
    pub fn ask(&self, digests: &[Digest]) {
        for chunks in digests.chunks(CHUNKS_PER_GET_MAX) {
            self.send(Topic::ChunkGet, &ChunkGet { chunks: chunks.to_vec() });
        }
    }

    /// The whole layer, by way of its chunk lists.
    pub fn layer(&self, lists: &[Digest], layer: Layer) -> Vec<u8> {
        let lists = self.chunks(lists);
        let lists = lists.iter().map(Vec::as_slice);
        let chunks = ChunkList::join(lists, layer.size_bytes).unwrap();
        let digests: Vec<Digest> = chunks.iter().map(|chunk| chunk.digest).collect();
        let bytes = self.chunks(&digests).concat();
        assert_eq!(Digest::of(&bytes), layer.digest);
        bytes
    }

    /// No message on such a topic of any node, as far as a moment tells.
    pub fn assert_none(&self, topic: Topic) {
        let wrong = |publish: &Publish| publish.topic.ends_with(&format!("/{}", topic.suffix()));
        assert!(!self.messages.borrow().iter().any(wrong), "{:?}", self.messages);
        let end = Instant::now() + Duration::from_millis(300);
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            match self.events.recv_timeout(left) {
                Ok(Ok(Event::Incoming(Incoming::Publish(publish)))) => {
                    assert!(!wrong(&publish), "{publish:?}");
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Subscribes as a node does.
    pub fn subscribe(&self) {
        let own = name(&self.name);
        let filters =
            Topic::TO_NODE.map(|topic| SubscribeFilter::new(topic.of(&own), QoS::AtLeastOnce));
        self.client.subscribe_many(filters).unwrap();
        let codes = self.subscribed();
        assert!(codes.iter().all(|code| *code != SubscribeReasonCode::Failure), "{codes:?}");
    }

    pub fn subscribed(&self) -> Vec<SubscribeReasonCode> {
        self.wait("SUBACK", |packet| match packet {
            Incoming::SubAck(ack) => Some(ack.return_codes.clone()),
            _ => None,
        })
    }

    pub fn send(&self, topic: Topic, message: &impl Message) {
        let topic_name = topic.of(&name(&self.name));
        let retain = topic == Topic::Status;
        let bytes = message.to_bytes().unwrap();
        self.client.publish(topic_name, QoS::AtLeastOnce, retain, bytes).unwrap();
    }

    /// Online with a generation.
    pub fn send_status(&self, generation: u64, phase: Phase) {
        self.send(Topic::Status, &online(&self.name, generation, phase));
    }

    /// The connection ends without a good-bye, and the last will counts.
    pub fn vanish(self) {
        // The socket goes with the connection, which goes when the thread
        // finds that nobody listens: at the answer to this.
        let Self { client, events, .. } = self;
        drop(events);
        let _ = client.unsubscribe("x");
    }

    /// Waits until the broker ends the connection.
    pub fn wait_end(&self) {
        let end = Instant::now() + PATIENCE;
        while let Some(event) = self.event(end) {
            if event.is_err() {
                return;
            }
        }
        panic!("the connection did not end");
    }
}

pub fn online(node: &str, generation: u64, phase: Phase) -> Status {
    Status::Online(Box::new(NodeStatus {
        node: name(node),
        wherry_version: "0.1.0".into(),
        architecture: "amd64".into(),
        kernel: "6.18".into(),
        wall_time: WallMillis(5),
        uptime_seconds: 60,
        generation: Generation(generation),
        versions: Vec::new(),
        phase,
        refused: None,
        failed: None,
        held: None,
        transfer: None,
        flash: FlashUse::default(),
        pods: Vec::new(),
        events_waiting: 0,
        events_dropped: 0,
    }))
}
