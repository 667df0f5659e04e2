//! What the command line and the supervisor say to each other.
//!
//! Both are one binary, but a new command line may meet an old supervisor:
//! [`SCHEMA`] tells.

use serde::{Deserialize, Serialize};
use wherry_bundle::message::{Event, Exit, LogLine, LogQuery, NodeStatus, PodStatus};
use wherry_bundle::model::{Port, RestartPolicy};
use wherry_bundle::{Generation, Name};

/// Changes whenever the postcard form of a type here does.
pub const SCHEMA: u8 = 6;
/// The largest request is a command line.
pub const REQUEST_BYTES_MAX: usize = 32 * 1024;
/// The largest response is the status of a full node: 128 pods of 16
/// containers at some 100 bytes each, with room.
pub const RESPONSE_BYTES_MAX: usize = 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Answered by [`Response::Status`].
    Status,
    /// A pod, or all pods of a deployment; all of the node's, without their
    /// containers and events: [`Response::Pods`].
    Describe { pod: Option<Name> },
    /// The newest events, oldest first: [`Response::Events`].
    Events { tail: u32 },
    /// [`Response::LogLines`], again and again, then [`Response::Done`].
    Logs(LogQuery),
    /// Ends the node: [`Response::Ending`]. With `all` every pod and all that
    /// was made for it goes too.
    Stop { all: bool },
    /// Keeps newer generations from being taken up, or lets them:
    /// [`Response::Done`].
    Hold { hold: bool },
    /// The items of a carried file follow ([`wherry_bundle::carrier`]):
    /// [`Response::Applied`].
    Apply,
    /// Events above this number that no cloud has confirmed, as many as fit:
    /// [`Response::Events`].
    Outbox { after: u64 },
    /// Runs a command in a container. After [`Response::Done`] the client sends
    /// one byte with its standard streams; then comes [`Response::Exited`].
    Exec(Exec),
    /// [`Response::Volumes`].
    Volumes,
    /// Removes what no generation claims: [`Response::Done`].
    RemoveVolume { name: Name },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// A pod, or a deployment: the first of its pods.
    pub pod: Name,
    /// The pod's first main one, if none is named.
    pub container: Option<Name>,
    pub args: Vec<String>,
    /// One descriptor comes, which is a terminal; else three.
    pub terminal: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    Status(Box<LocalStatus>),
    Pods(Vec<PodDescription>),
    Events(Vec<Event>),
    LogLines(Vec<LogLine>),
    Done,
    /// The process that ends: the launcher.
    Ending {
        pid: u32,
    },
    /// Why it cannot be answered, and what to do.
    Error(String),
    Applied(Applied),
    /// A command began; its number is for whoever waits to end it.
    Executing {
        number: u32,
    },
    Exited(Exit),
    Volumes(Vec<VolumeStatus>),
}

/// What came of a carried update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    pub generation: Generation,
    /// What became of it, for people.
    pub outcome: String,
    pub layers: u32,
    pub bytes_supplied: u64,
    pub bytes_copied: u64,
}

/// What the cloud is told, and how it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalStatus {
    pub node: NodeStatus,
    pub cloud: CloudLink,
    pub volumes: Vec<VolumeStatus>,
}

/// A claim, or a folder that was one's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStatus {
    pub name: Name,
    /// Absent while nobody has looked, or nothing is there.
    pub bytes_used: Option<u64>,
    /// Of the current bundle's claim.
    pub bytes_max: Option<u64>,
    /// The file system does not let it grow further.
    pub is_limited: bool,
    /// It holds more than was looked at.
    pub is_partial: bool,
    /// Deployments of the current bundle.
    pub used_by: Vec<Name>,
    /// The last good bundle claims it.
    pub last_good: bool,
}

impl VolumeStatus {
    /// Nothing stops it, and it holds more than its claim is for.
    #[must_use]
    pub fn is_over(&self) -> bool {
        !self.is_limited && self.bytes_max.is_some_and(|max| self.bytes_used > Some(max))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudLink {
    /// To its broker.
    pub connected: bool,
    /// Why it is not.
    pub last_error: Option<String>,
}

/// Everything known about a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodDescription {
    pub status: PodStatus,
    /// What it is made of; pods of the same hash need not be replaced.
    pub hash: String,
    /// It is what the current bundle asks for.
    pub current: bool,
    /// Absent while it only waits to be made.
    pub restart_policy: Option<RestartPolicy>,
    pub grace_seconds: u64,
    /// What its containers may use together, if all of them have a limit.
    pub memory_bytes_max: Option<u64>,
    pub cpu_millis_max: Option<u32>,
    /// From the current bundle: empty if the pod is of an older one.
    pub containers: Vec<ContainerDescription>,
    pub usage: Option<PodUsage>,
    /// Its latest events, oldest first.
    pub events: Vec<Event>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerDescription {
    pub name: Name,
    pub image: String,
    pub args: Vec<String>,
    pub user: u32,
    pub capabilities: Vec<String>,
    pub cpu_millis: Option<u32>,
    pub memory_bytes: Option<u64>,
    pub ports: Vec<Port>,
    pub mounts: Vec<MountDescription>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountDescription {
    pub path: String,
    /// Kind and name of the config map or secret. Never its contents.
    pub source: String,
}

/// By the pod's cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodUsage {
    pub cpu_micros: u64,
    pub memory_bytes: u64,
    pub memory_bytes_peak: u64,
    pub processes: u64,
    pub oom_kills: u64,
    /// Where the kernel counts it.
    pub pressure: Option<PodPressure>,
}

/// Percent of the last ten seconds in which some process of it waited.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodPressure {
    pub cpu: f32,
    pub memory: f32,
    pub io: f32,
}

#[cfg(test)]
mod tests {
    use wherry_bundle::wire;

    use super::*;

    fn hex<T: Serialize>(value: &T) -> String {
        wire::encode(SCHEMA, value).unwrap().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Fails when the form changes: then [`SCHEMA`] has to.
    #[test]
    fn the_form_is_on_record() {
        let name = |text: &str| Name::new(text).unwrap();
        let logs = Request::Logs(LogQuery {
            pod: name("web-1"),
            container: Some(name("lion")),
            tail: Some(300),
            since_seconds: None,
            follow: true,
        });
        let exec =
            Exec { pod: name("web-1"), container: None, args: vec!["sh".into()], terminal: true };
        for (request, form) in [
            (Request::Status, "0600"),
            (Request::Describe { pod: Some(name("web")) }, "06010103776562"),
            (Request::Describe { pod: None }, "060100"),
            (Request::Events { tail: 20 }, "060214"),
            (logs, "0603057765622d3101046c696f6e01ac020001"),
            (Request::Stop { all: true }, "060401"),
            (Request::Hold { hold: true }, "060501"),
            (Request::Apply, "0606"),
            (Request::Outbox { after: 300 }, "0607ac02"),
            (Request::Exec(exec), "0608057765622d31000102736801"),
            (Request::Volumes, "0609"),
            (Request::RemoveVolume { name: name("data") }, "060a0464617461"),
        ] {
            assert_eq!(hex(&request), form, "{request:?}");
            let bytes = wire::encode(SCHEMA, &request).unwrap();
            assert_eq!(wire::decode::<Request>(SCHEMA, &bytes).unwrap(), request);
        }
        let applied = Applied {
            generation: Generation(5),
            outcome: "ok".into(),
            layers: 1,
            bytes_supplied: 2,
            bytes_copied: 3,
        };
        for (response, form) in [
            (Response::Pods(vec![]), "060100"),
            (Response::Events(vec![]), "060200"),
            (Response::LogLines(vec![]), "060300"),
            (Response::Done, "0604"),
            (Response::Ending { pid: 300 }, "0605ac02"),
            (Response::Error("no".into()), "0606026e6f"),
            (Response::Applied(applied), "060705026f6b010203"),
            (Response::Executing { number: 300 }, "0608ac02"),
            (Response::Exited(Exit::Code(7)), "06090007"),
            (Response::Volumes(vec![]), "060a00"),
        ] {
            assert_eq!(hex(&response), form, "{response:?}");
        }
    }
}
