//! The embedded broker and what the cloud does over it, with clients that
//! behave as nodes do, and as they should not.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::cloud_support::node::{Login, Node, name};
use crate::cloud_support::{Cloud, PATIENCE};
use nix::sys::signal::Signal;
use rumqttc::{ConnectReturnCode, QoS, SubscribeReasonCode};
use wherry_bundle::message::{Event, EventAck, EventKind, Events, Message, Phase, WallMillis};
use wherry_bundle::topic::Topic;
use wherry_bundle::{Generation, wire};

/// A cloud with a version of `shop`, and the node's login.
fn with_version() -> (Cloud, Login) {
    let cloud = Cloud::start();
    cloud.organise();
    cloud.import_lion();
    cloud.create_version("shop", "1.0.0", "web");
    let login = Login::new(cloud.mqtt, "gw-1", &cloud.token("gw-1"));
    (cloud, login)
}

fn connect(login: &Login) -> Node {
    let node = login.connect().unwrap();
    node.subscribe();
    node
}

fn event(seq: u64, text: &str) -> Event {
    Event {
        seq,
        wall_time: WallMillis(seq),
        boot_millis: seq,
        generation: Generation(1),
        kind: EventKind::ContainerExited,
        subject: "web-1".into(),
        text: text.into(),
    }
}

#[test]
fn what_is_desired_is_retained_and_survives_the_cloud() {
    let (mut cloud, login) = with_version();
    cloud.roll_out("shop@1.0.0.1", "*");
    let node = connect(&login);
    let first = node.message(Topic::Desired).payload;
    cloud.roll_out("shop@1.0.0.1", "*");
    let second = node.message(Topic::Desired).payload;
    assert_ne!(first, second, "the generation is in it");
    drop(node);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        cloud.end(signal);
        cloud.begin();
        let node = connect(&login);
        let desired = node.message(Topic::Desired);
        assert_eq!(desired.payload, second, "after {signal}");
        assert!(desired.retain);
    }
}

#[test]
fn a_node_that_is_away_gets_what_was_issued_meanwhile() {
    let (cloud, login) = with_version();
    let node = connect(&login);
    node.client.disconnect().unwrap();
    node.wait_end();
    cloud.roll_out("shop@1.0.0.1", "*");
    let node = connect(&login);
    assert!(!node.message(Topic::Desired).payload.is_empty());
}

#[test]
fn the_last_will_marks_a_node_offline_and_keeps_what_was_known() {
    let (cloud, login) = with_version();
    cloud.roll_out("shop@1.0.0.1", "*");
    let node = connect(&login);
    node.send_status(1, Phase::Good);
    let seen = cloud.wait_node("gw-1", |node| node["online"] == true);
    assert_eq!((&seen["phase"], &seen["generation"]), (&"good".into(), &1.into()));
    let status = cloud.json(&["rollout", "status"]);
    assert_eq!(status["nodes"][0]["state"], "done");
    node.vanish();
    let gone = cloud.wait_node("gw-1", |node| node["online"] == false);
    assert_eq!((&gone["phase"], &gone["wherry_version"]), (&"good".into(), &"0.1.0".into()));
    assert!(gone["offline_since"].as_u64() >= gone["last_seen"].as_u64(), "{gone}");

    // A good-bye is no last will: the node says by itself that it goes.
    let node = connect(&login);
    node.send_status(1, Phase::Good);
    cloud.wait_node("gw-1", |node| node["online"] == true);
    node.client.disconnect().unwrap();
    node.wait_end();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(cloud.get("/v1/nodes/gw-1")["online"], true);
}

#[test]
fn a_new_connection_replaces_the_old_one_and_its_last_will() {
    let (cloud, login) = with_version();
    for round in 1..=10 {
        let old = connect(&login);
        old.send_status(round, Phase::Good);
        cloud.wait_node("gw-1", |node| node["generation"] == round);
        // The link is gone, but neither side knows: a second connection.
        let new = connect(&login);
        new.send_status(round, Phase::Empty);
        old.wait_end();
        cloud.wait_node("gw-1", |node| node["phase"] == "empty" && node["online"] == true);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(cloud.get("/v1/nodes/gw-1")["online"], true, "the old last will came late");
        // The new last will is still there.
        new.vanish();
        cloud.wait_node("gw-1", |node| node["online"] == false);
    }
}

#[test]
fn who_is_not_let_in_is_told_why() {
    let (cloud, login) = with_version();
    let refusal = |change: &dyn Fn(&mut Login)| {
        let mut login = Login::new(login.port, "gw-1", &login.password);
        login.will = None;
        change(&mut login);
        login.refusal()
    };
    let wrong = ConnectReturnCode::BadUserNamePassword;
    assert_eq!(refusal(&|login| login.password = "guess".into()), wrong);
    assert_eq!(refusal(&|login| login.password = String::new()), wrong);
    assert_eq!(refusal(&|login| login.user = "gw-9".into()), wrong);
    assert_eq!(refusal(&|login| login.user = "wherry-cloud".into()), wrong);
    let foreign: &dyn Fn(&mut Login) = &|login| login.will = Some("wherry/v1/gw-2/status".into());
    assert_eq!(refusal(foreign), ConnectReturnCode::NotAuthorized);
    let odd: &dyn Fn(&mut Login) = &|login| login.client_id = "a+b".into();
    assert_eq!(refusal(odd), ConnectReturnCode::BadClientId);
    assert!(login.connect().is_ok());
    cloud.wait_log("wrong password for `gw-1`", 2);
}

#[test]
fn a_node_reaches_its_own_topics_only() {
    let (cloud, login) = with_version();
    let token = cloud.add_node("gw-2", &[]);
    let other = connect(&Login::new(cloud.mqtt, "gw-2", &token));
    let node = connect(&login);
    for filter in ["wherry/v1/gw-2/desired", "wherry/v1/+/status", "#", "wherry/v1/gw-1/#"] {
        node.client.subscribe(filter, QoS::AtLeastOnce).unwrap();
        assert_eq!(node.subscribed(), [SubscribeReasonCode::Failure], "{filter}");
    }
    for topic in ["wherry/v1/gw-2/command", "wherry/v1/gw-2/status", "other"] {
        let node = connect(&login);
        node.client.publish(topic, QoS::AtLeastOnce, true, "forged").unwrap();
        node.wait_end();
    }
    cloud.wait_log("gw-1 gone: cut off: a message to a foreign topic", 3);
    other.assert_none(Topic::Command);
    // The same client id is not the same session.
    let mut impostor = Login::new(cloud.mqtt, "gw-2", &token);
    impostor.client_id = login.client_id.clone();
    let node = connect(&login);
    let _impostor = connect(&impostor);
    node.send_status(1, Phase::Good);
    cloud.wait_node("gw-1", |node| node["generation"] == 1);
}

#[test]
fn a_removed_node_is_put_out() {
    let (cloud, login) = with_version();
    cloud.roll_out("shop@1.0.0.1", "*");
    let node = connect(&login);
    node.message(Topic::Desired);
    cloud.cli(&["node", "remove", "gw-1"]);
    node.wait_end();
    assert_eq!(login.refusal(), ConnectReturnCode::BadUserNamePassword);
    // Added again it is another node, which is given nothing; but its
    // generations go on.
    let mut login = Login::new(cloud.mqtt, "gw-1", &cloud.add_node("gw-1", &[]));
    login.clean = true;
    connect(&login).assert_none(Topic::Desired);
    let started = cloud.roll_out("shop@1.0.0.1", "*");
    assert_eq!(started["nodes"][0]["generation_wanted"], 2);
}

#[test]
fn events_are_acknowledged_once_they_are_stored() {
    let (mut cloud, login) = with_version();
    let node = connect(&login);
    let send = |node: &Node, events: &[(u64, &str)]| {
        let events = events.iter().map(|(seq, text)| event(*seq, text)).collect();
        node.send(Topic::Event, &Events(events));
        EventAck::from_bytes(&node.message(Topic::EventAck).payload).unwrap().seq
    };
    assert_eq!(send(&node, &[(1, "one"), (2, "two")]), 2);
    // The acknowledgement came after the commit: nothing can undo it.
    cloud.end(Signal::SIGKILL);
    cloud.begin();
    let node = connect(&login);
    assert_eq!(send(&node, &[(1, "one"), (2, "two"), (3, "three"), (6, "six")]), 6);
    let events = cloud.json(&["events", "gw-1"]);
    let texts: Vec<&str> =
        events.as_array().unwrap().iter().map(|e| e["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["one", "two", "three", "six"]);
    assert_eq!(cloud.json(&["events", "gw-1", "--tail", "1"])[0]["seq"], 6);
    assert_eq!(cloud.get("/v1/nodes/gw-1")["events_missing"], 2);
    // Flash replaced: it begins at 1, and learns that it must not.
    assert_eq!(send(&node, &[(1, "new flash")]), 7);
    assert_eq!(send(&node, &[(8, "new flash")]), 8);
}

#[test]
fn the_largest_message_passes_and_a_larger_one_does_not() {
    let (cloud, login) = with_version();
    let mut login = login;
    login.will = None;
    let node = connect(&login);
    let topic = Topic::Desired.of(&name("gw-1"));
    let max = wherry_bundle::limits::MQTT_PAYLOAD_BYTES_MAX;
    node.client.publish(&topic, QoS::AtLeastOnce, false, vec![7; max]).unwrap();
    assert_eq!(node.message(Topic::Desired).payload.len(), max);
    node.client.publish(&topic, QoS::AtLeastOnce, false, vec![7; max + 1]).unwrap();
    node.wait_end();
    cloud.wait_log("a payload above the limit", 1);
}

#[test]
fn rubbish_changes_nothing() {
    let (cloud, login) = with_version();
    let node = connect(&login);
    node.send_status(1, Phase::Good);
    cloud.wait_node("gw-1", |node| node["generation"] == 1);
    let mut foreign =
        crate::cloud_support::node::online("gw-2", 9, Phase::Empty).to_bytes().unwrap();
    for payload in [b"".to_vec(), b"x".to_vec(), vec![0xff; 5000], foreign.clone()] {
        for topic in Topic::TO_CLOUD {
            let topic = topic.of(&name("gw-1"));
            node.client.publish(topic, QoS::AtLeastOnce, false, payload.clone()).unwrap();
        }
    }
    foreign[0] = 99;
    assert!(matches!(
        wherry_bundle::message::Status::from_bytes(&foreign),
        Err(wire::WireError::Schema { .. })
    ));
    // Bytes that are no MQTT at all, and connections that say nothing.
    let address = ("127.0.0.1", cloud.mqtt);
    let _silent = TcpStream::connect(address).unwrap();
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x10, 0xff, 0xff, 0xff, 0xff], &[0x30, 0x02, 0, 9]]
    {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        assert!(matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)), "{bytes:?}");
    }
    node.send_status(2, Phase::Good);
    let node = cloud.wait_node("gw-1", |node| node["generation"] == 2);
    assert_eq!(node["online"], true);
}

#[test]
fn clients_that_leave_too_early_do_no_harm() {
    let (cloud, login) = with_version();
    // A CONNECT, and nobody there to hear the answer: rumqttd by itself would
    // not survive the next connection of that name.
    let mut packet = bytes::BytesMut::new();
    let mut connect_packet = rumqttc::Connect::new(&login.client_id);
    connect_packet.set_login(&login.user, &login.password);
    connect_packet.write(&mut packet).unwrap();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(("127.0.0.1", cloud.mqtt)).unwrap();
        stream.write_all(&packet).unwrap();
    }
    cloud.wait_log("gw-1 gone: ", 50);
    let node = connect(&login);
    node.send_status(1, Phase::Good);
    cloud.wait_node("gw-1", |node| node["online"] == true);
}
