//! The loop's state, and what each event does to it.
//!
//! `handle` only takes in what an event says; `settle` lets the reconciler
//! decide and begins what it asks for. Never here: waiting for anything but
//! the store's commit of a new bundle.

use std::sync::mpsc::SyncSender;

use wherry_bundle::limits::bounded_text;
use wherry_bundle::message::{
    Command, Event as NodeEvent, EventKind, NodeStatus, Order, Phase, Reply,
};
use wherry_bundle::{Bundle, Generation, Name};
use wherry_core::{Action, Desired, Ledger, Millis, NodeView, Observed, ObservedContainer};
use wherry_runtime::client::LauncherClient;
use wherry_runtime::proto::{ContainerState, Notice, PodReport};

use super::describe::{Descriptions, describe};
use super::durable::{Durable, Found};
use super::executor::{Executor, LauncherLost, Outcome};
use super::judge::{Verdict, judge};
use super::orders::LogOrders;
use super::report::{Facts, Identity, Pids, RecentEvents, StatusGate};
use super::{Event, SupervisorError, ledger_file, translate};
use crate::agent::{AckToken, AgentConfig, AgentEvent, AgentHandle};
use crate::clock;
use crate::config::Config;
use crate::control::{Ask, CloudLink, LocalStatus, Request, Response};
use crate::logs::{Collector, LogFolder};
use crate::store::NewEvent;

/// A generation that ran for so long without a pod missing is good.
const GOOD_AFTER: Millis = Millis(60_000);
/// Between tries to commit a bundle to a disk that failed.
const COMMIT_RETRY: Millis = Millis(30_000);
/// Beyond the longest grace, for draining and removing.
const REMOVAL_MARGIN: Millis = Millis(15_000);
/// Failures that show at once are decided on at once, but not for ever.
const ROUNDS_MAX: usize = 8;
/// Unacknowledged events that `wherry events` shows after a restart.
const OLD_EVENTS_BYTES_MAX: usize = 64 * 1024;

/// `wherry stop --all`: every pod goes, and then the node. Nothing else is
/// desired meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removal {
    No,
    Begun {
        until: Millis,
    },
    /// The launcher was told to.
    Purging,
}

#[derive(Debug)]
pub struct Node {
    config: Config,
    identity: Identity,
    sender: SyncSender<Event>,
    durable: Durable,
    agent: Option<AgentHandle>,
    cloud: CloudLink,
    executor: Executor,
    collector: Collector,
    bundle: Option<Bundle>,
    desired: Desired,
    observed: Observed,
    ledger: Ledger,
    pids: Pids,
    listed: bool,
    removal: Removal,
    wake_at: Option<Millis>,
    /// Bytes done and wanted of the transfer under way.
    progress: Option<(u64, u64)>,
    /// An envelope that could not be committed yet, and when to try again.
    uncommitted: Option<(Vec<u8>, AckToken, Millis)>,
    running_since: Option<(Generation, Millis)>,
    gate: StatusGate,
    recent: RecentEvents,
    log_orders: LogOrders,
    descriptions: Descriptions,
}

impl Node {
    /// Opens the store and finds the bundle that was current.
    ///
    /// # Errors
    /// Folders or threads cannot be made.
    pub fn new(
        config: Config,
        launcher: LauncherClient,
        sender: SyncSender<Event>,
        now: Millis,
    ) -> Result<Self, SupervisorError> {
        let (durable, found) = Durable::open(&config.data, &config.node, now)?;
        let ledger = ledger_file::load(&config.run.ledger()).unwrap_or_else(|error| {
            log::warn!("the ledger is lost, back-off starts over: {error}");
            None
        });
        let folder = LogFolder::new(config.run.logs(), config.log_file_bytes_max);
        let collector = Collector::start(folder).map_err(super::setup("collect logs"))?;
        let mut node = Self {
            identity: Identity::of_this_machine(config.node.clone(), config.subnet),
            sender,
            durable,
            agent: None,
            cloud: CloudLink::default(),
            executor: Executor::new(launcher, config.subnet, config.run.volumes()),
            collector,
            bundle: None,
            desired: Desired::default(),
            observed: Observed::default(),
            ledger: ledger.unwrap_or_default(),
            pids: Pids::new(),
            listed: false,
            removal: Removal::No,
            wake_at: None,
            progress: None,
            uncommitted: None,
            running_since: None,
            gate: StatusGate::default(),
            recent: RecentEvents::default(),
            log_orders: LogOrders::default(),
            descriptions: Descriptions::default(),
            config,
        };
        node.recall_events();
        node.adopt(found, now);
        Ok(node)
    }

    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    #[must_use]
    pub fn collector(&self) -> &Collector {
        &self.collector
    }

    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// # Errors
    /// [`LauncherLost`].
    pub fn list(&mut self) -> Result<(), LauncherLost> {
        self.executor.list()
    }

    /// When to settle again at the latest.
    #[must_use]
    pub fn wake_at(&self) -> Option<Millis> {
        self.wake_at
    }

    /// Starts the agent, if there is a store to serve it and none runs yet.
    /// A failure is tried again when the store is; pods need no agent.
    pub fn connect(&mut self) {
        let (None, Some(store)) = (&self.agent, self.durable.store()) else { return };
        let config = AgentConfig {
            node: self.config.node.clone(),
            host: self.config.broker.host.clone(),
            port: self.config.broker.port,
            password: self.config.broker.password.clone(),
            layers: self.durable.layers().clone(),
        };
        let sender = self.sender.clone();
        let sink = move |event| {
            // It fails only while the supervisor ends.
            let _ = sender.send(Event::Agent(event));
        };
        match AgentHandle::spawn(config, store, Box::new(sink)) {
            Ok(agent) => {
                agent.want(self.observed.fetching.clone());
                agent.events_pending();
                self.agent = Some(agent);
                self.gate = StatusGate::default();
                self.wake_at = Some(clock::boot_now());
            }
            Err(error) => log::error!("no connection to the cloud: the agent: {error}"),
        }
    }

    /// Takes in what `event` says.
    ///
    /// # Errors
    /// [`LauncherLost`].
    pub fn handle(&mut self, event: Event, now: Millis) -> Result<(), LauncherLost> {
        match event {
            Event::Launcher(notice) => self.heard(*notice),
            Event::Agent(event) => self.agent_event(event, now),
            Event::Ask(ask) => self.asked(ask, now)?,
            // The loop ends by these before they get here.
            Event::LauncherGone | Event::Terminate => {}
        }
        Ok(())
    }

    /// Decides, keeps the ledger, begins what was decided, and tells about
    /// it.
    ///
    /// # Errors
    /// [`LauncherLost`].
    pub fn settle(&mut self, now: Millis) -> Result<(), LauncherLost> {
        if let Some(found) = self.durable.retry(now) {
            if self.bundle.is_none() {
                self.adopt(found, now);
            }
            self.connect();
        }
        if let Some((bytes, token, _)) = self.uncommitted.take_if(|(_, _, at)| *at <= now) {
            self.judge(bytes, token, now);
        }
        let mut wake_at = None;
        for _ in 0..ROUNDS_MAX {
            if self.removal == Removal::Purging {
                // The launcher takes down what is left: no news to anybody.
                break;
            }
            wake_at = self.reconcile(now)?;
            if self.observed.failures.is_empty() {
                break;
            }
        }
        let purge_at = self.purge_when_empty(now)?;
        let view = wherry_core::status(&self.desired, &self.observed, &self.ledger);
        let good_at = self.notice_good(&view, now);
        let status_at = self.publish_status(&view, now);
        let commit_at = self.uncommitted.as_ref().map(|(_, _, at)| *at);
        let retry_at = self.durable.retry_at();
        self.wake_at = [wake_at, purge_at, good_at, status_at, commit_at, retry_at]
            .into_iter()
            .flatten()
            .min();
        Ok(())
    }

    /// Says farewell to the cloud and makes all events durable. Containers
    /// run on.
    pub fn end(self) {
        if let Some(agent) = self.agent {
            agent.shutdown();
        }
    }

    /// Nothing is desired any more: the reconciler stops each pod with its
    /// grace.
    fn begin_removal(&mut self, now: Millis) {
        let grace = self.observed.pods.values().map(|pod| pod.grace).max().unwrap_or_default();
        let until = now.saturating_add(grace).saturating_add(REMOVAL_MARGIN);
        self.removal = Removal::Begun { until };
        self.desired.workloads.clear();
    }

    /// Has the launcher sweep up and end, once all pods are gone or their
    /// time is over; when to look again.
    fn purge_when_empty(&mut self, now: Millis) -> Result<Option<Millis>, LauncherLost> {
        let Removal::Begun { until } = self.removal else { return Ok(None) };
        // Without a bundle the reconciler touches nothing.
        if self.observed.pods.is_empty() || self.bundle.is_none() || now >= until {
            self.removal = Removal::Purging;
            self.executor.end(true)?;
            return Ok(None);
        }
        Ok(Some(until))
    }

    fn reconcile(&mut self, now: Millis) -> Result<Option<Millis>, LauncherLost> {
        self.observed.in_flight = self.executor.in_flight().cloned().collect();
        let plan = wherry_core::reconcile(&self.desired, &self.observed, &self.ledger, now);
        // Both are for one reconcile only; the ledger remembers.
        self.observed.failures.clear();
        self.desired.replace.clear();
        if plan.ledger != self.ledger {
            self.ledger = plan.ledger;
            if let Err(error) = ledger_file::save(&self.config.run.ledger(), &self.ledger) {
                log::warn!("the ledger is not kept: {error}");
            }
        }
        for notice in plan.notices {
            self.tell(notice.kind, &notice.subject, &notice.text, now);
        }
        for action in plan.actions {
            log::debug!("begins {action:?}");
            if let Action::Fetch { layers } = action {
                if let Some(agent) = &self.agent {
                    agent.want(layers.clone());
                }
                self.progress = None;
                self.observed.fetching = layers;
            } else if let Some(outcome) = self.executor.begin(action, self.bundle.as_ref())? {
                self.came_of(outcome);
            }
        }
        Ok(plan.wake_at)
    }

    fn heard(&mut self, notice: Notice) {
        match notice {
            Notice::Done { seq } => self.answered(seq, Ok(())),
            Notice::Failed { seq, error } => self.answered(seq, Err(error.as_str().to_owned())),
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
        }
    }

    fn answered(&mut self, seq: u32, result: Result<(), String>) {
        if let Some(outcome) = self.executor.answered(seq, result) {
            self.came_of(outcome);
        }
    }

    fn came_of(&mut self, outcome: Outcome) {
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
            Outcome::Listed => self.all_reported(),
            Outcome::UsageAnswered(seq) => self.descriptions.answered(seq),
            Outcome::NotEnded(error) => log::error!("the node cannot be ended: {error}"),
        }
    }

    fn done(&mut self, action: Action) {
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
            | Action::TerminatePod { .. }
            | Action::KillPod { .. } => {}
        }
    }

    fn reported(&mut self, report: &PodReport) {
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

    fn all_reported(&mut self) {
        self.listed = true;
        let found = self.observed.pods.len();
        log::info!("{found} pods are there, generation {}", self.desired.generation);
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
    }

    fn container_is(&mut self, pod: &Name, container: &Name, state: ContainerState) {
        let seen: Option<&mut ObservedContainer> =
            self.observed.pods.get_mut(pod).and_then(|pod| pod.containers.get_mut(container));
        match seen {
            Some(seen) => *seen = translate::observed_container(state),
            None => log::debug!("{pod}/{container}: a notice of a pod that is not known"),
        }
    }

    fn watch(&self, pod: &Name, container: &Name) {
        let folder = self.config.run.container(pod, container);
        if let Err(error) = self.collector.watch(pod, container, &folder) {
            log::warn!("{pod}/{container} has no logs: {error}");
        }
    }

    fn prune_volumes(&self) {
        self.executor.prune_volumes(self.observed.pods.values().map(|pod| pod.hash).collect());
    }

    fn agent_event(&mut self, event: AgentEvent, now: Millis) {
        match event {
            AgentEvent::Connected => {
                log::info!("connected to the cloud's broker");
                self.cloud = CloudLink { connected: true, last_error: None };
            }
            AgentEvent::Disconnected(why) => {
                log::warn!("no connection to the broker: {why}");
                self.cloud = CloudLink { connected: false, last_error: Some(why) };
            }
            AgentEvent::Desired { bytes, token } => self.judge(bytes, token, now),
            AgentEvent::Command(command) => self.command(command, now),
            AgentEvent::LayerDone(layer) => {
                self.observed.layers.insert(layer);
                self.tell(EventKind::LayerFetched, "", &format!("layer {}", layer.short()), now);
            }
            AgentEvent::LayerFailed { layer, error } => {
                let text = format!("layer {}: {error}", layer.short());
                self.tell(EventKind::LayerFailed, "", &text, now);
            }
            AgentEvent::Progress { bytes_done, bytes_total } => {
                self.progress = Some((bytes_done, bytes_total));
            }
        }
    }

    fn judge(&mut self, bytes: Vec<u8>, token: AckToken, now: Millis) {
        let trusted = &self.config.trusted_keys;
        match judge(&bytes, trusted, &self.config.node, self.durable.held()) {
            Verdict::TakeUp(bundle) => {
                if let Err(error) = self.durable.take_up(&bundle, &bytes, self.bundle.as_ref()) {
                    log::error!("generation {} is not taken up yet: {error}", bundle.generation);
                    self.uncommitted = Some((bytes, token, now.saturating_add(COMMIT_RETRY)));
                    return;
                }
                self.desire(*bundle);
                let text = format!("generation {} taken up", self.desired.generation);
                self.tell(EventKind::BundleTakenUp, "", &text, now);
            }
            Verdict::Same => log::debug!("the current bundle came once more"),
            Verdict::Nothing => log::info!("the cloud asks for nothing; what runs runs on"),
            Verdict::Refuse(refused) => {
                let news = self.durable.refuse(&refused).unwrap_or_else(|error| {
                    log::error!("a refusal is not durable: {error}");
                    true
                });
                if news {
                    let text = format!("a bundle is refused: {}", refused.reason);
                    self.tell(EventKind::BundleRefused, "", &text, now);
                }
            }
        }
        // What came before this one need not be committed any more.
        self.uncommitted = None;
        if let Some(agent) = &self.agent {
            agent.ack_desired(token);
        }
    }

    fn adopt(&mut self, found: Found, now: Millis) {
        for recovery in found.recoveries {
            self.tell(EventKind::StoreRecovered, "", &recovery.to_string(), now);
        }
        if let Some(bundle) = found.bundle {
            self.desire(bundle);
        }
    }

    fn desire(&mut self, bundle: Bundle) {
        self.desired = Desired::of(&bundle);
        if self.removal != Removal::No {
            self.desired.workloads.clear();
        }
        self.observed.layers = self.durable.present(Some(&bundle));
        self.bundle = Some(bundle);
    }

    fn command(&mut self, command: Command, now: Millis) {
        let Some(agent) = &self.agent else { return };
        let (id, uplink) = (command.id, agent.uplink());
        let result = match command.order {
            Order::Logs(query) => {
                let (folder, progress) =
                    (self.collector.folder().clone(), self.collector.progress());
                match self.log_orders.begin(id, query, uplink.clone(), folder, progress) {
                    // The thread replies.
                    Ok(()) => return,
                    Err(error) => Err(error),
                }
            }
            Order::EndLogs { id } => {
                self.log_orders.end(id);
                Ok("ended".into())
            }
            Order::RestartPod { pod } => self.restart(&pod, now),
        };
        let result = result.map_err(|error| bounded_text(&error));
        if let Err(error) = uplink.reply(&Reply { id, result }) {
            log::warn!("the reply to command {id} is lost: {error}");
        }
    }

    fn restart(&mut self, pod: &Name, now: Millis) -> Result<String, String> {
        if !self.observed.pods.contains_key(pod) {
            return Err(format!("there is no pod `{pod}` on this node"));
        }
        self.desired.replace.insert(pod.clone());
        self.tell(EventKind::CommandDone, pod.as_str(), "is being replaced on request", now);
        Ok(format!("pod {pod} is being replaced by a new one"))
    }

    fn asked(&mut self, Ask { request, answer }: Ask, now: Millis) -> Result<(), LauncherLost> {
        let view = wherry_core::status(&self.desired, &self.observed, &self.ledger);
        let response = match request {
            Request::Status => {
                let (node, cloud) = (self.status(&view, now), self.cloud.clone());
                Response::Status(Box::new(LocalStatus { node, cloud }))
            }
            Request::Describe { pod } => {
                let status = self.status(&view, now);
                let described =
                    describe(&pod, &status, &self.observed, &self.recent, self.bundle.as_ref());
                let mut asked = Vec::new();
                for known in described.iter().filter(|known| known.restart_policy.is_some()) {
                    asked.push(self.executor.usage(&known.status.name)?);
                }
                self.descriptions.begin(&pod, described, asked, answer);
                return Ok(());
            }
            Request::Events { tail } => {
                Response::Events(self.recent.tail(usize::try_from(tail).unwrap_or(usize::MAX)))
            }
            Request::Logs(_) => Response::Error("logs are read by the connection".into()),
            Request::Stop { all } => {
                log::info!("told to stop{}", if all { " and to remove every pod" } else { "" });
                if all {
                    self.begin_removal(now);
                } else {
                    self.executor.end(false)?;
                }
                Response::Ending { pid: std::os::unix::process::parent_id() }
            }
        };
        // Whoever asked may be gone.
        let _ = answer.try_send(response);
        Ok(())
    }

    fn status(&self, view: &NodeView, now: Millis) -> NodeStatus {
        self.identity.status(&Facts {
            bundle: self.bundle.as_ref(),
            view,
            observed: &self.observed,
            pids: &self.pids,
            progress: self.progress,
            refused: self.durable.refused(),
            outbox: self.durable.outbox(),
            now,
        })
    }

    /// Sends the status if it is due; when it will be, if it is not.
    fn publish_status(&mut self, view: &NodeView, now: Millis) -> Option<Millis> {
        let agent = self.agent.as_ref()?;
        let status = self.status(view, now);
        let due = self.gate.due(&status, now)?;
        if due > now {
            return Some(due);
        }
        agent.publish_status(status.clone());
        self.gate.sent(status, now);
        None
    }

    /// Marks a generation that has run well for a while; when to look again.
    fn notice_good(&mut self, view: &NodeView, now: Millis) -> Option<Millis> {
        let bundle = self.bundle.as_ref().filter(|_| view.phase == Phase::Running)?;
        let generation = bundle.generation;
        if self.durable.last_good() == generation {
            return None;
        }
        let since = match self.running_since {
            Some((of, since)) if of == generation => since,
            Some(_) | None => {
                self.running_since = Some((generation, now));
                now
            }
        };
        let due = since.saturating_add(GOOD_AFTER);
        if now < due {
            return Some(due);
        }
        if let Err(error) = self.durable.mark_good(bundle) {
            log::warn!("generation {generation} is not marked as good yet: {error}");
            self.running_since = Some((generation, now));
            return Some(now.saturating_add(GOOD_AFTER));
        }
        log::info!("generation {generation} is good");
        None
    }

    /// To people here and in the cloud.
    fn tell(&mut self, kind: EventKind, subject: &str, text: &str, now: Millis) {
        let about = if subject.is_empty() { String::new() } else { format!("{subject}: ") };
        match kind {
            EventKind::BundleRefused
            | EventKind::LayerFailed
            | EventKind::ContainerFailed
            | EventKind::StoreRecovered => log::warn!("{about}{text}"),
            EventKind::Started
            | EventKind::BundleTakenUp
            | EventKind::LayerFetched
            | EventKind::PodCreated
            | EventKind::ContainerStarted
            | EventKind::ContainerExited
            | EventKind::PodAvailable
            | EventKind::PodRemoved
            | EventKind::GenerationRunning
            | EventKind::CommandDone => log::info!("{about}{text}"),
        }
        let event = NewEvent {
            wall_time: clock::wall_now().millis(),
            boot_millis: now.0,
            generation: self.desired.generation,
            kind,
            subject: subject.to_owned(),
            text: bounded_text(text),
        };
        let seq = self.durable.push_event(&event);
        if let Some(agent) = &self.agent {
            agent.events_pending();
        }
        let NewEvent { wall_time, boot_millis, generation, kind, subject, text } = event;
        let event = NodeEvent { seq, wall_time, boot_millis, generation, kind, subject, text };
        self.recent.push(event);
    }

    /// What the cloud does not have yet is shown here too after a restart.
    fn recall_events(&mut self) {
        let Some(store) = self.durable.store() else { return };
        match store.events_after(0, OLD_EVENTS_BYTES_MAX) {
            Ok(events) => events.into_iter().for_each(|event| self.recent.push(event)),
            Err(error) => log::warn!("events of before cannot be read: {error}"),
        }
    }
}
