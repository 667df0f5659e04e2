//! `run`, `supervisor`, `stop`: commands that begin or end the node.

use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use wherry_bundle::limits::GRACE_SECONDS_MAX;
use wherry_runtime::launcher::{
    self, Ended, LauncherConfig, LauncherError, NetworkSettings, Supervisor,
};
use wherry_runtime::seal::{self, SealError};

use super::ask;
use crate::check::{Subject, explain, preflight};
use crate::config::{Config, ConfigError};
use crate::control::{ClientError, Request, Response};
use crate::supervisor::SupervisorError;
use crate::{logger, subnet, supervisor};

/// The launcher's end: its supervisor's farewell to the cloud, and more.
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// With `--all`, every pod gets its grace first.
const END_ALL_TIMEOUT: Duration =
    END_TIMEOUT.saturating_add(Duration::from_secs(GRACE_SECONDS_MAX as u64));
const END_LOOK_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(
        "there is no configuration at {}: `wherry-cloud node config NODE` prints a node's; put it \
         there, or name another file by --config",
        path.display()
    )]
    NoConfig { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Path { path: PathBuf, source: io::Error },
    #[error("{}: a path with a NUL character", path.display())]
    Nul { path: PathBuf },
    #[error("containers need root: run this as root")]
    NotRoot,
    #[error("cannot run from a sealed copy: {0}; see `sealed-memory` in `wherry check`")]
    Seal(#[from] SealError),
    #[error(transparent)]
    Launcher(#[from] LauncherError),
    /// With the rows of `wherry check` that say why.
    #[error("{source}; lacking on this host: {rows} (see `wherry check`)")]
    Host { source: LauncherError, rows: String },
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("process {pid} is still ending after {seconds} s")]
    StillEnding { pid: u32, seconds: u64 },
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Runs the node until it is told to end.
pub(super) fn run(config_path: &Path) -> Result<(), ProcessError> {
    // Absolute, since the supervisor reads it again whenever it starts.
    let config_path = fs::canonicalize(config_path).map_err(|source| {
        let path = config_path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => ProcessError::NoConfig { path },
            _ => ProcessError::Path { path, source },
        }
    })?;
    let config = Config::load(&config_path)?;
    if !nix::unistd::geteuid().is_root() {
        return Err(ProcessError::NotRoot);
    }
    seal::ensure_sealed()?;
    logger::init("launcher");
    let path = CString::new(config_path.as_os_str().as_bytes())
        .map_err(|_| ProcessError::Nul { path: config_path.clone() })?;
    // The node goes on: so the cloud hears why its pods cannot be made.
    for row in preflight() {
        log::error!("{} is lacking: {}: {}; see `wherry check`", row.name, row.found, row.meaning);
    }
    let subject = Subject::of(&config, config_path);
    let args = vec![c"supervisor".to_owned(), c"--config".to_owned(), path];
    let ended = launcher::run(LauncherConfig {
        run_dir: config.run.0.clone(),
        layers_dir: config.data.layers(),
        claims_dir: config.data.volumes(),
        cgroup_prefix: config.cgroup,
        network: NetworkSettings {
            bridge: config.bridge,
            subnet_base: config.subnet.base(),
            subnet_prefix: subnet::PREFIX,
            dns: config.dns,
        },
        allowed: config.allowed,
        supervisor: Supervisor::Spawn { args },
    })
    .map_err(|source| lacking(source, subject))?;
    match ended {
        Ended::Stopped => log::info!("the node has ended, its containers run on"),
        Ended::Purged => log::info!("the node has ended, all pods are removed"),
    }
    Ok(())
}

/// The launcher's error, with what this host lacks if that explains it.
fn lacking(source: LauncherError, subject: Subject) -> ProcessError {
    let rows = explain(&source, subject);
    if rows.is_empty() {
        return ProcessError::Launcher(source);
    }
    ProcessError::Host { source, rows: super::check::names(rows.iter()) }
}

/// What the launcher starts.
pub(super) fn supervisor(config_path: &Path) -> Result<(), ProcessError> {
    logger::init("supervisor");
    Ok(supervisor::run(Config::load(config_path)?)?)
}

pub(super) fn stop(socket: &Path, all: bool, out: &mut impl Write) -> Result<(), ProcessError> {
    let Response::Ending { pid } = ask(socket, &Request::Stop { all })? else {
        return Err(ClientError::Unexpected.into());
    };
    let (start, timeout) = (Instant::now(), if all { END_ALL_TIMEOUT } else { END_TIMEOUT });
    while is_running(pid) {
        if start.elapsed() > timeout {
            return Err(ProcessError::StillEnding { pid, seconds: timeout.as_secs() });
        }
        thread::sleep(END_LOOK_INTERVAL);
    }
    let what = if all { "all pods are removed" } else { "its containers run on" };
    Ok(writeln!(out, "the node has ended, {what}")?)
}

pub(super) fn hold(socket: &Path, hold: bool, out: &mut impl Write) -> Result<(), ProcessError> {
    let Response::Done = ask(socket, &Request::Hold { hold })? else {
        return Err(ClientError::Unexpected.into());
    };
    let what = if hold {
        "newer generations are held, as long as their versions allow"
    } else {
        "no operator holds newer generations any more"
    };
    Ok(writeln!(out, "{what}")?)
}

/// False once it has ended, even if nobody has reaped it: the state is the
/// word after the name in parentheses (`proc_pid_stat(5)`).
fn is_running(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}
