//! A small application for demo and tests: answers HTTP on a port of its pod
//! with what it sees of its surroundings.
//!
//! | variable | meaning |
//! |---|---|
//! | `LISTEN` | address and port, default `127.0.0.1:9000` |
//! | `LION_VERSION` | what it calls itself |
//! | `LION_PROPERTIES` | a file whose text it repeats |
//! | `LION_NEEDS` | `host:port` that must answer, or it ends with code 3 |
//! | `LION_CRASH_MS` | ends with code 4 after so long |
//! | `LION_HOG_MB` | takes so much memory |
//! | `LION_STAMP` | prints `CLOCK_MONOTONIC` in nanoseconds, and does no more until it is killed |
//!
//! `GET /ready` is answered with the status `LION_READY` (200), `GET /unready/N`
//! makes that 503 for N seconds, `GET /exit/N` ends it with code N; any path is
//! answered with JSON.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn main() {
    if std::env::var_os("LION_STAMP").is_some() {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
        let now = now.map_or(Duration::ZERO, Duration::from);
        println!("{}", now.as_nanos());
        loop {
            std::thread::park();
        }
    }
    // As PID 1 of its namespace it gets no signal that it has no handler for.
    if let Err(error) = ctrlc::set_handler(|| {
        println!("asked to stop");
        std::process::exit(0);
    }) {
        eprintln!("no signal handler: {error}");
    }
    println!("lion {} starts", var("LION_VERSION", "0"));
    if let Ok(needs) = std::env::var("LION_NEEDS") {
        match TcpStream::connect(&needs) {
            Ok(_) => println!("{needs} is there"),
            Err(error) => {
                eprintln!("{needs} is not there: {error}");
                std::process::exit(3);
            }
        }
    }
    if let Some(after) = number("LION_CRASH_MS") {
        std::thread::sleep(Duration::from_millis(after));
        eprintln!("crashing as told");
        std::process::exit(4);
    }
    let hog: Vec<u8> = vec![1; number::<usize>("LION_HOG_MB").unwrap_or(0) << 20];
    std::hint::black_box(&hog);
    let listen = var("LISTEN", "127.0.0.1:9000");
    let listener = match TcpListener::bind(&listen) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("cannot listen on {listen}: {error}");
            std::process::exit(2);
        }
    };
    println!("listening on {listen}");
    let served = AtomicU64::new(0);
    let mut unready_until = Instant::now();
    for stream in listener.incoming().flatten() {
        let served = served.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = answer(stream, served, &mut unready_until) {
            eprintln!("a client left: {error}");
        }
    }
}

fn answer(mut stream: TcpStream, served: u64, unready_until: &mut Instant) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = String::new();
    BufReader::new(&stream).read_line(&mut request)?;
    let path = request.split_whitespace().nth(1).unwrap_or("/");
    if let Some(code) = path.strip_prefix("/exit/").and_then(|code| code.parse().ok()) {
        println!("told to end with {code}");
        std::process::exit(code);
    }
    if let Some(seconds) = path.strip_prefix("/unready/").and_then(|text| text.parse().ok()) {
        *unready_until = Instant::now() + Duration::from_secs(seconds);
    }
    let status = match path {
        "/ready" if Instant::now() < *unready_until => 503,
        "/ready" => number("LION_READY").unwrap_or(200),
        _ => 200,
    };
    let properties = std::env::var("LION_PROPERTIES")
        .ok()
        .and_then(|path| std::fs::read_to_string(path).ok())
        .unwrap_or_default();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let body = serde_json::json!({
        "version": var("LION_VERSION", "0"),
        "pod": host.trim(),
        "properties": properties,
        "served": served,
    })
    .to_string();
    write!(
        stream,
        "HTTP/1.1 {status} Lion\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn var(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}
