//! The text form of figures: what Prometheus' own tool says of it, and what
//! its format asks for.

#![allow(clippy::unwrap_used)]

mod sample;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use sample::metrics::full;
use wherry_bundle::message::{Message, Phase};
use wherry_bundle::metrics::families::FAMILIES;
use wherry_bundle::metrics::text::{Labels, Samples, Value, render};
use wherry_bundle::metrics::{DEVICES_MAX, LABEL_BYTES_MAX, Metrics, Pressure};

fn fleet(nodes: &[(&str, &Metrics)]) -> String {
    let labels = |node: &str| -> Labels { vec![("node", node.to_owned())] };
    let nodes: Vec<_> = nodes.iter().map(|(node, metrics)| (labels(node), *metrics)).collect();
    render(&nodes)
}

/// What `promtool check metrics` says; nothing if all is well.
fn promtool(text: &str) -> String {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said
}

#[test]
fn promtool_finds_nothing_to_say() {
    let metrics = full();
    assert_eq!(promtool(&render(&[(Labels::new(), &metrics)])), "");
    assert_eq!(promtool(&fleet(&[("gw-1", &metrics), ("gw-2", &metrics)])), "");
    // It does look.
    assert!(promtool("node_load1 1\n").contains("no help text"));
}

#[test]
fn every_family_has_lines_and_all_of_them_together() {
    let metrics = full();
    let text = fleet(&[("gw-1", &metrics), ("gw-2", &metrics)]);
    let mut names: Vec<&str> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        if names.last() != Some(&name) {
            names.push(name);
        }
    }
    let all: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
    assert_eq!(names, all, "a family without a line, or in two places");
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    let series = text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series);
    let series: Vec<&str> = series.filter(|series| !series.starts_with('#')).collect();
    assert_eq!(series.iter().collect::<BTreeSet<_>>().len(), series.len(), "a series twice");
    for family in FAMILIES {
        assert_eq!(text.matches(&format!("# TYPE {} ", family.name)).count(), 1);
        assert!(!family.help.contains(['\\', '\n']) && family.help.ends_with('.'));
    }
}

#[test]
fn numbers_and_labels_are_exact() {
    let text = fleet(&[("gw-1", &full())]);
    for line in [
        "node_cpu_seconds_total{node=\"gw-1\",mode=\"idle\"} 4000.500",
        "node_load5{node=\"gw-1\"} 1.10",
        "node_memory_available_bytes{node=\"gw-1\"} 51200000",
        "node_thermal_zone_temp{node=\"gw-1\",zone=\"0\",type=\"cpu-thermal\"} 48.312",
        "node_pressure_cpu_waiting_seconds_total{node=\"gw-1\"} 1.500000",
        "wherry_node_application_info{node=\"gw-1\",application=\"zoo\",version=\"1.4.0.2\"} 1",
        "kube_deployment_status_replicas{node=\"gw-1\",deployment=\"web\"} 2",
        "kube_deployment_status_replicas_available{node=\"gw-1\",deployment=\"db\"} 0",
        "container_cpu_usage_seconds_total{node=\"gw-1\",deployment=\"web\",pod=\"web-3\"} 12.345678",
        "wherry_pod_pressure_ratio{node=\"gw-1\",deployment=\"web\",pod=\"web-3\",resource=\"cpu\"} 0.0125",
        "kube_pod_container_status_last_terminated_reason{node=\"gw-1\",deployment=\"db\",pod=\"db-1\",\
         container=\"main\",reason=\"OOMKilled\"} 1",
    ] {
        assert!(text.lines().any(|known| known == line), "{line} is not in:\n{text}");
    }
    assert!(
        !text.contains("container_processes{node=\"gw-1\",deployment=\"db\""),
        "it is not there"
    );
    let mut cold = full();
    cold.machine.thermal_zones[0].temperature = -5_025;
    let text = render(&[(Labels::new(), &cold)]);
    assert!(text.contains("zone=\"0\",type=\"cpu-thermal\"} -5.025\n"), "{text}");
    assert!(text.contains("\nnode_load1 0.05\n"), "{text}");
}

#[test]
fn foreign_text_cannot_make_a_line() {
    let (mut text, labels) = (String::new(), Labels::new());
    let evil = "a\"} 1\nevil{x=\"\\";
    Samples::new("x", &labels, &mut text).line(&[("device", evil)], Value::from(1_u32));
    assert_eq!(text, "x{device=\"a\\\"} 1\\nevil{x=\\\"\\\\\"} 1\n");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn what_is_not_known_is_not_said() {
    let mut metrics = full();
    metrics.machine = Default::default();
    metrics.wherry.phase = Phase::Good;
    metrics.pods.clear();
    assert_eq!(metrics.machine.pressure, Pressure::default());
    let text = render(&[(Labels::new(), &metrics)]);
    for name in ["node_cpu", "node_memory", "node_disk", "node_pressure", "container_", "kube_"] {
        assert!(!text.contains(name), "{text}");
    }
    assert_eq!(promtool(&text), "");
}

/// As from a node that is not ours.
#[test]
fn a_sample_is_made_tidy() {
    let mut metrics = full();
    metrics.wherry.kernel = "ü".repeat(500);
    metrics.pods.push(metrics.pods[0].clone());
    let disk = metrics.machine.disks[0].clone();
    metrics.machine.disks.push(disk.clone());
    for number in 0..100 {
        metrics
            .machine
            .disks
            .push(wherry_bundle::metrics::Disk { name: format!("sd{number}"), ..disk.clone() });
    }
    let tidy = metrics.tidy();
    assert_eq!(tidy.wherry.kernel.len(), LABEL_BYTES_MAX);
    assert_eq!((tidy.pods.len(), tidy.machine.disks.len()), (3, DEVICES_MAX));
    assert_eq!(full().tidy(), full(), "what is in order stays as it is");
}

/// SPECIFICATION.md says how large.
#[test]
fn a_sample_is_small() {
    let bytes = full().to_bytes().unwrap().len();
    println!("{bytes} bytes for three pods");
    assert!(bytes <= 400, "{bytes}");
    let mut many = full();
    many.pods = (0..10)
        .map(|number| {
            let name = format!("station-{number}").parse().unwrap();
            wherry_bundle::metrics::Pod { name, ..many.pods[1].clone() }
        })
        .collect();
    let bytes = many.to_bytes().unwrap().len();
    println!("{bytes} bytes for ten");
    assert!(bytes <= 1_024, "{bytes}");
}
