//! The supervisor: the process that decides, by [`wherry_core`], and talks to
//! launcher, cloud and command line.
//!
//! One loop and one closed [`Event`]: event → observe → reconcile → keep the
//! ledger → execute. All that can take long has a thread of its own and sends
//! events. Its death touches no container.
//! Never here: anything that needs root; waiting for the network.

mod describe;
pub mod durable;
pub mod executor;
mod flash;
pub mod health;
mod heart;
pub mod judge;
pub(crate) mod memory;
mod node;
mod nonces;
pub mod orders;
pub mod preflight;
pub mod probes;
mod remote;
pub mod report;
pub mod run_file;
#[cfg(test)]
mod sample;
pub mod spec;
pub mod translate;
pub mod volumes;

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use wherry_core::Millis;
use wherry_runtime::client::{ClientError, LauncherClient, NoticeReader};
use wherry_runtime::proto::Notice;

use crate::agent::AgentEvent;
use crate::claims::Measured;
use crate::clock;
use crate::config::Config;
use crate::control::server::ServerError;
use crate::control::{Ask, Server};
use crate::layers::LayerError;
use crate::metrics::{self, Places};
use crate::scrub::Damaged;
use executor::LauncherLost;
use heart::Heart;
use node::Node;
use preflight::kernel::Lacks;

/// Events that wait for the loop; whoever has more waits too.
const EVENTS_MAX: usize = 64;
/// Events handled before the next reconcile, so that a burst is decided on
/// once.
const BURST_MAX: usize = 64;
/// The loop's timer runs on the monotonic clock, which stands still during
/// suspend; decisions are due by the boot clock.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Waiting for signals, and for notices: shallow.
const SMALL_STACK_BYTES: usize = 64 * 1024;
/// Decoding a notice.
const READER_STACK_BYTES: usize = 192 * 1024;
/// The launcher lists what it knows: milliseconds.
const LIST_TIMEOUT: Duration = Duration::from_secs(20);

/// All that the loop can hear.
#[derive(Debug)]
pub enum Event {
    Launcher(Box<Notice>),
    /// The launcher is gone.
    LauncherGone,
    Agent(AgentEvent),
    /// A layer file is not what it was.
    Damaged(Damaged),
    /// What a claim's folder holds.
    Claim(Measured),
    /// What the kernel lacks for bundles, once it was tried.
    Kernel(Lacks),
    /// The command line asks something.
    Ask(Ask),
    /// SIGTERM or SIGINT.
    Terminate,
}

#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    LauncherLost(#[from] LauncherLost),
    #[error("the launcher is gone")]
    LauncherGone,
    #[error("the launcher does not list its pods")]
    NoList,
    #[error(transparent)]
    Layers(#[from] LayerError),
    #[error(transparent)]
    Control(#[from] ServerError),
    #[error("cannot {what}: {source}")]
    Setup { what: &'static str, source: io::Error },
}

/// Runs until it is told to end. Pods are reconciled before any network is
/// touched.
///
/// # Errors
/// The launcher is gone, or the process cannot be set up: the launcher starts
/// it again.
pub fn run(config: Config) -> Result<(), SupervisorError> {
    let launcher = LauncherClient::from_inherited()?;
    // Before any thread, so that all inherit the mask.
    let signals = block_signals()?;
    raise_descriptor_limit();
    let (sender, events) = mpsc::sync_channel(EVENTS_MAX);
    spawn("wherry-signals", SMALL_STACK_BYTES, hear_signals(signals, sender.clone()))?;
    let reader = launcher.reader()?;
    spawn("wherry-notices", READER_STACK_BYTES, hear_launcher(reader, sender.clone()))?;

    let mut node = Node::new(config, launcher, sender.clone(), clock::boot_now())?;
    if !list_pods(&mut node, &events)? {
        return Ok(());
    }
    node.settle(clock::boot_now())?;
    let ask = sender.clone();
    let _server = Server::start(
        &node.config().run.socket(),
        node.collector().folder().clone(),
        node.collector().progress(),
        node.config().node.clone(),
        node.layers().clone(),
        move |asked| ask.send(Event::Ask(asked)).is_ok(),
    )?;
    export_metrics(&node, sender)?;
    node.connect();
    let mut heart = Heart::from_environment();
    node.beat_if_due(&mut heart)?;
    while hear(&mut node, &events, heart.next())? {
        node.settle(clock::boot_now())?;
        node.beat_if_due(&mut heart)?;
    }
    // Whoever still sends gets an error instead of waiting for the loop.
    drop(events);
    node.end();
    Ok(())
}

/// On a thread of its own, if anybody is to see figures.
fn export_metrics(node: &Node, sender: SyncSender<Event>) -> Result<(), SupervisorError> {
    let config = node.config();
    let folders = vec![config.data.0.clone(), config.run.0.clone()];
    let places = Places { folders, bridge: config.bridge.clone() };
    let ask = move |ask| sender.send(Event::Ask(ask)).is_ok();
    metrics::start(config.metrics, places, ask).map_err(setup("start a thread"))
}

/// Waits for the next event or for the time to look again, and handles what
/// is there; false when the process is to end.
fn hear(
    node: &mut Node,
    events: &Receiver<Event>,
    beat_at: Option<Millis>,
) -> Result<bool, SupervisorError> {
    let mut next = match node.wake_at().into_iter().chain(beat_at).min() {
        None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some(at) => events.recv_timeout(wait(at, clock::boot_now())),
    };
    for _ in 0..BURST_MAX {
        match next {
            Ok(Event::Terminate) => return Ok(false),
            Ok(Event::LauncherGone) => return Err(SupervisorError::LauncherGone),
            Ok(event) => node.handle(event, clock::boot_now())?,
            // The loop holds a sender itself: this is the timer.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
        next = events.try_recv().map_err(|_| RecvTimeoutError::Timeout);
    }
    Ok(true)
}

/// Reads back from the launcher, and so from the kernel, what runs; false
/// when the process is to end.
fn list_pods(node: &mut Node, events: &Receiver<Event>) -> Result<bool, SupervisorError> {
    let deadline = clock::boot_now().saturating_add(Millis(LIST_TIMEOUT.as_secs() * 1000));
    node.list()?;
    while !node.is_listed() {
        let now = clock::boot_now();
        if now >= deadline {
            return Err(SupervisorError::NoList);
        }
        match events.recv_timeout(wait(deadline, now)) {
            Ok(Event::Terminate) => return Ok(false),
            Ok(Event::LauncherGone) => return Err(SupervisorError::LauncherGone),
            Ok(event) => node.handle(event, now)?,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
    Ok(true)
}

fn wait(at: Millis, now: Millis) -> Duration {
    // A millisecond more, so that the time has come when the wait ends.
    let millis = at.saturating_sub(now).0.saturating_add(1);
    Duration::from_millis(millis).min(WAIT_MAX)
}

fn hear_launcher(mut reader: NoticeReader, sender: SyncSender<Event>) -> impl FnOnce() + Send {
    move || {
        loop {
            let event = match reader.recv() {
                Ok(Some(notice)) => Event::Launcher(Box::new(notice)),
                Ok(None) => Event::LauncherGone,
                Err(wherry_runtime::packet::PacketError::Socket(error)) => {
                    log::error!("the launcher's socket: {error}");
                    Event::LauncherGone
                }
                Err(error) => {
                    log::error!("a notice of the launcher is lost: {error}");
                    continue;
                }
            };
            let gone = matches!(event, Event::LauncherGone);
            if sender.send(event).is_err() || gone {
                return;
            }
        }
    }
}

fn hear_signals(signals: SigSet, sender: SyncSender<Event>) -> impl FnOnce() + Send {
    move || {
        while let Ok(signal) = signals.wait() {
            log::info!("{signal}: ending, containers run on");
            if sender.send(Event::Terminate).is_err() {
                return;
            }
        }
    }
}

fn block_signals() -> Result<SigSet, SupervisorError> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().map_err(|error| setup("block signals")(error.into()))?;
    Ok(signals)
}

/// Two FIFOs a container, on systems whose soft limit is 1024.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        log::warn!("the limit of open files stays as it is: {error}");
    }
}

fn spawn(
    name: &str,
    stack_bytes: usize,
    work: impl FnOnce() + Send + 'static,
) -> Result<(), SupervisorError> {
    let thread = thread::Builder::new().name(name.into()).stack_size(stack_bytes);
    thread.spawn(work).map(drop).map_err(setup("start a thread"))
}

fn setup(what: &'static str) -> impl FnOnce(io::Error) -> SupervisorError {
    move |source| SupervisorError::Setup { what, source }
}
