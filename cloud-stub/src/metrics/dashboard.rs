//! The dashboard in `grafana/`: Prometheus understands every query, and each
//! names only metrics that the cloud has.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::page::names;

/// Words of PromQL that are no functions, for those have a parenthesis.
const WORDS: [&str; 18] = [
    "and",
    "avg",
    "bool",
    "by",
    "count",
    "group_left",
    "group_right",
    "ignoring",
    "max",
    "min",
    "offset",
    "on",
    "or",
    "quantile",
    "sum",
    "topk",
    "unless",
    "without",
];
/// After these comes a list of labels.
const BEFORE_LABELS: [&str; 6] = ["by", "group_left", "group_right", "ignoring", "on", "without"];

fn dashboard() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../grafana/wherry.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// All texts below `value` that have one of these keys.
fn texts(value: &Value, keys: &[&str], found: &mut Vec<String>) {
    match value {
        Value::Object(all) => {
            for (key, value) in all {
                match value {
                    Value::String(text) if keys.contains(&key.as_str()) => found.push(text.clone()),
                    other => texts(other, keys, found),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|value| texts(value, keys, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Of all panels, and of the variables, each of which takes the labels of a
/// metric.
fn queries() -> (Vec<String>, Vec<String>) {
    let dashboard = dashboard();
    let (mut queries, mut variables) = (Vec::new(), Vec::new());
    texts(&dashboard["panels"], &["expr"], &mut queries);
    texts(&dashboard["templating"], &["query", "definition"], &mut variables);
    // The others are a data source, and lengths of time.
    variables.retain(|text| text.starts_with("label_values("));
    let of = |text: String| {
        let inner = text.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        inner.and_then(|inner| inner.rsplit_once(", ")).unwrap().0.to_owned()
    };
    (queries, variables.into_iter().map(of).collect())
}

/// `query` without what is between `open` and `close`.
fn without(query: &str, open: char, close: char) -> String {
    let mut depth = 0_u32;
    let mut rest = String::new();
    for character in query.chars() {
        if depth > 0 && character == close {
            depth -= 1;
        } else if character == open {
            depth += 1;
        } else if depth == 0 {
            rest.push(character);
        }
    }
    rest
}

fn metrics(query: &str) -> Vec<String> {
    let query = without(&without(&without(query, '"', '"'), '{', '}'), '[', ']');
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let (mut found, mut rest) = (Vec::new(), query.as_str());
    while let Some(start) = rest.find(is_word) {
        rest = &rest[start..];
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        if BEFORE_LABELS.contains(&word) {
            let list = after.trim_start();
            rest = list.strip_prefix('(').and_then(|list| list.split_once(')')).unwrap().1;
        } else if !WORDS.contains(&word)
            && !word.starts_with(|c: char| c.is_ascii_digit())
            && !after.trim_start().starts_with('(')
        {
            found.push(word.to_owned());
        }
    }
    found
}

#[test]
fn every_query_names_metrics_that_exist() {
    let names: BTreeSet<&str> = names().collect();
    let (queries, variables) = queries();
    assert!(queries.len() > 30 && variables.len() == 6, "{queries:?} {variables:?}");
    let mut used = BTreeSet::new();
    for query in queries.iter().chain(&variables) {
        let metrics = metrics(query);
        assert!(!metrics.is_empty(), "{query} asks for nothing");
        for metric in metrics {
            assert!(names.contains(metric.as_str()), "there is no `{metric}`: {query}");
            used.insert(metric);
        }
    }
    assert!(used.len() > 30, "{used:?}");
}

#[test]
fn metrics_are_found_in_queries() {
    for (query, expected) in [
        ("up", &["up"][..]),
        ("sum by (node, pod) (rate(a_total{x=~\"b|c\"}[$__rate_interval]))", &["a_total"]),
        ("a{} / on(node) b{x=\"sum(c)\"} > 0.5", &["a", "b"]),
        ("1 - avg without(cpu) (a) or vector(0)", &["a"]),
    ] {
        assert_eq!(metrics(query), expected, "{query}");
    }
}

#[test]
fn prometheus_understands_every_query() {
    let (queries, variables) = queries();
    let rule = |(number, query): (usize, String)| {
        // As Grafana fills them in.
        let expr = query.replace("$__rate_interval", "5m").replace("$window", "15m");
        json!({"record": format!("wherry:query_{number}"), "expr": expr})
    };
    let rules: Vec<Value> = queries.into_iter().chain(variables).enumerate().map(rule).collect();
    // JSON is YAML.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.yaml");
    let rules = json!({"groups": [{"name": "wherry", "rules": rules}]});
    std::fs::write(&file, rules.to_string()).unwrap();
    let output = Command::new("promtool").args(["check", "rules"]).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn every_panel_has_a_place_and_an_own_number() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let numbers: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(numbers.len(), panels.len());
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{}", panel["title"]);
        assert!(panel["gridPos"]["w"].as_u64().unwrap() <= 24, "{}", panel["title"]);
    }
}
