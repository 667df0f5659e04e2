//! What a container is, seen from `/proc` and the kernel's tables.

#![allow(clippy::unwrap_used)]

use std::fmt::Display;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wherry_tests::host::{GATEWAY_ADDRESS, Host, Side};
use wherry_tests::node::{Node, PATIENCE};
use wherry_tests::observe::{children, http_get, json_field, zombies_of};
use wherry_tests::package::{Component, Package};
use wherry_tests::run::wait_for;
use wherry_tests::shop::Shop;
use wherry_tests::templates::{EVERYWHERE, env, lion};
use wherry_tests::world::with_gateway;

#[test]
fn a_pod_is_isolated_and_its_containers_share_it() {
    with_gateway("iso", |host, cloud, node| {
        Shop::default().package().roll_out(cloud, host)?;
        node.wait_running(1)?;
        let pods = node.pods()?;
        let web: Vec<&Value> = pods.iter().filter(|pod| pod["deployment"] == "web").collect();
        let [first, second] = web[..] else { anyhow::bail!("two pods of web, not {web:?}") };
        let [nginx, lion] = [pid(first, "nginx")?, pid(first, "lion")?];
        for shared in ["net", "ipc", "uts"] {
            ensure!(namespace(nginx, shared)? == namespace(lion, shared)?, "{shared} differs");
            let other = pid(second, "lion")?;
            ensure!(namespace(other, shared)? != namespace(lion, shared)?, "{shared} is shared");
            ensure!(namespace("self", shared)? != namespace(lion, shared)?, "{shared} of the host");
        }
        for own in ["pid", "mnt", "cgroup"] {
            ensure!(namespace(nginx, own)? != namespace(lion, own)?, "{own} is shared");
        }
        hardened(lion, "1000")?;
        hardened(nginx, "101")?;
        limits(lion, 32 << 20)?;
        files(lion, first)?;
        Ok(())
    });
}

fn hardened(pid: i32, uid: &str) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()).unwrap_or_default().to_owned()
    };
    ensure!(field("NoNewPrivs:") == "1", "{pid} may gain privileges");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        ensure!(field(set) == "0000000000000000", "{pid} has {set} {}", field(set));
    }
    ensure!(field("Uid:") == uid, "{pid} is user {}", field("Uid:"));
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let options = |point: &str| {
        let line = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some(point));
        line.and_then(|line| line.split(' ').nth(5)).unwrap_or_default().to_owned()
    };
    for (point, wanted) in [
        ("/", "nodev"),
        ("/sys", "ro"),
        ("/proc/sys", "ro"),
        ("/proc/sysrq-trigger", "ro"),
        ("/dev/shm", "nosuid"),
    ] {
        // Not every kernel is built with all of them.
        if !Path::new(point).exists() {
            continue;
        }
        let found = options(point);
        ensure!(found.split(',').any(|option| option == wanted), "{point} is {found:?}\n{mounts}");
    }
    for masked in ["/proc/kcore", "/proc/keys", "/proc/timer_list"] {
        let inside = format!("/proc/{pid}/root{masked}");
        // /proc/kcore would be the machine's memory: one byte tells enough.
        let bytes = File::open(&inside).map_or(0, |mut f| f.read(&mut [0; 1]).unwrap_or(0));
        ensure!(bytes == 0, "{masked} can be read");
    }
    let mut devices: Vec<String> = fs::read_dir(format!("/proc/{pid}/root/dev"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    devices.sort();
    let usual = [
        "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm",
        "stderr", "stdin", "stdout", "tty", "urandom", "zero",
    ];
    let strange: Vec<_> = devices.iter().filter(|name| !usual.contains(&name.as_str())).collect();
    ensure!(strange.is_empty(), "devices: {strange:?}");
    Ok(())
}

fn limits(pid: i32, memory_bytes: u64) -> Result<()> {
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = |controller: &str| {
        let line = own.lines().find(|line| line.split(':').nth(1) == Some(controller));
        line.and_then(|line| line.split(':').nth(2)).unwrap_or_default().to_owned()
    };
    let v1 = format!("/sys/fs/cgroup/memory{}/memory.limit_in_bytes", path("memory"));
    let v2 = format!("/sys/fs/cgroup{}/memory.max", path(""));
    let text = fs::read_to_string(&v1).or_else(|_| fs::read_to_string(&v2)).context(v1)?;
    ensure!(text.trim() == memory_bytes.to_string(), "the memory limit is {text}");
    let v1 = format!("/sys/fs/cgroup/cpu{}/cpu.cfs_quota_us", path("cpu"));
    let v2 = format!("/sys/fs/cgroup{}/cpu.max", path(""));
    let text = fs::read_to_string(&v1).or_else(|_| fs::read_to_string(&v2)).context(v1)?;
    ensure!(text.split_whitespace().next() == Some("50000"), "the cpu limit is {text}");
    Ok(())
}

fn files(pid: i32, pod: &Value) -> Result<()> {
    let read =
        |path: &str| fs::read_to_string(format!("/proc/{pid}/root{path}")).context(path.to_owned());
    let hosts = read("/etc/hosts")?;
    for name in ["localhost", "bus", "web", pod["name"].as_str().unwrap_or("?")] {
        let known = hosts.lines().any(|line| line.split_whitespace().skip(1).any(|w| w == name));
        ensure!(known, "{name} is not in /etc/hosts:\n{hosts}");
    }
    ensure!(read("/etc/hostname")?.trim() == pod["name"], "hostname");
    read("/etc/resolv.conf")?;
    ensure!(read("/etc/lion/lion.properties")? == "mane=long\n", "the configuration file");
    Ok(())
}

#[test]
fn ends_are_real_and_restarts_back_off() {
    with_gateway("ends", |host, cloud, node| {
        let component = |name: &str, spec: &str, pod: &str, container: &str| {
            Component::new(name, "lion:1.0.0", lion(name, spec, pod, container))
        };
        let crash = component("crash", "", "", &env(&[("LION_CRASH_MS", "50")]));
        let hog = component(
            "hog",
            "",
            "",
            &format!(
                "resources: {{ limits: {{ memory: 16Mi }} }}\n{}",
                env(&[("LION_HOG_MB", "64")])
            ),
        );
        let well = component("well", "", "", &env(&[EVERYWHERE]));
        let open = component("open", "", "hostNetwork: true", &env(&[("LISTEN", "0.0.0.0:9100")]));
        let once = "apiVersion: v1\nkind: Pod\nmetadata: { name: once }\nspec:\n  restartPolicy: Never\n  containers:\n    - name: sh\n      command: [/bin/busybox, sh, -c, 'exit 7']\n";
        let once = Component::new("once", "lion:1.0.0", once);
        Package::new("1.0.0", vec![crash, hog, well, open, once]).roll_out(cloud, host)?;
        let exit = |deployment: &str| -> Result<Value> {
            let pod = pod(node, deployment)?;
            Ok(pod["containers"][0]["last_exit"].clone())
        };
        for (deployment, wanted) in [
            ("crash", serde_json::json!({ "code": 4 })),
            ("hog", serde_json::json!("out-of-memory")),
            ("once", serde_json::json!({ "code": 7 })),
        ] {
            wait_for(&format!("the end of {deployment}"), PATIENCE, || {
                let exit = exit(deployment)?;
                ensure!(exit == wanted, "{exit}");
                Ok(Some(()))
            })?;
        }
        let well = wait_for("the well one", PATIENCE, || {
            let pod = pod(node, "well")?;
            Ok((pod["phase"] == "available").then_some(pod))
        })?;
        let lion_pid = pid(&well, "lion")?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(lion_pid), nix::sys::signal::SIGKILL)?;
        wait_for("its restart", PATIENCE, || {
            let pod = pod(node, "well")?;
            let container = &pod["containers"][0];
            ensure!(container["last_exit"] == serde_json::json!({ "signal": 9 }), "{container}");
            Ok((container["restarts"] == 1 && pid(&pod, "lion")? != lion_pid).then_some(()))
        })?;
        let body = host.inside(Side::Wan, || http_get(&format!("{GATEWAY_ADDRESS}:9100"), "/"))?;
        ensure!(json_field(&body, "version") == "0", "the host network does not answer: {body}");

        let restarts = |wanted: u64| {
            wait_for(&format!("restart {wanted}"), PATIENCE, || {
                let pod = pod(node, "crash")?;
                Ok((pod["containers"][0]["restarts"].as_u64() >= Some(wanted)).then_some(()))
            })
        };
        restarts(3)?;
        let start = std::time::Instant::now();
        restarts(4)?;
        ensure!(start.elapsed().as_millis() > 1_500, "it restarts too fast: {:?}", start.elapsed());
        let (launcher, supervisor) = node.pids()?;
        ensure!(zombies_of(launcher).is_empty(), "zombies: {:?}", zombies_of(launcher));
        ensure!(children(supervisor).is_empty(), "the supervisor has children");
        Ok(())
    });
}

#[test]
fn logs_are_kept_and_found() {
    with_gateway("logs", |host, cloud, node| {
        Shop::default().package().roll_out(cloud, host)?;
        node.wait_running(1)?;
        let pod = pod(node, "bus")?;
        let name = pod["name"].as_str().context("a name")?;
        let log = node.cli(&["logs", name])?;
        ensure!(log.contains("mosquitto version"), "{log}");
        let one = node.cli(&["logs", name, "--tail", "1"])?;
        ensure!(one.lines().count() == 1 && log.ends_with(&one), "{one}");
        ensure!(node.cli(&["logs", name, "--since", "1h"])? == log, "--since 1h cuts something");
        let both = node.cli(&["logs", "web", "-c", "lion"])?;
        ensure!(both.matches("listening on").count() == 2, "{both}");
        let missing = node.cli(&["logs", "nothing"]).unwrap_err().to_string();
        ensure!(missing.contains("nothing"), "{missing}");

        let file = crate_log(host, name)?;
        let line = file.lines().next().context("a line")?;
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        ensure!(
            words.len() == 4 && ["stdout", "stderr"].contains(&words[1]) && words[2] == "F",
            "{line}"
        );
        ensure!(words[0].ends_with('Z') && words[0].contains('T'), "{line}");

        let cloud_log = cloud.cli(&["logs", "gw-1", name])?;
        ensure!(cloud_log.contains("mosquitto version"), "{cloud_log}");
        for words in [&["ps"][..], &["events"], &["status"], &["describe", name]] {
            ensure!(!node.cli(words)?.trim().is_empty(), "`wherry {words:?}` prints nothing");
            node.json(words)?;
        }
        Ok(())
    });
}

fn crate_log(host: &Host, pod: &str) -> Result<String> {
    let path = host.folder().join(format!("run/logs/{pod}/mosquitto.log"));
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

fn pod(node: &Node<'_>, deployment: &str) -> Result<Value> {
    let pods = node.pods()?;
    pods.into_iter()
        .find(|pod| pod["deployment"] == deployment)
        .with_context(|| format!("no pod of {deployment}"))
}

fn pid(pod: &Value, container: &str) -> Result<i32> {
    let containers = pod["containers"].as_array().context("containers")?;
    let found = containers.iter().find(|c| c["name"] == container);
    let pid = found.and_then(|c| c["state"]["running"]["pid"].as_i64());
    Ok(i32::try_from(pid.with_context(|| format!("{container} does not run: {pod}"))?)?)
}

fn namespace(process: impl Display, kind: &str) -> Result<String> {
    let path = format!("/proc/{process}/ns/{kind}");
    Ok(fs::read_link(&path).context(path)?.to_string_lossy().into_owned())
}
