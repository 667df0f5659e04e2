//! What travels over MQTT besides bundles, and over the node's local socket.
//!
//! Each payload is one schema byte and postcard ([`Message::to_bytes`]).
//! `-o json` prints the same types.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::exec::{Executed, Nonce, SignedExec};
use crate::limits::{CHUNK_BYTES_MAX, CHUNKS_PER_GET_MAX, MQTT_PAYLOAD_BYTES_MAX};
use crate::model::VersionRef;
use crate::wire::{self, WireError};
use crate::{Digest, Generation, Name};

/// A type that is one MQTT payload.
pub trait Message: Serialize + DeserializeOwned {
    /// Changes whenever the postcard form of this type does.
    const SCHEMA: u8 = 1;
    /// A larger payload is refused unread.
    const BYTES_MAX: usize = MQTT_PAYLOAD_BYTES_MAX;

    /// # Errors
    /// A payload above [`Self::BYTES_MAX`].
    fn to_bytes(&self) -> Result<Vec<u8>, WireError> {
        let bytes = wire::encode(Self::SCHEMA, self)?;
        check_size(bytes.len(), Self::BYTES_MAX)?;
        Ok(bytes)
    }

    /// # Errors
    /// Size, schema or contents.
    fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        check_size(bytes.len(), Self::BYTES_MAX)?;
        wire::decode(Self::SCHEMA, bytes)
    }
}

fn check_size(bytes: usize, max: usize) -> Result<(), WireError> {
    if bytes <= max { Ok(()) } else { Err(WireError::TooLarge { bytes, max }) }
}

/// Milliseconds since 1970 by the node's wall clock: for people's eyes only,
/// it may be decades off on a gateway without a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallMillis(pub u64);

/// Retained. [`Self::Offline`] is the last will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Online(Box<NodeStatus>),
    Offline,
}
impl Message for Status {
    const SCHEMA: u8 = 4;
}

/// Everything about a node that fits on one page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub node: Name,
    pub wherry_version: String,
    pub architecture: String,
    pub kernel: String,
    pub wall_time: WallMillis,
    pub uptime_seconds: u64,
    /// What the node works towards or has reached.
    pub generation: Generation,
    pub versions: Vec<VersionRef>,
    pub phase: Phase,
    /// The last bundle that was refused, until a newer one is taken up.
    pub refused: Option<Refused>,
    /// The last generation that failed, until a newer one is taken up.
    pub failed: Option<Failed>,
    /// A newer generation that waits to be taken up.
    pub held: Option<Held>,
    /// While layers are on their way.
    pub transfer: Option<Transfer>,
    /// Since the node booted.
    pub flash: FlashUse,
    /// Ordered by name.
    pub pods: Vec<PodStatus>,
    /// Events that no cloud has confirmed yet, and events dropped for want
    /// of room since the node's state was made.
    pub events_waiting: u32,
    pub events_dropped: u64,
}

/// Layers on their way, all together: what was asked for and what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Of the layers that the generation needs, on the node and in all.
    pub bytes_done: u64,
    pub bytes_total: u64,
    /// Came from the cloud, and was found on the node's own flash.
    pub bytes_fetched: u64,
    pub bytes_copied: u64,
    /// Over the last few seconds, from the cloud.
    pub bytes_per_second: u64,
    /// Until all is there at this rate; absent while nothing comes.
    pub seconds_left: Option<u64>,
    /// Answers that were not what was asked for, since the supervisor began.
    pub chunks_refused: u64,
}

impl Transfer {
    /// 0 to 100; 100 only when all is there.
    #[must_use]
    pub fn percent(&self) -> u8 {
        let percent = u128::from(self.bytes_done) * 100 / u128::from(self.bytes_total.max(1));
        u8::try_from(percent.min(100)).unwrap_or(100)
    }
}

/// Bytes that Wherry wrote to the node's flash, by purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlashUse {
    /// Layer files and their chunk lists, fetched and copied.
    pub layer_bytes: u64,
    /// The store and its mirror files.
    pub state_bytes: u64,
    /// Logs; 0 while they are kept in RAM.
    pub log_bytes: u64,
}

/// How far the node is with its generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// No bundle was ever taken up.
    Empty,
    /// Layers are on their way.
    Fetching { bytes_done: u64, bytes_total: u64 },
    /// Pods are being started or replaced.
    Rolling { pods_done: u32, pods_total: u32 },
    /// All pods of the generation are available, and no other is left; it is
    /// good once that has lasted for its stability window.
    Stabilising,
    /// As before, and what the node goes back to should a newer one fail.
    Good,
}

impl Phase {
    /// All pods of the generation are available, and no other is left.
    #[must_use]
    pub fn is_running(&self) -> bool {
        match self {
            Self::Stabilising | Self::Good => true,
            Self::Empty | Self::Fetching { .. } | Self::Rolling { .. } => false,
        }
    }
}

/// A generation that did not become good. The node went back to its last good
/// one; where there was none, it goes on trying.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub generation: Generation,
    pub cause: Cause,
    /// What the failing pod wrote last, oldest first, at most
    /// [`FAILED_LINES_MAX`](crate::limits::FAILED_LINES_MAX).
    pub lines: Vec<String>,
}

impl Message for Failed {}

/// A generation that was received and is kept back for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub generation: Generation,
    /// Who or what holds it, for people.
    pub by: String,
}

/// Why a generation failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A deployment came no further for so long; `pod` is the one that is not
    /// available, if one was made.
    ProgressDeadline { deployment: Name, seconds: u64, pod: Option<Name>, exit: Option<Exit> },
    /// Layers of a deployment could not be had for so long while the cloud was
    /// there.
    Layers { deployment: Name, seconds: u64, missing: u32 },
    /// A container of a new pod ended again and again.
    CrashLoop { pod: Name, container: Name, starts: u32, exit: Exit },
    /// The node booted so often without the generation becoming good.
    BootLoop { boots: u32 },
    /// A job has failed for good; `exit` is how its pod last failed.
    Job { pod: Name, why: JobFailure, exit: Option<Exit> },
}

/// Why a job is not tried any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobFailure {
    /// It failed so often, which is more than its `backoffLimit`.
    BackoffLimit { failures: u32 },
    /// It did not succeed within its `activeDeadlineSeconds`.
    Deadline { seconds: u64 },
}

impl core::fmt::Display for JobFailure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::BackoffLimit { failures: 1 } => f.write_str("it failed, and may not again"),
            Self::BackoffLimit { failures } => {
                write!(f, "it failed {failures} times, more than its backoffLimit")
            }
            Self::Deadline { seconds } => write!(f, "it did not succeed within {seconds} s"),
        }
    }
}

impl core::fmt::Display for Cause {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::ProgressDeadline { deployment, seconds, pod, exit } => {
                write!(f, "deployment {deployment} came no further for {seconds} s")?;
                pod.iter().try_for_each(|pod| write!(f, "; pod {pod} is not available"))?;
                exit.iter().try_for_each(|exit| write!(f, "; last ended by {exit}"))
            }
            Self::Layers { deployment, seconds, missing } => {
                write!(
                    f,
                    "{missing} layers of deployment {deployment} did not come for {seconds} s"
                )
            }
            Self::CrashLoop { pod, container, starts, exit } => {
                write!(
                    f,
                    "container {container} of pod {pod} does not stay up after {starts} starts: {exit}"
                )
            }
            Self::BootLoop { boots } => write!(f, "the node booted {boots} times"),
            Self::Job { pod, why, exit } => {
                write!(f, "the job of pod {pod} has failed: {why}")?;
                exit.iter().try_for_each(|exit| write!(f, "; last ended by {exit}"))
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// 0 when not even that could be trusted.
    pub generation: Generation,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodStatus {
    pub name: Name,
    pub deployment: Name,
    /// The first generation that asked for exactly this pod.
    pub generation: Generation,
    /// In text, as `10.87.0.5`; empty on the host network.
    pub address: String,
    pub phase: PodPhase,
    /// Why it is not running, or what went wrong last.
    pub last_error: Option<String>,
    pub containers: Vec<ContainerStatus>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PodPhase {
    /// Waits for a dependency, for layers, or for its turn.
    Waiting,
    Starting,
    /// All containers run, but not yet for `minReadySeconds`.
    Running,
    /// Counts as available.
    Available,
    /// At least one container waits for its next restart.
    BackOff,
    /// Its containers have ended well, and none is to be restarted.
    Succeeded,
    Terminating,
    /// One of its containers has failed, and none is to be restarted.
    Failed,
}

impl PodPhase {
    /// As JSON has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Available => "available",
            Self::BackOff => "back-off",
            Self::Succeeded => "succeeded",
            Self::Terminating => "terminating",
            Self::Failed => "failed",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    pub name: Name,
    pub state: ContainerState,
    pub restarts: u32,
    pub last_exit: Option<Exit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContainerState {
    Waiting,
    Running { pid: u32, seconds: u64 },
    Exited,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    Code(u8),
    Signal(u8),
    /// Killed by its own cgroup's memory limit.
    OutOfMemory,
    /// It ended while nobody was there to see how.
    Unknown,
}

impl Exit {
    /// As a shell has it, for commands that end with another one's: 128 and a
    /// signal's number; `None` if nobody knows.
    #[must_use]
    pub fn shell_status(self) -> Option<u8> {
        const SIGNALLED: u8 = 128;
        const SIGKILL: u8 = 9;
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(signal) => Some(SIGNALLED.saturating_add(signal)),
            Self::OutOfMemory => Some(SIGNALLED + SIGKILL),
            Self::Unknown => None,
        }
    }
}

impl core::fmt::Display for Exit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::Unknown => f.write_str("exit status unknown"),
        }
    }
}

/// Something that happened once. Kept on the node until the cloud has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Grows by one on each node; a gap means that events were dropped.
    pub seq: u64,
    pub wall_time: WallMillis,
    /// Milliseconds since the node booted: the order that can be trusted.
    pub boot_millis: u64,
    pub generation: Generation,
    pub kind: EventKind,
    /// A pod's name, or empty when it is about the node.
    pub subject: String,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    Started,
    BundleTakenUp,
    BundleRefused,
    LayerFetched,
    LayerFailed,
    PodCreated,
    ContainerStarted,
    ContainerExited,
    ContainerFailed,
    PodAvailable,
    PodRemoved,
    GenerationRunning,
    StoreRecovered,
    CommandDone,
    /// A probe had a container restarted.
    ContainerUnhealthy,
    GenerationGood,
    GenerationFailed,
    /// A newer generation waits to be taken up.
    GenerationHeld,
    /// A deployment is replaced otherwise than its strategy says.
    StrategyChanged,
    /// Layers are on their way, and how much of them.
    TransferStarted,
    /// A layer file on the flash is not what it was; it is mended.
    LayerDamaged,
    /// Layers that nothing needs made room.
    LayersRemoved,
    /// A newer generation came; what becomes of it is looked at.
    BundleReceived,
    /// A person ran a command in a container, or it has ended.
    CommandRun,
    /// A volume holds more than its claim is for, and nothing stops it.
    VolumeOverLimit,
}

/// Several events in one message, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events(pub Vec<Event>);
impl Message for Events {}

/// The cloud has stored all events up to here; the node may forget them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventAck {
    pub seq: u64,
}
impl Message for EventAck {}

/// Asks for chunks, each of which is answered by a [`ChunkData`] of its own,
/// in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkGet {
    /// At most [`CHUNKS_PER_GET_MAX`].
    pub chunks: Vec<Digest>,
}
impl Message for ChunkGet {
    const SCHEMA: u8 = 2;
    const BYTES_MAX: usize = CHUNKS_PER_GET_MAX * size_of::<Digest>() + 16;
}

/// A part of a layer, or a chunk list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkData {
    pub chunk: Digest,
    pub contents: ChunkContents,
}
impl Message for ChunkData {
    const SCHEMA: u8 = 2;
    const BYTES_MAX: usize = CHUNK_BYTES_MAX + 256;
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChunkContents {
    Bytes(Vec<u8>),
    /// The cloud has no such chunk; says why.
    Missing(String),
}

/// An order from the cloud. Doing it twice under one id does it once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    pub id: u64,
    pub order: Order,
}
impl Message for Command {
    const SCHEMA: u8 = 2;
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Log lines come as [`LogChunk`]s, then a [`Reply`].
    Logs(LogQuery),
    /// Ends what was begun by the order of this id: a `follow`, or a command.
    End { id: u64 },
    /// Replaces the pod by a new one, as its strategy says.
    RestartPod { pod: Name },
    /// Asks for the [`Nonce`] of the next [`Self::Exec`].
    PrepareExec,
    /// Runs a command in a container; the reply comes at its end.
    Exec(SignedExec),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogQuery {
    /// A pod, or a deployment: then all its pods.
    pub pod: Name,
    /// All containers if absent.
    pub container: Option<Name>,
    /// Only the last so many lines of each container.
    pub tail: Option<u32>,
    /// Only lines of the last so many seconds.
    pub since_seconds: Option<u64>,
    /// Goes on with new lines: from the cloud for at most
    /// [`FOLLOW_SECONDS_MAX`], then it has to be asked for again.
    pub follow: bool,
}

/// A forgotten `follow` must not use a metered uplink for ever.
pub const FOLLOW_SECONDS_MAX: u64 = 300;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    /// The command's id.
    pub id: u64,
    /// Starts at 0 for each command; a gap means a lost chunk.
    pub seq: u32,
    pub lines: Vec<LogLine>,
}
impl Message for LogChunk {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    pub pod: Name,
    pub container: Name,
    pub wall_time: WallMillis,
    pub stream: LogStream,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogStream {
    Stdout,
    Stderr,
}

/// The end of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    pub id: u64,
    /// Or why it was not done, for people.
    pub result: Result<Outcome, String>,
}
impl Message for Reply {
    const SCHEMA: u8 = 2;
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// What was done, for people.
    Done(String),
    /// Of [`Order::PrepareExec`].
    Prepared(Nonce),
    /// Of [`Order::Exec`].
    Executed(Executed),
}
