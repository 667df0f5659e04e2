//! The description of a machine: what it is made of, not yet running. `boot`
//! turns it into a `Rig`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::arch::{Arch, Kernel};
use crate::modules;

/// A machine to boot; `new` gives one that boots, each field may be changed.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Whose kernel and programs it runs.
    pub arch: Arch,
    /// Which of Debian's kernels.
    pub kernel: Kernel,
    /// Main memory, in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub processors: u32,
    /// Raw image with an ext4 file system (see `disk::make`), `/dev/vda` in
    /// the machine and mounted at `/data`. Outlives the machine.
    pub disk: Option<PathBuf>,
    /// Logs every write and flush of the disk into this file, in the form of
    /// dm-log-writes. The file is made anew.
    pub log_writes: Option<PathBuf>,
    /// More files of the first root, `/sbin/wherry` and
    /// `/etc/wherry/wherry.toml` among them.
    pub files: Vec<File>,
    /// Modules to load, by name; what they need comes by itself.
    pub modules: Vec<String>,
    /// Host ports, on 127.0.0.1 of the network namespace that QEMU is in,
    /// that lead to ports of the machine.
    pub forwards: Vec<Forward>,
    /// Whether the network cable is in from the start; see `Rig::link`.
    pub cable: bool,
    /// More words of the kernel's command line.
    pub append: Vec<String>,
    /// Words before QEMU's command, as `nsenter --net=/run/netns/NAME`. The
    /// program has to become QEMU by exec, not to start it.
    pub enter: Vec<OsString>,
    /// The first program.
    pub init: Init,
    /// Gives it `/dev/watchdog`: a PCI one on `Kernel::Full` of aarch64, the
    /// kernel's own otherwise. When nobody feeds it, the machine ends.
    pub watchdog: bool,
    /// With [`Init::Wherry`]: the command that checks the disk before it is
    /// mounted; empty for none.
    pub data_check: Vec<String>,
    /// With [`Init::Wherry`]: its address comes from QEMU's DHCP server, by
    /// busybox's client.
    pub dhcp: bool,
    /// How long it may take until its shell answers.
    pub boot_limit: Duration,
    /// How long it may run at all; then it is killed.
    pub time_limit: Duration,
    /// Keeps the folder with console, transcript and initramfs when the rig
    /// is dropped.
    pub keep: bool,
}

/// The first program of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// busybox; modules, network and data as in [`Machine::modules`] etc.
    Busybox,
    /// `wherry init`. The rig adds the `[init]` section to the
    /// `/etc/wherry/wherry.toml` among the files, its shell as a service.
    Wherry,
    /// This program of a whole system on the disk, which becomes the root. It
    /// has to run [`SHELL`] by itself, with busybox at `/bin/busybox` and its
    /// [`APPLETS`](crate::APPLETS) in the search path.
    Disk(&'static str),
}

/// A file of the first root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Absolute.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What is in it.
    pub content: Vec<u8>,
}

/// A port of the host that leads into the machine (TCP).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// On 127.0.0.1.
    pub host: u16,
    /// On the machine's own address, 10.0.2.15.
    pub guest: u16,
}

/// What answers the rig, as a program.
pub const SHELL: &str = include_str!("guest/rig-shell");
/// Where the machine's configuration is.
pub const CONFIGURATION: &str = "/etc/wherry/wherry.toml";
/// Where the static binary is.
pub const BINARY: &str = "/sbin/wherry";

impl Machine {
    /// A machine that boots to the rig's shell, without a disk.
    #[must_use]
    pub fn new(arch: Arch) -> Self {
        let modules = modules::MACHINE.into_iter().chain(modules::WHERRY);
        Self {
            arch,
            kernel: Kernel::Small,
            memory_mib: arch.memory_mib_default(),
            processors: 1,
            disk: None,
            log_writes: None,
            files: Vec::new(),
            modules: modules.map(str::to_owned).collect(),
            forwards: Vec::new(),
            cable: true,
            append: Vec::new(),
            enter: Vec::new(),
            init: Init::Busybox,
            watchdog: false,
            data_check: Vec::new(),
            dhcp: false,
            boot_limit: Duration::from_secs(90),
            time_limit: Duration::from_secs(300),
            keep: false,
        }
    }
}

impl File {
    /// A file of the first root.
    pub fn new(path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        Self { path: path.to_owned(), mode, content: content.into() }
    }
}
