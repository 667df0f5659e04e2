//! Logs of a node and commands in its containers, through the cloud, with a
//! client that plays the node.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::cloud_support::Cloud;
use crate::cloud_support::node::{Login, Node, name};
use ed25519_dalek::VerifyingKey;
use serde_json::Value;
use wherry_bundle::Digest;
use wherry_bundle::exec::{Exec, Executed, Nonce, Output};
use wherry_bundle::message::{
    Command as NodeCommand, Exit, LogChunk, LogLine, LogQuery, LogStream, Message, Order, Outcome,
    Phase, Reply, WallMillis,
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
    let result = result.map(|text| Outcome::Done(text.into())).map_err(str::to_owned);
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
    let ended = crate::cloud_support::wait("the end of following", || {
        send(&node, second, 1, &[(4000, "four")]);
        node.try_message(Topic::Command)
    });
    match NodeCommand::from_bytes(&ended.payload).unwrap().order {
        Order::End { id } => assert_eq!(id, second),
        other => panic!("{other:?}"),
    }
}

/// `wherry-cloud exec`, running.
fn exec(cloud: &Cloud, words: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wherry-cloud"));
    command.env("WHERRY_CLOUD_API", format!("http://127.0.0.1:{}", cloud.api));
    command.env("SUDO_USER", "anna").args(["exec", "gw-1"]).args(words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ended(child: Child) -> (Option<i32>, Vec<u8>, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code(), output.stdout, String::from_utf8(output.stderr).unwrap())
}

/// Gives the number that is asked for, and opens the order that holds it.
fn ordered(node: &Node, key: VerifyingKey) -> (u64, Exec) {
    let NodeCommand { id, order: Order::PrepareExec } = order(node) else { panic!() };
    let nonce = Nonce([5; 16]);
    node.send(Topic::Reply, &Reply { id, result: Ok(Outcome::Prepared(nonce)) });
    let NodeCommand { id, order: Order::Exec(signed) } = order(node) else { panic!() };
    let exec = signed.open(&[key], &name("gw-1")).unwrap();
    assert_eq!(exec.nonce, nonce);
    (id, exec)
}

#[test]
fn commands_are_signed_and_end_as_the_node_says() {
    let cloud = Cloud::start();
    cloud.organise();
    // A node that is away is told of at once, and a wrong command anyway.
    for (words, why) in [
        (&["web", "--", "true"][..], "node `gw-1` is offline"),
        (&["web", "--", ""], "there is no command"),
        (&["web", "--timeout", "1h", "--", "true"], "1s to 5m"),
    ] {
        let (code, out, error) = ended(exec(&cloud, words));
        assert!(code != Some(0) && out.is_empty() && error.contains(why), "{error}");
    }
    let node = Login::new(cloud.mqtt, "gw-1", &cloud.token("gw-1")).connect().unwrap();
    node.subscribe();
    node.send_status(1, Phase::Good);
    cloud.wait_node("gw-1", |node| node["online"] == true);
    let key = Digest::parse(cloud.cli(&["key", "show"]).trim()).unwrap();
    let key = VerifyingKey::from_bytes(&key.0).unwrap();
    let reply = |id, executed| {
        node.send(Topic::Reply, &Reply { id, result: Ok(Outcome::Executed(executed)) });
    };

    let words = ["web", "-c", "lion", "--timeout", "5s", "--", "sh", "-c", "exit 7"];
    let child = exec(&cloud, &words);
    let (id, asked) = ordered(&node, key);
    assert_eq!((asked.pod, asked.container), (name("web"), Some(name("lion"))));
    assert_eq!(
        (asked.args, asked.seconds_max),
        (words[6..].iter().map(|word| (*word).to_owned()).collect(), 5)
    );
    assert!(asked.asked_by.starts_with("anna@"), "{}", asked.asked_by);
    let stdout = Output { bytes: vec![0xff, 0, b'\n'], bytes_dropped: 300 };
    let stderr = Output { bytes: b"aside\n".to_vec(), bytes_dropped: 0 };
    reply(id, Executed { exit: Exit::Code(7), timed_out: false, stdout, stderr });
    let (code, out, error) = ended(child);
    assert_eq!((code, &*out), (Some(7), &[0xff, 0, b'\n'][..]));
    assert_eq!(error, "(output cut after 3 bytes: 300 more)\naside\n");

    let child = exec(&cloud, &["web", "--", "sleep", "999"]);
    let (id, asked) = ordered(&node, key);
    assert_eq!((asked.container, asked.seconds_max), (None, 30));
    let (stdout, stderr) = Default::default();
    reply(id, Executed { exit: Exit::Signal(9), timed_out: true, stdout, stderr });
    let (code, _, error) = ended(child);
    assert!(code == Some(124) && error.contains("took longer than 30 s"), "{code:?} {error}");

    let child = exec(&cloud, &["web", "--", "true"]);
    let refused = Err("it takes no commands".into());
    node.send(Topic::Reply, &Reply { id: order(&node).id, result: refused });
    let (code, _, error) = ended(child);
    assert!(code == Some(1) && error.contains("node `gw-1`: it takes no commands"), "{error}");

    // Nobody waits any more: the node need not go on.
    let mut child = exec(&cloud, &["web", "--", "sleep", "999"]);
    let (begun, _) = ordered(&node, key);
    child.kill().unwrap();
    child.wait().unwrap();
    let Order::End { id } = order(&node).order else { panic!() };
    assert_eq!(id, begun);
}
