//! Pods whose containers wait for one another, and what they find inside.

use wherry_bundle::Fact;
use wherry_bundle::health::{Check, Probe};
use wherry_bundle::model::{Container, Deployment, Mount, Role, Volume, VolumeSource};

use crate::pods;
use crate::rig::{Rig, bundle, container, deployment, name};

/// With a folder that all containers of its pod share.
pub fn sharing(role: Role, text: &str, script: &str) -> Container {
    let mut container = container(text, script);
    container.role = role;
    let (volume, path) = (name("run"), "/run/app".to_owned());
    container.mounts.push(Mount { volume, path, sub_path: None, read_only: false });
    container
}

pub fn web(containers: Vec<Container>) -> Deployment {
    let mut web = deployment("web", 1, &[], &[]);
    let source = VolumeSource::EmptyDir { bytes_max: 1 << 20 };
    web.pod.volumes.push(Volume { name: name("run"), source });
    web.pod.containers = containers;
    web
}

fn lines(rig: &Rig, container: &str) -> Vec<String> {
    let text = rig.out(&["logs", "web-1", "-c", container]);
    text.lines().map(str::to_owned).collect()
}

fn ready_with(container: &mut Container, script: &str) {
    container.probes.readiness = Some(Probe {
        check: Check::Exec { args: ["/bin/sh", "-c", script].map(Into::into).into() },
        initial_delay_seconds: 0,
        period_seconds: 1,
        timeout_seconds: 5,
        success_threshold: 1,
        failure_threshold: 1,
    });
}

#[test]
fn each_finds_what_went_before_it_and_learns_where_it_is() {
    let mut rig = Rig::new("prepared");
    let layer = rig.layer();
    let zero = sharing(Role::Init, "zero", "sleep 1; echo 1 > /run/app/zero; echo prepared");
    let helps =
        "cat /run/app/zero || exit 1; sleep 2; echo 2 > /run/app/helper; exec sleep 1000000";
    let mut helper = sharing(Role::Sidecar, "helper", helps);
    ready_with(&mut helper, "[ -e /run/app/helper ]");
    let looks = "cat /run/app/zero /run/app/helper || exit 1; echo $POD $ADDRESS $NODE; \
        for path in /x /etc/x /tmp/x /run/app/x; do echo x 2>/dev/null > $path && echo $path; done; \
        exec sleep 1000000";
    let mut main = sharing(Role::Main, "main", looks);
    for (variable, fact) in
        [("POD", Fact::PodName), ("ADDRESS", Fact::PodAddress), ("NODE", Fact::NodeName)]
    {
        main.env.push((variable.into(), fact.into()));
    }
    rig.take_up(&bundle(1, layer, vec![web(vec![zero, helper, main])]));
    rig.start();
    rig.wait("the init container", |rig| {
        pods(rig, "web").iter().any(|pod| pod["last_error"] == "container helper waits for zero")
    });
    rig.wait_running();
    let [pod] = &pods(&rig, "web")[..] else { panic!() };
    let address = pod["address"].as_str().unwrap();
    let facts = format!("web-1 {address} gw-1");
    assert_eq!(lines(&rig, "main"), ["1", "2", facts.as_str(), "/tmp/x", "/run/app/x"]);
    // Whoever comes later does not prepare it once more.
    rig.kill();
    rig.start();
    rig.wait_running();
    assert_eq!(lines(&rig, "zero"), ["prepared"]);
    assert_eq!(lines(&rig, "main").len(), 5);
}

#[test]
fn an_init_container_that_fails_keeps_the_rest_from_starting() {
    let mut rig = Rig::new("unprep");
    let layer = rig.layer();
    let script = "n=$(cat /run/app/n 2>/dev/null); echo x$n > /run/app/n; \
        [ \"$n\" = xx ] || { echo not yet; exit 3; }";
    let zero = sharing(Role::Init, "zero", script);
    let main = sharing(Role::Main, "main", "cat /run/app/n; exec sleep 1000000");
    rig.take_up(&bundle(1, layer, vec![web(vec![zero, main])]));
    rig.start();
    rig.wait("a failed one", |rig| {
        let failed = |error: &str| error.contains("container zero ended: exit code 3");
        pods(rig, "web").iter().any(|pod| pod["last_error"].as_str().is_some_and(failed))
    });
    // Its death while it waits changes nothing.
    rig.kill();
    rig.start();
    rig.wait_running();
    assert_eq!(lines(&rig, "zero"), ["not yet", "not yet"]);
    assert_eq!(lines(&rig, "main"), ["xxx"]);
}
