//! A gateway's life in one machine: what tests of this machine check, checked
//! there, then a boot without a cloud.

use std::cell::RefCell;

use anyhow::{Result, ensure};
use serde_json::Value;
use wherry_rig::Arch;
use wherry_tests::host::Host;
use wherry_tests::node::Node;
use wherry_tests::package::start_rollout;
use wherry_tests::report::Report;
use wherry_tests::run::wait_for;
use wherry_tests::scenario::{deaths, ends, isolation, logs, rollback, sealing, upgrade};

use crate::RigReport;
use crate::memory::Figures;
use crate::site::{Site, Steps};

/// nginx, mosquitto and lions, four times in an upgrade, beside Debian's
/// kernel with all modules.
const MEMORY_MIB: u32 = 256;
/// The last seconds that 32 bits can count: they end during an upgrade. (A
/// 32-bit `date` takes none after them.)
const LAST_SECONDS: &str = "@2147483640";
/// Of the shop: a bus and two of the web service.
const PODS: usize = 3;
/// To the first version, after an upgrade.
const BACK: u64 = 3;
/// The only generation that becomes good: what the node goes back to.
const GOOD: u64 = 7;
/// The last one that is issued.
const NEWEST: u64 = GOOD + 3;
/// A node that booted more often than this before a generation is good leaves
/// it: the version's own default.
const BOOTS_MAX: u64 = 3;

/// `brief`: as far as the upgrades under load.
pub fn run(id: &str, arch: Arch, brief: bool) -> RigReport {
    let part = if brief { ", its beginning" } else { "" };
    println!("== {arch}, {MEMORY_MIB} MiB: a gateway's life{part}");
    let steps = RefCell::new(Report::of(&format!("{arch} ")));
    let result = life(id, arch, brief, &steps);
    if let Err(error) = &result {
        eprintln!("{arch}: {error:#}");
    }
    let tests_passed = steps.borrow().passed();
    let ok = result.is_ok();
    let (boot_to_pods_ms, memory) = result.map_or((None, None), |(a, b)| (Some(a), Some(b)));
    let (arch, memory_mb, test) = (arch.name(), MEMORY_MIB, "whole");
    RigReport { arch, memory_mb, test, ok, boot_to_pods_ms, tests_passed, memory }
}

fn life(id: &str, arch: Arch, brief: bool, steps: Steps<'_>) -> Result<(u64, Figures)> {
    let host = Host::new(id)?;
    let mut site = Site::new(&host, arch)?;
    let memory = site.boot(MEMORY_MIB, |site, board, node| {
        let memory = begins(site, node, steps)?;
        if !brief {
            goes_on(site, node, steps)?;
        }
        let step =
            |name: &str, work: &mut dyn FnMut() -> Result<()>| steps.borrow_mut().step(name, work);
        step("the kernel is well", &mut || board.is_well())?;
        Ok(memory)
    })?;
    let (newest, version, mane) =
        if brief { (BACK, "1.0.0", "mane=long\n") } else { (NEWEST, "2.0.0", "mane=short\n") };
    site.go_offline()?;
    let ms = site.boot(MEMORY_MIB, |_, board, node| {
        let step =
            |name: &str, work: &mut dyn FnMut() -> Result<()>| steps.borrow_mut().step(name, work);
        step("booted again without a cloud: every pod runs", &mut || every_pod_runs(node))?;
        let ms = u64::try_from(board.rig().started().elapsed().as_millis())?;
        step("the generation is whole", &mut || node.wait_running(newest))?;
        step("the last version answers", &mut || {
            upgrade::answers(node, version, mane)?;
            board.is_well()
        })?;
        Ok(ms)
    })?;
    // What decides is no architecture's.
    if arch == Arch::Aarch64 && !brief {
        boot_loop(&mut site, steps)?;
    }
    Ok((ms, memory))
}

/// Of a node that booted once since it took the newest generation up.
fn boot_loop(site: &mut Site<'_>, steps: Steps<'_>) -> Result<()> {
    let step =
        |name: &str, work: &mut dyn FnMut() -> Result<()>| steps.borrow_mut().step(name, work);
    step("its power goes away again and again", &mut || {
        for _ in 1..BOOTS_MAX {
            let machine = site.machine(MEMORY_MIB)?;
            let ((), board) = site.on(&machine, |_, _, node| {
                let status = node.json(&["status"])?;
                ensure!(status["generation"] == NEWEST, "{status}");
                Ok(())
            })?;
            board.rig().cut_power()?;
        }
        Ok(())
    })?;
    let machine = site.machine(MEMORY_MIB)?;
    let ((), board) = site.on(&machine, |site, _, node| {
        let failed = RefCell::new(Value::Null);
        step("too often: without a cloud it goes back to what was good", &mut || {
            let said = rollback::wait_left(node, NEWEST, GOOD)?;
            ensure!(said["cause"]["boot-loop"]["boots"] == BOOTS_MAX + 1, "{said}");
            failed.replace(said);
            Ok(())
        })?;
        step("the cloud is back, and knows why", &mut || {
            site.cloud.start()?;
            rollback::is_told(&site.cloud, node, &failed.borrow())
        })
    })?;
    board.power_off()
}

/// Generations 1 to [`BACK`].
fn begins(site: &mut Site<'_>, node: &mut Node<'_>, steps: Steps<'_>) -> Result<Figures> {
    let host = site.host;
    let step =
        |name: &str, work: &mut dyn FnMut() -> Result<()>| steps.borrow_mut().step(name, work);
    step("`wherry check` says that it can run", &mut || {
        let report = node.json(&["check"])?;
        ensure!(report["can_run"] == true, "{report}");
        Ok(())
    })?;
    step("what runs as launcher cannot be changed", &mut || sealing::holds(node))?;
    step("install: a bus, then two pods of nginx and lion", &mut || {
        upgrade::first(node).package().roll_out(&site.cloud, host)?;
        node.wait_running(1)?;
        upgrade::answers(node, "1.0.0", "mane=long\n")
    })?;
    step("pods are isolated, hardened and limited", &mut || isolation::pods_are_isolated(node))?;
    step("logs are kept, and reach the cloud", &mut || {
        logs::are_kept_and_found(&site.cloud, node)
    })?;
    step("upgrade under load: no request fails", &mut || {
        let traffic = upgrade::under_load(host, &site.cloud, node, 2)?;
        println!("{} answers, {:?}", traffic.answered, traffic.seen);
        Ok(())
    })?;
    step("back to the version before: no request fails", &mut || {
        upgrade::and_back(host, &site.cloud, node, BACK).map(drop)
    })?;
    Figures::of(node)
}

/// Generations up to [`NEWEST`].
fn goes_on(site: &mut Site<'_>, node: &mut Node<'_>, steps: Steps<'_>) -> Result<()> {
    let host = site.host;
    let step =
        |name: &str, work: &mut dyn FnMut() -> Result<()>| steps.borrow_mut().step(name, work);
    step("broker and line go and come back: no restart", &mut || {
        deaths::of_the_broker(&mut site.cloud, node)
    })?;
    step("supervisor and launcher die: no container does", &mut || {
        deaths::touch_no_container(node, BACK, 1)
    })?;
    step("the wall clock passes 2038, and goes back to 1970: upgrades go on", &mut || {
        for (clock, version, generation) in
            [(LAST_SECONDS, "shop@2.0.0.1", 4), ("@100000", "shop@1.0.0.1", 5)]
        {
            node.place().run(&["/bin/busybox", "date", "-s", clock])?;
            start_rollout(&site.cloud, version)?;
            node.wait_running(generation)?;
        }
        upgrade::answers(node, "1.0.0", "mane=long\n")
    })?;
    step("ends are real, out of memory too, and restarts back off", &mut || {
        ends::package("3.0.0").roll_out(&site.cloud, host)?;
        ends::are_real(node)
    })?;
    step("probes: what answers becomes good, what is ill is restarted", &mut || {
        rollback::good_is_kept(host, &site.cloud, node, ("4.0.0", GOOD))
    })?;
    step("one that crashes is left, and the cloud knows why", &mut || {
        rollback::crashing_is_left(host, &site.cloud, node, ("5.0.0", GOOD + 1, GOOD))
    })?;
    step("so is one that is never ready", &mut || {
        rollback::never_ready_is_left(host, &site.cloud, node, ("6.0.0", GOOD + 2, GOOD))
    })?;
    step("from there to a version that was had before", &mut || {
        start_rollout(&site.cloud, "shop@2.0.0.1")?;
        node.wait_running(NEWEST)?;
        rollback::goodbye_was_said(node)?;
        upgrade::answers(node, "2.0.0", "mane=short\n")
    })
}

/// All of their containers, whether they count as available yet or not.
fn every_pod_runs(node: &Node<'_>) -> Result<()> {
    wait_for("every container", node.place().patience(), || {
        let pods = node.pods()?;
        let containers: Vec<&Value> =
            pods.iter().filter_map(|pod| pod["containers"].as_array()).flatten().collect();
        let run = containers.iter().all(|container| container["state"]["running"].is_object());
        Ok((pods.len() == PODS && run).then_some(()))
    })
}
