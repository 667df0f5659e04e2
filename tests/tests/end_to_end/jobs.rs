//! A job from its template to its end: what depends on it waits, and a version
//! whose job fails for good is left.

use anyhow::{Result, ensure};
use wherry_tests::node::Node;
use wherry_tests::package::{Component, Package};
use wherry_tests::run::wait_for;
use wherry_tests::templates::{EVERYWHERE, env, lion};
use wherry_tests::world::with_gateway;

fn job(script: &str) -> String {
    format!(
        "apiVersion: batch/v1
kind: Job
metadata: {{ name: migrate }}
spec:
  backoffLimit: 1
  activeDeadlineSeconds: 60
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: main
          command: [/bin/busybox, sh, -c, \"{script}\"]
"
    )
}

fn package(number: &str, script: &str) -> Package {
    let mut web = Component::new("web", "lion:1.0.0", lion("web", "", "", &env(&[EVERYWHERE])));
    web.start_after.push("migrate".into());
    let job = Component::new("migrate", "lion:1.0.0", job(script));
    let mut package = Package::new(number, vec![job, web]);
    package.stable_seconds = Some(2);
    package
}

fn wait_good(node: &Node<'_>, what: &str, left: bool) -> Result<serde_json::Value> {
    let (node, patience) = (node, node.place().patience());
    wait_for(what, patience, || {
        let status = node.json(&["status"])?;
        let is_good = status["generation"] == 1 && status["phase"] == "good";
        ensure!(is_good && status["failed"].is_null() != left, "{status}");
        Ok(Some(status))
    })
}

#[test]
fn a_job_goes_before_what_needs_it_and_fails_with_its_version() {
    with_gateway("job", |host, cloud, node| {
        package("1.0.0", "echo migrates; sleep 1").roll_out(cloud, host)?;
        wait_good(node, "the first version", false)?;
        ensure!(node.pod("migrate")?["phase"] == "succeeded", "{}", node.pod("migrate")?);
        let events = node.json(&["events"])?;
        let at = |kind: &str, subject: &str| {
            let mut events = events.as_array().into_iter().flatten();
            events.position(|event| {
                event["kind"] == kind && event["subject"].as_str() == Some(subject)
            })
        };
        let (done, made) = (at("pod-available", "migrate-1"), at("pod-created", "web-1"));
        ensure!(done.is_some() && done < made, "{events}");

        let web = node.processes_of("web")?;
        package("2.0.0", "echo no database; exit 3").roll_out(cloud, host)?;
        let status = wait_good(node, "the way back", true)?;
        let failed = &status["failed"];
        ensure!(failed["cause"]["job"]["exit"]["code"] == 3, "{failed}");
        ensure!(failed["lines"].to_string().contains("no database"), "{failed}");
        ensure!(node.processes_of("web")? == web, "what did not change was touched");
        Ok(())
    });
}
