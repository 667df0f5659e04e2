//! The whole node without a cloud: `wherry run` with a bundle in its store
//! and a broker that nobody listens at.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cloud;
mod exec;
mod jobs;
mod keeping;
mod logs;
mod prepared;
mod rig;
mod steps;
mod upgrades;

use std::fs;

use cloud::Cloud;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::{Rig, bundle, deployment, is_running, name, published, sealed};
use serde_json::{Value, json};
use wherry_bundle::message::{LogQuery, Order, Phase, PodPhase};

/// A web server whose page names its pod, and a neighbour that reads it.
const SERVE: &str = "mkdir /tmp/www; cat /etc/greeting/greeting > /tmp/www/index.html; \
    echo \"$HOSTNAME serves\"; exec /bin/httpd -f -p 8080 -h /tmp/www";
const READ: &str = "while ! wget -q -O - http://127.0.0.1:8080/; do sleep 0.1; done; \
    echo to stderr >&2; exec sleep 1000000";

fn pods(rig: &Rig, deployment: &str) -> Vec<Value> {
    let Value::Array(pods) = rig.json(&["ps"]) else { panic!("not a list") };
    pods.into_iter().filter(|pod| pod["deployment"] == deployment).collect()
}

fn container_pids(rig: &Rig) -> Vec<(String, i64)> {
    let Value::Array(pods) = rig.json(&["ps"]) else { panic!("not a list") };
    let mut pids = Vec::new();
    for pod in &pods {
        for container in pod["containers"].as_array().unwrap() {
            let pid = container["state"]["running"]["pid"].as_i64();
            let name = format!("{}/{}", pod["name"], container["name"]);
            pids.push((name, pid.expect("a container does not run")));
        }
    }
    pids
}

#[test]
fn a_node_without_a_cloud_runs_its_pods_through_every_death() {
    let mut rig = Rig::new("node");
    rig.configure("[metrics]\nlisten = \"9273\"\n");
    let layer = rig.layer();
    let web = published(
        deployment("web", 2, &["base"], &[("httpd", SERVE), ("reader", READ)]),
        8080,
        9080,
    );
    let base = deployment("base", 1, &[], &[("only", "echo base is up; exec sleep 1000000")]);
    rig.take_up(&bundle(1, layer, vec![base.clone(), web.clone()]));
    rig.start();
    rig.wait_running();
    let before = container_pids(&rig);
    assert_eq!(before.len(), 5);
    let Value::Array(top) = rig.json(&["top"]) else { panic!("not a list") };
    assert_eq!(top.len(), 3);
    for row in &top {
        let max = row["memory_bytes_max"].as_u64().unwrap();
        assert!((1..max).contains(&row["memory_bytes"].as_u64().unwrap()), "{row}");
        assert!(row["cpu_millis"].is_u64() && row["processes"].as_u64() >= Some(1), "{row}");
    }
    assert_eq!(rig.json(&["top", "base"]).as_array().map(Vec::len), Some(1));
    rig.wait("two readers", |rig| {
        rig.out(&["logs", "web", "-c", "reader"]).matches("to stderr").count() == 2
    });
    looks_right(&rig);

    for _ in 0..2 {
        let (_, supervisor) = rig.pids();
        kill(Pid::from_raw(supervisor), Signal::SIGKILL).unwrap();
        rig.wait("another supervisor", |rig| {
            rig.cli(&["status"]).status.success() && rig.pids().1 != supervisor
        });
        rig.wait_running();
        assert_eq!(container_pids(&rig), before, "the supervisor's death touched a container");
        rig.kill();
        rig.start();
        rig.wait_running();
        assert_eq!(container_pids(&rig), before, "the launcher's death touched a container");
        assert!(rig.out(&["stop"]).contains("run on"));
        assert!(rig.ended());
        rig.start();
        rig.wait_running();
        assert_eq!(container_pids(&rig), before, "an ordinary end touched a container");
    }
    let log = rig.out(&["logs", "base"]);
    assert!(log.contains("base is up"), "logs of before are kept: {log}");

    // Offline, a newer bundle by hand: only what changed is replaced.
    assert!(rig.out(&["stop"]).contains("run on"));
    rig.ended();
    let mut changed = web;
    changed.pod.containers[1].env = vec![("GREETED".into(), "again".into())];
    rig.take_up(&bundle(2, layer, vec![base, changed]));
    rig.start();
    rig.wait("generation 2", |rig| {
        let status = rig.json(&["status"]);
        status["generation"] == 2 && is_running(&status["phase"])
    });
    let after = container_pids(&rig);
    let same: Vec<_> = after.iter().filter(|one| before.contains(one)).collect();
    assert_eq!(same.len(), 1, "base is the same, web is not: {after:?}");

    assert!(rig.out(&["stop", "--all"]).contains("removed"));
    assert!(rig.ended());
    assert_eq!(rig.leftovers(), Vec::<String>::new());
    for (name, pid) in after {
        // One that was taken over is a zombie until the machine's init reaps it.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{name} still runs: {stat}");
    }
}

/// One look at everything that the command line shows.
fn looks_right(rig: &Rig) {
    let web = pods(rig, "web");
    assert_eq!(web.len(), 2);
    let first = web[0]["name"].as_str().unwrap();
    for pod in &web {
        assert_eq!((&pod["phase"], &pod["generation"]), (&json!("available"), &json!(1)));
        let address = pod["address"].as_str().unwrap();
        let page = rig.inside(&[
            "/bin/busybox",
            "wget",
            "-q",
            "-O",
            "-",
            &format!("http://{address}:8080/"),
        ]);
        assert_eq!(page, "hello from a config map\n");
    }
    for _ in 0..4 {
        let page = rig.inside(&["/bin/busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:9080/"]);
        assert_eq!(page, "hello from a config map\n", "by the published port");
    }
    let log = rig.out(&["logs", first]);
    assert!(log.contains(&format!("[httpd] {first} serves\n")), "{log}");
    let reader = rig.out(&["logs", first, "-c", "reader"]);
    assert!(reader.contains("hello from a config map\n") && reader.contains("to stderr\n"));
    let tail = rig.out(&["logs", "web", "-c", "reader", "--tail", "1"]);
    assert_eq!(tail.lines().count(), 2, "one line of each pod: {tail}");
    let error = rig.cli(&["logs", "wed"]);
    assert_eq!(error.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&error.stderr).contains("`wed`"));

    figures_are_right(rig, first);
    let described = rig.json(&["describe", first]);
    assert_eq!(described[0]["containers"][0]["image"], "busybox:1");
    assert_eq!(described[0]["containers"][0]["mounts"][0]["source"], "config map greeting");
    assert!(described[0]["usage"]["memory_bytes"].as_u64().unwrap() > 0);
    let page = rig.out(&["describe", "web"]);
    assert!(page.contains("node") && page.contains("runs as process"), "{page}");
    let events = rig.json(&["events"]);
    let kinds: Vec<&str> =
        events.as_array().unwrap().iter().filter_map(|event| event["kind"].as_str()).collect();
    for kind in ["started", "pod-created", "container-started", "pod-available"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    // Its dependency was available before the first of web was made.
    let at = |kind: &str, subject: &str| {
        let events = events.as_array().unwrap();
        let found = events.iter().position(|event| {
            event["kind"] == kind && event["subject"].as_str().unwrap().starts_with(subject)
        });
        found.unwrap_or_else(|| panic!("no {kind} of {subject}: {events:?}"))
    };
    assert!(at("pod-available", "base-") < at("pod-created", "web-"));
    let status = rig.out(&["status"]);
    assert!(status.contains("3 of 3 available") && status.contains("not connected"), "{status}");
    let secretive = fs::metadata(rig.run_dir().join("volumes")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&secretive.permissions()) & 0o777, 0o700);
}

/// What a scraper sees, on loopback.
fn figures_are_right(rig: &Rig, pod: &str) {
    let get = |path: &str| {
        let url = format!("http://127.0.0.1:9273{path}");
        rig.inside(&["/bin/busybox", "wget", "-q", "-O", "-", &url])
    };
    let text = get("/metrics");
    let value = |series: &str| -> f64 {
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {series} in:\n{text}")).parse().unwrap()
    };
    assert_eq!(value("wherry_node_generation"), 1.0);
    assert_eq!(value("wherry_node_cloud_connected"), 0.0);
    assert_eq!(value("kube_deployment_status_replicas_available{deployment=\"web\"}"), 2.0);
    let of = format!("deployment=\"web\",pod=\"{pod}\"");
    let limit = format!("kube_pod_resource_limit{{{of},resource=\"memory\",unit=\"bytes\"}}");
    let limit = value(&limit);
    let used = value(&format!("container_memory_usage_bytes{{{of}}}"));
    assert!(0.0 < used && used < limit, "{used} of {limit}");
    assert!(value(&format!("container_cpu_usage_seconds_total{{{of}}}")) > 0.0);
    let restarts = "kube_pod_container_status_restarts_total";
    assert_eq!(value(&format!("{restarts}{{{of},container=\"httpd\"}}")), 0.0);
    for name in ["launcher", "supervisor"] {
        let bytes = format!("wherry_node_process_resident_memory_bytes{{process=\"{name}\"}}");
        assert!(value(&bytes) > 1e6);
    }
    // The pods' own links are none of the machine's.
    let devices = text.matches("\nnode_network_receive_bytes_total{").count();
    assert!(devices == 1 && text.contains("{device=\"whtestnode\"}"), "{text}");
}

#[test]
fn ends_are_told_and_restarts_are_held_back() {
    let mut rig = Rig::new("ends");
    let layer = rig.layer();
    let crash = deployment("crash", 1, &[], &[("sh", "echo line; exit 3")]);
    let mut once = deployment("once", 1, &[], &[("sh", "echo done")]);
    once.pod.restart_policy = wherry_bundle::model::RestartPolicy::Never;
    let mut broken = deployment("broken", 1, &[], &[("sh", "")]);
    broken.pod.containers[0].args = vec!["/bin/nothing".into()];
    rig.take_up(&bundle(1, layer, vec![broken, crash, once]));
    rig.start();
    let container = |rig: &Rig, deployment: &str| {
        pods(rig, deployment).first().map(|pod| (pod.clone(), pod["containers"][0].clone()))
    };
    rig.wait("two restarts", |rig| {
        container(rig, "crash").is_some_and(|(_, c)| c["restarts"].as_u64() >= Some(2))
    });
    let (pod, crash) = container(&rig, "crash").unwrap();
    assert_eq!(crash["last_exit"], json!({ "code": 3 }));
    assert!(pod["last_error"].as_str().unwrap().contains("exit code 3"), "{pod}");
    let (pod, once) = container(&rig, "once").unwrap();
    assert_eq!((&pod["phase"], &once["restarts"]), (&json!("succeeded"), &json!(0)));
    assert_eq!(once["last_exit"], json!({ "code": 0 }));
    assert_eq!(rig.out(&["logs", "once", "-c", "sh"]).matches("done").count(), 1);
    rig.wait("the failed start", |rig| {
        container(rig, "broken").is_some_and(|(pod, _)| {
            pod["last_error"].as_str().is_some_and(|error| error.contains("nothing"))
        })
    });
    assert!(rig.out(&["logs", "crash"]).matches("line").count() >= 3);
    assert!(rig.out(&["stop", "--all"]).contains("removed"));
    assert!(rig.ended());
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[test]
fn bundles_and_commands_come_by_the_broker() {
    let mut rig = Rig::new("cloud");
    let layer = rig.layer();
    let cloud = Cloud::start(&rig);
    rig.configure("[metrics]\npush_seconds = 5\n");
    rig.start();
    cloud.status("an empty node", |status| status.phase == Phase::Empty);
    let well = |words: &str| deployment("well", 1, &[], &[("sh", words)]);
    let first = sealed(&bundle(1, layer, vec![well("echo one; echo two; exec sleep 1000000")]));
    cloud.desire(first.clone());
    cloud.event("generation 1 received");
    cloud.event("generation 1 taken up");
    cloud.status("generation 1", |status| status.generation.0 == 1 && status.phase.is_running());
    let before = container_pids(&rig);

    // Refused, told, and what runs runs on.
    let mut damaged = sealed(&bundle(2, layer, vec![well("exit 1")]));
    damaged[100] ^= 1;
    cloud.desire(damaged);
    let refused = cloud.status("the refusal", |status| status.refused.is_some());
    assert!(refused.refused.unwrap().reason.contains("signature"));
    cloud.event("a bundle is refused");
    cloud.desire(first);

    let logs = |id, pod: &str| {
        let query = LogQuery {
            pod: name(pod),
            container: None,
            tail: None,
            since_seconds: None,
            follow: id == 7,
        };
        cloud.order(id, Order::Logs(query));
    };
    logs(5, "well");
    assert_eq!(cloud.reply(5), (Ok("2 lines".into()), vec!["one".into(), "two".into()]));
    logs(6, "nothing");
    assert!(cloud.reply(6).0.unwrap_err().contains("`nothing`"));
    logs(7, "well-1");
    std::thread::sleep(std::time::Duration::from_millis(300));
    cloud.order(8, Order::End { id: 7 });
    assert_eq!(cloud.reply(7).1, ["one", "two"], "a follower that was ended");
    assert_eq!(container_pids(&rig), before);

    // A supervisor that comes back gets the retained bundle once more.
    kill(Pid::from_raw(rig.pids().1), Signal::SIGKILL).unwrap();
    cloud.event("found 1 pods");
    cloud.status("the node again", |status| status.phase.is_running() && status.refused.is_some());
    assert_eq!(container_pids(&rig), before);

    cloud.order(9, Order::RestartPod { pod: name("well-1") });
    assert!(cloud.reply(9).0.is_ok());
    cloud.status("another pod in its place", |status| {
        let [pod] = &status.pods[..] else { return false };
        pod.name == name("well-2") && pod.phase == PodPhase::Available
    });
    cloud.order(10, Order::RestartPod { pod: name("well-1") });
    assert!(cloud.reply(10).0.unwrap_err().contains("no pod"));

    cloud.desire(sealed(&bundle(3, layer, vec![well("exec sleep 1000000")])));
    let figures = cloud.figures(|figures| !figures.pods.is_empty());
    assert_eq!((figures.push_seconds, figures.wherry.cloud_connected), (5, true));
    assert!(figures.pods[0].usage.is_some_and(|usage| usage.memory_bytes > 0), "{figures:?}");
    let status = cloud
        .status("generation 3", |status| status.generation.0 == 3 && status.phase.is_running());
    assert_eq!(status.refused, None);
    rig.out(&["stop", "--all"]);
    cloud.offline();
    assert!(rig.ended());
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}
