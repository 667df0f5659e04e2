//! `make demo`: Wherry's main job on this machine, step by step, each checked
//! from outside Wherry. Leaves nothing behind, also when it is interrupted.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use wherry_tests::cloud::Cloud;
use wherry_tests::host::{GATEWAY_ADDRESS, Host, Side};
use wherry_tests::images::import;
use wherry_tests::interrupt;
use wherry_tests::node::Node;
use wherry_tests::observe::{http_get, json_field, under_traffic};
use wherry_tests::place::zombies_of;
use wherry_tests::report::Report;
use wherry_tests::scenario::upgrade;
use wherry_tests::shop::{BUS_PORT, Shop, WEB_PORT};

const ID: &str = "demo";
/// What it says before it makes anything.
const BEGIN: &str = "on this machine, in namespaces of its own; an interruption takes it all away";
const REPORT: &str = "target/reports/demo.json";

fn main() -> std::process::ExitCode {
    interrupt::sweeps(&[ID]);
    println!("{BEGIN}");
    let report = RefCell::new(Report::default());
    let result = demo(&report);
    if let Err(error) = report.borrow().write(Path::new(REPORT)) {
        eprintln!("{REPORT}: {error:#}");
    }
    match result {
        Ok(()) => {
            println!("all steps went well; the report is in {REPORT}");
            std::process::ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the demo failed: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn demo(report: &RefCell<Report>) -> Result<()> {
    let host = Host::new(ID)?;
    let mut cloud = Cloud::new(&host);
    let web = format!("{GATEWAY_ADDRESS}:{WEB_PORT}");
    let step =
        |name: &str, work: &mut dyn FnMut() -> Result<()>| report.borrow_mut().step(name, work);

    step("make images: nginx and mosquitto of Debian, and a lion of two versions", &mut || {
        cloud.start()?;
        import(&cloud)
    })?;
    step("organise: customer, project, node, application", &mut || cloud.organise())?;
    let mut node = Node::new(&host, &cloud.cli(&["node", "config", "gw-1"])?)?;
    step("the gateway starts, and shows up in the cloud", &mut || {
        node.start()?;
        cloud.wait_node("the gateway online", |node| node["online"] == true).map(drop)
    })?;

    step("install version 1.0.0: a bus, then two pods of nginx and lion", &mut || {
        Shop::default().package().roll_out(&cloud, &host)?;
        node.wait_running(1)?;
        let body = host.inside(Side::Wan, || http_get(&web, "/"))?;
        ensure!(json_field(&body, "version") == "1.0.0", "answered {body}");
        ensure!(json_field(&body, "properties") == "mane=long\n", "answered {body}");
        host.inside(Side::Wan, bus_answers)
    })?;
    step("the cloud sees every pod", &mut || {
        cloud.wait_node("three available pods", |node| available(node) == 3).map(drop)
    })?;
    println!("{}", node.cli(&["ps"])?);

    step("upgrade to 2.0.0 one pod at a time, while a client never stops asking", &mut || {
        let traffic = upgrade::under_load(&host, &cloud, &node, 2)?;
        println!("             {} answers, {:?}", traffic.answered, traffic.seen);
        Ok(())
    })?;

    step("it ran for long enough: 2.0.0 is what the gateway goes back to", &mut || {
        cloud
            .wait_node("a good generation 2", |node| {
                node["generation"] == 2 && node["phase"] == "good"
            })
            .map(drop)
    })?;
    step("a bad version: its lion crashes; the old pods go on serving", &mut || {
        let before = node.processes()?;
        let shop = Shop {
            number: "3.0.0",
            lion: "lion:2.0.0",
            env: &[("LION_CRASH_MS", "100")],
            ..Shop::default()
        };
        let ((), traffic) = under_traffic(&host, &web, "version", || {
            shop.package().roll_out(&cloud, &host)?;
            cloud.wait_node("the crash in the cloud", |node| {
                node["pods"]
                    .as_array()
                    .is_some_and(|pods| pods.iter().any(|pod| pod["phase"] == "back-off"))
            })?;
            Ok(())
        })?;
        ensure!(traffic.failed.is_empty(), "failed requests: {:?}", traffic.failed);
        ensure!(traffic.seen.keys().all(|version| version == "2.0.0"), "{:?}", traffic.seen);
        let after = node.processes()?;
        let lost: Vec<_> = before.iter().filter(|(pid, _)| !after.contains_key(pid)).collect();
        ensure!(lost.is_empty(), "processes of the old version are gone: {lost:?}");
        Ok(())
    })?;
    step("back to 2.0.0, by itself: the good pods were never touched", &mut || {
        cloud.wait_node("the cause in the cloud", |node| {
            node["generation"] == 2 && node["phase"] == "good" && !node["failed"].is_null()
        })?;
        println!("{}", cloud.cli(&["rollout", "status"])?);
        let body = host.inside(Side::Wan, || http_get(&web, "/"))?;
        ensure!(json_field(&body, "version") == "2.0.0", "answered {body}");
        Ok(())
    })?;

    step("supervisor killed, then launcher killed: every process runs on", &mut || {
        let before = node.processes()?;
        node.kill_supervisor()?;
        node.restart(Signal::SIGKILL)?;
        node.wait_running(2)?;
        ensure!(before == node.processes()?, "some process was restarted");
        ensure!(zombies_of(node.place(), node.pids()?.0)?.is_empty(), "the launcher left a zombie");
        Ok(())
    })?;
    step("cloud and broker gone, the gateway restarted: pods come up without them", &mut || {
        cloud.end(Signal::SIGTERM)?;
        node.purge()?;
        let left = host.leftovers()?;
        ensure!(left.is_empty(), "left behind: {left:?}");
        node.start()?;
        node.wait_running(2)?;
        let body = host.inside(Side::Wan, || http_get(&web, "/"))?;
        ensure!(json_field(&body, "version") == "2.0.0", "answered {body}");
        Ok(())
    })?;
    step("the cloud is back: in sync, and nothing was restarted", &mut || {
        let before = node.processes()?;
        cloud.start()?;
        cloud.wait_node("the gateway in sync", |node| {
            node["online"] == true && available(node) == 3
        })?;
        std::thread::sleep(Duration::from_secs(1));
        ensure!(before == node.processes()?, "some process was restarted");
        let logs = cloud.cli(&["logs", "gw-1", "web", "-c", "lion", "--tail", "3"])?;
        ensure!(logs.contains("listening on"), "the cloud got no log lines: {logs}");
        Ok(())
    })?;
    step("everything is removed", &mut || {
        node.purge()?;
        cloud.end(Signal::SIGTERM)?;
        let left = host.leftovers()?;
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    })
}

fn available(node: &serde_json::Value) -> usize {
    let pods = node["pods"].as_array().map(Vec::as_slice).unwrap_or_default();
    pods.iter().filter(|pod| pod["phase"] == "available").count()
}

/// The bus on the gateway's port answers an MQTT 3.1.1 CONNECT with CONNACK.
fn bus_answers() -> Result<()> {
    use std::io::{Read, Write};
    let mut bus = std::net::TcpStream::connect((GATEWAY_ADDRESS, BUS_PORT))?;
    bus.set_read_timeout(Some(Duration::from_secs(2)))?;
    bus.write_all(&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'd'])?;
    let mut answer = [0; 4];
    bus.read_exact(&mut answer)?;
    ensure!(answer == [0x20, 2, 0, 0], "the bus answered {answer:02x?}");
    Ok(())
}
