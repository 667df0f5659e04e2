//! The same cloud with Debian's mosquitto as its broker, set up by the files
//! in `mosquitto/`.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cloud_support::node::{Login, Node};
use crate::cloud_support::package::small_chunks;
use crate::cloud_support::{Cloud, free_port, text, wait};
use crate::image_support::run;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rumqttc::{Publish, QoS};
use tempfile::TempDir;
use wherry_bundle::Generation;
use wherry_bundle::message::{
    ChunkData, Event, EventAck, EventKind, Events, Message, Phase, WallMillis,
};
use wherry_bundle::topic::Topic;

/// mosquitto in a folder of its own.
struct Mosquitto {
    dir: TempDir,
    port: u16,
    process: Option<Child>,
}

impl Mosquitto {
    fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("wherry-test-mosquitto-").tempdir().unwrap();
        let port = free_port();
        let own = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/mosquitto"));
        let files = dir.path().display();
        // As it is delivered, but for the places, and as this test's user.
        let config = fs::read_to_string(own.join("wherry.conf"))
            .unwrap()
            .replace("listener 1883", &format!("listener {port} 127.0.0.1"))
            .replace("/etc/mosquitto/wherry.", &format!("{files}/wherry."));
        let config = format!("user root\npersistence_location {files}/\n{config}");
        fs::write(dir.path().join("mosquitto.conf"), config).unwrap();
        fs::copy(own.join("acl"), dir.path().join("wherry.acl")).unwrap();
        fs::write(dir.path().join("wherry.passwd"), "").unwrap();
        let mut mosquitto = Self { dir, port, process: None };
        mosquitto.user("wherry-cloud", "cloudy");
        mosquitto.begin();
        mosquitto
    }

    fn begin(&mut self) {
        let log = fs::File::create(self.dir.path().join("log")).unwrap();
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(self.dir.path().join("mosquitto.conf"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        wait("mosquitto", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    fn signal(&self, signal: Signal) {
        let pid = self.process.as_ref().unwrap().id();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    fn end(&mut self) {
        self.signal(Signal::SIGTERM);
        self.process.take().unwrap().wait().unwrap();
    }

    /// Adds a user; mosquitto reads its files again.
    fn user(&self, name: &str, password: &str) {
        let file = self.dir.path().join("wherry.passwd");
        run("mosquitto_passwd", &["-b", text(&file), name, password]);
        if self.process.is_some() {
            self.signal(Signal::SIGHUP);
        }
    }

    /// Neither its retained messages nor its sessions are there next time.
    fn forget(&self) {
        let _ = fs::remove_file(self.dir.path().join("mosquitto.db"));
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn with_version() -> (Mosquitto, Cloud) {
    let mosquitto = Mosquitto::start();
    let mut cloud = Cloud::new();
    cloud.broker = Some(format!("mqtt://wherry-cloud:cloudy@127.0.0.1:{}", mosquitto.port));
    cloud.begin();
    cloud.organise();
    cloud.import_lion();
    cloud.create_version("shop", "1.0.0", "web");
    mosquitto.user("gw-1", &cloud.token("gw-1"));
    (mosquitto, cloud)
}

/// The password may not be read yet.
fn connect(mosquitto: &Mosquitto, cloud: &Cloud, node: &str) -> Node {
    let login = Login::new(mosquitto.port, node, &cloud.token(node));
    let node = wait("mosquitto to let the node in", || login.connect().ok());
    node.subscribe();
    node
}

#[test]
fn everything_goes_through_an_external_broker() {
    let (mut mosquitto, mut cloud) = with_version();
    let config: toml::Table = cloud.cli(&["node", "config", "gw-1"]).parse().unwrap();
    assert_eq!(config["broker"]["port"].as_integer(), Some(mosquitto.port.into()));
    cloud.roll_out("shop@1.0.0.1", "*");
    let node = connect(&mosquitto, &cloud, "gw-1");
    let desired = node.message(Topic::Desired).payload;
    node.send_status(1, Phase::Good);
    cloud.wait_node("gw-1", |node| node["online"] == true && node["phase"] == "good");
    let event = Event {
        seq: 1,
        wall_time: WallMillis(1),
        boot_millis: 1,
        generation: Generation(1),
        kind: EventKind::Started,
        subject: String::new(),
        text: "hello".into(),
    };
    node.send(Topic::Event, &Events(vec![event]));
    assert_eq!(EventAck::from_bytes(&node.message(Topic::EventAck).payload).unwrap().seq, 1);

    // The cloud comes and goes; the status is retained, and old.
    let seen = cloud.get("/v1/nodes/gw-1")["last_seen"].clone();
    cloud.restart();
    let back = cloud.wait_node("gw-1", |node| node["online"] == true);
    assert_eq!(back["last_seen"], seen);
    node.vanish();
    cloud.wait_node("gw-1", |node| node["online"] == false);

    // The broker comes back with nothing: the cloud tells it again.
    mosquitto.end();
    mosquitto.forget();
    mosquitto.begin();
    let node = connect(&mosquitto, &cloud, "gw-1");
    assert_eq!(node.message(Topic::Desired).payload, desired);
}

#[test]
fn a_window_of_small_chunks_passes_before_any_is_acknowledged() {
    let (mosquitto, mut cloud) = with_version();
    let digests = small_chunks(&mut cloud, 64);
    let mut login = Login::new(mosquitto.port, "gw-1", &cloud.token("gw-1"));
    login.manual_acks = true;
    let node = wait("mosquitto to let the node in", || login.connect().ok());
    node.subscribe();
    for _ in 0..3 {
        node.ask(&digests);
        let window: Vec<Publish> = digests.iter().map(|_| node.message(Topic::ChunkData)).collect();
        for (message, digest) in window.iter().zip(&digests) {
            assert_eq!(ChunkData::from_bytes(&message.payload).unwrap().chunk, *digest);
        }
        node.acknowledge(&window);
    }
}

#[test]
fn the_permissions_that_we_deliver_hold() {
    let (mosquitto, cloud) = with_version();
    let token = cloud.add_node("gw-2", &[]);
    mosquitto.user("gw-2", &token);
    let other = connect(&mosquitto, &cloud, "gw-2");
    let node = connect(&mosquitto, &cloud, "gw-1");
    node.client.publish("wherry/v1/gw-2/command", QoS::AtLeastOnce, false, "forged").unwrap();
    node.client.publish("wherry/v1/gw-2/status", QoS::AtLeastOnce, true, "forged").unwrap();
    node.client.subscribe("wherry/v1/gw-2/desired", QoS::AtLeastOnce).unwrap();
    node.subscribed();
    cloud.roll_out("shop@1.0.0.1", "name=gw-2");
    assert!(!other.message(Topic::Desired).payload.is_empty());
    other.assert_none(Topic::Command);
    node.assert_none(Topic::Desired);
    assert_eq!(cloud.get("/v1/nodes/gw-2")["online"], false);
    let mut stranger = Login::new(mosquitto.port, "gw-1", "guess");
    stranger.client_id = "stranger".into();
    assert!(stranger.connect().is_err());
}

#[test]
fn a_cloud_without_its_broker_serves_its_api_and_catches_up() {
    let (mut mosquitto, cloud) = with_version();
    mosquitto.end();
    wait("the loss", || (cloud.get("/v1/health")["broker_connected"] == false).then_some(()));
    cloud.roll_out("shop@1.0.0.1", "*");
    std::thread::sleep(Duration::from_millis(100));
    mosquitto.begin();
    let node = connect(&mosquitto, &cloud, "gw-1");
    assert!(!node.message(Topic::Desired).payload.is_empty());
}
