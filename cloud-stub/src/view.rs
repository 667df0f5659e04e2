//! What the API answers and `-o json` prints.
//!
//! Times are milliseconds since 1970 by the cloud's clock, unless they are
//! inside what a node said. Never here: how any of it is stored.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use wherry_bundle::exec;
use wherry_bundle::message::{
    ContainerState, Event, Exit, Failed, FlashUse, Held, LogLine, Phase, PodPhase, PodStatus,
    Refused, Transfer,
};
use wherry_bundle::{BuildVersion, Digest, Generation, Name};

use crate::version::ProductType;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Customer {
    pub name: Name,
    pub projects: Vec<Name>,
    pub created_at: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    pub name: Name,
    pub customer: Name,
    pub nodes: Vec<Name>,
    pub applications: Vec<Name>,
    pub created_at: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    pub name: Name,
    pub project: Name,
    /// Oldest first.
    pub versions: Vec<BuildVersion>,
    pub created_at: u64,
}

/// A version that was given to a node, or that a rollout brings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionId {
    pub application: Name,
    pub number: BuildVersion,
}

impl std::fmt::Display for VersionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.application, self.number)
    }
}

impl std::str::FromStr for VersionId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no version: write APPLICATION@X.Y.Z.N");
        let (application, number) = text.split_once('@').ok_or_else(bad)?;
        Ok(Self {
            application: application.parse().map_err(|error| format!("{error}"))?,
            number: number.parse().map_err(|error| format!("{error}"))?,
        })
    }
}

/// One line of `node list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: Name,
    pub project: Name,
    pub product_type: ProductType,
    pub architecture: String,
    pub labels: BTreeMap<String, String>,
    pub created_at: u64,
    pub online: bool,
    /// When it last said anything.
    pub last_seen: Option<u64>,
    pub offline_since: Option<u64>,
    /// The newest that was issued to it; 0 is none yet.
    pub generation_wanted: Generation,
    /// What the node says that it works towards.
    pub generation: Generation,
    pub phase: Option<Phase>,
    pub refused: Option<Refused>,
    /// The last generation that failed there.
    pub failed: Option<Failed>,
    pub held: Option<Held>,
    /// While layers are on their way to it.
    pub transfer: Option<Transfer>,
    /// Written since it booted.
    pub flash: Option<FlashUse>,
    pub pods_available: u32,
    pub pods_total: u32,
}

/// `node show`: everything that is known of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDetail {
    #[serde(flatten)]
    pub node: Node,
    /// What was given to it.
    pub applications: Vec<VersionId>,
    pub wherry_version: Option<String>,
    pub kernel: Option<String>,
    /// What the node itself says that it is.
    pub reported_architecture: Option<String>,
    pub uptime_seconds: Option<u64>,
    /// The last ones that the node reported; of an offline node too.
    pub pods: Vec<PodStatus>,
    /// The newest event that tells of something going wrong.
    pub last_error: Option<Event>,
    pub events_waiting: u32,
    /// Dropped on the node for want of room.
    pub events_dropped: u64,
    /// Numbers that never arrived here.
    pub events_missing: u64,
    pub carried: Option<Carried>,
}

/// A bundle that a person carries to a node, which did not say yet that it
/// has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    pub generation: Generation,
    #[serde(flatten)]
    pub version: VersionId,
}

/// The answer to `node add`: the only one that holds the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAdded {
    pub name: Name,
    /// The node's password at the broker.
    pub token: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub reference: String,
    pub architecture: String,
    pub digest: Digest,
    pub layers: usize,
    /// Of all its squashfs files.
    pub size_bytes: u64,
    pub imported_at: u64,
    pub used_by: Vec<VersionId>,
}

/// One image of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageImported {
    pub reference: String,
    pub architecture: String,
    pub digest: Digest,
    pub layers: usize,
    /// Layers that the cloud did not have before.
    pub layers_new: usize,
    pub size_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    #[serde(flatten)]
    pub id: VersionId,
    pub description: String,
    pub product_type: ProductType,
    pub components: Vec<Name>,
    pub images: Vec<VersionImage>,
    /// Nodes that were given this version.
    pub nodes: Vec<Name>,
    pub created_at: u64,
}

/// An image as it was when the version was created.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VersionImage {
    pub reference: String,
    pub architecture: String,
    pub digest: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Absent in the answer to a dry run.
    pub id: Option<u64>,
    #[serde(flatten)]
    pub version: VersionId,
    pub selector: String,
    pub created_at: u64,
    pub nodes: Vec<RolloutNode>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutNode {
    pub name: Name,
    pub state: RolloutState,
    /// The generation that this rollout issued.
    pub generation_wanted: Generation,
    pub generation: Generation,
    pub phase: Option<Phase>,
    pub refused: Option<Refused>,
    pub failed: Option<Failed>,
    pub held: Option<Held>,
    pub transfer: Option<Transfer>,
    /// The node of its site that did not get there.
    pub stopped_by: Option<Name>,
    pub online: bool,
    pub last_seen: Option<u64>,
    pub pods_available: u32,
    pub pods_total: u32,
}

/// How far a rollout is on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutState {
    /// Waits for the nodes of its site that come before it.
    Queued,
    /// One of these did not get there: it will not be issued.
    Stopped,
    /// Issued; the node has not taken it up, or never said anything.
    Issued,
    /// The node keeps it back and says why in `held`.
    Held,
    /// Taken up, not all pods are available.
    UnderWay,
    /// All pods are available, not yet for long enough.
    Stabilising,
    /// It is good.
    Done,
    /// The node went back from it and says why in `failed`.
    RolledBack,
    /// The node says why in `failed`; it had nothing to go back to.
    Failed,
    /// The node says why in `refused`.
    Refused,
    /// A newer generation was issued since.
    Superseded,
}

/// What a rollout is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutRequest {
    pub version: VersionId,
    pub nodes: String,
    #[serde(default)]
    pub dry_run: bool,
}

/// What an export is asked to do. The answer is the file: `wherry_bundle::carrier`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRequest {
    pub version: VersionId,
    pub to: Recipients,
    /// The nodes run this already: its chunks are left out.
    #[serde(default)]
    pub since: Option<VersionId>,
}

/// Who may take a carried update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recipients {
    Node(Name),
    AnyOfProject(Name),
}

/// What came of a node's report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportImported {
    pub node: Name,
    pub generation: Generation,
    pub phase: Phase,
    /// False: the node is connected, its status here is a newer one.
    pub status_taken: bool,
    pub events: u64,
    /// Those that were not here before.
    pub events_new: u64,
    /// The node took up what was carried to it: that is issued to it now.
    pub taken_up: bool,
}

/// One line of a log stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum LogItem {
    Line(LogLine),
    /// So many messages of lines were lost on the way.
    Gap {
        messages: u32,
    },
    /// The last item; with what went wrong, if anything did.
    End {
        error: Option<String>,
    },
}

/// What `exec` is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// A pod, or a deployment.
    pub pod: Name,
    #[serde(default)]
    pub container: Option<Name>,
    pub args: Vec<String>,
    pub seconds_max: u32,
    /// For the record, as whoever asks says it.
    pub asked_by: String,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executed {
    pub exit: Exit,
    /// It was ended because its time was over.
    pub timed_out: bool,
    pub stdout: ExecOutput,
    pub stderr: ExecOutput,
}

/// The beginning of what a command wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOutput {
    pub base64: String,
    /// How much more it wrote.
    pub bytes_dropped: u64,
}

impl From<exec::Executed> for Executed {
    fn from(executed: exec::Executed) -> Self {
        let exec::Executed { exit, timed_out, stdout, stderr } = executed;
        let [stdout, stderr] = [stdout, stderr].map(|output| ExecOutput {
            base64: BASE64_STANDARD.encode(output.bytes),
            bytes_dropped: output.bytes_dropped,
        });
        Self { exit, timed_out, stdout, stderr }
    }
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub error: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// All that is wrong, when it is more than one thing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// Whether the pod counts as available: it serves, or has done what it was for.
#[must_use]
pub fn is_available(pod: &PodStatus) -> bool {
    matches!(pod.phase, PodPhase::Available | PodPhase::Succeeded)
}

/// A phase in a few words.
#[must_use]
pub fn phase_text(phase: &Phase) -> String {
    match phase {
        Phase::Empty => "empty".into(),
        Phase::Fetching { bytes_done, bytes_total } => {
            format!("fetching {bytes_done}/{bytes_total} bytes")
        }
        Phase::Rolling { pods_done, pods_total } => format!("rolling {pods_done}/{pods_total}"),
        Phase::Stabilising => "stabilising".into(),
        Phase::Good => "good".into(),
    }
}

/// A container's state in a few words.
#[must_use]
pub fn container_text(state: ContainerState) -> String {
    match state {
        ContainerState::Waiting => "waiting".into(),
        ContainerState::Running { pid, .. } => format!("running (pid {pid})"),
        ContainerState::Exited => "exited".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_reads_back() {
        let id: VersionId = "shop@1.4.0.2".parse().unwrap();
        assert_eq!(id.to_string(), "shop@1.4.0.2");
        for bad in ["shop", "shop@1.4.0", "Shop@1.4.0.2", "@1.4.0.2", "shop@"] {
            assert!(bad.parse::<VersionId>().is_err(), "{bad}");
        }
    }
}
