//! The node's configuration file, and the folders that follow from it.
//!
//! A key that is not known, or of the wrong type, is an error that names
//! file, line and key: a typing mistake must not become a default.
//! Never here: making folders, opening what is in them.

mod allowed;
pub mod init;
mod layers;
mod metrics;

use std::net::IpAddr;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use ed25519_dalek::VerifyingKey;
use serde::Deserialize;
use wherry_bundle::{Digest, Name};
use wherry_runtime::check::Allowed;
use wherry_runtime::init::InitConfig;

use allowed::{DevicesTable, SecurityTable, VolumesTable};
pub use layers::LayerKeeping;
use layers::{LayersTable, PreflightTable};
pub use metrics::MetricsConfig;
use metrics::MetricsTable;

use crate::subnet::Subnet;
use crate::window::{Window, Zone};

pub const CONFIG_PATH: &str = "/etc/wherry/wherry.toml";
pub const RUN_DIR: &str = "/run/wherry";
const DATA_DIR: &str = "/var/lib/wherry";
const CGROUP: &str = "wherry";
const BRIDGE: &str = "wherry0";
/// MQTT without TLS, as IANA assigned it.
const BROKER_PORT: u16 = 1883;
/// Two files of this size a container: what people read after a failure fits
/// in, and 20 containers need 10 MiB at most.
const LOG_FILE_BYTES: u64 = 256 * 1024;
const LOG_FILE_BYTES_MIN: u64 = 16 * 1024;
const LOG_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A configuration is one page; more is a wrong file.
const CONFIG_BYTES_MAX: usize = 64 * 1024;
/// A slower transfer would not bring one chunk within a request's patience.
const TRANSFER_RATE_MIN: u64 = 1024;
/// More keys than that nobody can tell apart; a rotation needs two.
const TRUSTED_KEYS_MAX: usize = 8;
/// Update windows, and files that hold: a page of them nobody understands.
const UPDATE_ENTRIES_MAX: usize = 16;
/// `IFNAMSIZ` of the kernel, less the NUL.
const BRIDGE_BYTES_MAX: usize = 15;

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub node: Name,
    pub trusted_keys: Vec<VerifyingKey>,
    pub data: DataDir,
    pub run: RunDir,
    /// One path component below each cgroup hierarchy.
    pub cgroup: String,
    pub broker: Broker,
    pub bridge: String,
    pub subnet: Subnet,
    /// Empty: the host's own name servers.
    pub dns: Vec<IpAddr>,
    /// Size of one log file; a container has two.
    pub log_file_bytes_max: u64,
    /// What transfers may ask for; `None` is no limit.
    pub transfer_bytes_per_second_max: Option<u64>,
    pub layers: LayerKeeping,
    /// What the limits of all pods together may be, of the machine's memory.
    pub memory_percent_max: u32,
    pub update: Update,
    /// What pods may have of the host.
    pub allowed: Allowed,
    /// Between looks at what the folders of claims hold.
    pub claims_period: Duration,
    pub metrics: MetricsConfig,
    /// Whether the cloud may have commands run in containers.
    pub exec_from_cloud: bool,
    /// For `wherry init` only.
    pub init: InitConfig,
}

/// When newer generations may be taken up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Empty: at any time.
    pub windows: Vec<Window>,
    pub zone: Zone,
    /// While one of them is there, nothing newer is taken up.
    pub hold_files: Vec<PathBuf>,
}

#[derive(Clone)]
pub struct Broker {
    /// Host name or address.
    pub host: String,
    pub port: u16,
    pub password: String,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The password must not reach a log.
        write!(f, "Broker({}:{})", self.host, self.port)
    }
}

/// What outlives a reboot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir(pub PathBuf);

/// What dies with a reboot, as all pods do: a tmpfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir(pub PathBuf);

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {bytes} bytes, where a configuration has at most {CONFIG_BYTES_MAX}", path.display())]
    TooLarge { path: PathBuf, bytes: usize },
    #[error("{}, line {line}: {what}", path.display())]
    Syntax { path: PathBuf, line: usize, what: String },
    #[error("{}, key `{key}`: {what}", path.display())]
    Value { path: PathBuf, key: &'static str, what: String },
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// The first thing that is wrong, with file, line and key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Data and run folder and cgroup of a configuration that names none.
    #[must_use]
    pub fn default_places() -> (DataDir, RunDir, String) {
        (DataDir(DATA_DIR.into()), RunDir(RUN_DIR.into()), CGROUP.into())
    }

    /// Checks `text`; `path` is for messages only.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        if text.len() > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLarge { path: path.to_owned(), bytes: text.len() });
        }
        let file: File = toml::from_str(text).map_err(|error| syntax(text, path, &error))?;
        file.check().map_err(|(key, what)| ConfigError::Value { path: path.to_owned(), key, what })
    }
}

impl DataDir {
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    #[must_use]
    pub fn layers(&self) -> PathBuf {
        self.0.join("layers")
    }

    /// Folders of claims.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.0.join("volumes")
    }
}

impl RunDir {
    /// The local control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.0.join("wherry.sock")
    }

    /// Is there while an operator holds newer generations.
    #[must_use]
    pub fn hold(&self) -> PathBuf {
        self.0.join("hold")
    }

    /// Since when a newer generation is held by somebody.
    #[must_use]
    pub fn held_since(&self) -> PathBuf {
        self.0.join("held-since.bin")
    }

    /// What this boot's checks of layer files found.
    #[must_use]
    pub fn checked(&self) -> PathBuf {
        self.0.join("checked.bin")
    }

    /// Is there once the kernel was found to have all that bundles need.
    #[must_use]
    pub fn kernel_checked(&self) -> PathBuf {
        self.0.join("kernel-checked")
    }

    /// Bytes written to flash since the node booted.
    #[must_use]
    pub fn flash(&self) -> PathBuf {
        self.0.join("flash.bin")
    }

    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.0.join("ledger.bin")
    }

    /// Configuration folders of pods, one a pod hash.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.0.join("volumes")
    }

    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// The launcher's folder of a container, where its FIFOs are.
    #[must_use]
    pub fn container(&self, pod: &Name, container: &Name) -> PathBuf {
        self.0.join("pods").join(pod.as_str()).join("c").join(container.as_str())
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    node: String,
    trusted_keys: Vec<String>,
    data_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    cgroup: Option<String>,
    broker: BrokerTable,
    #[serde(default)]
    network: NetworkTable,
    #[serde(default)]
    logs: LogsTable,
    #[serde(default)]
    transfer: TransferTable,
    #[serde(default)]
    layers: LayersTable,
    #[serde(default)]
    preflight: PreflightTable,
    #[serde(default)]
    update: UpdateTable,
    #[serde(default)]
    volumes: VolumesTable,
    #[serde(default)]
    devices: DevicesTable,
    #[serde(default)]
    security: SecurityTable,
    #[serde(default)]
    metrics: MetricsTable,
    #[serde(default)]
    exec: ExecTable,
    init: Option<init::InitTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BrokerTable {
    host: String,
    port: Option<u16>,
    password: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkTable {
    bridge: Option<String>,
    subnet: Option<String>,
    dns: Option<Vec<IpAddr>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogsTable {
    file_bytes_max: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TransferTable {
    bytes_per_second_max: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateTable {
    #[serde(default)]
    windows: Vec<String>,
    time_zone: Option<String>,
    #[serde(default)]
    hold_files: Vec<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExecTable {
    from_cloud: Option<bool>,
}

type Wrong = (&'static str, String);

impl File {
    fn check(mut self) -> Result<Config, Wrong> {
        let init = init::of(&mut self)?;
        let node = Name::new(&self.node).map_err(|error| ("node", error.to_string()))?;
        let data = folder("data_dir", self.data_dir, DATA_DIR)?;
        let run = folder("run_dir", self.run_dir, RUN_DIR)?;
        if data.starts_with(&run) || run.starts_with(&data) {
            let what = "one lies in the other: run_dir becomes a tmpfs and is lost at a reboot";
            return Err(("data_dir and run_dir", what.into()));
        }
        let subnet = match self.network.subnet {
            Some(text) => text.parse().map_err(|error| ("network.subnet", format!("{error}")))?,
            None => Subnet::default(),
        };
        let log_file_bytes_max = self.logs.file_bytes_max.unwrap_or(LOG_FILE_BYTES);
        if !(LOG_FILE_BYTES_MIN..=LOG_FILE_BYTES_MAX).contains(&log_file_bytes_max) {
            let what = format!("use {LOG_FILE_BYTES_MIN} to {LOG_FILE_BYTES_MAX} bytes");
            return Err(("logs.file_bytes_max", what));
        }
        let claims_period = self.volumes.claims_period()?;
        let allowed = allowed::of(self.volumes, self.devices, self.security, &data, &run)?;
        Ok(Config {
            node,
            trusted_keys: trusted_keys(&self.trusted_keys)?,
            data: DataDir(data),
            run: RunDir(run),
            cgroup: label("cgroup", self.cgroup.unwrap_or_else(|| CGROUP.into()), 64)?,
            broker: self.broker.check()?,
            bridge: label(
                "network.bridge",
                self.network.bridge.unwrap_or_else(|| BRIDGE.into()),
                BRIDGE_BYTES_MAX,
            )?,
            subnet,
            dns: self.network.dns.unwrap_or_default(),
            log_file_bytes_max,
            transfer_bytes_per_second_max: self.transfer.check()?,
            layers: self.layers.check()?,
            memory_percent_max: self.preflight.check()?,
            update: self.update.check()?,
            allowed,
            claims_period,
            metrics: self.metrics.config(),
            // Such an order bears the signature that a bundle does, and does
            // nothing that a bundle could not: it is no new power over the node.
            exec_from_cloud: self.exec.from_cloud.unwrap_or(true),
            init,
        })
    }
}

impl BrokerTable {
    fn check(self) -> Result<Broker, Wrong> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-:_".contains(&b);
        if self.host.is_empty() || self.host.len() > 253 || !self.host.bytes().all(plain) {
            return Err(("broker.host", format!("`{}` is not a host name or address", self.host)));
        }
        let port = self.port.unwrap_or(BROKER_PORT);
        if port == 0 {
            return Err(("broker.port", "use 1 to 65535".into()));
        }
        Ok(Broker { host: self.host, port, password: self.password.unwrap_or_default() })
    }
}

impl TransferTable {
    fn check(self) -> Result<Option<u64>, Wrong> {
        match self.bytes_per_second_max {
            Some(rate) if rate < TRANSFER_RATE_MIN => {
                let what = format!("use {TRANSFER_RATE_MIN} or more");
                Err(("transfer.bytes_per_second_max", what))
            }
            rate => Ok(rate),
        }
    }
}

impl UpdateTable {
    fn check(self) -> Result<Update, Wrong> {
        let at_most = |key, count| {
            let what = format!("at most {UPDATE_ENTRIES_MAX} are of use");
            if count > UPDATE_ENTRIES_MAX { Err((key, what)) } else { Ok(()) }
        };
        at_most("update.windows", self.windows.len())?;
        at_most("update.hold_files", self.hold_files.len())?;
        let window = |text: &String| text.parse().map_err(|what| ("update.windows", what));
        let zone = self.time_zone.map_or(Ok(Zone::default()), |text| text.parse());
        let file = |path: PathBuf| folder("update.hold_files", Some(path), "");
        Ok(Update {
            windows: self.windows.iter().map(window).collect::<Result<_, _>>()?,
            zone: zone.map_err(|what| ("update.time_zone", what))?,
            hold_files: self.hold_files.into_iter().map(file).collect::<Result<_, _>>()?,
        })
    }
}

fn trusted_keys(texts: &[String]) -> Result<Vec<VerifyingKey>, Wrong> {
    const KEY: &str = "trusted_keys";
    if texts.is_empty() || texts.len() > TRUSTED_KEYS_MAX {
        let what = format!(
            "1 to {TRUSTED_KEYS_MAX} keys are needed: without one no bundle can be trusted \
             (`wherry-cloud key show` prints the cloud's)"
        );
        return Err((KEY, what));
    }
    let parse = |text: &String| {
        // A public key is 32 bytes, as a digest is.
        let Some(Digest(bytes)) = Digest::parse(text).filter(|_| text.len() == 64) else {
            return Err((KEY, format!("`{text}` is not a key: write its 64 hexadecimal digits")));
        };
        let key = VerifyingKey::from_bytes(&bytes).ok().filter(|key| !key.is_weak());
        key.ok_or_else(|| (KEY, format!("`{text}` is not an ed25519 public key")))
    };
    texts.iter().map(parse).collect()
}

fn folder(key: &'static str, path: Option<PathBuf>, default: &str) -> Result<PathBuf, Wrong> {
    let path = path.unwrap_or_else(|| default.into());
    let mut parts = path.components();
    let plain = parts.next() == Some(Component::RootDir)
        && parts.clone().all(|part| matches!(part, Component::Normal(_)))
        && parts.next().is_some();
    let printable = path.to_str().is_some_and(|text| !text.chars().any(char::is_control));
    if plain && printable {
        Ok(path)
    } else {
        Err((key, format!("`{}` is not a plain absolute path", path.display())))
    }
}

/// A name of the kernel's: one path component, nothing that a tool could take
/// for an option.
fn label(key: &'static str, text: String, bytes_max: usize) -> Result<String, Wrong> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let first_ok = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first_ok && text.len() <= bytes_max && text.bytes().all(plain) {
        Ok(text)
    } else {
        Err((key, format!("`{text}`: use 1 to {bytes_max} letters, digits, `-`, `_` and `.`")))
    }
}

fn syntax(text: &str, path: &Path, error: &toml::de::Error) -> ConfigError {
    let span = error.span().unwrap_or(Range { start: 0, end: 0 });
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let mut what = error.message().replace("unknown field", "unknown key");
    what = what.replace("missing field", "missing key");
    let key = text.lines().nth(line - 1).and_then(|line| line.split_once('=')).map(|(key, _)| key);
    if let Some(key) = key.map(str::trim).filter(|key| !what.contains(&format!("`{key}`"))) {
        if key == "password" {
            // The message shows the value.
            what = "invalid value: a text in quotes is expected".into();
        }
        what = format!("key `{key}`: {what}");
    }
    ConfigError::Syntax { path: path.to_owned(), line, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    fn parse(text: &str) -> Result<Config, String> {
        let text = text.replace("KEY", KEY);
        Config::parse(&text, Path::new("/etc/w.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_short_file_gets_the_defaults() {
        let config = parse("node = \"gw-1\"\ntrusted_keys = [\"KEY\"]\n[broker]\nhost = \"b\"\n");
        let config = config.unwrap();
        assert_eq!(config.data.state(), Path::new("/var/lib/wherry/state"));
        assert_eq!(config.run.socket(), Path::new("/run/wherry/wherry.sock"));
        assert_eq!((config.cgroup.as_str(), config.bridge.as_str()), ("wherry", "wherry0"));
        assert_eq!((config.broker.port, config.subnet), (1883, Subnet::default()));
        assert_eq!(config.log_file_bytes_max, 262_144);
        assert_eq!(config.layers.free_bytes_min, 16 << 20);
        assert_eq!(config.layers.check.bytes_per_second, 1 << 20);
        assert_eq!(config.memory_percent_max, 100);
        let push = Some(Duration::from_secs(300));
        assert_eq!(config.metrics, MetricsConfig { listen: None, push });
        assert_eq!(config.claims_period.as_secs(), 300);
        assert!(config.exec_from_cloud && !config.allowed.seccomp_unconfined);
    }

    #[test]
    fn a_full_file_is_honoured() {
        let text = "node = \"gw-1\"\ntrusted_keys = [\"KEY\", \"KEY\"]\ndata_dir = \"/d\"\n\
            run_dir = \"/r/w\"\ncgroup = \"w-2\"\n[broker]\nhost = \"10.0.0.1\"\nport = 1884\n\
            password = \"p\"\n[network]\nbridge = \"br7\"\nsubnet = \"10.9.0.0/16\"\n\
            dns = [\"10.0.0.53\", \"fe80::1\"]\n[logs]\nfile_bytes_max = 20000\n\
            [update]\nwindows = [\"daily 02:00-04:00\"]\ntime_zone = \"EST5\"\n\
            hold_files = [\"/run/app/busy\"]\n\
            [layers]\ncheck_bytes_per_second = 0\ncheck_days = 2\nfree_bytes_min = 5\n\
            [preflight]\nmemory_percent_max = 150\n\
            [volumes]\nhost_paths = [\"/run/app\"]\nmeasure_seconds = 60\n\
            [devices]\npaths = [\"/dev/ttyS0\", \"/dev/serial/by-id\"]\n\
            [security]\nseccomp_unconfined = true\n\
            [metrics]\nlisten = \"[::1]:9273\"\npush_seconds = 60\n\
            [exec]\nfrom_cloud = false\n";
        let config = parse(text).unwrap();
        assert_eq!(config.trusted_keys.len(), 2);
        assert_eq!(config.data, DataDir("/d".into()));
        assert_eq!(config.run, RunDir("/r/w".into()));
        assert_eq!((config.cgroup.as_str(), config.bridge.as_str()), ("w-2", "br7"));
        assert_eq!((config.broker.port, config.broker.password.as_str()), (1884, "p"));
        assert_eq!(config.subnet.to_string(), "10.9.0.0/16");
        assert_eq!(config.dns.len(), 2);
        assert_eq!(config.log_file_bytes_max, 20_000);
        assert_eq!(config.layers.check.bytes_per_second, 0);
        assert_eq!(config.layers.check.interval.0, 2 * 86_400_000);
        assert_eq!((config.layers.free_bytes_min, config.memory_percent_max), (5, 150));
        assert_eq!(config.update.windows, ["daily 02:00-04:00".parse().unwrap()]);
        assert_eq!(config.update.zone, "EST5".parse().unwrap());
        assert_eq!(config.update.hold_files, [PathBuf::from("/run/app/busy")]);
        let allowed = Allowed {
            host_paths: vec!["/run/app".into()],
            devices: vec!["/dev/ttyS0".into(), "/dev/serial/by-id".into()],
            seccomp_unconfined: true,
        };
        assert_eq!(config.allowed, allowed);
        assert_eq!(config.claims_period.as_secs(), 60);
        assert_eq!(config.metrics.listen, Some("[::1]:9273".parse().unwrap()));
        assert_eq!(config.metrics.push, Some(Duration::from_secs(60)));
        assert!(!config.exec_from_cloud);
        assert!(!format!("{config:?}").contains("\"p\""), "the password is shown");
    }

    #[test]
    fn a_port_alone_is_on_loopback() {
        let head = "node = \"gw-1\"\ntrusted_keys = [\"KEY\"]\n[broker]\nhost = \"b\"\n";
        let metrics = |text: &str| parse(&format!("{head}[metrics]\n{text}\n"));
        let config = metrics("listen = \"9273\"\npush_seconds = 0").unwrap().metrics;
        let listen = Some("127.0.0.1:9273".parse().unwrap());
        assert_eq!(config, MetricsConfig { listen, push: None });
        for text in ["listen = \"0\"", "listen = \"10.0.0.1\"", "push_seconds = 86401"] {
            assert!(metrics(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let head = "node = \"gw-1\"\ntrusted_keys = [\"KEY\"]\n";
        let broker = "[broker]\nhost = \"b\"\n";
        for (text, parts) in [
            (
                format!("{head}nod_name = 1\n{broker}"),
                &["line 3", "unknown key `nod_name`", "`node`"][..],
            ),
            (format!("{head}[broker]\nhost = 7\n"), &["line 4", "key `host`", "expected a string"]),
            (format!("{head}{broker}prot = 1\n"), &["line 5", "unknown key `prot`", "`port`"]),
            (format!("{head}{broker}port = 70000\n"), &["line 5", "key `port`", "70000"]),
            (format!("{head}{broker}password = 123456\n"), &["line 5", "`password`", "in quotes"]),
            (
                format!("{head}{broker}[logs]\nbytes = 1\n"),
                &["line 6", "unknown key `bytes`", "`file_bytes_max`"],
            ),
            (
                format!("{head}{broker}[network]\ndns = [\"x\"]\n"),
                &["line 6", "key `dns`", "IP address"],
            ),
            (
                format!("{head}{broker}[metrics]\nlisten = \"eth0\"\n"),
                &["line 6", "key `listen`", "`eth0`", "127.0.0.1:9273"],
            ),
            (
                format!("{head}{broker}[metrics]\npush_seconds = 1\n"),
                &["line 6", "key `push_seconds`", "5 to 86400", "0"],
            ),
            (
                format!("{head}{broker}[metrics]\npush = 60\n"),
                &["line 6", "unknown key `push`", "`push_seconds`"],
            ),
            (
                format!("{head}{broker}[exec]\nfrom_cluod = false\n"),
                &["line 6", "unknown key `from_cluod`", "`from_cloud`"],
            ),
            (format!("{head}{broker}[exec]\nfrom_cloud = 0\n"), &["line 6", "key `from_cloud`"]),
            (head.to_owned(), &["missing key `broker`"]),
            (format!("{head}[broker\n"), &["line 3"]),
        ] {
            let error = parse(&text).unwrap_err();
            for part in parts.iter().chain(&["/etc/w.toml"]) {
                assert!(error.contains(part), "`{part}` is not in: {error}");
            }
            assert!(!error.contains("123456"), "{error}");
        }
    }

    #[test]
    fn values_are_checked() {
        let file = |top: &str, tables: &str| {
            format!("node = \"gw-1\"\n{top}\n[broker]\nhost = \"b\"\n{tables}\n")
        };
        let good = "trusted_keys = [\"KEY\"]";
        let top = |line: &str| file(&format!("{good}\n{line}"), "");
        for (text, key) in [
            (file("trusted_keys = []", ""), "trusted_keys"),
            (file("trusted_keys = [\"12\"]", ""), "trusted_keys"),
            (file(&format!("trusted_keys = [\"{}\"]", "0".repeat(64)), ""), "trusted_keys"),
            (top("data_dir = \"var\""), "data_dir"),
            (top("run_dir = \"/\""), "run_dir"),
            (top("run_dir = \"/run/../etc\""), "run_dir"),
            (top("run_dir = \"/var/lib/wherry/run\""), "data_dir and run_dir"),
            (top("cgroup = \"a/b\""), "cgroup"),
            (file(good, "[network]\nbridge = \"a-bridge-too-far\""), "network.bridge"),
            (file(good, "[network]\nsubnet = \"10.0.0.0/8\""), "network.subnet"),
            (file(good, "[logs]\nfile_bytes_max = 10"), "logs.file_bytes_max"),
            (file(good, "[transfer]\nbytes_per_second_max = 10"), "transfer.bytes_per_second_max"),
            (file(good, "[layers]\ncheck_bytes_per_second = 1"), "layers.check_bytes_per_second"),
            (file(good, "[layers]\ncheck_days = 0"), "layers.check_days"),
            (file(good, "[preflight]\nmemory_percent_max = 0"), "preflight.memory_percent_max"),
            (file(good, "[update]\nwindows = [\"often\"]"), "update.windows"),
            (file(good, "[update]\ntime_zone = \"Europe/Berlin\""), "update.time_zone"),
            (file(good, "[update]\nhold_files = [\"x\"]"), "update.hold_files"),
            (file(good, "[devices]\npaths = [\"/dev\"]"), "devices.paths"),
            (file(good, "[devices]\npaths = [\"/run/x\"]"), "devices.paths"),
            (file(good, "[devices]\npaths = [\"/dev/../x\"]"), "devices.paths"),
            (file(good, "[volumes]\nhost_paths = [\"x\"]"), "volumes.host_paths"),
            (file(good, "[volumes]\nhost_paths = [\"/\"]"), "volumes.host_paths"),
            (file(good, "[volumes]\nhost_paths = [\"/dev/shm\"]"), "volumes.host_paths"),
            (file(good, "[volumes]\nhost_paths = [\"/run\"]"), "volumes.host_paths"),
            (file(good, "[volumes]\nmeasure_seconds = 0"), "volumes.measure_seconds"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(&format!("key `{key}`")), "{key}: {error}");
        }
        assert!(parse(&file(good, "").replace("gw-1", "GW")).unwrap_err().contains("key `node`"));
        assert!(parse(&file(good, "port = 0")).unwrap_err().contains("key `broker.port`"));
    }
}
