//! The bytes of everything that is stored or sent. A node in the field reads
//! what an older or newer cloud wrote: whoever changes one of these files has
//! changed a schema, and gives it a new number.
//!
//! `WHERRY_GOLDEN=write cargo test -p wherry-bundle` writes them anew.

#![allow(clippy::unwrap_used)]

mod sample;

use std::path::Path;

use wherry_bundle::envelope;
use wherry_bundle::message::{
    Cause, ChunkContents, ChunkData, ChunkGet, Command, ContainerState, ContainerStatus, Event,
    EventAck, EventKind, Events, Exit, Failed, Held, LogChunk, LogLine, LogQuery, LogStream,
    Message, NodeStatus, Order, Phase, PodPhase, PodStatus, Refused, Reply, Status, WallMillis,
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
    let status = NodeStatus {
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
        pods: vec![pod],
        events_waiting: 2,
        events_dropped: 300,
    };
    message("status_online.hex", &Status::Online(Box::new(status)));
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
    let layer = Digest::of(b"base");
    message("chunk_get.hex", &ChunkGet { layer, offset: 65_536, length: 1_024 });
    let contents = ChunkContents::Bytes(vec![1, 2, 3]);
    message("chunk_data.hex", &ChunkData { layer, offset: 65_536, contents });
    let contents = ChunkContents::Missing("no such layer".into());
    message("chunk_missing.hex", &ChunkData { layer, offset: 0, contents });
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
    message("command_end_logs.hex", &Command { id: 10, order: Order::EndLogs { id: 9 } });
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
}
