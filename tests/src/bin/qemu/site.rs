//! A site: a cloud on this machine with its images, and one gateway in a rig
//! whose disk outlives its boots.

use std::cell::RefCell;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use wherry_rig::{Arch, Machine, disk};
use wherry_tests::cloud::Cloud;
use wherry_tests::host::Host;
use wherry_tests::images::{Source, import_of};
use wherry_tests::node::Node;
use wherry_tests::report::Report;
use wherry_tests::rig::{Board, Plan, machine};

/// Wherry's own first program keeps its launcher running.
pub const INIT: i32 = 1;
/// Room for every image twice, and for ext4 itself.
const DISK_MIB: u64 = 192;

/// The steps of one machine.
pub type Steps<'a> = &'a RefCell<Report>;

/// Everything but the machine.
#[derive(Debug)]
pub struct Site<'a> {
    pub host: &'a Host,
    pub cloud: Cloud<'a>,
    pub arch: Arch,
    cloud_part: String,
    pub disk: PathBuf,
}

impl<'a> Site<'a> {
    /// # Errors
    /// Whatever does not come up.
    pub fn new(host: &'a Host, arch: Arch) -> Result<Self> {
        let mut cloud = Cloud::of_machine(host, arch);
        cloud.start()?;
        import_of(&cloud, Source::of(arch)?)?;
        cloud.organise()?;
        let cloud_part = cloud.cli(&["node", "config", "gw-1"])?;
        let disk = host.folder().join("data.img");
        disk::make(&disk, DISK_MIB, None)?;
        Ok(Self { host, cloud, arch, cloud_part, disk })
    }

    /// Boots the gateway and waits until its node answers; calls `work`; ends
    /// the gateway in order.
    ///
    /// # Errors
    /// What `work` says, with what the node logged.
    pub fn boot<T>(
        &mut self,
        memory_mib: u32,
        work: impl FnOnce(&mut Self, &Board, &mut Node<'_>) -> Result<T>,
    ) -> Result<T> {
        let machine = self.machine(memory_mib)?;
        let (value, board) = self.on(&machine, work)?;
        board.power_off()?;
        Ok(value)
    }

    /// Its gateway's machine, not yet booted.
    ///
    /// # Errors
    /// No static build.
    pub fn machine(&self, memory_mib: u32) -> Result<Machine> {
        let Self { arch, disk, cloud_part, .. } = self;
        machine(self.host, &Plan { arch: *arch, memory_mib, disk, cloud_part })
    }

    /// Boots a machine and waits until its node answers; calls `work`.
    ///
    /// # Errors
    /// What `work` says, with what the node logged.
    pub fn on<T>(
        &mut self,
        machine: &Machine,
        work: impl FnOnce(&mut Self, &Board, &mut Node<'_>) -> Result<T>,
    ) -> Result<(T, Board)> {
        let board = Board::boot(machine)?;
        let result = (|| {
            let mut node = Node::of_machine(self.host, &board, INIT);
            node.start()?;
            work(self, &board, &mut node)
        })();
        if result.is_err() && board.rig().is_running() {
            eprintln!("the node:\n{}", tail(&board.log()));
        }
        let value = result.with_context(|| board.rig().transcript())?;
        Ok((value, board))
    }

    /// The cloud ends: what follows is offline.
    ///
    /// # Errors
    /// It does not end.
    pub fn go_offline(&mut self) -> Result<()> {
        self.cloud.end(Signal::SIGTERM)
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
