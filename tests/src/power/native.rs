//! The node of this machine through installation and upgrades, with its data
//! on a disk whose writes are recorded.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::disk::RecordedDisk;
use super::marks::Mark;
use super::queue::{Ask, fill};
use super::sys::drop_syncs;
use super::tap::{PORT, Tap};
use crate::cloud::Cloud;
use crate::host::{Host, Side, binary};
use crate::images;
use crate::package::{Component, Package, start_rollout};
use crate::run::{run, wait_for};
use crate::templates::{EVERYWHERE, env, lion};

/// For one upgrade.
const PATIENCE: Duration = Duration::from_secs(60);
/// The images and texts of the generations: new layers, only configuration,
/// both back.
const VERSIONS: [(&str, &str); 4] =
    [("lion:1.0.0", "a"), ("lion:1.0.0", "b"), ("lion:2.0.0", "c"), ("lion:1.0.0", "d")];
/// After this generation the node has its cloud away for a while: it comes
/// back with its own patience, so once is enough.
const OFFLINE_AFTER: u64 = 2;
/// The node's name, as [`Cloud::organise`] gives it.
pub const NODE: &str = "gw-1";

/// Whether the node's syncs reach the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeSyncs {
    Honoured,
    Dropped,
}

/// What a run leaves: the disk with its record, which is mounted no more, and
/// all that was told meanwhile.
///
/// # Errors
/// Whatever does not come up, or an upgrade that does not end.
pub fn upgrades(host: &Host, syncs: NodeSyncs) -> Result<(RecordedDisk, Vec<Mark>)> {
    let mut cloud = Cloud::new(host);
    cloud.start()?;
    images::import(&cloud)?;
    cloud.organise()?;
    let data = host.folder().join("data");
    let mut disk = RecordedDisk::mount(&host.folder().join("disk"), &data)?;
    let tap = Tap::open(host, NODE, &disk.record)?;
    let config = host.folder().join("wherry.toml");
    std::fs::write(&config, configuration(host, &cloud.cli(&["node", "config", NODE])?)?)?;
    let mut command = Command::new(binary("wherry")?);
    command.args(["run", "--config"]).arg(&config);
    if syncs == NodeSyncs::Dropped {
        drop_syncs(&mut command);
    }
    let mut node = host.spawn(Side::Gateway, &mut command, "node")?;
    for (generation, (image, text)) in (1..).zip(VERSIONS) {
        let template = lion("web", "replicas: 2", "", &env(&[EVERYWHERE, ("TEXT", text)]));
        let package = Package::new(
            &format!("{generation}.0.0"),
            vec![Component::new("web", image, template)],
        );
        start_rollout(&cloud, &package.create(&cloud, host)?)?;
        wait_for(&format!("generation {generation}"), PATIENCE, || {
            Ok(tap.has_run(generation).then_some(()))
        })
        .with_context(|| node.output())?;
        if generation == OFFLINE_AFTER {
            fill(&tap, &disk.record, &OnHost(&config)).with_context(|| node.output())?;
        }
    }
    run(Command::new(binary("wherry")?).args(["stop", "--all", "--config"]).arg(&config))?;
    wait_for("the node's end", PATIENCE, || Ok((!node.is_running()?).then_some(())))?;
    disk.unmount()?;
    Ok((disk, tap.marks()))
}

/// The node of this machine with this configuration.
struct OnHost<'a>(&'a Path);

impl Ask for OnHost<'_> {
    fn json(&self, words: &[&str]) -> Result<Value> {
        let mut command = Command::new(binary("wherry")?);
        command.args(words).args(["-o", "json", "--config"]).arg(self.0);
        Ok(serde_json::from_str(&run(&mut command)?)?)
    }

    fn kill(&self, pid: i32) -> Result<()> {
        Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
    }
}

/// The cloud's part, with the tap in the broker's place, and this test's
/// folders.
fn configuration(host: &Host, cloud_part: &str) -> Result<String> {
    let cloud_part = cloud_part.replace("port = 1883", &format!("port = {PORT}"));
    let (top, tables) = cloud_part.split_once("\n[").context("the cloud's part has a table")?;
    let folder = host.folder().display();
    Ok(format!(
        "{top}\ndata_dir = \"{folder}/data\"\nrun_dir = \"{folder}/run\"\ncgroup = \"{}\"\n\
         [{tables}\n[network]\nbridge = \"{}\"\nsubnet = \"10.87.0.0/16\"\n",
        host.name(),
        host.bridge(),
    ))
}
