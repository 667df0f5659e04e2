//! What the launcher tells, and what came of the actions it was asked for.

use wherry_bundle::Name;
use wherry_bundle::message::EventKind;
use wherry_core::{Action, ObservedContainer};
use wherry_runtime::proto::{ContainerState, Notice, PodReport};

use super::Node;
use crate::clock;
use crate::supervisor::executor::{LauncherLost, Outcome};
use crate::supervisor::heart::Heart;
use crate::supervisor::translate;

impl Node {
    pub(super) fn heard(&mut self, notice: Notice) {
        match notice {
            Notice::Done { seq } => self.answered(seq, Ok(())),
            Notice::Failed { seq, error } => self.answered(seq, Err(error.as_str().to_owned())),
            Notice::NotTried { seq, error } => self.not_tried(seq, error.as_str()),
            Notice::Pod(report) => self.reported(&report),
            Notice::Started { pod, container, pid, since_millis } => {
                // Its FIFOs may have been made anew.
                self.watch(&pod, &container);
                self.pids.insert((pod.clone(), container.clone()), pid);
                let state = ContainerState::Running { pid, since_millis };
                self.container_is(&pod, &container, state);
            }
            Notice::Exited { pod, container, exit, started_millis, at_millis } => {
                self.collector.ended(&pod, &container);
                self.pids.remove(&(pod.clone(), container.clone()));
                let state = ContainerState::Exited { exit, started_millis, at_millis };
                self.container_is(&pod, &container, state);
            }
            Notice::Usage { pod, usage } => self.descriptions.usage(&pod, &usage),
            Notice::Ended { seq, exit } => {
                if let Some(outcome) = self.executor.ended(seq, exit) {
                    self.came_of(outcome);
                }
            }
        }
    }

    pub(super) fn answered(&mut self, seq: u32, result: Result<(), String>) {
        if let Some(outcome) = self.executor.answered(seq, result) {
            self.came_of(outcome);
        }
    }

    fn not_tried(&mut self, seq: u32, error: &str) {
        if let Some(outcome) = self.executor.not_tried(seq, error) {
            self.came_of(outcome);
        }
    }

    pub(super) fn came_of(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Created(name, pod) => {
                for container in pod.containers.keys() {
                    self.watch(&name, container);
                }
                self.observed.pods.insert(name, pod);
            }
            Outcome::Done(action) => self.done(action),
            Outcome::Failed(action, error) => {
                log::debug!("failed: {action:?}: {error}");
                if matches!(action, Action::CreatePod { .. } | Action::StartContainer { .. }) {
                    // Perhaps a layer is no longer what it was.
                    self.observed.layers = self.durable.present(self.bundle.as_ref());
                }
                if matches!(action, Action::Publish { .. }) {
                    // It may have been done in part: what holds is not known.
                    self.observed.publication = None;
                }
                self.observed.failures.insert(action, error);
            }
            Outcome::Probed(of, result) => self.probed(&of, result, clock::boot_now()),
            Outcome::NotProbed(of) => self.probes.not_tried(&of, clock::boot_now()),
            Outcome::Listed => self.all_reported(),
            Outcome::UsageAnswered(seq) => self.descriptions.answered(seq),
            Outcome::Executed(number, result) => self.executed(number, result),
            Outcome::NotEnded(error) => log::error!("the node cannot be ended: {error}"),
        }
    }

    pub(super) fn done(&mut self, action: Action) {
        match action {
            Action::RemovePod { pod } => {
                self.observed.pods.remove(&pod);
                self.pids.retain(|(of, _), _| *of != pod);
                self.collector.forget(&pod);
                self.prune_volumes();
            }
            Action::Publish { publication } => self.observed.publication = Some(publication),
            // What containers do is told by their own notices.
            Action::Fetch { .. }
            | Action::CreatePod { .. }
            | Action::StartContainer { .. }
            | Action::TerminateContainer { .. }
            | Action::KillContainer { .. }
            | Action::PreStop { .. }
            | Action::TerminatePod { .. }
            | Action::KillPod { .. } => {}
        }
    }

    pub(super) fn reported(&mut self, report: &PodReport) {
        for container in &report.containers {
            self.watch(&report.name, &container.name);
            let key = (report.name.clone(), container.name.clone());
            if let ContainerState::Running { pid, .. } = container.state {
                self.pids.insert(key, pid);
            }
        }
        let pod = translate::observed_pod(report, self.config.subnet);
        self.observed.pods.insert(report.name.clone(), pod);
    }

    pub(super) fn all_reported(&mut self) {
        self.listed = true;
        let found = self.observed.pods.len();
        log::info!("{found} pods are there, generation {}", self.desired.generation);
        if found == 0 {
            self.begin_interim(clock::boot_now());
        }
        match self.collector.folder().pods() {
            Ok(pods) => {
                let gone = pods.iter().filter(|pod| !self.observed.pods.contains_key(pod));
                gone.for_each(|pod| self.collector.forget(pod));
            }
            Err(error) => log::warn!("logs of former pods are left: {error}"),
        }
        self.prune_volumes();
        let text = format!("wherry {} found {found} pods", env!("CARGO_PKG_VERSION"));
        self.tell(EventKind::Started, "", &text, clock::boot_now());
        self.tell_of_booting();
    }

    /// What went wrong before the node was there, if it is the machine's own
    /// first program that knows: told once.
    fn tell_of_booting(&mut self) {
        let Ok(problems) = std::fs::read_to_string(wherry_runtime::init::REPORT_PATH) else {
            return;
        };
        for problem in problems.lines() {
            let text = format!("while booting: {problem}");
            self.tell(EventKind::Started, "", &text, clock::boot_now());
        }
        if let Err(error) = std::fs::remove_file(wherry_runtime::init::REPORT_PATH) {
            log::warn!("{}: {error}", wherry_runtime::init::REPORT_PATH);
        }
    }

    /// Proves that the loop goes on, if somebody wants to know.
    ///
    /// # Errors
    /// [`LauncherLost`].
    pub fn beat_if_due(&mut self, heart: &mut Heart) -> Result<(), LauncherLost> {
        if heart.is_due(clock::boot_now()) { self.executor.beat() } else { Ok(()) }
    }

    pub(super) fn container_is(&mut self, pod: &Name, container: &Name, state: ContainerState) {
        let seen: Option<&mut ObservedContainer> =
            self.observed.pods.get_mut(pod).and_then(|pod| pod.containers.get_mut(container));
        match seen {
            Some(seen) => *seen = translate::observed_container(state),
            None => log::debug!("{pod}/{container}: a notice of a pod that is not known"),
        }
    }

    pub(super) fn watch(&self, pod: &Name, container: &Name) {
        let folder = self.config.run.container(pod, container);
        if let Err(error) = self.collector.watch(pod, container, &folder) {
            log::warn!("{pod}/{container} has no logs: {error}");
        }
    }

    pub(super) fn prune_volumes(&self) {
        self.executor.prune_volumes(self.observed.pods.values().map(|pod| pod.hash).collect());
    }
}
