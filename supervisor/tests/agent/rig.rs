//! A real broker (mosquitto), the cloud's side as a bare MQTT client, and a
//! node's agent with its store and layers.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use wherry::agent::{AgentConfig, AgentEvent, AgentHandle};
use wherry::layers::Layers;
use wherry::store::{NewEvent, Store};
use wherry_bundle::message::{EventKind, FlashUse, Message, NodeStatus, Phase, Status, WallMillis};
use wherry_bundle::topic::Topic;
use wherry_bundle::{Generation, Name};

/// Far above what any step takes.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn node() -> Name {
    Name::new("gw-test").unwrap()
}

/// mosquitto on a loopback port of its own, with persistence.
pub struct Broker {
    dir: tempfile::TempDir,
    pub port: u16,
    child: Option<Child>,
}

impl Broker {
    pub fn start() -> Self {
        let mut broker = Self::stopped();
        broker.up();
        broker
    }

    pub fn stopped() -> Self {
        let dir = tempfile::Builder::new().prefix("wherry-test-broker").tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\n\
             persistence true\npersistence_location {}/\n",
            dir.path().display()
        );
        fs::write(dir.path().join("mosquitto.conf"), config).unwrap();
        Self { dir, port, child: None }
    }

    pub fn up(&mut self) {
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(self.dir.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is a Debian package that these tests need");
        self.child = Some(child);
        let give_up_at = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < give_up_at, "mosquitto does not listen");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// In good order: sessions and messages are kept.
    pub fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
            let _ = kill(pid, Signal::SIGTERM);
            let _ = child.wait();
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.down();
    }
}

/// The other end of all topics.
pub struct Cloud {
    client: Client,
    incoming: Receiver<(Topic, Vec<u8>)>,
}

impl Cloud {
    /// Reconnects for ever, as long as the test lives.
    pub fn connect(broker: &Broker) -> Self {
        static CLOUDS: AtomicU32 = AtomicU32::new(0);
        let id = format!("cloud-{}", CLOUDS.fetch_add(1, Ordering::Relaxed));
        let mut options = MqttOptions::new(id, "127.0.0.1", broker.port);
        options.set_max_packet_size(1 << 20, 1 << 20).set_clean_session(false);
        let (client, mut connection) = Client::new(options, 64);
        let (sender, incoming) = mpsc::channel();
        let (ready_sender, ready) = mpsc::channel();
        let subscriber = client.clone();
        thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        let subscriber = subscriber.clone();
                        // This thread must not wait for its own queue.
                        thread::spawn(move || {
                            for topic in Topic::TO_CLOUD {
                                let filter = topic.of_every_node();
                                let _ = subscriber.subscribe(filter, QoS::AtLeastOnce);
                            }
                        });
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        let _ = ready_sender.send(());
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let Some((_, topic)) = Topic::parse(&publish.topic) else { continue };
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
            ready.recv_timeout(PATIENCE).expect("the cloud cannot subscribe");
        }
        Self { client, incoming }
    }

    pub fn publish(&self, topic: Topic, retain: bool, payload: Vec<u8>) {
        self.client.publish(topic.of(&node()), QoS::AtLeastOnce, retain, payload).unwrap();
    }

    pub fn send(&self, topic: Topic, message: &impl Message) {
        self.publish(topic, false, message.to_bytes().unwrap());
    }

    /// The next message on `topic`; others are skipped.
    #[track_caller]
    pub fn next<M: Message>(&self, topic: Topic) -> M {
        match self.next_within(topic, PATIENCE) {
            Some(message) => message,
            None => panic!("nothing came on {topic:?}"),
        }
    }

    pub fn next_within<M: Message>(&self, topic: Topic, patience: Duration) -> Option<M> {
        let give_up_at = Instant::now() + patience;
        loop {
            let left = give_up_at.saturating_duration_since(Instant::now());
            let (found, payload) = self.incoming.recv_timeout(left).ok()?;
            if found == topic {
                return Some(M::from_bytes(&payload).unwrap());
            }
        }
    }

    /// Waits for a status of which `wanted` is true.
    #[track_caller]
    pub fn wait_status(&self, wanted: impl Fn(&Status) -> bool) {
        while !wanted(&self.next(Topic::Status)) {}
    }
}

/// A node's agent; its state outlives it.
pub struct Node {
    pub agent: Option<AgentHandle>,
    pub store: Arc<Store>,
    pub layers: Layers,
    events: Receiver<AgentEvent>,
}

/// What a node keeps on its disk.
pub struct NodeDisk(tempfile::TempDir);

impl NodeDisk {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

impl Node {
    pub fn start(disk: &NodeDisk, broker: &Broker) -> Self {
        Self::start_at(disk.path(), broker.port)
    }

    pub fn start_at(path: PathBuf, port: u16) -> Self {
        let store = Arc::new(Store::open(&path.join("state")).unwrap().0);
        let layers = Layers::open(&path.join("layers")).unwrap();
        let config = AgentConfig {
            node: node(),
            // A name, so that looking it up is in the test too.
            host: "localhost".into(),
            port,
            password: "secret".into(),
            layers: layers.clone(),
            bytes_per_second_max: None,
        };
        let (sender, events) = mpsc::sync_channel(64);
        let sink = Box::new(move |event| {
            let _ = sender.send(event);
        });
        let agent = AgentHandle::spawn(config, Arc::clone(&store), sink).unwrap();
        Self { agent: Some(agent), store, layers, events }
    }

    pub fn agent(&self) -> &AgentHandle {
        self.agent.as_ref().unwrap()
    }

    /// The next event that `pick` takes; others are skipped.
    #[track_caller]
    pub fn next<T>(&self, pick: impl Fn(AgentEvent) -> Option<T>) -> T {
        let found = self.next_within(PATIENCE, pick);
        found.expect("the agent did not tell what was waited for")
    }

    pub fn next_within<T>(
        &self,
        patience: Duration,
        pick: impl Fn(AgentEvent) -> Option<T>,
    ) -> Option<T> {
        let give_up_at = Instant::now() + patience;
        loop {
            let left = give_up_at.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).ok()?;
            if let Some(found) = pick(event) {
                return Some(found);
            }
        }
    }

    #[track_caller]
    pub fn wait_connected(&self) {
        self.next(|event| matches!(event, AgentEvent::Connected).then_some(()));
    }

    pub fn push_event(&self, text: &str) -> u64 {
        let seq = self.store.push_event(&NewEvent {
            wall_time: WallMillis(0),
            boot_millis: 1,
            generation: Generation(1),
            kind: EventKind::PodAvailable,
            subject: "web-1".into(),
            text: text.into(),
        });
        self.agent().events_pending();
        seq
    }
}

pub fn status(generation: u64) -> NodeStatus {
    NodeStatus {
        node: node(),
        wherry_version: "0".into(),
        architecture: "x".into(),
        kernel: "k".into(),
        wall_time: WallMillis(0),
        uptime_seconds: 0,
        generation: Generation(generation),
        versions: Vec::new(),
        phase: Phase::Empty,
        refused: None,
        failed: None,
        held: None,
        transfer: None,
        flash: FlashUse::default(),
        pods: Vec::new(),
        events_waiting: 0,
        events_dropped: 0,
    }
}

pub fn is_generation(status: &Status, generation: u64) -> bool {
    match status {
        Status::Online(status) => status.generation == Generation(generation),
        Status::Offline => false,
    }
}
