//! What the containers of a pod share: network, IPC and UTS namespaces,
//! `/dev/shm`, and the files of [`crate::network`].
//!
//! There is no process that holds the namespaces: a short-lived child makes
//! them and pins them by bind mounts of its nsfs files. `namespaces(7)`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use nix::sched::{CloneFlags, setns, unshare};
use wherry_bundle::limits::TEXT_BYTES_MAX;
use wherry_netns::{Netlink, Network, prepare_pod_namespace};

use crate::folders::PodFolder;
use crate::mounts::{self, MountError};
use crate::proto::{EmptyDir, PodSpec};
use crate::sys;

/// `/dev/shm` of a pod: POSIX shared memory, charged to who writes it.
const SHM_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Why a pod could not be made or taken away.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("namespaces of pod {pod}: {text}")]
    Namespaces { pod: String, text: String },
}

/// A pod's place in the network.
#[derive(Clone, Copy, Debug)]
pub struct Attachment<'a> {
    pub network: &'a Network,
    pub number: u16,
    pub address: Ipv4Addr,
}

/// Makes folders, `/dev/shm` and namespaces. What an earlier attempt left is
/// used or replaced.
///
/// # Errors
/// The first step that failed; [`remove`] takes the rest away.
pub fn create(
    pod: &PodSpec,
    folder: &PodFolder,
    attachment: Option<Attachment<'_>>,
) -> Result<(), SandboxError> {
    for path in [
        folder.path(),
        &folder.namespaces(),
        &folder.containers(),
        &folder.shm(),
        &folder.empty_dirs(),
    ] {
        make_folder(path)?;
    }
    mounts::tmpfs(&folder.shm(), SHM_BYTES_MAX, 0o1777, MsFlags::MS_NOEXEC)?;
    for volume in &pod.empty_dirs {
        empty_dir(&folder.empty_dir(&volume.volume), volume)?;
    }
    let kinds = kinds(attachment.is_some());
    for kind in kinds {
        let path = folder.namespace(kind);
        File::create(&path).map_err(|source| SandboxError::Io {
            what: "creating",
            path,
            source,
        })?;
    }
    in_child(&pod.name, || namespaces(pod, folder, attachment).map_err(|error| error.to_string()))
}

/// A new one for each pod. What is made in it belongs to its group, if it has
/// one.
fn empty_dir(path: &Path, volume: &EmptyDir) -> Result<(), SandboxError> {
    let mode = if volume.gid.is_some() { 0o2775 } else { 0o777 };
    make_folder(path)?;
    mounts::tmpfs(path, volume.bytes_max, mode, MsFlags::empty())?;
    chown(path, None, volume.gid).map_err(|source| SandboxError::Io {
        what: "setting the group of",
        path: path.to_owned(),
        source,
    })
}

/// Takes away what [`create`] and the containers left. Nothing there is fine.
///
/// # Errors
/// The first step that failed; to be called again.
pub fn remove(folder: &PodFolder) -> Result<(), SandboxError> {
    for kind in kinds(true) {
        mounts::unmount(&folder.namespace(kind))?;
    }
    mounts::unmount(&folder.shm())?;
    match fs::read_dir(folder.empty_dirs()) {
        Ok(volumes) => {
            for volume in volumes.flatten() {
                mounts::unmount(&volume.path())?;
            }
        }
        Err(source) if source.kind() == io::ErrorKind::NotFound => {}
        Err(source) => {
            let path = folder.empty_dirs();
            return Err(SandboxError::Io { what: "listing", path, source });
        }
    }
    match fs::remove_dir_all(folder.path()) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            let path = folder.path().to_owned();
            Err(SandboxError::Io { what: "removing", path, source })
        }
        _ => Ok(()),
    }
}

/// Moves the calling process into the pod's namespaces. `networked`: the pod
/// has an address.
///
/// # Errors
/// What `setns(2)` says.
pub fn join(folder: &PodFolder, networked: bool) -> Result<(), SandboxError> {
    for kind in kinds(networked) {
        let path = folder.namespace(kind);
        File::open(&path)
            .and_then(|namespace| Ok(setns(namespace, CloneFlags::empty())?))
            .map_err(|source| SandboxError::Io { what: "joining namespace", path, source })?;
    }
    Ok(())
}

fn kinds(networked: bool) -> &'static [&'static str] {
    if networked { &["ipc", "uts", "net"] } else { &["ipc", "uts"] }
}

/// Only root looks in; containers see what is mounted into them.
fn make_folder(path: &Path) -> Result<(), SandboxError> {
    let made = match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    };
    made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
        .map_err(|source| SandboxError::Io { what: "making folder", path: path.to_owned(), source })
}

/// In the child: new namespaces, set up and pinned.
fn namespaces(
    pod: &PodSpec,
    folder: &PodFolder,
    attachment: Option<Attachment<'_>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut flags = CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    // A netlink socket stays in the namespace in which it was opened.
    let host = match attachment {
        Some(_) => Some(Netlink::open()?),
        None => None,
    };
    if host.is_some() {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    unshare(flags)?;
    nix::unistd::sethostname(pod.name.as_str())?;
    if let (Some(host), Some(attachment)) = (host, attachment) {
        prepare_pod_namespace()?;
        let inside = Netlink::open()?;
        let own = File::open("/proc/self/ns/net")?;
        attachment.network.attach_pod(&host, &inside, own.as_fd(), attachment.number)?;
    }
    for kind in kinds(attachment.is_some()) {
        let source = PathBuf::from(format!("/proc/self/ns/{kind}"));
        mounts::bind_file(&source, &folder.namespace(kind))?;
    }
    Ok(())
}

/// Runs `work` in a forked child and waits for it: a few milliseconds.
fn in_child(
    pod: &wherry_bundle::Name,
    work: impl FnOnce() -> Result<(), String>,
) -> Result<(), SandboxError> {
    let fail = |text: String| SandboxError::Namespaces { pod: pod.to_string(), text };
    let io = |source: io::Error| fail(source.to_string());
    let (reader, writer) = io::pipe().map_err(io)?;
    let child = sys::fork_child(|| match work() {
        Ok(()) => 0,
        Err(text) => {
            // The status says that it failed, should this not get through.
            let _ = (&writer).write_all(text.as_bytes());
            1
        }
    })
    .map_err(io)?;
    drop(writer);
    let mut text = String::new();
    let read = reader.take(TEXT_BYTES_MAX as u64).read_to_string(&mut text);
    let status = sys::wait_for(child).map_err(io)?;
    read.map_err(io)?;
    match status {
        0 => Ok(()),
        _ if text.is_empty() => Err(fail(format!("the process ended with status {status:#x}"))),
        _ => Err(fail(text)),
    }
}
