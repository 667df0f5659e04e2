//! Launcher ↔ supervisor: one postcard message a packet on a
//! `SOCK_SEQPACKET` pair, every part bounded.
//!
//! The supervisor asks ([`Packet`]); each request is idempotent and gets
//! exactly one [`Notice::Done`] or [`Notice::Failed`] with its `seq` (a probe:
//! or [`Notice::NotTried`]). Exits
//! come unasked. The launcher believes nothing: it checks each name and path
//! again.

use std::net::{IpAddr, Ipv4Addr};

use heapless::{String, Vec};
use serde::{Deserialize, Serialize};
use wherry_bundle::limits::{
    CONTAINERS_MAX, DEPLOYMENTS_MAX, HOST_NAMES_MAX, LAYERS_MAX, NAMESERVERS_MAX, PATH_BYTES_MAX,
    PODS_MAX, PORTS_MAX, TEXT_BYTES_MAX, VOLUMES_MAX, WORDS_BYTES_MAX, WORDS_MAX,
};
use wherry_bundle::message::Exit;
use wherry_bundle::model::{HostPathKind, Protocol, RestartPolicy, Role, Seccomp};
use wherry_bundle::{Digest, Generation, Name};

use crate::text::BoundedText;

/// A packet's size in either direction: the kernel's default socket buffer
/// holds at least two.
pub const PACKET_BYTES_MAX: usize = 64 * 1024;

/// A path below a folder that both sides know, or in a container.
pub type PathText = BoundedText<PATH_BYTES_MAX>;
/// Words, each ended by a NUL character.
pub type Words = BoundedText<{ WORDS_BYTES_MAX + 2 * WORDS_MAX }>;
/// One word of any length that a bundle can have.
pub type LongText = BoundedText<WORDS_BYTES_MAX>;
pub type Text = String<TEXT_BYTES_MAX>;
/// Names with a space between.
pub type Names = BoundedText<TEXT_BYTES_MAX>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    pub seq: u32,
    pub request: Request,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Answered by one [`Notice::Pod`] a pod, then `Done`.
    List,
    /// Makes the pod's namespaces, cgroup and folder; containers follow by
    /// `DefineContainer`, and the pod is complete once all are there.
    CreatePod(Box<PodSpec>),
    DefineContainer {
        pod: Name,
        spec: Box<ContainerSpec>,
    },
    /// Done means: the process was executed. A container that has exited is
    /// started anew on a fresh writable layer.
    StartContainer {
        pod: Name,
        container: Name,
    },
    /// Its own stop signal to each running container.
    TerminatePod {
        pod: Name,
    },
    /// SIGKILL to all in the pod's cgroup.
    KillPod {
        pod: Name,
    },
    /// Kills what runs, then takes everything away.
    RemovePod {
        pod: Name,
    },
    /// Replaces all published services, at once, and every pod's hosts file.
    Publish(Box<Services>),
    /// Answered by [`Notice::Usage`], then `Done`.
    Usage {
        pod: Name,
    },
    /// Ends supervisor and launcher, as SIGTERM to the launcher does: the
    /// containers run on, for the next launcher to adopt.
    Stop,
    /// Stops and removes every pod, mount, rule and interface, then ends the
    /// launcher: `wherry stop --all` and a node taken out of service.
    Purge,
    /// Its stop signal to one running container; one that does not run is
    /// what was wanted.
    TerminateContainer {
        pod: Name,
        container: Name,
    },
    /// SIGKILL to all in one container's cgroup.
    KillContainer {
        pod: Name,
        container: Name,
    },
    /// Asks a running container for its health, or has it do something.
    /// `Done` means success, `Failed` says what came instead, after
    /// `timeout_millis` at the latest; `NotTried` says nothing of the
    /// container.
    Probe {
        pod: Name,
        container: Name,
        check: Box<ProbeCheck>,
        timeout_millis: u32,
    },
    /// The supervisor's loop goes on: told to whoever watches over the node.
    /// The only request without an answer.
    Alive,
    /// Runs a command in a running container, as a probe's, for as long as it
    /// takes. Its standard streams come with the packet: three, or one
    /// terminal for all. Answered by [`Notice::Ended`], or `Failed` if it could
    /// not be executed.
    Exec {
        pod: Name,
        container: Name,
        args: Box<Words>,
        terminal: bool,
    },
    /// Kills what the `Exec` of this number began; one that has ended is what
    /// was wanted.
    EndExec {
        of: u32,
    },
    /// Makes the folder of a claim, if it is not there, and limits what it may
    /// hold where the file system can do that.
    ProvideClaim(ClaimSpec),
}

/// A folder that outlives pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimSpec {
    pub name: Name,
    pub bytes_max: u64,
    /// User and group that it gets when it is made.
    pub owner: (u32, u32),
    /// Whose members may write, whoever owns it.
    pub gid: Option<u32>,
}

/// What is tried from inside a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeCheck {
    /// A command in the container, as the container's own user, with its
    /// environment and its limits; exit code 0 is success.
    Exec { args: Words },
    /// From the pod's network namespace to the pod's own address; a status
    /// from 200 to 399 is success.
    HttpGet {
        port: u16,
        path: LongText,
        /// `Name: value` words.
        headers: Words,
    },
    /// As before; a connection is success.
    TcpConnect { port: u16 },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSpec {
    pub name: Name,
    pub deployment: Name,
    pub generation: Generation,
    pub hash: Digest,
    /// `None`: the host's network.
    pub address: Option<Ipv4Addr>,
    pub restart_policy: RestartPolicy,
    pub grace_millis: u64,
    /// The containers that it is going to have, in the order in which they
    /// start.
    pub containers: Vec<(Name, Role), CONTAINERS_MAX>,
    pub empty_dirs: Vec<EmptyDir, VOLUMES_MAX>,
    /// More lines of its hosts file.
    pub host_aliases: Vec<(IpAddr, Names), HOST_NAMES_MAX>,
    pub dns: Dns,
}

/// Of a pod's resolver, besides what the node's own has, or (`alone`) instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    pub alone: bool,
    pub nameservers: Vec<IpAddr, NAMESERVERS_MAX>,
    pub searches: Names,
    pub options: Names,
}

/// A file system in memory that lives as long as the pod does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmptyDir {
    pub volume: Name,
    pub bytes_max: u64,
    /// Whose members may write; else everybody may.
    pub gid: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub name: Name,
    pub args: Words,
    /// `NAME=value` words.
    pub env: Words,
    pub working_dir: PathText,
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32, VOLUMES_MAX>,
    /// Bit `n` is capability number `n` of `capability.h`.
    pub capabilities: u64,
    pub cpu_millis: Option<u32>,
    pub memory_bytes: Option<u64>,
    pub pids: Option<u32>,
    /// Of what it writes outside its volumes.
    pub storage_bytes: Option<u64>,
    /// Bottom first; files `HEX.squashfs` below the layers' folder.
    pub layers: Vec<Digest, LAYERS_MAX>,
    pub mounts: Vec<MountSpec, VOLUMES_MAX>,
    pub stop_signal: u8,
    /// It can write below `/tmp` only, to what is mounted, and there:
    pub read_only_root: bool,
    pub image_volumes: Vec<PathText, VOLUMES_MAX>,
    pub seccomp: Seccomp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    pub source: MountSource,
    pub destination: PathText,
    pub read_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// Below the volumes' folder of the run folder.
    Files(PathText),
    /// Of the host's own: below a path that the launcher was told to allow,
    /// for devices or for others.
    Host { path: PathText, kind: HostPathKind },
    /// An [`EmptyDir`] of the pod, or a folder in it, which is made.
    Empty { volume: Name, sub_path: Option<PathText> },
    /// The folder of a claim that was provided, or one in it, which is made.
    Claim { claim: Name, sub_path: Option<PathText> },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Services(pub Vec<Service, DEPLOYMENTS_MAX>);

/// A name that leads to pods: by its own address on any port, and by ports
/// of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub name: Name,
    pub address: Ipv4Addr,
    /// Connections are spread over these; with none they are refused.
    pub pods: Vec<Ipv4Addr, PODS_MAX>,
    pub ports: Vec<HostPort, PORTS_MAX>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    pub protocol: Protocol,
    pub host_port: u16,
    pub container_port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)] // a text of 1 KiB, and never many at once
pub enum Notice {
    Done {
        seq: u32,
    },
    Failed {
        seq: u32,
        error: Text,
    },
    /// Of a `Probe` only: why it was not even begun.
    NotTried {
        seq: u32,
        error: Text,
    },
    Pod(Box<PodReport>),
    /// A container was executed; comes just before the `Done` of its
    /// `StartContainer`. Millis are on the boot clock.
    Started {
        pod: Name,
        container: Name,
        pid: u32,
        since_millis: u64,
    },
    /// Millis are on the boot clock.
    Exited {
        pod: Name,
        container: Name,
        exit: Exit,
        started_millis: u64,
        at_millis: u64,
    },
    Usage {
        pod: Name,
        usage: Usage,
    },
    /// Of an `Exec`.
    Ended {
        seq: u32,
        exit: Exit,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodReport {
    pub name: Name,
    pub deployment: Name,
    pub generation: Generation,
    pub hash: Digest,
    pub address: Option<Ipv4Addr>,
    pub restart_policy: RestartPolicy,
    pub grace_millis: u64,
    pub complete: bool,
    pub containers: Vec<ContainerReport, CONTAINERS_MAX>,
    /// As in its [`PodSpec`].
    pub order: Vec<(Name, Role), CONTAINERS_MAX>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerReport {
    pub name: Name,
    pub state: ContainerState,
}

/// Millis are on the boot clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    Defined,
    Running { pid: u32, since_millis: u64 },
    Exited { exit: Exit, started_millis: u64, at_millis: u64 },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub cpu_micros: u64,
    pub memory_bytes: u64,
    pub memory_bytes_peak: u64,
    pub pids: u64,
    pub oom_kills: u64,
    pub pressure: Option<Pressure>,
}

/// Hundredths of a percent of the last ten seconds in which some process
/// waited, where the kernel counts that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    pub cpu: u16,
    pub memory: u16,
    pub io: u16,
}

/// Joins words; `None` if they do not fit or one holds a NUL character.
#[must_use]
pub fn join_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Option<Words> {
    let mut joined = std::string::String::new();
    for word in words {
        if word.contains('\0') {
            return None;
        }
        joined.push_str(word);
        joined.push('\0');
    }
    Words::try_from(joined.as_str()).ok()
}

/// The words that [`join_words`] joined.
pub fn split_words(words: &Words) -> impl Iterator<Item = &str> {
    words.split_terminator('\0')
}
