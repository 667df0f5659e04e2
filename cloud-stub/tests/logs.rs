//! Logs of a node through the cloud, with a client that plays the node.

#![allow(clippy::unwrap_used)]

mod cloud_support;
mod image_support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use cloud_support::Cloud;
use cloud_support::node::{Login, Node, name};
use serde_json::Value;
use wherry_bundle::message::{
    Command as NodeCommand, LogChunk, LogLine, LogQuery, LogStream, Message, Order, Phase, Reply,
    WallMillis,
};
use wherry_bundle::topic::Topic;

fn online() -> (Cloud, Node) {
    let cloud = Cloud::start();
    cloud.organise();
    let node = Login::new(cloud.mqtt, "gw-1", &cloud.token("gw-1")).connect().unwrap();
    node.subscribe();
    node.send_status(1, Phase::Good);
    cloud.wait_node("gw-1", |node| node["online"] == true);
    (cloud, node)
}

/// The next order that the node gets.
fn order(node: &Node) -> NodeCommand {
    NodeCommand::from_bytes(&node.message(Topic::Command).payload).unwrap()
}

fn query(node: &Node) -> (u64, LogQuery) {
    match order(node) {
        NodeCommand { id, order: Order::Logs(query) } => (id, query),
        other => panic!("{other:?}"),
    }
}

fn send(node: &Node, id: u64, seq: u32, lines: &[(u64, &str)]) {
    let lines = lines.iter().map(|(time, text)| LogLine {
        pod: name("web-1"),
        container: name("lion"),
        wall_time: WallMillis(*time),
        stream: LogStream::Stdout,
        text: (*text).into(),
    });
    node.send(Topic::Log, &LogChunk { id, seq, lines: lines.collect() });
}

fn end(node: &Node, id: u64, result: Result<&str, &str>) {
    let result = result.map(str::to_owned).map_err(str::to_owned);
    node.send(Topic::Reply, &Reply { id, result });
}

/// `wherry-cloud logs`, running.
struct Reader(Child);

impl Reader {
    fn start(cloud: &Cloud, words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wherry-cloud"));
        command.env("WHERRY_CLOUD_API", format!("http://127.0.0.1:{}", cloud.api));
        command.args(["logs", "gw-1"]).args(words);
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Standard output, standard error, and whether it succeeded.
    fn finish(mut self) -> (String, String, bool) {
        let text = |stream: &mut dyn std::io::Read| {
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        let out = text(&mut self.0.stdout.take().unwrap());
        let error = text(&mut self.0.stderr.take().unwrap());
        (out, error, self.0.wait().unwrap().success())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn lines_come_from_the_node() {
    let (cloud, node) = online();
    let words = ["web", "-c", "lion", "--tail", "7", "--since", "10m"];
    let reader = Reader::start(&cloud, &words);
    let (id, query) = query(&node);
    assert_eq!(
        query,
        LogQuery {
            pod: name("web"),
            container: Some(name("lion")),
            tail: Some(7),
            since_seconds: Some(600),
            follow: false
        }
    );
    send(&node, id + 1, 0, &[(1, "for nobody")]);
    send(&node, id, 0, &[(1000, "one"), (2000, "two\x1b[31m")]);
    send(&node, id, 3, &[(3000, "five")]);
    end(&node, id, Ok(""));
    let (out, error, success) = reader.finish();
    assert!(success, "{error}");
    assert_eq!(
        out,
        "1970-01-01T00:00:01.000Z web-1/lion one\n1970-01-01T00:00:02.000Z web-1/lion two [31m\n\
         1970-01-01T00:00:03.000Z web-1/lion five\n"
    );
    assert!(error.contains("2 messages of log lines were lost"), "{error}");
}

#[test]
fn what_the_node_says_against_it_is_shown() {
    let (cloud, node) = online();
    let reader = Reader::start(&cloud, &["nothing"]);
    let (id, _) = query(&node);
    end(&node, id, Err("there is no pod `nothing`"));
    let (out, error, success) = reader.finish();
    assert!(!success && out.is_empty());
    assert!(error.contains("there is no pod `nothing`"), "{error}");
}

#[test]
fn following_goes_on_until_the_reader_goes() {
    let (cloud, node) = online();
    let mut reader = Reader::start(&cloud, &["web", "-f", "-o", "json"]);
    let mut lines = BufReader::new(reader.0.stdout.take().unwrap()).lines();
    let mut next = || {
        let item: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        item["text"].as_str().unwrap_or_else(|| panic!("{item}")).to_owned()
    };
    let (first, asked) = query(&node);
    assert!(asked.follow);
    send(&node, first, 0, &[(1000, "one"), (2000, "two")]);
    assert_eq!((next(), next()), ("one".into(), "two".into()));
    // The node ends it after its time; the cloud asks again, and what comes
    // twice is shown once.
    end(&node, first, Ok(""));
    let (second, again) = query(&node);
    assert!(second != first && again.follow && again.since_seconds.is_some(), "{again:?}");
    send(&node, second, 0, &[(1000, "one"), (2000, "two"), (3000, "three")]);
    assert_eq!(next(), "three");
    reader.0.kill().unwrap();
    reader.0.wait().unwrap();
    // Writing to nobody shows that nobody is there.
    let ended = cloud_support::wait("the end of following", || {
        send(&node, second, 1, &[(4000, "four")]);
        node.try_message(Topic::Command)
    });
    match NodeCommand::from_bytes(&ended.payload).unwrap().order {
        Order::EndLogs { id } => assert_eq!(id, second),
        other => panic!("{other:?}"),
    }
}
