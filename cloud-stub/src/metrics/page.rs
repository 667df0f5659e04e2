//! `/metrics` as a text: what the cloud counts itself, what it knows of its
//! nodes, and their own figures, each line with the labels of its node. Pure.

use std::collections::BTreeMap;

use wherry_bundle::Name;
use wherry_bundle::metrics::Metrics;
use wherry_bundle::metrics::families::{FAMILIES, FLASH_WRITTEN, phase};
use wherry_bundle::metrics::text::{Kind, Labels, Samples, Value, comments};
use wherry_bundle::topic::Topic;

use crate::view::Node;

/// Everything that the page says.
#[derive(Debug)]
pub struct Facts {
    pub nodes: Vec<Node>,
    /// By project.
    pub customers: BTreeMap<Name, Name>,
    /// Of nodes that are connected.
    pub samples: BTreeMap<Name, Metrics>,
    pub messages: Vec<(Topic, u64)>,
    pub counts: Counts,
    pub broker_connected: bool,
}

/// Since the start of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub events: u64,
    pub chunk_bytes: u64,
    pub chunks_sent: u64,
    pub chunks_read: u64,
    pub refused: u64,
}

/// One name of the cloud's own.
struct Own {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    lines: fn(&Facts, &mut Lines<'_>),
}

const OWN: &[Own] = &[
    own("wherry_nodes", Kind::Gauge, "Nodes that are known.", |facts, lines| {
        lines.one(&[], facts.nodes.len() as u64);
    }),
    own("wherry_nodes_online", Kind::Gauge, "Nodes that are connected.", |facts, lines| {
        lines.one(&[], facts.nodes.iter().filter(|node| node.online).count() as u64);
    }),
    own("wherry_pods_available", Kind::Gauge, "Available pods of all nodes.", |facts, lines| {
        let available = facts.nodes.iter().map(|node| u64::from(node.pods_available));
        lines.one(&[], available.sum::<u64>());
    }),
    own("wherry_broker_connected", Kind::Gauge, "Whether the cloud has its broker.", |f, lines| {
        lines.one(&[], f.broker_connected);
    }),
    own("wherry_messages_received_total", Kind::Counter, "Messages of nodes.", |facts, lines| {
        let messages = facts.messages.iter();
        messages.for_each(|(topic, count)| lines.one(&[("topic", topic.suffix())], *count));
    }),
    own("wherry_messages_refused_total", Kind::Counter, "Those that were no such.", |f, lines| {
        lines.one(&[], f.counts.refused);
    }),
    own(
        "wherry_events_received_total",
        Kind::Counter,
        "Events in messages of nodes.",
        |facts, lines| lines.one(&[], facts.counts.events),
    ),
    own("wherry_chunk_bytes_total", Kind::Counter, "Bytes of layers sent to nodes.", |f, lines| {
        lines.one(&[], f.counts.chunk_bytes);
    }),
    own("wherry_chunks_sent_total", Kind::Counter, "Chunks sent to nodes.", |facts, lines| {
        lines.one(&[], facts.counts.chunks_sent);
    }),
    own("wherry_chunks_read_total", Kind::Counter, "Chunks read to be sent.", |facts, lines| {
        lines.one(&[], facts.counts.chunks_read);
    }),
    own("wherry_node_online", Kind::Gauge, "Whether a node is connected.", |facts, lines| {
        lines.each(facts, |node, samples| samples.line(&[], node.online));
    }),
    own(
        "wherry_node_last_seen_timestamp_seconds",
        Kind::Gauge,
        "When a node said something last, by the cloud's clock.",
        |facts, lines| {
            lines.each(facts, |node, samples| {
                samples.maybe(&[], node.last_seen.map(Value::thousandths));
            });
        },
    ),
    own(
        "wherry_node_generation_wanted",
        Kind::Gauge,
        "The generation that was issued to a node.",
        |facts, lines| {
            lines.each(facts, |node, samples| samples.line(&[], node.generation_wanted.0));
        },
    ),
    own("wherry_node_labels", Kind::Gauge, "Labels of a node; always 1.", |facts, lines| {
        lines.each(facts, |node, samples| {
            let labels = prometheus_labels(&node.labels);
            let labels: Vec<(&str, &str)> =
                labels.iter().map(|(key, value)| (key.as_str(), *value)).collect();
            samples.line(&labels, true);
        });
    }),
];

type NodeLines = fn(&Node, &mut Samples<'_>);

/// Names of [`FAMILIES`] that the cloud knows from a node's status, which comes
/// at once and from nodes that push no figures too.
const FROM_STATUS: &[(&str, NodeLines)] = &[
    (FLASH_WRITTEN, |node, samples| {
        let Some(flash) = node.flash else { return };
        samples.line(&[("purpose", "layers")], flash.layer_bytes);
        samples.line(&[("purpose", "state")], flash.state_bytes);
        samples.line(&[("purpose", "logs")], flash.log_bytes);
    }),
    ("wherry_node_generation", |node, samples| {
        samples.maybe(&[], node.phase.as_ref().map(|_| node.generation.0));
    }),
    ("wherry_node_phase", |node, samples| {
        let Some(known) = &node.phase else { return };
        samples.line(&[("phase", phase(known))], true);
    }),
    ("wherry_node_bundle_refused", |node, samples| {
        samples.maybe(&[], node.phase.as_ref().map(|_| node.refused.is_some()));
    }),
    ("wherry_node_generation_failed", |node, samples| {
        samples.maybe(&[], node.phase.as_ref().map(|_| node.failed.is_some()));
    }),
    ("wherry_node_generation_held", |node, samples| {
        samples.maybe(&[], node.phase.as_ref().map(|_| node.held.is_some()));
    }),
];

const fn own(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    lines: fn(&Facts, &mut Lines<'_>),
) -> Own {
    Own { name, kind, help, lines }
}

/// Every name that can be on the page.
pub fn names() -> impl Iterator<Item = &'static str> {
    OWN.iter().map(|own| own.name).chain(FAMILIES.iter().map(|family| family.name))
}

#[must_use]
pub fn page(facts: &Facts) -> String {
    let mut text = String::new();
    for own in OWN {
        comments(own.name, own.kind, own.help, &mut text);
        (own.lines)(facts, &mut Lines { name: own.name, text: &mut text });
    }
    let mut nodes = Vec::new();
    for node in &facts.nodes {
        if let Some(metrics) = facts.samples.get(&node.name) {
            nodes.push((node_labels(facts, node), metrics));
        }
    }
    for family in FAMILIES {
        match FROM_STATUS.iter().find(|(name, _)| *name == family.name) {
            None => family.write(&nodes, &mut text),
            Some((name, lines)) => {
                comments(name, family.kind, family.help, &mut text);
                Lines { name, text: &mut text }.each(facts, lines);
            }
        }
    }
    text
}

/// Takes the lines of one of the cloud's own names.
struct Lines<'a> {
    name: &'static str,
    text: &'a mut String,
}

impl Lines<'_> {
    fn one(&mut self, labels: &[(&str, &str)], value: impl Into<Value>) {
        Samples::new(self.name, &Labels::new(), self.text).line(labels, value);
    }

    fn each(&mut self, facts: &Facts, lines: impl Fn(&Node, &mut Samples<'_>)) {
        for node in &facts.nodes {
            lines(node, &mut Samples::new(self.name, &node_labels(facts, node), self.text));
        }
    }
}

fn node_labels(facts: &Facts, node: &Node) -> Labels {
    let customer = facts.customers.get(&node.project).map(ToString::to_string);
    vec![
        ("node", node.name.to_string()),
        ("project", node.project.to_string()),
        ("customer", customer.unwrap_or_default()),
    ]
}

/// As kube-state-metrics does: `label_` and the key, of which other characters
/// than letters and digits become `_`. Of two that become the same one stays.
fn prometheus_labels(labels: &BTreeMap<String, String>) -> BTreeMap<String, &str> {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let mut fit = BTreeMap::new();
    for (key, value) in labels {
        let key: String = key.chars().map(plain).collect();
        fit.insert(format!("label_{key}"), value.as_str());
    }
    fit
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write;
    use std::process::{Command, Stdio};

    use wherry_bundle::message::Phase;

    use super::*;
    use crate::db::node::tests::{name, new_node, online, with_node};
    use crate::db::{node, project};
    use crate::metrics::tests::sample;

    /// `gw-1` pushes, `gw-2` has said something once.
    fn facts() -> Facts {
        let (_dir, db) = with_node();
        db.write(|tx| {
            node::add(tx, &new_node("gw-2"), 1)?;
            node::set_status(tx, &name("gw-1"), &online(3, Phase::Good), false, 1_500)
        })
        .unwrap();
        let samples =
            [("gw-1", 3), ("gw-9", 1)].map(|(node, number)| (name(node), sample(60, number)));
        Facts {
            nodes: db.read(node::list).unwrap(),
            customers: db.read(project::customers).unwrap(),
            samples: samples.into(),
            messages: vec![(Topic::Status, 2), (Topic::ChunkGet, 0)],
            counts: Counts { events: 4, ..Counts::default() },
            broker_connected: true,
        }
    }

    #[test]
    fn each_line_has_the_labels_of_its_node() {
        let text = page(&facts());
        let of = "project=\"plant\",customer=\"acme\"";
        for line in [
            "wherry_nodes 2",
            "wherry_nodes_online 1",
            "wherry_events_received_total 4",
            "wherry_messages_received_total{topic=\"chunk/get\"} 0",
            &format!("wherry_node_online{{node=\"gw-2\",{of}}} 0"),
            &format!("wherry_node_last_seen_timestamp_seconds{{node=\"gw-1\",{of}}} 1.500"),
            &format!("wherry_node_labels{{node=\"gw-2\",{of},label_site=\"berlin\"}} 1"),
            &format!("{FLASH_WRITTEN}{{node=\"gw-1\",{of},purpose=\"layers\"}} 0"),
            &format!("wherry_node_generation{{node=\"gw-1\",{of}}} 3"),
            &format!("wherry_node_phase{{node=\"gw-1\",{of},phase=\"good\"}} 1"),
            &format!("wherry_node_generation_held{{node=\"gw-1\",{of}}} 0"),
            &format!("machine_cpu_cores{{node=\"gw-1\",{of}}} 2"),
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in:\n{text}");
        }
        assert!(!text.contains("gw-9"), "a node that is not known here");
        assert!(!text.contains("wherry_node_generation{node=\"gw-2\""), "it said nothing yet");
        assert_eq!(text.matches(&format!("# TYPE {FLASH_WRITTEN} ")).count(), 1);
    }

    #[test]
    fn no_name_is_there_twice() {
        let names: Vec<&str> = names().collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        for (name, _) in FROM_STATUS {
            assert!(FAMILIES.iter().any(|family| family.name == *name), "{name} would be lost");
        }
    }

    #[test]
    fn labels_are_made_fit_for_prometheus() {
        let labels = [("site", "a"), ("a.b/c", "b"), ("a-b_c", "c")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let fit = prometheus_labels(&labels);
        let keys: Vec<&str> = fit.keys().map(String::as_str).collect();
        assert_eq!(keys, ["label_a_b_c", "label_site"]);
    }

    #[test]
    fn promtool_finds_nothing_to_say() {
        let mut command = Command::new("promtool");
        command.args(["check", "metrics"]).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(page(&facts()).as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    }
}
