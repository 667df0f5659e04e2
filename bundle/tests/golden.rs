//! The bytes of everything that is stored or sent. A node in the field reads
//! what an older or newer cloud wrote: whoever changes one of these files has
//! changed a schema, and gives it a new number.
//!
//! `WHERRY_GOLDEN=write cargo test -p wherry-bundle` writes them anew.

#![allow(clippy::unwrap_used)]

mod sample;

use std::path::Path;

use wherry_bundle::carrier::{Item, ReportItem, Start};
use wherry_bundle::chunk::{Chunk, ChunkList};
use wherry_bundle::envelope;
use wherry_bundle::exec::{Exec, Executed, Nonce, Output, SignedExec};
use wherry_bundle::message::{
    Cause, ChunkContents, ChunkData, ChunkGet, Command, ContainerState, ContainerStatus, Event,
    EventAck, EventKind, Events, Exit, Failed, FlashUse, Held, LogChunk, LogLine, LogQuery,
    LogStream, Message, NodeStatus, Order, Outcome, Phase, PodPhase, PodStatus, Refused, Reply,
    Status, Transfer, WallMillis,
};
use wherry_bundle::{Digest, Generation};

fn golden(file: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let hex: String = bytes
        .chunks(32)
        .map(|row| row.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n")
        .collect();
    if std::env::var_os("WHERRY_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, &hex).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(known == hex, "{file} changed: give its schema a new number\n{hex}");
}

fn message<M: Message + PartialEq + core::fmt::Debug>(file: &str, value: &M) {
    let bytes = value.to_bytes().unwrap();
    golden(file, &bytes);
    assert_eq!(M::from_bytes(&bytes).unwrap(), *value);
}

#[test]
fn the_envelope() {
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let bytes = envelope::seal(&sample::bundle(), &key).unwrap();
    golden("envelope.hex", &bytes);
    let read = envelope::open(&bytes, &[key.verifying_key()], &sample::name("gw-1")).unwrap();
    assert_eq!(read, sample::bundle());
}

#[test]
fn the_pod_hash() {
    let bundle = sample::bundle();
    let hashes: Vec<u8> = bundle.deployments.iter().flat_map(|d| bundle.pod_hash(d).0).collect();
    golden("pod_hash.hex", &hashes);
}

#[test]
fn status() {
    message("status_offline.hex", &Status::Offline);
    message("status_online.hex", &Status::Online(Box::new(node_status())));
}

fn node_status() -> NodeStatus {
    let bundle = sample::bundle();
    let pod = PodStatus {
        name: sample::name("web-3"),
        deployment: sample::name("web"),
        generation: Generation(6),
        address: "10.87.0.5".into(),
        phase: PodPhase::BackOff,
        last_error: Some("main: exit code 3".into()),
        containers: vec![
            ContainerStatus {
                name: sample::name("main"),
                state: ContainerState::Exited,
                restarts: 4,
                last_exit: Some(Exit::OutOfMemory),
            },
            ContainerStatus {
                name: sample::name("side"),
                state: ContainerState::Running { pid: 4711, seconds: 86_400 },
                restarts: 0,
                last_exit: None,
            },
        ],
    };
    NodeStatus {
        node: bundle.node,
        wherry_version: "0.1.0".into(),
        architecture: "aarch64".into(),
        kernel: "6.1.0".into(),
        wall_time: WallMillis(1_000),
        uptime_seconds: 12,
        generation: bundle.generation,
        versions: bundle.versions,
        phase: Phase::Rolling { pods_done: 1, pods_total: 3 },
        refused: Some(Refused { generation: Generation(0), reason: "unsigned".into() }),
        failed: Some(Failed {
            generation: Generation(6),
            cause: Cause::CrashLoop {
                pod: sample::name("web-2"),
                container: sample::name("main"),
                starts: 6,
                exit: Exit::Code(3),
            },
            lines: vec!["no config".into()],
        }),
        held: Some(Held { generation: Generation(8), by: "update window".into() }),
        transfer: Some(Transfer {
            bytes_done: 1_000,
            bytes_total: 5_000,
            bytes_fetched: 300,
            bytes_copied: 700,
            bytes_per_second: 100,
            seconds_left: Some(40),
            chunks_refused: 1,
        }),
        flash: FlashUse { layer_bytes: 1_000, state_bytes: 20_000, log_bytes: 0 },
        pods: vec![pod],
        events_waiting: 2,
        events_dropped: 300,
    }
}

#[test]
fn events() {
    let event = Event {
        seq: 1_000,
        wall_time: WallMillis(1_700_000_000_000),
        boot_millis: 55,
        generation: Generation(7),
        kind: EventKind::ContainerExited,
        subject: "web-3".into(),
        text: "signal 9".into(),
    };
    message("events.hex", &Events(vec![event]));
    message("event_ack.hex", &EventAck { seq: 1_000 });
}

#[test]
fn chunks() {
    let chunk = Digest::of(b"base");
    message("chunk_get.hex", &ChunkGet { chunks: vec![chunk, Digest::of(b"top")] });
    let contents = ChunkContents::Bytes(vec![1, 2, 3]);
    message("chunk_data.hex", &ChunkData { chunk, contents });
    let contents = ChunkContents::Missing("no such chunk".into());
    message("chunk_missing.hex", &ChunkData { chunk, contents });
    message("chunk_list.hex", &ChunkList(vec![Chunk { digest: chunk, size_bytes: 32_768 }]));
}

#[test]
fn carried_files() {
    let start = Start { version: "zoo@1.4.0.2".into(), since: Some("zoo@1.3.9.1".into()) };
    message("item_start.hex", &Item::Start(start));
    let (node, layer) = (sample::name("gw-1"), sample::bundle().images[0].layers[0]);
    message("item_envelope.hex", &Item::Envelope { node, bytes: vec![1, 2, 3] });
    message("item_layer.hex", &Item::Layer(layer));
    message("item_list.hex", &Item::List(vec![1, 2]));
    message("item_chunk.hex", &Item::Chunk(vec![1, 2]));
    message("item_end.hex", &Item::End);
    message("report_status.hex", &ReportItem::Status(Box::new(node_status())));
    message("report_events.hex", &ReportItem::Events(Events(Vec::new())));
    message("report_end.hex", &ReportItem::End);
}

#[test]
fn commands() {
    let query = LogQuery {
        pod: sample::name("web"),
        container: Some(sample::name("main")),
        tail: Some(10),
        since_seconds: Some(60),
        follow: true,
    };
    message("command_logs.hex", &Command { id: 9, order: Order::Logs(query) });
    message("command_end.hex", &Command { id: 10, order: Order::End { id: 9 } });
    let order = Order::RestartPod { pod: sample::name("web-3") };
    message("command_restart.hex", &Command { id: 11, order });
    let line = LogLine {
        pod: sample::name("web-3"),
        container: sample::name("main"),
        wall_time: WallMillis(5),
        stream: LogStream::Stderr,
        text: "ready".into(),
    };
    message("log_chunk.hex", &LogChunk { id: 9, seq: 0, lines: vec![line] });
    message("reply.hex", &Reply { id: 9, result: Err("no such pod".into()) });
    message("reply_done.hex", &Reply { id: 11, result: Ok(Outcome::Done("ok".into())) });
}

#[test]
fn commands_in_containers() {
    message("command_prepare_exec.hex", &Command { id: 12, order: Order::PrepareExec });
    let nonce = Nonce([9; 16]);
    message("reply_prepared.hex", &Reply { id: 12, result: Ok(Outcome::Prepared(nonce)) });
    let exec = Exec {
        node: sample::name("gw-1"),
        nonce,
        pod: sample::name("web"),
        container: Some(sample::name("main")),
        args: vec!["ls".into(), "-l".into()],
        seconds_max: 30,
        asked_by: "anna@desk".into(),
    };
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let signed = SignedExec::seal(&exec, &key).unwrap();
    message("command_exec.hex", &Command { id: 13, order: Order::Exec(signed) });
    let executed = Executed {
        exit: Exit::Signal(9),
        timed_out: true,
        stdout: Output { bytes: vec![0xff, 0], bytes_dropped: 300 },
        stderr: Output::default(),
    };
    message("reply_executed.hex", &Reply { id: 13, result: Ok(Outcome::Executed(executed)) });
}

#[test]
fn metrics() {
    message("metrics.hex", &sample::metrics::full());
}
