//! The creator: a process forked for each start of a container, gone as soon
//! as the container's program runs.
//!
//! libcontainer forks by raw `clone3` and changes its caller, so it must not
//! run in the launcher. Called with `as_sibling`, it makes the container's
//! first process a child of the launcher, which reaps it with its real exit
//! status. The mounts made here are in a mount namespace that only the
//! creator and the container have: the kernel takes them away with it.
//!
//! Never here: cgroup limits, layers and folders, which the launcher made
//! before.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::oci_spec::OciSpecError;
use libcontainer::syscall::syscall::SyscallType;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use wherry_bundle::limits::{STORAGE_BYTES, TEXT_BYTES_MAX, bounded_text};
use wherry_cgroups::{CgroupPath, Tree};

use crate::executor::ReportingExecutor;
use crate::folders::{ContainerFolder, Folders, PodFolder};
use crate::packet::{self, Wait};
use crate::process::{Privileges, Stat};
use crate::proto::ContainerSpec;
use crate::rootfs::{self, BUNDLE, RootFsError, Stage};
use crate::sandbox::{self, SandboxError};
use crate::seccomp::Filter;
use crate::{oci, sys};

/// Name of the folder of libcontainer's own state, below the bundle.
const STATE_ID: &str = "state";
/// The creator's socket; nothing else of the launcher's is left open.
const SOCKET_FD: i32 = 3;

/// What a creator tells the launcher, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The container's first process exists, and waits to be told to go on.
    Created { pid: i32, start_ticks: u64 },
    /// Its program was executed.
    Started,
    /// It was not; nothing that has to be undone is left but processes in
    /// the container's cgroup.
    Failed { text: String },
}

/// One container to start. All of it was checked.
#[derive(Debug)]
pub struct Job<'a> {
    pub folders: &'a Folders,
    /// Of claims.
    pub claims: &'a Path,
    pub pod: &'a PodFolder,
    /// Whether the pod has a network namespace of its own.
    pub networked: bool,
    pub container: &'a ContainerFolder,
    pub spec: &'a ContainerSpec,
    /// Where its layers are mounted: [`Stage::overlay`].
    pub layers: &'a [String],
    pub tree: &'a Tree,
    pub cgroup: &'a CgroupPath,
    /// The launcher's own hard limit.
    pub open_files_max: u64,
}

/// Why a container could not be started.
#[derive(Debug, thiserror::Error)]
enum CreatorError {
    #[error("joining the cgroup: {0}")]
    Cgroup(#[from] wherry_cgroups::Error),
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    RootFs(#[from] RootFsError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("its OCI spec: {0}")]
    Spec(#[from] OciSpecError),
    #[error("capabilities {missing:#x} (bits) were asked for, which this system does not have")]
    Capabilities { missing: u64 },
    #[error("{}", chain(.0))]
    Runtime(#[from] LibcontainerError),
    #[error("the container's process has {found:?}, where {wanted:?} was asked for: not started")]
    Privileges { found: Privileges, wanted: Privileges },
    #[error("{0}")]
    Exec(String),
    #[error("the launcher is gone")]
    Orphaned,
}

/// Runs in the forked child, and ends with its exit status. The parent's
/// descriptors are closed here: nothing of the parent's may be used later.
pub fn run(job: &Job<'_>, socket: &OwnedFd, launcher: Pid) -> i32 {
    sys::reset_signals();
    let only_socket = sys::place_fd(socket.as_fd(), SOCKET_FD);
    sys::close_from(SOCKET_FD + 1);
    let Ok(socket) = only_socket.and_then(|()| sys::take_inherited_fd(SOCKET_FD)) else { return 1 };
    // The container's is in its spec; what libcontainer would take from ours
    // (`LISTEN_FDS`) is not meant for it.
    sys::clear_environment();
    // For people who look at the process list.
    let _ = nix::sys::prctl::set_name(c"wherry-creator");
    match create(job, &socket, launcher) {
        Ok(()) => report(&socket, &Report::Started),
        Err(error) => {
            report(&socket, &Report::Failed { text: bounded_text(&error.to_string()) });
            1
        }
    }
}

fn report(socket: &OwnedFd, report: &Report) -> i32 {
    let sent = packet::encode(report)
        .and_then(|bytes| packet::send_bytes(socket.as_fd(), &bytes, Wait::Yes));
    i32::from(sent.is_err())
}

fn create(job: &Job<'_>, socket: &OwnedFd, launcher: Pid) -> Result<(), CreatorError> {
    match sys::die_with_parent(launcher) {
        Ok(true) => {}
        Ok(false) | Err(_) => return Err(CreatorError::Orphaned),
    }
    job.tree.join_self(job.cgroup)?;
    forget_oom_protection();
    let own = read_privileges(Pid::this())?;
    let missing = job.spec.capabilities & !(own.permitted & own.bounding);
    if missing != 0 {
        return Err(CreatorError::Capabilities { missing });
    }
    // From the host's view of files; what follows leaves it behind.
    let streams = Streams::open(job.container)?;
    sandbox::join(job.pod, job.networked)?;
    let storage_bytes = job.spec.storage_bytes.unwrap_or(STORAGE_BYTES);
    let stage = Stage::raise(job.container.stage(), storage_bytes)?;
    stage.overlay(job.folders, job.layers)?;
    let rootfs = stage.rootfs();
    rootfs::ensure_folder(&rootfs, &job.spec.working_dir)?;
    let mounts = rootfs::table(job.pod, job.claims, job.spec);
    rootfs::fill(&stage, &job.folders.volumes(), &mounts)?;
    stage.enter()?;
    oci::spec(job.spec, job.open_files_max)?.save(Path::new(BUNDLE).join("config.json"))?;
    start(job, streams, socket)
}

/// The container's standard streams.
struct Streams {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Streams {
    fn open(container: &ContainerFolder) -> Result<Self, CreatorError> {
        // Open for reading too: whoever reads the output may come and go, and
        // the container never gets SIGPIPE. `fifo(7)`.
        let output = |path| open(path, OpenOptions::new().read(true).write(true));
        Ok(Self {
            stdin: open("/dev/null".into(), OpenOptions::new().read(true))?,
            stdout: output(container.stdout())?,
            stderr: output(container.stderr())?,
        })
    }
}

/// libcontainer, from creating to executing.
fn start(job: &Job<'_>, streams: Streams, socket: &OwnedFd) -> Result<(), CreatorError> {
    let (mut failed, report_failed) = io::pipe().map_err(|source| CreatorError::Io {
        what: "making a pipe for",
        path: job.container.path().to_owned(),
        source,
    })?;
    let filter = Filter::of_container(job.spec);
    // The bundle and libcontainer's state share the folder.
    let mut container = ContainerBuilder::new(STATE_ID.into(), SyscallType::default())
        .with_root_path(BUNDLE)?
        .with_executor(ReportingExecutor::new(report_failed, filter))
        .with_stdin(streams.stdin)
        .with_stdout(streams.stdout)
        .with_stderr(streams.stderr)
        .as_init(BUNDLE)
        .with_systemd(false)
        .as_sibling(true)
        .with_detach(true)
        .build()?;
    let Some(pid) = container.pid().map(|pid| Pid::from_raw(pid.as_raw())) else {
        return Err(CreatorError::Exec("libcontainer made no process".into()));
    };
    let found = read_privileges(pid)?;
    let wanted = Privileges::exactly(job.spec.capabilities);
    if found != wanted {
        return Err(CreatorError::Privileges { found, wanted });
    }
    let stat = Stat::read(pid).map_err(|source| proc_error(pid, source))?;
    let created = Report::Created { pid: pid.as_raw(), start_ticks: stat.start_ticks };
    if report(socket, &created) != 0 {
        return Err(CreatorError::Orphaned);
    }
    container.start()?;
    // The other end is closed by executing, or by the process's end.
    let mut text = String::new();
    let read = failed.by_ref().take(TEXT_BYTES_MAX as u64).read_to_string(&mut text);
    match read {
        Ok(0) => Ok(()),
        Ok(_) => Err(CreatorError::Exec(text)),
        Err(source) => Err(proc_error(pid, source)),
    }
}

fn read_privileges(pid: Pid) -> Result<Privileges, CreatorError> {
    Privileges::read(pid).map_err(|source| proc_error(pid, source))
}

fn proc_error(pid: Pid, source: io::Error) -> CreatorError {
    let path = PathBuf::from(format!("/proc/{pid}"));
    CreatorError::Io { what: "the container's first process", path, source }
}

/// A container is no more precious to the kernel than any other process,
/// should the launcher be. Where it is not allowed, nothing is lost.
pub(crate) fn forget_oom_protection() {
    let path = "/proc/self/oom_score_adj";
    let protected = std::fs::read_to_string(path)
        .is_ok_and(|text| text.trim().parse::<i32>().is_ok_and(|adjustment| adjustment < 0));
    if protected {
        let _ = std::fs::write(path, "0");
    }
}

fn open(path: PathBuf, options: &OpenOptions) -> Result<OwnedFd, CreatorError> {
    match options.open(&path) {
        Ok(file) => Ok(file.into()),
        Err(source) => Err(CreatorError::Io { what: "opening", path, source }),
    }
}

/// An error with all its causes: libcontainer's outer ones say little.
fn chain(error: &LibcontainerError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        // Transparent errors repeat what they wrap.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
