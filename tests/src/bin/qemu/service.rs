//! Wherry as a service of a running systemd: a Debian system of its packages
//! alone, on the machine's disk.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use wherry_rig::machine::{BINARY, CONFIGURATION, SHELL};
use wherry_rig::{APPLETS, Arch, Init, Machine, disk};
use wherry_tests::host::Host;
use wherry_tests::node::Node;
use wherry_tests::package::{Component, Package};
use wherry_tests::place::Place;
use wherry_tests::report::Report;
use wherry_tests::rig::Board;
use wherry_tests::run::{run as run_tool, tool, wait_for};
use wherry_tests::templates::{EVERYWHERE, env, lion};

use crate::RigReport;
use crate::site::{Site, Steps};

const MEMORY_MIB: u32 = 384;
const DISK_MIB: u64 = 1024;
/// systemd on an emulated machine, while the other core does something else.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
const UNIT: &str = include_str!("../../../../supervisor/dist/systemd/wherry.service");
/// The file's own minute would be waited for twice.
const DROP_IN: &str = "[Service]\nWatchdogSec=15\n";
/// What the rig needs of the system: its shell, and the line.
const RIG_UNIT: &str = "[Unit]
Description=The rig's shell
[Service]
ExecStartPre=/bin/busybox ip link set eth0 up
ExecStartPre=/bin/busybox ip address add 10.0.2.15/24 dev eth0
ExecStartPre=/bin/busybox ip route add default via 10.0.2.2
ExecStart=/bin/rig-shell
KillMode=process
";

pub fn run(id: &str, arch: Arch) -> RigReport {
    println!("== {arch}, {MEMORY_MIB} MiB: a service of systemd");
    let steps = RefCell::new(Report::of(&format!("{arch} systemd ")));
    let result = life(id, arch, &steps);
    if let Err(error) = &result {
        eprintln!("{arch}: {error:#}");
    }
    RigReport {
        arch: arch.name(),
        memory_mb: MEMORY_MIB,
        test: "systemd",
        ok: result.is_ok(),
        boot_to_pods_ms: None,
        tests_passed: steps.borrow().passed(),
        memory: None,
    }
}

fn life(id: &str, arch: Arch, steps: Steps<'_>) -> Result<()> {
    let host = Host::new(id)?;
    let mut site = Site::new(&host, arch)?;
    let machine = machine(&mut site)?;
    let ((), board) = site.on(&machine, |site, board, node| online(site, board, node, steps))?;
    board.rig().start(&["systemctl", "poweroff"], "/dev/null")?;
    board.rig().wait_power_off(BOOT_LIMIT)?;
    Ok(())
}

fn online(site: &mut Site<'_>, board: &Board, node: &Node<'_>, steps: Steps<'_>) -> Result<()> {
    let step =
        |name: &str, work: &mut dyn FnMut() -> Result<()>| steps.borrow_mut().step(name, work);
    step("ready when its node is", &mut || {
        let small = lion("small", "replicas: 2", "", &env(&[EVERYWHERE]));
        let package = Package::new("1.0.0", vec![Component::new("small", "lion:1.0.0", small)]);
        package.roll_out(&site.cloud, site.host)?;
        node.wait_running(1)?;
        let (launcher, _) = node.pids()?;
        ensure!(property(board, "ActiveState")? == "active", "not active");
        ensure!(property(board, "MainPID")? == launcher.to_string(), "another main process");
        ensure!(property(board, "WatchdogUSec")? == "15s", "no watchdog");
        Ok(())
    })?;
    let before = node.processes()?;
    step("restarted: no container is", &mut || {
        let launcher = node.pids()?.0;
        board.run(&["systemctl", "restart", "wherry"])?;
        node.wait_running(1)?;
        ensure!(node.pids()?.0 != launcher, "the launcher was not restarted");
        ensure!(node.processes()? == before, "a container was restarted");
        Ok(())
    })?;
    step("stopped, containers run on; started, they are taken over", &mut || {
        board.run(&["systemctl", "stop", "wherry"])?;
        ensure!(node.processes()? == before, "a container was ended");
        board.run(&["systemctl", "start", "wherry"])?;
        node.wait_running(1)?;
        ensure!(node.processes()? == before, "a container was restarted");
        Ok(())
    })?;
    step("killed, it comes back by itself", &mut || {
        let launcher = node.pids()?.0;
        board.kill(launcher, Signal::SIGKILL)?;
        comes_back(board, node, launcher)?;
        ensure!(node.processes()? == before, "a container was restarted");
        Ok(())
    })?;
    step("hung, systemd's watchdog ends it, and it comes back", &mut || {
        let (launcher, supervisor) = node.pids()?;
        board.kill(supervisor, Signal::SIGSTOP)?;
        comes_back(board, node, launcher)?;
        ensure!(node.processes()? == before, "a container was restarted");
        Ok(())
    })
}

fn comes_back(board: &Board, node: &Node<'_>, before: i32) -> Result<()> {
    wait_for("another launcher", board.patience(), || {
        let launcher = node.pids()?.0;
        Ok((launcher != before).then_some(()))
    })?;
    node.wait_running(1)
}

fn property(board: &Board, name: &str) -> Result<String> {
    let text = board.run(&["systemctl", "show", "wherry", "--value", "-p", name])?;
    Ok(text.trim().to_owned())
}

/// The site's machine, with a whole system on its disk.
fn machine(site: &mut Site<'_>) -> Result<Machine> {
    let mut machine = site.machine(MEMORY_MIB)?;
    machine.init = Init::Disk("/lib/systemd/systemd");
    machine.boot_limit = BOOT_LIMIT;
    let root = site.host.folder().join("root");
    system(site.arch, &root)?;
    let files = std::mem::take(&mut machine.files);
    for file in files {
        write(&root, &file.path, file.mode, &file.content)?;
    }
    ensure!(root.join(CONFIGURATION.trim_start_matches('/')).is_file(), "no configuration");
    symlink(BINARY, root.join("usr/sbin/wherry"))?;
    disk::make(&site.disk, DISK_MIB, Some(&root))?;
    fs::remove_dir_all(&root)?;
    Ok(machine)
}

/// Debian's packages as they are; nothing of them is configured.
fn system(arch: Arch, root: &Path) -> Result<()> {
    let tree = wherry_rig::packages(arch, &["systemd", "busybox-static"], true)?;
    let from = tree.to_str().context("a plain path")?;
    let to = root.to_str().context("a plain path")?;
    run_tool(&mut tool("cp", ["-a", from, to]))?;
    for (path, mode, content) in [
        ("/etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n"),
        ("/etc/group", 0o644, "root:x:0:\n"),
        // Else systemd asks a person questions at its first start.
        ("/etc/machine-id", 0o444, "00000000000000000000000000000001\n"),
        ("/bin/rig-shell", 0o755, SHELL),
        ("/etc/systemd/system/rig.service", 0o644, RIG_UNIT),
        ("/etc/systemd/system/wherry.service.d/test.conf", 0o644, DROP_IN),
        ("/lib/systemd/system/wherry.service", 0o644, UNIT),
    ] {
        write(root, path, mode, content.as_bytes())?;
    }
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    symlink("../rig.service", wants.join("rig.service"))?;
    symlink("/lib/systemd/system/wherry.service", wants.join("wherry.service"))?;
    let system = root.join("etc/systemd/system");
    symlink("/lib/systemd/system/multi-user.target", system.join("default.target"))?;
    for other in ["systemd-logind.service", "getty.target"] {
        symlink("/dev/null", system.join(other))?;
    }
    for applet in APPLETS {
        let link = root.join("bin").join(applet);
        if !link.exists() && !root.join("usr/bin").join(applet).exists() {
            symlink("busybox", link)?;
        }
    }
    for folder in ["proc", "sys", "dev", "run", "tmp", "root", "data", "var/tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    Ok(())
}

fn write(root: &Path, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let path = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(path.parent().context("a folder")?)?;
    fs::write(&path, content).with_context(|| path.display().to_string())?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    Ok(())
}
