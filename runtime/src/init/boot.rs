//! The steps of booting, and what came of each: on the console, and in a file
//! for the node to tell the cloud about.
//!
//! No step is fatal. Never here: the order of things after booting.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::utsname::uname;
use wherry_netns::Netlink;

use super::child;
use super::config::{Data, InitConfig, Interface, Setting, Watchdog};
use super::data::{Checked, checked};
use super::filesystems;
use super::modules::Modules;
use super::watchdog::Device;
use crate::clock::boot_millis;
use crate::process::exit_of;
use crate::sys as process;

/// What went wrong while booting, a line each; empty if nothing did. The
/// supervisor tells the cloud.
pub const REPORT_PATH: &str = "/run/wherry-init/boot";
/// All of booting: the watchdog is fed so long at most, without proof.
pub const BOOT_MILLIS_MAX: u64 = FSCK_MILLIS_MAX + 300_000;
/// A full check of a large, slow flash.
const FSCK_MILLIS_MAX: u64 = 600_000;
/// Between two looks for a device or a child.
const LOOK: Duration = Duration::from_millis(5);
const MODULES: &str = "/lib/modules";
/// Seconds from a kernel's panic to its reboot, where nobody said otherwise:
/// time to read the console.
const PANIC_SECONDS: &str = "10";
/// Lines of the report: a reader wants the first ones.
const PROBLEMS_MAX: usize = 32;

/// How far booting came.
#[derive(Debug, Default)]
pub struct Booted {
    problems: Vec<String>,
    /// Not mounted yet.
    missing_data: bool,
    /// Configured, not there yet.
    missing_interfaces: Vec<Interface>,
}

/// Everything up to the first line of the log: root, file systems, standard
/// output and error into the kernel's log. Gives what went wrong.
pub fn file_systems() -> Vec<String> {
    let mut problems = Vec::new();
    if let Err(error) = filesystems::settle_root() {
        problems.push(format!("making the root one that containers can leave: {error}"));
    }
    problems.extend(filesystems::mount_all());
    // Every line of ours counts, also in a burst; `off` of an image stays. The
    // kernel takes no word without its newline (`kernel/printk/printk.c`).
    let devkmsg = "/proc/sys/kernel/printk_devkmsg";
    if fs::read_to_string(devkmsg).is_ok_and(|mode| mode.trim() == "ratelimit")
        && let Err(error) = fs::write(devkmsg, "on\n")
    {
        problems.push(format!("{devkmsg}: {error}"));
    }
    if let Err(error) = log_to_kernel() {
        problems.push(format!("/dev/kmsg: {error}"));
    }
    problems
}

/// The kernel's log is there before any disk, bounded, and shown on the
/// console. Without it the console itself stays.
fn log_to_kernel() -> std::io::Result<()> {
    let kmsg = fs::File::options().write(true).open("/dev/kmsg")?;
    let null = fs::File::open("/dev/null")?;
    process::place_fd(std::os::fd::AsFd::as_fd(&null), 0)?;
    for standard in [1, 2] {
        process::place_fd(std::os::fd::AsFd::as_fd(&kmsg), standard)?;
    }
    Ok(())
}

impl Booted {
    #[must_use]
    pub fn new(early: Vec<String>, config: &[String]) -> Self {
        let mut booted = Self::default();
        for problem in early.into_iter().chain(config.iter().cloned()) {
            booted.problem(problem);
        }
        let panic = "/proc/sys/kernel/panic";
        // Set to something else by the kernel's command line, it stays so.
        if fs::read_to_string(panic).is_ok_and(|text| text.trim() == "0")
            && let Err(error) = fs::write(panic, PANIC_SECONDS)
        {
            booted.problem(format!("{panic}: {error}"));
        }
        booted
    }

    pub fn has_data(&self) -> bool {
        !self.missing_data
    }

    pub fn has_open_ends(&self) -> bool {
        self.missing_data || !self.missing_interfaces.is_empty()
    }

    pub fn load_modules(&mut self, names: &[String]) {
        let release = uname().map(|name| name.release().to_string_lossy().into_owned());
        let modules = Modules::open(Path::new(MODULES), &release.unwrap_or_default());
        for name in names {
            if let Err(error) = modules.load(name) {
                self.problem(error.to_string());
            }
        }
    }

    pub fn open_watchdog(&mut self, config: Option<&Watchdog>) -> Option<Device> {
        match Device::open(config?, boot_millis()) {
            Ok(device) => Some(device),
            Err(error) => {
                self.problem(error.to_string());
                None
            }
        }
    }

    pub fn configure_network(&mut self, interfaces: &[Interface]) {
        let Some(netlink) = self.netlink() else { return };
        if let Err(error) = wherry_netns::set_loopback_up(&netlink) {
            self.problem(error.to_string());
        }
        for interface in interfaces {
            if let Err(error) = configure(&netlink, interface) {
                self.problem(format!("{error} (tried again)"));
                self.missing_interfaces.push(interface.clone());
            }
        }
    }

    fn netlink(&mut self) -> Option<Netlink> {
        Netlink::open().map_err(|error| self.problem(error.to_string())).ok()
    }

    /// Waits for the data partition, has it checked and mounts it. `tick` is
    /// called meanwhile.
    pub fn bring_data(&mut self, data: &Data, mut tick: impl FnMut()) {
        let deadline = boot_millis() + u64::from(data.wait_seconds) * 1000;
        wait_until(deadline, || {
            tick();
            data.is_there()
        });
        self.missing_data = true;
        if !data.is_there() {
            let (device, seconds) = (&data.device, data.wait_seconds);
            return self.problem(format!("{device} did not appear in {seconds} s (tried again)"));
        }
        self.check(data, &mut tick);
        if let Err(error) = data.mount() {
            let (device, point) = (&data.device, data.mount.display());
            return self.problem(format!("mounting {device} at {point}: {error} (tried again)"));
        }
        self.missing_data = false;
        log::info!("{} is mounted at {}", data.device, data.mount.display());
    }

    fn check(&mut self, data: &Data, tick: &mut impl FnMut()) {
        let Some(command) = data.check_command() else { return };
        if data.is_mounted() {
            return;
        }
        let pid = match child::start_command(&command) {
            Ok(pid) => pid,
            Err(error) => return self.problem(format!("starting {}: {error}", command.join(" "))),
        };
        let mut status = None;
        let ended = wait_until(boot_millis() + FSCK_MILLIS_MAX, || {
            tick();
            status = super::sys::reap_one(pid);
            status.is_some()
        });
        if !ended {
            let _ = process::kill_child(pid, libc::SIGKILL);
            status = process::wait_for(pid).ok();
        }
        let exit = exit_of(status.unwrap_or(-1));
        match checked(exit) {
            Checked::Clean => log::info!("{}: the file system is clean", data.device),
            Checked::Corrected => {
                self.problem(format!("{}: the file system was damaged and is mended", data.device));
            }
            Checked::Failed => {
                let text = "the check found what it cannot mend, or failed";
                self.problem(format!("{}: {text} ({exit}); mounted all the same", data.device));
            }
        }
    }

    /// Tries again what is missing, waiting for nothing.
    pub fn retry(&mut self, config: &InitConfig) {
        let interfaces = std::mem::take(&mut self.missing_interfaces);
        if !interfaces.is_empty()
            && let Some(netlink) = self.netlink()
        {
            let missing = interfaces.into_iter().filter(|one| configure(&netlink, one).is_err());
            self.missing_interfaces = missing.collect();
        }
        if let Some(data) = config.data.as_ref().filter(|data| self.missing_data && data.is_there())
        {
            self.missing_data = false;
            let known = self.problems.len();
            self.bring_data(data, || {});
            if self.missing_data {
                // Said once is enough.
                self.problems.truncate(known);
            }
        }
    }

    /// For the supervisor.
    pub fn write_down(&self) {
        let mut text = self.problems.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        if !text.is_empty()
            && let Err(error) = fs::write(REPORT_PATH, text)
        {
            log::error!("{REPORT_PATH}: {error}");
        }
    }

    fn problem(&mut self, text: String) {
        log::error!("{text}");
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text.replace('\n', " "));
        }
    }
}

fn configure(netlink: &Netlink, interface: &Interface) -> Result<(), wherry_netns::NetworkError> {
    match &interface.setting {
        &Setting::Static { address, prefix, gateway } => {
            wherry_netns::configure_interface(netlink, &interface.name, address, prefix, gateway)
        }
        // Its client, a service, does the rest.
        Setting::Dhcp(_) => wherry_netns::bring_interface_up(netlink, &interface.name),
    }
}

/// Looks until `done` says so (true) or the time is over (false).
pub fn wait_until(deadline_millis: u64, mut done: impl FnMut() -> bool) -> bool {
    loop {
        if done() {
            return true;
        }
        if boot_millis() >= deadline_millis {
            return false;
        }
        thread::sleep(LOOK);
    }
}
