//! What the cloud asks for, by the agent: bundles and commands.
//!
//! Never here: waiting for the cloud. Without it everything goes on.

use wherry_bundle::limits::bounded_text;
use wherry_bundle::message::{Command, EventKind, Order, Outcome, Refused, Reply};
use wherry_bundle::{Bundle, Generation, Name};
use wherry_core::{Desired, Millis};

use super::carried::wanted_layers;
use super::{Node, Removal};
use crate::agent::{AckToken, AgentConfig, AgentEvent, AgentHandle};
use crate::clock;
use crate::control::CloudLink;
use crate::layers::WantedLayer;
use crate::supervisor::Event;
use crate::supervisor::durable::Found;
use crate::supervisor::executor::LauncherLost;
use crate::supervisor::judge::{Verdict, judge};
use crate::supervisor::report::{StatusGate, megabytes};

/// Between tries to commit a bundle to a disk that failed.
const COMMIT_RETRY: Millis = Millis(30_000);

impl Node {
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
            bytes_per_second_max: self.config.transfer_bytes_per_second_max,
        };
        let sender = self.sender.clone();
        let sink = move |event| {
            // It fails only while the supervisor ends.
            let _ = sender.send(Event::Agent(event));
        };
        match AgentHandle::spawn(config, store, Box::new(sink)) {
            Ok(agent) => {
                agent.events_pending();
                self.agent = Some(agent);
                self.want_layers();
                self.gate = StatusGate::default();
                self.wake_at = Some(clock::boot_now());
            }
            Err(error) => log::error!("no connection to the cloud: the agent: {error}"),
        }
    }

    pub(super) fn agent_event(
        &mut self,
        event: AgentEvent,
        now: Millis,
    ) -> Result<(), LauncherLost> {
        match event {
            AgentEvent::Connected => {
                log::info!("connected to the cloud's broker");
                self.cloud = CloudLink { connected: true, last_error: None };
                self.tell_pods_of_damage();
            }
            AgentEvent::Disconnected(why) => {
                log::warn!("no connection to the broker: {why}");
                self.cloud = CloudLink { connected: false, last_error: Some(why) };
                self.tell_pods_of_damage();
            }
            AgentEvent::Desired { bytes, token } => self.judge(bytes, Some(token), now),
            AgentEvent::Command(command) => self.command(command, now)?,
            AgentEvent::LayerBegun { layer, bytes_missing } => {
                let (short, whole) = (layer.digest.short(), megabytes(layer.size_bytes));
                let text = format!(
                    "layer {short}: {} of {whole} are not on this node",
                    megabytes(bytes_missing)
                );
                self.tell(EventKind::TransferStarted, "", &text, now);
            }
            AgentEvent::LayerDone { layer, bytes_fetched, bytes_copied } => {
                self.observed.layers.insert(layer);
                // Should it be lost, it has to be asked for again.
                self.observed.fetching.retain(|fetched| fetched.digest != layer);
                let text = format!(
                    "layer {}: {} fetched, {} copied on this node",
                    layer.short(),
                    megabytes(bytes_fetched),
                    megabytes(bytes_copied)
                );
                self.tell(EventKind::LayerFetched, "", &text, now);
                self.layer_is_whole(layer, now);
            }
            AgentEvent::LayerFailed { layer, error, is_no_space } => {
                let text = format!("layer {}: {error}", layer.short());
                self.tell(EventKind::LayerFailed, "", &text, now);
                if is_no_space {
                    self.disk_is_full(now);
                }
            }
            AgentEvent::Progress(transfer) => self.transfer = Some(transfer),
        }
        Ok(())
    }

    /// Tells the agent which layers are missing, and how they are cut.
    pub(super) fn want_layers(&self) {
        let Some(agent) = &self.agent else { return };
        let mut wanted = self.bundle.as_ref().map(wanted_layers).unwrap_or_default();
        let fetching = &self.observed.fetching;
        let urgency = |wanted: &WantedLayer| fetching.iter().position(|l| *l == wanted.layer);
        wanted.retain(|wanted| !self.is_applying && urgency(wanted).is_some());
        wanted.sort_by_key(urgency);
        if !self.is_applying {
            wanted.extend(self.repairs());
        }
        agent.want(wanted);
    }

    pub(super) fn judge(&mut self, bytes: Vec<u8>, token: Option<AckToken>, now: Millis) {
        let trusted = &self.config.trusted_keys;
        match judge(&bytes, trusted, &self.config.node, self.durable.held()) {
            Verdict::TakeUp(bundle) => {
                self.tell_received(bundle.generation, now);
                let Some(lacks) = self.kernel_lacks() else {
                    return self.wait_for_kernel(bytes, token);
                };
                let reasons = self.reasons_against(&bundle, lacks);
                if !reasons.is_empty() {
                    let (generation, reason) = (bundle.generation, reasons.join("; "));
                    let reason = bounded_text(&reason);
                    self.refuse(&Refused { generation, reason }, now);
                    return self.settled(token);
                }
                if let Some((bundle, bytes)) = self.hold(bundle, bytes, now) {
                    // Acknowledged once it is durable.
                    return self.take_up(*bundle, bytes, token, now);
                }
            }
            Verdict::Same => log::debug!("the current bundle came once more"),
            Verdict::Failed => log::info!("the bundle that failed came once more"),
            Verdict::Nothing => log::info!("the cloud asks for nothing; what runs runs on"),
            Verdict::Refuse(refused) => self.refuse(&refused, now),
        }
        self.settled(token);
    }

    /// Makes `bundle` what the node works towards. If the disk does not take
    /// it, it is tried again.
    pub(super) fn take_up(
        &mut self,
        bundle: Bundle,
        envelope: Vec<u8>,
        token: Option<AckToken>,
        now: Millis,
    ) {
        if let Err(error) = self.durable.take_up(&bundle, &envelope, self.bundle.as_ref()) {
            log::error!("generation {} is not taken up yet: {error}", bundle.generation);
            self.uncommitted = Some((envelope, token, now.saturating_add(COMMIT_RETRY)));
            return;
        }
        self.interim = None;
        self.forget_waiting();
        self.desire(bundle);
        let text = format!("generation {} taken up", self.desired.generation);
        self.tell(EventKind::BundleTakenUp, "", &text, now);
        self.make_room(now);
        self.settled(token);
    }

    /// Once: it comes again with each connection while it is held, and is
    /// judged again once the kernel was tried.
    fn tell_received(&mut self, generation: Generation, now: Millis) {
        if self.received < generation {
            self.received = generation;
            let text = format!("generation {generation} received");
            self.tell(EventKind::BundleReceived, "", &text, now);
        }
    }

    pub(super) fn refuse(&mut self, refused: &Refused, now: Millis) {
        let news = self.durable.refuse(refused).unwrap_or_else(|error| {
            log::error!("a refusal is not durable: {error}");
            true
        });
        if news {
            let text = format!("a bundle is refused: {}", refused.reason);
            self.tell(EventKind::BundleRefused, "", &text, now);
        }
    }

    /// What came before this one need not be committed any more.
    fn settled(&mut self, token: Option<AckToken>) {
        self.uncommitted = None;
        self.unchecked = None;
        if let (Some(agent), Some(token)) = (&self.agent, token) {
            agent.ack_desired(token);
        }
    }

    pub(super) fn adopt(&mut self, found: Found, now: Millis) {
        for recovery in found.recoveries {
            self.tell(EventKind::StoreRecovered, "", &recovery.to_string(), now);
        }
        self.health.extend(found.health);
        if let Some(bundle) = found.bundle {
            self.desire(bundle);
        }
    }

    pub(super) fn desire(&mut self, bundle: Bundle) {
        self.desired = Desired::of(&bundle);
        if self.removal != Removal::No {
            self.desired.workloads.clear();
        }
        self.observed.layers = self.durable.present(Some(&bundle));
        self.observed.succeeded = self.durable.succeeded(&bundle);
        let pods = &self.observed.pods;
        self.health.retain(|hash| !self.listed || pods.values().any(|pod| pod.hash == *hash));
        self.health.learn(&bundle);
        self.bundle = Some(bundle);
        self.watch_layers();
    }

    fn command(&mut self, command: Command, now: Millis) -> Result<(), LauncherLost> {
        let Some(agent) = &self.agent else { return Ok(()) };
        let (id, uplink) = (command.id, agent.uplink());
        let result = match command.order {
            Order::Logs(query) => {
                let (folder, progress) =
                    (self.collector.folder().clone(), self.collector.progress());
                match self.log_orders.begin(id, query, uplink.clone(), folder, progress) {
                    // The thread replies.
                    Ok(()) => return Ok(()),
                    Err(error) => Err(error),
                }
            }
            Order::End { id } => {
                self.log_orders.end(id);
                self.end_for_cloud(id)?;
                Ok(Outcome::Done("ended".into()))
            }
            Order::RestartPod { pod } => self.restart(&pod, now).map(Outcome::Done),
            Order::PrepareExec => self.prepare_exec(now),
            Order::Exec(signed) => {
                match self.exec_for_cloud(id, &signed, uplink.clone(), now)? {
                    // So does the thread that takes what it writes.
                    Ok(()) => return Ok(()),
                    Err(error) => Err(error),
                }
            }
        };
        let result = result.map_err(|error| bounded_text(&error));
        if let Err(error) = uplink.reply(&Reply { id, result }) {
            log::warn!("the reply to command {id} is lost: {error}");
        }
        Ok(())
    }

    pub(super) fn restart(&mut self, pod: &Name, now: Millis) -> Result<String, String> {
        if !self.observed.pods.contains_key(pod) {
            return Err(format!("there is no pod `{pod}` on this node"));
        }
        if let Some(job) = self.job_done_in(pod) {
            return Err(format!(
                "job {job} has succeeded: it runs again when its template changes"
            ));
        }
        self.desired.replace.insert(pod.clone());
        self.tell(EventKind::CommandDone, pod.as_str(), "is being replaced on request", now);
        Ok(format!("pod {pod} is being replaced by a new one"))
    }

    fn job_done_in(&self, pod: &Name) -> Option<&Name> {
        let seen = self.observed.pods.get(pod)?;
        let job = self.desired.workloads.get(&seen.deployment).filter(|w| w.job.is_some())?;
        let is_done = self.observed.is_done(&seen.deployment, job);
        (is_done && seen.hash == job.hash).then_some(&seen.deployment)
    }
}
