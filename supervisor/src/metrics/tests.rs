use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wherry_bundle::Generation;
use wherry_bundle::message::{FlashUse, NodeStatus, Phase, PodPhase, PodStatus};

use super::*;
use crate::control::{CloudLink, PodUsage};

fn status(connected: bool) -> LocalStatus {
    let node = NodeStatus {
        node: "gw-1".parse().unwrap(),
        wherry_version: "0.1.0".into(),
        architecture: "arm64".into(),
        kernel: "6.1".into(),
        wall_time: Default::default(),
        uptime_seconds: 5,
        generation: Generation(7),
        versions: Vec::new(),
        phase: Phase::Good,
        refused: None,
        failed: None,
        held: None,
        transfer: None,
        flash: FlashUse::default(),
        pods: Vec::new(),
        events_waiting: 0,
        events_dropped: 0,
    };
    LocalStatus { node, cloud: CloudLink { connected, last_error: None }, volumes: Vec::new() }
}

fn pod() -> PodDescription {
    PodDescription {
        status: PodStatus {
            name: "web-1".parse().unwrap(),
            deployment: "web".parse().unwrap(),
            generation: Generation(7),
            address: String::new(),
            phase: PodPhase::Available,
            last_error: None,
            containers: Vec::new(),
        },
        hash: String::new(),
        current: true,
        restart_policy: None,
        grace_seconds: 0,
        memory_bytes_max: Some(64 << 20),
        cpu_millis_max: Some(1_500),
        containers: Vec::new(),
        usage: Some(PodUsage {
            cpu_micros: 1_500_000,
            memory_bytes: 1 << 20,
            memory_bytes_peak: 2 << 20,
            processes: 3,
            oom_kills: 0,
            pressure: None,
        }),
        events: Vec::new(),
    }
}

/// Answers as the loop does, and counts; what is pushed comes out.
fn supervisor(
    connected: bool,
) -> (impl Fn(Ask) -> bool + Send + 'static, Arc<AtomicUsize>, mpsc::Receiver<Vec<u8>>) {
    let (pushed, out) = mpsc::channel();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let ask = move |ask| match ask {
        Ask::Request { request: Request::Status, answer } => {
            count.fetch_add(1, Ordering::Relaxed);
            answer.send(Response::Status(Box::new(status(connected)))).is_ok()
        }
        Ask::Request { request: Request::Describe { pod: None }, answer } => {
            answer.send(Response::Pods(vec![pod()])).is_ok()
        }
        Ask::Push { sample } => pushed.send(sample).is_ok(),
        other => panic!("{other:?}"),
    };
    (ask, asked, out)
}

fn places() -> Places {
    Places { folders: vec!["/".into()], bridge: "wherry0".into() }
}

fn exporter(connected: bool) -> (Exporter, mpsc::Receiver<Vec<u8>>) {
    let (ask, _, out) = supervisor(connected);
    let config = MetricsConfig { listen: None, push: Some(Duration::from_secs(60)) };
    (Exporter { config, places: places(), ask: Box::new(ask), last: None }, out)
}

#[test]
fn the_cloud_gets_a_sample_while_it_is_there() {
    let (with, out) = exporter(true);
    assert!(with.push().unwrap());
    let metrics = Metrics::from_bytes(&out.try_recv().unwrap()).unwrap();
    assert_eq!((metrics.push_seconds, metrics.wherry.generation), (60, Generation(7)));
    assert_eq!(metrics.pods[0].usage.unwrap().cpu_micros, 1_500_000);
    let (without, out) = exporter(false);
    assert!(!without.push().unwrap());
    assert!(out.try_recv().is_err());
    let mut ending = exporter(true).0;
    ending.ask = Box::new(|_| false);
    assert!(ending.push().is_err() && ending.text().is_none());
}

/// A port that nobody has at the moment.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn ask(address: SocketAddr, request: &[u8]) -> String {
    let start = Instant::now();
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(10), "{error}"),
        }
    };
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    // What was not read of a request resets the connection behind the answer.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_scraper_is_served_and_noise_is_not() {
    let (supervisor, asked, _out) = supervisor(false);
    let address = free();
    let config = MetricsConfig { listen: Some(address), push: None };
    start(config, places(), supervisor).unwrap();
    let get = b"GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n";
    let answer = ask(address, get);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    for line in [
        "wherry_node_generation 7",
        "container_cpu_usage_seconds_total{deployment=\"web\",pod=\"web-1\"} 1.500000",
        "kube_pod_resource_limit{deployment=\"web\",pod=\"web-1\",resource=\"cpu\",unit=\"cores\"} 1.500",
        "wherry_node_cloud_connected 0",
    ] {
        assert!(body.lines().any(|known| known == line), "{line} is not in:\n{body}");
    }
    // Who asks too often costs nothing: of twenty at most one a second.
    let (before, start) = (asked.load(Ordering::Relaxed), Instant::now());
    for _ in 0..20 {
        assert!(ask(address, get).contains("wherry_node_generation 7\n"));
    }
    let more = asked.load(Ordering::Relaxed) - before;
    assert!(more as u64 <= start.elapsed().as_secs() + 1, "{more}");
    assert!(ask(address, b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
    assert!(ask(address, b"PUT /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert!(ask(address, &[b'x'; 9000]).starts_with("HTTP/1.1 431 "));
    // One that says nothing and goes away holds nobody up.
    drop(TcpStream::connect(address).unwrap());
    assert!(ask(address, get).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_port_that_is_taken_is_tried_again() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let mut door = Door { address: Some(address), listener: None, told: false };
    let now = Instant::now();
    assert_eq!(door.open(now), Some(now + LISTEN_RETRY));
    drop(other);
    assert_eq!(door.open(now), None);
    assert!(door.listener.is_some() && !door.wait(Some(now)));
}
