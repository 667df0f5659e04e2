//! What the node tells about itself: its status, when to send it, and the
//! events of late.
//!
//! Never here: sending, storing. The same inputs give the same status.

use std::collections::{BTreeMap, VecDeque};

use wherry_bundle::message::{
    ContainerState, ContainerStatus, Event, Failed, FlashUse, Held, NodeStatus, Phase, PodStatus,
    Refused, Transfer,
};
use wherry_bundle::{Bundle, Generation, Name};
use wherry_core::{Millis, NodeView, Observed, ObservedContainer, PodView};

use crate::clock;
use crate::store::OutboxStatus;
use crate::subnet::Subnet;

/// Between two statuses: what changes together goes up together.
const STATUS_INTERVAL: Millis = Millis(1_000);
/// While only a transfer moves on, or the outbox empties: an uplink has
/// better things to carry.
const SLOW_INTERVAL: Millis = Millis(10_000);
/// Events kept in RAM for `wherry events`, at about 200 bytes each.
pub const RECENT_EVENTS_MAX: usize = 256;

/// Process ids of running containers.
pub type Pids = BTreeMap<(Name, Name), u32>;

/// What stays the same while the node runs.
#[derive(Clone, Debug)]
pub struct Identity {
    pub node: Name,
    pub architecture: String,
    pub kernel: String,
    pub subnet: Subnet,
}

/// Everything that a status is made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub bundle: Option<&'a Bundle>,
    pub view: &'a NodeView,
    pub observed: &'a Observed,
    pub pids: &'a Pids,
    /// As the agent told it last.
    pub transfer: Option<Transfer>,
    pub flash: FlashUse,
    /// The last generation that was good.
    pub last_good: Generation,
    pub refused: Option<&'a Refused>,
    pub failed: Option<&'a Failed>,
    pub held: Option<&'a Held>,
    pub outbox: OutboxStatus,
    pub now: Millis,
}

impl Identity {
    /// Of this machine.
    #[must_use]
    pub fn of_this_machine(node: Name, subnet: Subnet) -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let architecture = architecture(std::env::consts::ARCH).to_owned();
        Self { node, architecture, kernel: kernel.trim().to_owned(), subnet }
    }

    #[must_use]
    pub fn status(&self, facts: &Facts<'_>) -> NodeStatus {
        let pods = facts.view.pods.iter().map(|(name, view)| self.pod(name, view, facts));
        let phase = phase(facts);
        NodeStatus {
            node: self.node.clone(),
            wherry_version: env!("CARGO_PKG_VERSION").to_owned(),
            architecture: self.architecture.clone(),
            kernel: self.kernel.clone(),
            wall_time: clock::wall_now().millis(),
            uptime_seconds: facts.now.0 / 1000,
            generation: facts.bundle.map(|bundle| bundle.generation).unwrap_or_default(),
            versions: facts.bundle.map(|bundle| bundle.versions.clone()).unwrap_or_default(),
            refused: facts.refused.cloned(),
            failed: facts.failed.cloned(),
            held: facts.held.cloned(),
            transfer: transfer(&phase, facts),
            flash: facts.flash,
            phase,
            pods: pods.collect(),
            events_waiting: u32::try_from(facts.outbox.waiting).unwrap_or(u32::MAX),
            events_dropped: facts.outbox.dropped,
        }
    }

    fn pod(&self, name: &Name, view: &PodView, facts: &Facts<'_>) -> PodStatus {
        let seen = facts.observed.pods.get(name);
        let containers = view.containers.iter().map(|(container, view)| {
            let state = seen.and_then(|pod| pod.containers.get(container));
            let pid = facts.pids.get(&(name.clone(), container.clone())).copied();
            ContainerStatus {
                name: container.clone(),
                state: container_state(state, pid, facts.now),
                restarts: view.restarts,
                last_exit: view.last_exit,
            }
        });
        let address = view.address.and_then(|number| self.subnet.pod(number));
        PodStatus {
            name: name.clone(),
            deployment: view.deployment.clone(),
            generation: view.generation,
            address: address.map(|address| address.to_string()).unwrap_or_default(),
            phase: view.phase,
            last_error: view.last_error.clone(),
            containers: containers.collect(),
        }
    }
}

/// With what the reconciler does not know: what was good before, and how far
/// a transfer is.
fn phase(facts: &Facts<'_>) -> Phase {
    let generation = facts.bundle.map(|bundle| bundle.generation);
    match &facts.view.phase {
        Phase::Stabilising if generation == Some(facts.last_good) => Phase::Good,
        phase => with_progress(phase, facts.transfer),
    }
}

fn container_state(
    state: Option<&ObservedContainer>,
    pid: Option<u32>,
    now: Millis,
) -> ContainerState {
    match state {
        None | Some(ObservedContainer::Defined) => ContainerState::Waiting,
        Some(ObservedContainer::Running { since }) => ContainerState::Running {
            pid: pid.unwrap_or_default(),
            seconds: now.saturating_sub(*since).0 / 1000,
        },
        Some(ObservedContainer::Exited { .. }) => ContainerState::Exited,
    }
}

/// The reconciler counts whole layers; the transfer counts the bytes of those
/// that were missing when it began.
fn with_progress(phase: &Phase, transfer: Option<Transfer>) -> Phase {
    match (phase, transfer) {
        (Phase::Fetching { bytes_done, bytes_total }, Some(transfer)) => {
            let before = bytes_total.saturating_sub(transfer.bytes_total);
            let sum = before.saturating_add(transfer.bytes_done);
            let bytes_done = sum.clamp(*bytes_done, *bytes_total);
            Phase::Fetching { bytes_done, bytes_total: *bytes_total }
        }
        (phase, _) => phase.clone(),
    }
}

/// While layers are missing: of all that the generation needs.
fn transfer(phase: &Phase, facts: &Facts<'_>) -> Option<Transfer> {
    match phase {
        Phase::Fetching { bytes_done, bytes_total } => Some(Transfer {
            bytes_done: *bytes_done,
            bytes_total: *bytes_total,
            ..facts.transfer.unwrap_or_default()
        }),
        Phase::Empty | Phase::Rolling { .. } | Phase::Stabilising | Phase::Good => None,
    }
}

/// Bytes for people, as `15.4 MB`.
#[must_use]
pub fn megabytes(bytes: u64) -> String {
    // Rounded up: what needs room needs all of it.
    let tenths = bytes.div_ceil(100_000);
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

/// As images name it (`GOARCH`).
fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Decides when a status is worth sending.
#[derive(Debug, Default)]
pub struct StatusGate {
    sent: Option<(Millis, NodeStatus)>,
}

impl StatusGate {
    /// When `status` is due, if it is news; at or before `now` means at once.
    #[must_use]
    pub fn due(&self, status: &NodeStatus, now: Millis) -> Option<Millis> {
        let Some((at, sent)) = &self.sent else { return Some(now) };
        let (news, known) = (timeless(status), timeless(sent));
        if calm(&news) != calm(&known) {
            Some(at.saturating_add(STATUS_INTERVAL))
        } else if news != known {
            Some(at.saturating_add(SLOW_INTERVAL))
        } else {
            None
        }
    }

    pub fn sent(&mut self, status: NodeStatus, now: Millis) {
        self.sent = Some((now, status));
    }
}

/// Without what changes by itself.
fn timeless(status: &NodeStatus) -> NodeStatus {
    let mut status = status.clone();
    status.wall_time = Default::default();
    status.uptime_seconds = 0;
    for container in status.pods.iter_mut().flat_map(|pod| &mut pod.containers) {
        if let ContainerState::Running { seconds, .. } = &mut container.state {
            *seconds = 0;
        }
    }
    status
}

/// Without what can wait.
fn calm(status: &NodeStatus) -> NodeStatus {
    let mut status = status.clone();
    status.events_waiting = 0;
    if let Phase::Fetching { bytes_done, .. } = &mut status.phase {
        *bytes_done = 0;
    }
    // Whether there is a transfer, the phase says.
    status.transfer = None;
    status.flash = FlashUse::default();
    status
}

/// The latest events, sent or not.
#[derive(Debug, Default)]
pub struct RecentEvents(VecDeque<Event>);

impl RecentEvents {
    pub fn push(&mut self, event: Event) {
        if self.0.len() == RECENT_EVENTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(event);
    }

    /// The newest `count`, oldest first.
    #[must_use]
    pub fn tail(&self, count: usize) -> Vec<Event> {
        self.0.iter().skip(self.0.len().saturating_sub(count)).cloned().collect()
    }

    /// The newest `count` about `subject`, oldest first.
    #[must_use]
    pub fn about(&self, subject: &str, count: usize) -> Vec<Event> {
        let newest = self.0.iter().rev().filter(|event| event.subject == subject).take(count);
        let mut events: Vec<Event> = newest.cloned().collect();
        events.reverse();
        events
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use wherry_bundle::message::{EventKind, Exit, PodPhase};

    use wherry_core::{ContainerView, ObservedPod, Preparation};

    use super::*;
    use crate::supervisor::sample::{self, name};

    fn of((bytes_done, bytes_total): (u64, u64)) -> Transfer {
        Transfer { bytes_done, bytes_total, ..Transfer::default() }
    }

    fn status(pid: u32, now: Millis, progress: Option<(u64, u64)>, waiting: usize) -> NodeStatus {
        let (web, lion) = (name("web-1"), name("lion"));
        let restarted = ContainerView { restarts: 2, last_exit: Some(Exit::Code(1)) };
        let view = PodView {
            deployment: name("web"),
            generation: Generation(1),
            address: Some(9),
            phase: PodPhase::Running,
            last_error: None,
            containers: BTreeMap::from([(lion.clone(), restarted)]),
        };
        let bundle = sample::bundle();
        let since = ObservedContainer::Running { since: Millis(1_000) };
        let pod = ObservedPod {
            deployment: name("web"),
            hash: bundle.pod_hash(&bundle.deployments[0]),
            generation: Generation(1),
            address: Some(9),
            complete: true,
            containers: BTreeMap::from([(lion.clone(), since)]),
            order: vec![(lion.clone(), wherry_bundle::model::Role::Main)],
            restart_policy: wherry_bundle::model::RestartPolicy::Always,
            grace: Millis(0),
            health: BTreeMap::new(),
            unhealthy: BTreeSet::new(),
            preparation: Preparation::default(),
        };
        let observed =
            Observed { pods: BTreeMap::from([(web.clone(), pod)]), ..Observed::default() };
        let phase = Phase::Fetching { bytes_done: 30, bytes_total: 100 };
        let view = NodeView { phase, pods: BTreeMap::from([(web.clone(), view)]) };
        let identity = Identity {
            node: name("gw-1"),
            architecture: "amd64".into(),
            kernel: "6".into(),
            subnet: Subnet::default(),
        };
        identity.status(&Facts {
            bundle: Some(&bundle),
            view: &view,
            observed: &observed,
            pids: &Pids::from([((web, lion), pid)]),
            transfer: progress.map(of),
            flash: FlashUse::default(),
            last_good: Generation(0),
            refused: None,
            failed: None,
            held: None,
            outbox: OutboxStatus { waiting, dropped: 0 },
            now,
        })
    }

    #[test]
    fn a_status_says_what_is() {
        let status = status(77, Millis(61_500), None, 3);
        assert_eq!((status.generation, status.uptime_seconds), (Generation(1), 61));
        assert_eq!(status.versions[0].application, name("shop"));
        let [pod] = &status.pods[..] else { panic!("{status:?}") };
        assert_eq!((pod.address.as_str(), pod.phase), ("10.87.0.9", PodPhase::Running));
        let container = &pod.containers[0];
        assert_eq!(container.state, ContainerState::Running { pid: 77, seconds: 60 });
        assert_eq!((container.restarts, container.last_exit), (2, Some(Exit::Code(1))));
    }

    #[test]
    fn a_transfer_is_counted_with_what_was_there_before() {
        for (progress, done) in [
            (None, 30),
            (Some((0, 70)), 30),
            (Some((20, 70)), 50),
            (Some((70, 70)), 100),
            (Some((0, 100)), 30),
            (Some((900, 100)), 100),
        ] {
            let phase = status(1, Millis(0), progress, 0).phase;
            assert_eq!(phase, Phase::Fetching { bytes_done: done, bytes_total: 100 });
            let transfer = status(1, Millis(0), progress, 0).transfer.unwrap();
            assert_eq!((transfer.bytes_done, transfer.bytes_total), (done, 100));
            assert_eq!(u64::from(transfer.percent()), done);
        }
    }

    #[test]
    fn only_news_is_sent_and_not_too_often() {
        let at = |now, pid, progress, waiting| status(pid, Millis(now), progress, waiting);
        let mut gate = StatusGate::default();
        let first = at(5_000, 7, None, 1);
        assert_eq!(gate.due(&first, Millis(5_000)), Some(Millis(5_000)));
        gate.sent(first, Millis(5_000));
        assert_eq!(gate.due(&at(9_000, 7, None, 1), Millis(9_000)), None, "time alone is no news");
        let due = |status| gate.due(&status, Millis(5_100));
        assert_eq!(due(at(5_100, 8, None, 1)), Some(Millis(6_000)));
        assert_eq!(due(at(5_100, 7, Some((60, 70)), 1)), Some(Millis(15_000)));
        assert_eq!(due(at(5_100, 7, None, 0)), Some(Millis(15_000)));
    }

    #[test]
    fn recent_events_are_bounded() {
        let event = |seq| Event {
            seq,
            wall_time: Default::default(),
            boot_millis: 0,
            generation: Generation(1),
            kind: EventKind::PodCreated,
            subject: if seq % 2 == 0 { "even".into() } else { String::new() },
            text: String::new(),
        };
        let mut recent = RecentEvents::default();
        let last = RECENT_EVENTS_MAX as u64 + 10;
        (1..=last).for_each(|seq| recent.push(event(seq)));
        let seqs = |events: Vec<Event>| events.iter().map(|e| e.seq).collect::<Vec<_>>();
        assert_eq!(recent.tail(usize::MAX).len(), RECENT_EVENTS_MAX);
        assert_eq!(seqs(recent.tail(2)), [last - 1, last]);
        assert_eq!(seqs(recent.about("even", 2)), [last - 2, last]);
    }
}
