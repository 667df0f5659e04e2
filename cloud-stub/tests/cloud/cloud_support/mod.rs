//! What the tests of the server share: `wherry-cloud serve` as a process on
//! loopback, its command line and API, images, packages, and a client that
//! behaves as a node does, or not.

#![allow(dead_code)] // each test file uses its part of it

pub mod node;
pub mod package;

use std::fs::{self, File};
use std::iter;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

const PROGRAM: &str = env!("CARGO_BIN_EXE_wherry-cloud");

/// A server in a folder of its own.
pub struct Cloud {
    pub dir: TempDir,
    pub api: u16,
    pub mqtt: u16,
    /// Instead of the embedded broker.
    pub broker: Option<String>,
    process: Option<Child>,
}

impl Cloud {
    /// With its embedded broker.
    pub fn start() -> Self {
        let mut cloud = Self::new();
        cloud.begin();
        cloud
    }

    /// Not started.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("wherry-test-cloud-").tempdir().unwrap();
        Self { dir, api: free_port(), mqtt: free_port(), broker: None, process: None }
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts it and waits until it is connected to its broker.
    pub fn begin(&mut self) {
        assert!(self.process.is_none());
        let mut command = Command::new(PROGRAM);
        command.arg("serve").arg("--data").arg(self.data());
        command.args(["--api-listen", &format!("127.0.0.1:{}", self.api)]);
        match &self.broker {
            Some(url) => command.args(["--broker", url]),
            None => command.args(["--mqtt-listen", &format!("127.0.0.1:{}", self.mqtt)]),
        };
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        wait("the server", || {
            let process = self.process.as_mut().unwrap();
            if let Some(status) = process.try_wait().unwrap() {
                panic!("it ended with {status}:\n{}", fs::read_to_string(self.log_path()).unwrap());
            }
            let health = self.request("GET", "/v1/health", None);
            health.ok().filter(|(_, health)| health["broker_connected"] == true)
        });
    }

    /// Ends it; its exit status.
    pub fn end(&mut self, signal: Signal) -> std::process::ExitStatus {
        let mut process = self.process.take().unwrap();
        kill(Pid::from_raw(i32::try_from(process.id()).unwrap()), signal).unwrap();
        wait("the server's end", || process.try_wait().unwrap())
    }

    pub fn restart(&mut self) {
        assert!(self.end(Signal::SIGTERM).success());
        self.begin();
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap()
    }

    /// Waits until the log has `part` so many times.
    pub fn wait_log(&self, part: &str, count: usize) {
        let found = || self.log().matches(part).count();
        wait(&format!("{count} times `{part}` in the log"), || (found() >= count).then_some(()));
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// One request to the API: status, and the body as JSON or as a text.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), ureq::Error> {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let url = format!("http://127.0.0.1:{}{path}", self.api);
        let request = ureq::http::Request::builder().method(method).uri(url);
        let agent: ureq::Agent = config.into();
        let mut answer = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json");
                agent.run(request.body(body.to_string()).unwrap())?
            }
            None => agent.run(request.body(()).unwrap())?,
        };
        let text = answer.body_mut().read_to_string()?;
        Ok((answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    pub fn get(&self, path: &str) -> Value {
        let (status, value) = self.request("GET", path, None).unwrap();
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    /// `wherry-cloud WORDS`.
    pub fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.env("WHERRY_CLOUD_API", format!("http://127.0.0.1:{}", self.api));
        command.args(words).stdin(Stdio::null()).output().unwrap()
    }

    /// What it prints; it must succeed.
    pub fn cli(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {error}\n{}", self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self, words: &[&str]) -> Value {
        let text = self.cli(&[words, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?}: {error}: {text}"))
    }

    /// It must fail, with every one of `parts` in its message.
    pub fn fails(&self, words: &[&str], parts: &[&str]) {
        let output = self.run(words);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{words:?} succeeded");
        assert!(output.stdout.is_empty(), "{words:?} printed something");
        for part in parts {
            assert!(error.contains(part), "{words:?}: `{part}` is not in: {error}");
        }
    }

    /// A customer, a project, an application `shop` and a node `gw-1`.
    pub fn organise(&self) {
        self.cli(&["customer", "add", "acme"]);
        self.cli(&["project", "add", "plant", "--customer", "acme"]);
        self.cli(&["application", "add", "shop", "--project", "plant"]);
        self.add_node("gw-1", &["--label", "site=berlin"]);
    }

    /// Its token.
    pub fn add_node(&self, name: &str, more: &[&str]) -> String {
        let words = ["node", "add", name, "--project", "plant", "--arch", "amd64"];
        self.cli(&[&words, more].concat()).trim().to_owned()
    }

    /// As the node itself has it: from its configuration.
    pub fn token(&self, name: &str) -> String {
        let config: toml::Table = self.cli(&["node", "config", name]).parse().unwrap();
        config["broker"]["password"].as_str().unwrap().to_owned()
    }

    pub fn roll_out(&self, version: &str, nodes: &str) -> Value {
        self.json(&["rollout", "start", "--version", version, "--nodes", nodes])
    }

    /// Waits until `node show` satisfies `wanted`.
    pub fn wait_node(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_for(
            || self.get(&format!("/v1/nodes/{name}")),
            |node| wanted(node),
            &format!("node {name}"),
        )
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A port that nobody has, and that nobody gets before it is asked for: never
/// the same twice, and below those that the kernel gives to connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 100).unwrap() * 100;
    let mut ports = iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed));
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// Asks until there is an answer.
pub fn wait<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Reads until what is read is wanted; the panic shows the last.
pub fn wait_for(
    mut read: impl FnMut() -> Value,
    wanted: impl Fn(&Value) -> bool,
    what: &str,
) -> Value {
    let start = Instant::now();
    loop {
        let value = read();
        if wanted(&value) {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}: {value}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
