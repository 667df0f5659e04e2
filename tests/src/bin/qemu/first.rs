//! Wherry as a machine's first program: how it brings the machine up, keeps
//! it alive, and takes it down.

use std::cell::RefCell;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use wherry_rig::machine::BINARY;
use wherry_rig::{Arch, File, Kernel, Machine, PowerOff};
use wherry_tests::host::Host;
use wherry_tests::node::Node;
use wherry_tests::package::{Component, Package};
use wherry_tests::place::{Place, zombies_of};
use wherry_tests::report::Report;
use wherry_tests::rig::Board;
use wherry_tests::run::{run as run_tool, tool, wait_for};
use wherry_tests::templates::lion;

use crate::RigReport;
use crate::site::{INIT, Site, Steps};

/// Debian's large kernel, which has the watchdog's driver.
const MEMORY_MIB: u32 = 256;
/// Until the machine is down: grace, unmounting; or the watchdog's patience.
const END_LIMIT: Duration = Duration::from_secs(150);
/// More than two of the rig's watchdog timeouts of 10 s.
const FED: Duration = Duration::from_secs(25);
const REPORT: &str = "/run/wherry-init/boot";
/// Takes two seconds to end when asked, and says so by its exit code.
const SLOW: &str = "trap 'sleep 2; exit 3' TERM; while :; do sleep 1 & wait; done";

pub fn run(id: &str, arch: Arch) -> RigReport {
    println!("== {arch}, {MEMORY_MIB} MiB: the first program");
    let steps = RefCell::new(Report::of(&format!("{arch} init ")));
    let result = life(id, arch, &steps);
    if let Err(error) = &result {
        eprintln!("{arch}: {error:#}");
    }
    RigReport {
        arch: arch.name(),
        memory_mb: MEMORY_MIB,
        test: "init",
        ok: result.is_ok(),
        boot_to_pods_ms: None,
        tests_passed: steps.borrow().passed(),
        memory: None,
    }
}

fn life(id: &str, arch: Arch, steps: Steps<'_>) -> Result<()> {
    let host = Host::new(id)?;
    let mut site = Site::new(&host, arch)?;
    let step =
        |name: &str, work: &mut dyn FnMut() -> Result<()>| steps.borrow_mut().step(name, work);
    step("switched off: pods get their grace, disks are unmounted", &mut || {
        let machine = talkative(&site)?;
        let ((), board) = site.on(&machine, |site, board, node| {
            package().roll_out(&site.cloud, site.host)?;
            node.wait_running(1)?;
            panics_end_the_machine(board)?;
            let kept = board.text("/proc/sys/kernel/printk_devkmsg")?;
            ensure!(kept.trim() == "on", "lines of the log are dropped: {kept}");
            orphans_are_reaped(board)
        })?;
        ends(&board, "poweroff", PowerOff::Shutdown)
    })?;
    step("rebooted: the same; the disk was left clean before", &mut || {
        let machine = talkative(&site)?;
        let ((), board) = site.on(&machine, |_, board, node| {
            let clean = !board.log().contains("recovery complete");
            ensure!(clean, "the journal had to be replayed");
            node.wait_running(1)
        })?;
        ends(&board, "reboot", PowerOff::Reset)
    })?;
    step("a damaged disk is mended, and the cloud is told", &mut || mended(&mut site))?;
    step("its address comes by DHCP", &mut || {
        let mut machine = site.machine(MEMORY_MIB)?;
        machine.dhcp = true;
        let ((), board) = site.on(&machine, |site, board, node| {
            // What is on the disk may run before the network is there.
            node.wait_running(1)?;
            wait_for("the lease's address", board.patience(), || {
                let addresses = board.run(&["ip", "-4", "address", "show", "eth0"])?;
                Ok(addresses.contains("10.0.2.15/24").then_some(()))
            })?;
            let now = node.json(&["status"])?;
            site.cloud.wait_node("the node online", |node| node["online"] == true)?;
            ensure!(now["generation"] == 1, "{now}");
            Ok(())
        })?;
        board.power_off()
    })?;
    step("no data: said, tried again, and the node comes up when there is", &mut || {
        no_data(&site)
    })?;
    step(
        "fed while all is well, the watchdog resets a machine whose supervisor hangs",
        &mut || hangs(&mut site, |node| Ok(node.pids()?.1)),
    )?;
    step("and one whose launcher hangs", &mut || hangs(&mut site, |node| Ok(node.pids()?.0)))?;
    // What it takes to kill the first program is the processor's.
    if arch == Arch::Aarch64 {
        step("the first program dies: the machine reboots, and all is well", &mut || {
            dies(&mut site)
        })?;
    }
    Ok(())
}

fn package() -> Package {
    let command = format!("command: [/bin/busybox, sh, -c, \"{SLOW}\"]\n");
    let template = lion("slow", "", "", &command)
        .replace("terminationGracePeriodSeconds: 2", "terminationGracePeriodSeconds: 20");
    Package::new("1.0.0", vec![Component::new("slow", "lion:1.0.0", template)])
}

/// Its console shows what is logged: it can still be read afterwards.
fn talkative(site: &Site<'_>) -> Result<Machine> {
    let mut machine = site.machine(MEMORY_MIB)?;
    machine.append = vec!["loglevel=7".to_owned(), "panic=0".to_owned()];
    Ok(machine)
}

/// A panic of the first program is the kernel's: where nobody set what comes
/// then, it reboots after ten seconds.
fn panics_end_the_machine(board: &Board) -> Result<()> {
    let seconds = board.text("/proc/sys/kernel/panic")?;
    ensure!(seconds.trim() == "10", "{seconds}");
    Ok(())
}

fn orphans_are_reaped(board: &Board) -> Result<()> {
    board.run(&["sh", "-c", "for i in 1 2 3; do (sleep 1 &) ; done"])?;
    wait_for("the orphans' end", board.patience(), || {
        let running = board.run(&["sh", "-c", "pidof sleep || true"])?;
        Ok((board.rig().is_running() && !running.is_empty()).then_some(()))
    })?;
    std::thread::sleep(Duration::from_secs(2));
    let zombies = zombies_of(board, INIT)?;
    ensure!(zombies.is_empty(), "zombies: {zombies:?}");
    Ok(())
}

fn ends(board: &Board, command: &str, wanted: PowerOff) -> Result<()> {
    board.rig().start(&[BINARY, command], "/tmp/end")?;
    let end = board.rig().wait_power_off(END_LIMIT)?;
    ensure!(end == wanted, "it ended by {end:?}");
    let console = board.rig().console();
    ensure!(console.contains("ended: exit code 3"), "no grace:\n{}", board.rig().transcript());
    board.is_well()
}

/// After a power cut, and with a file system whose counters are wrong.
fn mended(site: &mut Site<'_>) -> Result<()> {
    let tree = wherry_rig::packages(site.arch, &["e2fsck-static"], false)?;
    let program = tree.join("sbin/e2fsck.static");
    let program = fs::read(&program).with_context(|| program.display().to_string())?;
    let mut machine = site.machine(MEMORY_MIB)?;
    machine.files.push(File::new("/sbin/e2fsck", 0o755, program));
    machine.data_check = ["/sbin/e2fsck", "-p"].map(str::to_owned).to_vec();
    let ((), board) = site.on(&machine, |_, _, node| node.wait_running(1))?;
    board.rig().cut_power()?;
    let ((), board) = site.on(&machine, |_, board, node| {
        node.wait_running(1)?;
        let log = board.log();
        ensure!(log.contains("/dev/vda: the file system"), "fsck's result is not told:\n{log}");
        Ok(())
    })?;
    board.power_off()?;
    let disk = site.disk.to_str().context("a plain path")?.to_owned();
    for wrong in ["ssv free_blocks_count 1", "ssv state 2"] {
        run_tool(&mut tool("debugfs", ["-w", "-R", wrong, &disk]))?;
    }
    let ((), board) = site.on(&machine, |site, _, node| {
        node.wait_running(1)?;
        wait_for("the cloud's event", node.place().patience(), || {
            let events = site.cloud.json(&["events", "gw-1", "--tail", "1000"])?;
            let told = events.to_string().contains("the file system was damaged and is mended");
            Ok(told.then_some(()))
        })
    })?;
    board.power_off()
}

/// A disk that nobody made a file system on.
fn no_data(site: &Site<'_>) -> Result<()> {
    let empty = site.host.folder().join("empty.img");
    fs::File::create(&empty)?.set_len(64 << 20)?;
    let mut machine = site.machine(MEMORY_MIB)?;
    machine.disk = Some(empty);
    let board = Board::boot(&machine)?;
    let report = wait_for("the report", board.patience(), || Ok(Some(board.text(REPORT)?)))?;
    ensure!(report.contains("mounting /dev/vda at /data: "), "{report}");
    ensure!(board.run(&[BINARY, "status"]).is_err(), "a node runs without its data");
    board.run(&["mke2fs", "-F", "/dev/vda"])?;
    wait_for("the node", board.patience(), || board.run(&[BINARY, "status"]).map(Some))?;
    board.power_off()
}

/// No signal ends the first program, but a fault does: where its code goes on,
/// four zeros are written, which are no instruction.
fn dies(site: &mut Site<'_>) -> Result<()> {
    let machine = talkative(site)?;
    let ((), board) = site.on(&machine, |_, board, node| {
        node.wait_running(1)?;
        let at = wait_for("a wait of the first program", board.patience(), || {
            // proc_pid_syscall(5): its last word is the program counter.
            let text = board.text("/proc/1/syscall")?;
            let last = text.split_whitespace().next_back().and_then(|word| word.strip_prefix("0x"));
            Ok(last.map(|word| u64::from_str_radix(word, 16)).transpose()?)
        })?;
        let seek = format!("seek={}", at / 4);
        let words = ["dd", "if=/dev/zero", "of=/proc/1/mem", "bs=4", "count=1", "conv=notrunc"];
        board.run(&[&words[..], &[&seek]].concat()).map(drop)
    })?;
    // For the rig a panic is no power-off; that QEMU ends is the reboot.
    let said = board.rig().wait_power_off(END_LIMIT);
    ensure!(!board.rig().is_running(), "it does not reboot: {said:?}");
    let trouble = board.rig().trouble().map(|trouble| trouble.to_string()).unwrap_or_default();
    ensure!(trouble.contains("Attempted to kill init"), "it ended by {said:?}: {trouble}");
    drop(board);
    site.boot(MEMORY_MIB, |_, _, node| node.wait_running(1))
}

/// One of the two stops and does not die.
fn hangs(site: &mut Site<'_>, who: fn(&Node<'_>) -> Result<i32>) -> Result<()> {
    let mut machine = site.machine(MEMORY_MIB)?;
    machine.watchdog = true;
    if site.arch == Arch::Aarch64 {
        machine.kernel = Kernel::Full;
    }
    let ((), board) = site.on(&machine, |_, board, node| {
        node.wait_running(1)?;
        std::thread::sleep(FED);
        node.wait_running(1)?;
        board.kill(who(node)?, Signal::SIGSTOP)
    })?;
    let end = board.rig().wait_power_off(END_LIMIT)?;
    // The kernel's own watchdog, where there is no other, restarts it.
    ensure!(matches!(end, PowerOff::Watchdog | PowerOff::Reset), "it ended by {end:?}");
    board.is_well()
}
