//! The first program of a machine (PID 1): brings it up, keeps the launcher
//! and the configured services running, reaps what nobody else does, feeds
//! the watchdog, takes the machine down.
//!
//! A small process of its own, of one thread. It never ends: whatever fails
//! is said, and what works goes on; where nothing works, the machine is
//! rebooted after a bounded time.
//! Never here: pods, decisions about them, the network beyond the configured
//! interfaces.

mod boot;
mod child;
mod config;
mod data;
mod ending;
mod filesystems;
mod keeper;
mod manager;
mod modules;
#[allow(unsafe_code)]
mod sys;
mod watchdog;

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::clock::boot_millis;
use crate::process::exit_of;
use crate::seal::SELF_EXE;
use boot::Booted;
use ending::{Ending, Phase, Seen};
use keeper::Keeper;
use manager::{Manager, Said};
use sys::Down;
use watchdog::Device;

pub use boot::REPORT_PATH;
pub use config::{Data, InitConfig, Interface, Setting, Told, Watchdog};

/// The name by which `wherry poweroff` knows whom it talks to
/// (`/proc/1/comm`).
pub const PROCESS_NAME: &str = "wherry-init";
/// Without data, or without a launcher that ever came up, and without a
/// service by which a person could help: then a reboot may.
const HOPELESS_MILLIS: u64 = 300_000;
/// Between two tries at what booting left undone.
const RETRY_MILLIS: u64 = 5_000;
/// After so long tries cost more than they can bring.
const RETRY_MILLIS_LATE: u64 = 60_000;
/// Looking for ended processes while the machine goes down: an orphan of a
/// session may end without a signal to be read.
const END_LOOK_MILLIS: u64 = 200;
/// Signals that end the machine, as busybox and sysvinit take them; SIGPWR
/// is a failing power supply.
const ENDS: [(Signal, Down); 5] = [
    (Signal::SIGTERM, Down::Reboot),
    (Signal::SIGINT, Down::Reboot),
    (Signal::SIGUSR1, Down::PowerOff),
    (Signal::SIGUSR2, Down::PowerOff),
    (Signal::SIGPWR, Down::PowerOff),
];

/// Why there is no first program here.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("only as the machine's first program: boot with init=/sbin/wherry")]
    NotFirst,
    #[error("{what}: {source}")]
    System { what: &'static str, source: io::Error },
}

/// Is the machine's first program. `log` is to begin logging on standard
/// error, `told` to read the configuration: both come when there are file
/// systems.
///
/// # Errors
/// This is not the first program, or the kernel lacks what is older than any
/// that Wherry runs on. Otherwise it returns only when a PID namespace, not a
/// machine, was ended.
pub fn run(log: impl FnOnce(), told: impl FnOnce() -> Told) -> Result<(), InitError> {
    if Pid::this().as_raw() != 1 {
        return Err(InitError::NotFirst);
    }
    let _ = nix::sys::prctl::set_name(c"wherry-init");
    let signals = signals().map_err(|source| InitError::System { what: "signals", source })?;
    let early = boot::file_systems();
    log();
    let mut init = Init::boot(signals, early, told());
    let down = init.serve();
    init.take_down(down)
}

#[derive(Debug)]
struct Init {
    told: Told,
    signals: SignalFd,
    manager: Option<Manager>,
    watchdog: Option<Device>,
    booted: Booted,
    launcher: Keeper,
    services: Vec<(Keeper, Vec<String>)>,
    ending: Option<Ending>,
    /// The command that asks the node to end.
    asking: Option<Pid>,
    /// It said that it is ready, once.
    was_ready: bool,
    hopeless_at: Option<u64>,
    retry_at: Option<u64>,
    started_millis: u64,
}

impl Init {
    fn boot(signals: SignalFd, early: Vec<String>, told: Told) -> Self {
        let started_millis = boot_millis();
        if let Err(error) = sys::catch_ctrl_alt_del() {
            log::debug!("ctrl-alt-del stays the kernel's: {error}");
        }
        let manager = Manager::open();
        let manager = manager.map_err(|error| log::error!("listening to the launcher: {error}"));
        let mut booted = Booted::new(early, &told.problems);
        booted.load_modules(&told.config.modules);
        let mut watchdog = booted.open_watchdog(told.config.watchdog.as_ref());
        if let Some(device) = &mut watchdog {
            device.policy().trust_for(boot::BOOT_MILLIS_MAX, started_millis);
        }
        let own = told.config.services.iter().map(|command| named(command));
        let clients =
            told.config.interfaces.iter().filter_map(|interface| match &interface.setting {
                Setting::Dhcp(command) => Some(named(command)),
                Setting::Static { .. } => None,
            });
        let services = own.chain(clients).collect();
        let mut init = Self {
            signals,
            manager: manager.ok(),
            watchdog,
            booted,
            launcher: Keeper::held("the launcher".into()),
            services,
            ending: None,
            asking: None,
            was_ready: false,
            hopeless_at: Some(started_millis + HOPELESS_MILLIS),
            retry_at: None,
            started_millis,
            told,
        };
        // A person at a console is not to wait for a disk.
        init.start_due(boot_millis());
        init.prepare();
        init
    }

    /// Network, then data, then the launcher may start.
    fn prepare(&mut self) {
        self.booted.configure_network(&self.told.config.interfaces);
        if let Some(data) = self.told.config.data.clone() {
            let Self { booted, watchdog, .. } = self;
            booted.bring_data(&data, || {
                if let Some(device) = watchdog {
                    device.tick(boot_millis());
                }
            });
        }
        let now = boot_millis();
        if let Some(device) = &mut self.watchdog {
            device.policy().booted(now);
        }
        self.after_tries(now);
    }

    /// Writes down how far booting came; the launcher starts with its data
    /// only: an empty store in RAM would be filled from the cloud.
    fn after_tries(&mut self, now: u64) {
        if self.launcher.pid().is_none() {
            self.booted.write_down();
        }
        if self.booted.has_data() {
            self.launcher.release(now);
        }
        let late = now.saturating_sub(self.started_millis) > HOPELESS_MILLIS;
        let pause = if late { RETRY_MILLIS_LATE } else { RETRY_MILLIS };
        self.retry_at = self.booted.has_open_ends().then_some(now + pause);
    }

    /// Until it is time to go down.
    fn serve(&mut self) -> Down {
        loop {
            let now = boot_millis();
            self.start_due(now);
            let fed = self.watchdog.as_mut().and_then(|device| device.tick(now));
            if let Some(ending) = &mut self.ending {
                let seen = Seen {
                    launcher_runs: self.launcher.pid().is_some(),
                    asking: self.asking.is_some(),
                    alone: sys::is_alone(),
                };
                match ending.advance(seen, now) {
                    Some(Phase::Down) => return ending.down,
                    Some(phase) => {
                        self.enter(phase);
                        continue;
                    }
                    None => {}
                }
            } else {
                self.look_again(now);
            }
            self.wait(fed);
            self.reap();
            self.listen();
        }
    }

    fn wait(&self, fed: Option<u64>) {
        let keepers = self.keepers().filter_map(Keeper::start_at);
        let ending = self.ending.as_ref().map(Ending::deadline_millis);
        let now = boot_millis();
        let look = self.ending.as_ref().map(|_| now + END_LOOK_MILLIS);
        let others = [fed, ending, look, self.hopeless_at, self.retry_at];
        let next = keepers.chain(others.into_iter().flatten()).min();
        let timeout = next.map_or(PollTimeout::NONE, |next| {
            let millis = next.saturating_sub(now).saturating_add(1);
            i32::try_from(millis).ok().and_then(|n| n.try_into().ok()).unwrap_or(PollTimeout::MAX)
        });
        let mut set = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some(manager) = &self.manager {
            set.push(PollFd::new(manager.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut set, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                // Cannot be; but it must not become a busy loop.
                log::error!("poll: {error}");
                std::thread::sleep(std::time::Duration::from_millis(END_LOOK_MILLIS));
            }
        }
    }

    fn keepers(&self) -> impl Iterator<Item = &Keeper> {
        self.services.iter().map(|(keeper, _)| keeper).chain([&self.launcher])
    }

    fn start_due(&mut self, now: u64) {
        for (keeper, command) in &mut self.services {
            if keeper.is_due(now) {
                keeper.start(now, || child::start_command(command));
            }
        }
        if self.launcher.is_due(now) {
            let policy = self.watchdog.as_mut().map(|device| device.policy().timeout_millis());
            let variables = manager::variables(self.manager.is_some(), policy);
            let args = self.told.launcher.clone();
            self.launcher.start(now, || child::start(SELF_EXE, &args, &variables));
        }
    }

    fn reap(&mut self) {
        while let Some((pid, status)) = crate::sys::reap_any() {
            let (now, exit) = (boot_millis(), exit_of(status));
            if self.asking == Some(pid) {
                self.asking = None;
                continue;
            }
            let services = self.services.iter_mut().map(|(keeper, _)| keeper);
            let mut keepers = services.chain([&mut self.launcher]);
            // Else it was an orphan, and nobody's.
            if let Some(keeper) = keepers.find(|keeper| keeper.pid() == Some(pid)) {
                log::warn!("{} ended: {exit}", keeper.name());
                keeper.ended(now);
                if self.ending.is_some() {
                    keeper.hold();
                }
            }
        }
    }

    /// To signals, and to what the launcher says.
    fn listen(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
            let down = ENDS.iter().find(|(known, _)| i32::from(*known as u8) == number);
            if let Some((signal, down)) = down {
                log::info!("{signal}: {down:?}");
                self.begin_end(*down);
            }
        }
        let now = boot_millis();
        while let Some(said) = self.manager.as_ref().and_then(Manager::hear) {
            match said {
                Said::Ready => {
                    self.was_ready = true;
                    self.hopeless_at = None;
                }
                Said::Alive => {
                    if let Some(device) = &mut self.watchdog {
                        device.proved(now);
                    }
                }
                Said::Nothing => {}
            }
        }
    }

    /// Tries again what booting left undone; gives up the machine where there
    /// is nothing that works.
    fn look_again(&mut self, now: u64) {
        if self.retry_at.is_some_and(|at| at <= now) {
            let config = &self.told.config;
            self.booted.retry(config);
            self.after_tries(now);
        }
        if self.hopeless_at.is_some_and(|at| at <= now) {
            self.hopeless_at = None;
            if self.services.iter().any(|(keeper, _)| keeper.pid().is_some()) {
                log::error!("the node does not come up: a service may help, so no reboot");
            } else {
                log::error!("the node does not come up, and there is no other service: rebooting");
                self.begin_end(Down::Reboot);
            }
        }
    }

    /// Asked again while it is ending: what was begun goes on.
    fn begin_end(&mut self, down: Down) {
        if self.ending.is_some() {
            return;
        }
        let now = boot_millis();
        if let Some(device) = &mut self.watchdog {
            device.policy().trust_for(ending::END_MILLIS_MAX, now);
        }
        for keeper in self.services.iter_mut().map(|(keeper, _)| keeper) {
            keeper.hold();
        }
        self.launcher.hold();
        self.ending = Some(Ending::begin(down, now));
        if self.launcher.pid().is_some() {
            match child::start(SELF_EXE, &self.told.stop, &[]) {
                Ok(pid) => self.asking = Some(pid),
                Err(error) => log::error!("asking the node to end: {error}"),
            }
        }
    }

    fn enter(&mut self, phase: Phase) {
        match phase {
            Phase::Pods | Phase::Down => {}
            Phase::Launcher => {
                log::warn!("the node does not end when asked: SIGTERM to the launcher");
                if let Some(pid) = self.launcher.pid()
                    && let Err(error) = crate::sys::kill_child(pid, libc::SIGTERM)
                {
                    log::debug!("{error}");
                }
            }
            Phase::Term => sys::signal_everybody(libc::SIGTERM),
            Phase::Kill => {
                log::warn!("processes that do not hear SIGTERM are killed");
                sys::signal_everybody(libc::SIGKILL);
            }
        }
    }

    /// Unmounts and ends the machine. The watchdog goes on counting over a
    /// reboot, in case it hangs; a machine that is switched off needs none.
    fn take_down(self, down: Down) -> Result<(), InitError> {
        let deadline = boot_millis() + ending::UNMOUNT_MILLIS_MAX;
        // A dead disk may hold whoever touches it, but not the first program.
        match crate::sys::fork_child(|| {
            filesystems::unmount_all();
            0
        }) {
            Ok(child) => {
                if !boot::wait_until(deadline, || sys::reap_one(child).is_some()) {
                    log::error!("a file system cannot be unmounted in time");
                }
            }
            Err(error) => {
                log::error!("a process for unmounting: {error}");
                filesystems::unmount_all();
            }
        }
        match (down, self.watchdog) {
            (Down::PowerOff, Some(device)) => device.stop(),
            // Left as it is: closing would say that it may stop.
            (Down::Reboot, Some(device)) => std::mem::forget(device),
            (Down::Reboot | Down::PowerOff, None) => {}
        }
        log::info!("{}", if down == Down::Reboot { "rebooting" } else { "switching off" });
        sys::machine_down(down).map_err(|source| InitError::System { what: "reboot", source })
    }
}

fn named(command: &[String]) -> (Keeper, Vec<String>) {
    let name = command.first().map_or("a service", String::as_str);
    (Keeper::new(name.to_owned(), 0), command.to_vec())
}

/// Signals as descriptors: nothing here runs in a handler.
fn signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    for (signal, _) in ENDS {
        set.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}
