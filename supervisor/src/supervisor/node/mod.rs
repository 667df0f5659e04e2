//! The loop's state, and what each event does to it.
//!
//! `handle` only takes in what an event says; `settle` lets the reconciler
//! decide and begins what it asks for. Never here: waiting for anything but
//! the store's commit of a new bundle, or of a job that has succeeded.

mod carried;
mod claims;
mod cloud;
mod exec;
mod health;
mod hold;
mod interim;
mod launcher;
mod layers;
mod local;
mod preflight;
mod tell;
mod upgrade;

use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;

use wherry_bundle::message::Transfer;
use wherry_bundle::{Bundle, Digest, Generation};
use wherry_core::upgrade::Watch;
use wherry_core::{Action, Desired, Ledger, Millis, Observed};
use wherry_runtime::client::LauncherClient;
use wherry_runtime::seal::SELF_EXE;

use self::claims::Claims;
use self::exec::Running;
use self::hold::Waiting;
use self::interim::Interim;
use self::preflight::Unchecked;
use super::describe::Descriptions;
use super::durable::Durable;
use super::executor::{Executor, LauncherLost};
use super::flash::FlashCount;
use super::health::HealthSpecs;
use super::nonces::Nonces;
use super::orders::LogOrders;
use super::preflight::kernel::Kernel;
use super::probes::Probes;
use super::report::{Identity, Pids, RecentEvents, StatusGate};
use super::{Event, SupervisorError, memory, run_file};
use crate::agent::{AckToken, AgentHandle};
use crate::claims::Surveyor;
use crate::config::Config;
use crate::control::{Ask, CloudLink};
use crate::layers::Layers;
use crate::logs::{Collector, LogFolder};
use crate::scrub::{Damage, Record, Scrubber};
use crate::store::{Keeping, REST_DELAY};

/// Failures that show at once are decided on at once, but not for ever.
const ROUNDS_MAX: usize = 8;

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
    /// `None`: its thread could not be made.
    scrubber: Option<Scrubber>,
    /// Layers that are missing since they were found damaged.
    damaged: BTreeMap<Digest, Damage>,
    claims: Claims,
    kernel: Kernel,
    flash: FlashCount,
    agent: Option<AgentHandle>,
    cloud: CloudLink,
    executor: Executor,
    collector: Collector,
    bundle: Option<Bundle>,
    interim: Option<Interim>,
    desired: Desired,
    observed: Observed,
    ledger: Ledger,
    pids: Pids,
    listed: bool,
    removal: Removal,
    wake_at: Option<Millis>,
    /// As the agent told it last.
    transfer: Option<Transfer>,
    /// Layers come out of a file that a person brought.
    is_applying: bool,
    /// The last generation that came so.
    brought: Option<Generation>,
    /// An envelope that could not be committed yet, and when to try again.
    uncommitted: Option<(Vec<u8>, Option<AckToken>, Millis)>,
    /// A bundle that came before it was known what the kernel can do.
    unchecked: Option<Unchecked>,
    /// The newest generation that people were told of having come.
    received: Generation,
    /// A newer bundle that is held, and when to look at that again.
    waiting: Option<Waiting>,
    look_again: Millis,
    health: HealthSpecs,
    probes: Probes,
    /// What ran before was somebody else's.
    born: Millis,
    watch: Watch,
    /// When a verdict that the disk did not take is tried again.
    verdict_at: Option<Millis>,
    gate: StatusGate,
    recent: RecentEvents,
    log_orders: LogOrders,
    descriptions: Descriptions,
    commands: BTreeMap<u32, Running>,
    nonces: Nonces,
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
        let keeping = Keeping::Apart { program: SELF_EXE.into(), rest_delay: REST_DELAY };
        let (durable, found) = Durable::open(&config.data, keeping, &config.node, now)?;
        let ledger = run_file::load(Ledger::SCHEMA, &config.run.ledger()).unwrap_or_else(|error| {
            log::warn!("the ledger is lost, back-off starts over: {error}");
            None
        });
        let folder = LogFolder::new(config.run.logs(), config.log_file_bytes_max);
        let collector = Collector::start(folder).map_err(super::setup("collect logs"))?;
        let layers = durable.layers().clone();
        let damaged_sink = sender.clone();
        let scrubber =
            Scrubber::start(layers, config.layers.check, config.run.checked(), move |damaged| {
                // It fails only while the supervisor ends.
                let _ = damaged_sink.send(Event::Damaged(damaged));
            });
        let scrubber = scrubber
            .inspect_err(|error| log::error!("no layer is checked for damage: {error}"))
            .ok();
        let claims_sink = sender.clone();
        let surveyor =
            Surveyor::new(config.data.volumes(), config.claims_period, move |measured| {
                let _ = claims_sink.send(Event::Claim(measured));
            });
        let mut node = Self {
            scrubber,
            claims: Claims::new(surveyor),
            damaged: Record::load(config.run.checked()).damaged().clone(),
            kernel: Kernel::new(config.run.kernel_checked(), config.cgroup.clone()),
            flash: FlashCount::load(config.run.flash()),
            identity: Identity::of_this_machine(config.node.clone(), config.subnet),
            sender,
            durable,
            agent: None,
            cloud: CloudLink::default(),
            executor: Executor::new(launcher, config.subnet, config.run.volumes()),
            collector,
            bundle: None,
            interim: None,
            desired: Desired::default(),
            observed: Observed::default(),
            ledger: ledger.unwrap_or_default(),
            pids: Pids::new(),
            listed: false,
            removal: Removal::No,
            wake_at: None,
            transfer: None,
            is_applying: false,
            brought: None,
            uncommitted: None,
            unchecked: None,
            received: Generation(0),
            waiting: None,
            look_again: Millis(0),
            health: HealthSpecs::default(),
            probes: Probes::default(),
            born: now,
            watch: Watch::default(),
            verdict_at: None,
            gate: StatusGate::default(),
            recent: RecentEvents::default(),
            log_orders: LogOrders::default(),
            descriptions: Descriptions::default(),
            commands: BTreeMap::new(),
            nonces: Nonces::default(),
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
    pub fn layers(&self) -> &Layers {
        self.durable.layers()
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

    /// Takes in what `event` says.
    ///
    /// # Errors
    /// [`LauncherLost`].
    pub fn handle(&mut self, event: Event, now: Millis) -> Result<(), LauncherLost> {
        match event {
            Event::Launcher(notice) => self.heard(*notice),
            Event::Agent(event) => self.agent_event(event, now)?,
            Event::Damaged(damaged) => self.layer_is_damaged(damaged, now),
            Event::Claim(measured) => self.claim_is_measured(measured, now),
            Event::Kernel(lacks) => self.kernel_was_tried(lacks, now),
            Event::Ask(Ask::Request { request, answer }) => self.asked(request, answer, now)?,
            Event::Ask(Ask::Offer { envelope, answer }) => {
                let _ = answer.try_send(self.offered(&envelope, now));
            }
            Event::Ask(Ask::Apply { applied, answer }) => {
                let _ = answer.try_send(self.applied(applied, now));
            }
            Event::Ask(Ask::Exec { exec, streams, answer }) => {
                self.exec(exec, &streams, answer, now)?;
            }
            Event::Ask(Ask::EndExec { number }) => self.executor.end_exec(number)?,
            Event::Ask(Ask::Push { sample }) => {
                if let Some(agent) = &self.agent {
                    agent.publish_metrics(sample);
                }
            }
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
        let hold_at = self.end_hold(now);
        self.tend_health(now)?;
        let interim_at = self.end_interim(now);
        // Before anything is started: a generation that makes the machine
        // crash must not get another chance.
        self.judge_generation(now);
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
        self.tend_claims()?;
        let purge_at = self.purge_when_empty(now)?;
        let verdict_at = self.judge_generation(now);
        let view = wherry_core::status(&self.desired, &self.observed, &self.ledger);
        let status_at = self.publish_status(&view, now);
        self.keep_flash();
        let commit_at = self.uncommitted.as_ref().map(|(_, _, at)| *at);
        let retry_at = self.durable.retry_at();
        let probe_at = self.probes.wake_at();
        let command_at = self.end_late_commands(now)?;
        self.wake_at = [
            wake_at, interim_at, purge_at, verdict_at, status_at, commit_at, retry_at, probe_at,
            hold_at, command_at,
        ]
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

    fn reconcile(&mut self, now: Millis) -> Result<Option<Millis>, LauncherLost> {
        self.observed.in_flight = self.executor.in_flight().cloned().collect();
        self.observed.memory_available_bytes = memory::available_bytes();
        let plan = wherry_core::reconcile(&self.desired, &self.observed, &self.ledger, now);
        // Both are for one reconcile only; the ledger remembers.
        self.observed.failures.clear();
        self.desired.replace.clear();
        if plan.ledger != self.ledger {
            self.ledger = plan.ledger;
            let path = self.config.run.ledger();
            if let Err(error) = run_file::save(Ledger::SCHEMA, &path, &self.ledger) {
                log::warn!("the ledger is not kept: {error}");
            }
        }
        // Before anything that depends on them is started.
        if let Some(bundle) = self.bundle.as_ref().filter(|_| !plan.succeeded.is_empty()) {
            self.durable.remember_jobs(plan.succeeded, bundle, now);
            self.observed.succeeded = self.durable.succeeded(bundle);
        }
        self.suspect_layers(&plan.notices);
        for notice in plan.notices {
            self.tell(notice.kind, &notice.subject, &notice.text, now);
        }
        for action in plan.actions {
            log::debug!("begins {action:?}");
            if let Action::Fetch { layers } = action {
                self.transfer = None;
                self.observed.fetching = layers;
                self.want_layers();
            } else if let Action::PreStop { pod } = action {
                self.prepare_to_stop(&pod)?;
            } else if let Some(outcome) = self.executor.begin(action, self.bundle.as_ref())? {
                self.came_of(outcome);
            }
        }
        Ok(plan.wake_at)
    }
}
