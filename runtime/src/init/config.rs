//! What a machine whose first program this is is told about itself. Plain
//! data; the file's keys are the supervisor crate's.

use std::ffi::CString;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// The `[init]` section. The default is a machine of which nothing is known:
/// it gets its file systems and a launcher.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitConfig {
    /// Names or absolute paths, loaded in this order.
    pub modules: Vec<String>,
    /// Where the node's data is; `None`: on the root file system.
    pub data: Option<Data>,
    pub watchdog: Option<Watchdog>,
    pub interfaces: Vec<Interface>,
    /// Programs that are kept running, each with its arguments.
    pub services: Vec<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// A path, which is waited for, or what the file system takes for one
    /// (`ubi0:data`).
    pub device: String,
    pub fs: String,
    /// Absolute; made if need be.
    pub mount: PathBuf,
    /// For the file system (`mount(8)`, the options after `-o` that are its
    /// own); may be empty.
    pub options: String,
    pub wait_seconds: u32,
    /// A command to which the device is appended; empty: none.
    pub fsck: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchdog {
    pub device: PathBuf,
    pub timeout_seconds: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub setting: Setting,
}

/// Where an interface's address comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    Static {
        address: Ipv4Addr,
        prefix: u8,
        gateway: Option<Ipv4Addr>,
    },
    /// A client that the image has, kept running.
    Dhcp(Vec<String>),
}

/// All that [`super::run`] is told.
#[derive(Debug)]
pub struct Told {
    pub config: InitConfig,
    /// What is wrong with the file that `config` is from: said, not fatal.
    pub problems: Vec<String>,
    /// Arguments of this program that make it the launcher.
    pub launcher: Vec<CString>,
    /// Arguments that make it ask the node to stop and remove every pod, and
    /// wait until it has.
    pub stop: Vec<CString>,
}
