//! The table of states, events and actions in ARCHITECTURE.md, made by the
//! reconciler itself: `WHERRY_GOLDEN=write cargo test -p wherry-core` writes
//! it anew.

use std::fmt::Write as _;
use std::path::Path;

use wherry_bundle::message::Exit;
use wherry_bundle::model::{Role, Strategy};
use wherry_core::{Health, Millis, Preparation, Workload};

use crate::scenario::{Scenario, line, name, workload};

const BEGIN: &str = "<!-- made by tests/table/document.rs: begin -->\n";
const END: &str = "<!-- end -->\n";

/// One pod `web-1` and what comes of it.
struct Table {
    text: String,
    scenario: Scenario,
    now: u64,
}

impl Table {
    fn new() -> Self {
        let text = "| a pod is | and then | so at once |\n|---|---|---|\n".into();
        Self { text, scenario: Scenario::new(), now: 0 }
    }

    /// Another pod, for what cannot follow from where the last one is.
    fn begin(&mut self, preparation: Preparation, workload: Workload) {
        self.scenario = Scenario { preparation, ..Scenario::new() };
        self.scenario.bundle([("web", workload)]);
        self.scenario.settle(0);
        self.now = 100_000;
    }

    /// What the reconciler does after `event`, `later` milliseconds later.
    fn row(&mut self, state: &str, event: &str, later: u64) {
        self.now += later;
        self.scenario.plan(self.now);
        let actions = self.scenario.last.actions.clone();
        let shown = |action| match line(action).trim_end() {
            "publish" => "`publish` nothing".to_owned(),
            text => format!("`{text}`"),
        };
        let told: Vec<String> = actions.iter().map(shown).collect();
        let told = if told.is_empty() { "—".to_owned() } else { told.join(", ") };
        let wait = self
            .scenario
            .last
            .wake_at
            .map_or(String::new(), |at| format!(", looks again after {} ms", at.0 - self.now));
        writeln!(self.text, "| {state} | {event} | {told}{wait} |").unwrap();
        for action in actions {
            self.scenario.perform(&action);
        }
    }

    fn quiet(&mut self) {
        self.now += 10;
        let now = self.now;
        self.scenario.settle(now);
    }
}

#[test]
fn the_table_in_the_documentation_is_what_the_reconciler_does() {
    let mut table = Table::new();
    lives(&mut table);
    ends(&mut table);
    upgrades(&mut table);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    if std::env::var_os("WHERRY_GOLDEN").is_some_and(|value| value == "write") {
        let text = [before, BEGIN, &table.text, END, after].concat();
        std::fs::write(&path, text).unwrap();
    } else {
        assert!(found == table.text, "the table should be\n{}", table.text);
    }
}

fn lives(table: &mut Table) {
    let both = ["main", "aside"].map(|text| (name(text), Role::Main)).into();
    table.scenario.bundle_without_layers([(
        "web",
        Workload { containers: both, min_ready: Millis(5_000), ..workload("a") },
    )]);
    table.row("planned", "its layers are missing", 0);
    let layers: Vec<_> = table.scenario.observed.fetching.clone();
    table.scenario.observed.layers.extend(layers.iter().map(|layer| layer.digest));
    table.scenario.observed.fetching.clear();
    table.row("planned", "its layers have come", 10);
    table.row("created", "", 10);
    table.row("running", "all containers run", 10);
    table.row("running", "for `minReadySeconds`", 5_000);
    table.quiet();
    table.scenario.pod("web-1").health = [(name("main"), Health::NotReady)].into();
    table.row("available", "a readiness probe fails", 60_000);
    table.scenario.pod("web-1").health.clear();
    table.row("running", "it succeeds again", 10_000);
    table.quiet();
    table.scenario.pod("web-1").unhealthy.insert(name("main"));
    table.scenario.futile.insert("terminate".into());
    table.row("available", "a liveness probe fails", 60_000);
    table.row("sick", "out of grace", 10_000);
    table.row("running", "its container has ended", 10);
    table.row("running", "its back-off is over", 990);
    table.scenario.futile.clear();
}

fn ends(table: &mut Table) {
    table.begin(Preparation::default(), workload("a"));
    table.scenario.failing.insert("start".into());
    let now = table.now;
    table.scenario.exits("web-1", Exit::OutOfMemory, now);
    table.row("available", "its container ends", 0);
    table.row("running", "its back-off is over", 1_000);
    table.row("running", "the start failed", 10);
    table.begin(Preparation { runs: true, sleep: Millis(0) }, workload("a"));
    table.scenario.bundle([]);
    table.row("available", "its deployment is gone", 0);
    table.row("unpublishing", "nothing leads to it any more", 10);
    table.row("draining", "its connections had their second", 1_000);
    table.scenario.futile.insert("terminate".into());
    table.row("pre-stopping", "what it asked for is done", 10);
    table.row("terminating", "out of grace", 10_000);
    table.row("killing", "all containers have ended", 10);
    table.row("removing", "it is gone", 10);
}

fn upgrades(table: &mut Table) {
    table.begin(Preparation::default(), workload("a"));
    table.scenario.bundle([("web", workload("b"))]);
    table.row("available", "a bundle asks for another form", 0);
    table.quiet();
    table.begin(Preparation::default(), workload("a"));
    let recreate = Workload { strategy: Strategy::Recreate, ..workload("b") };
    table.scenario.bundle([("web", recreate)]);
    table.row("available", "the same, with `Recreate`", 0);
    let big = |form| Workload { memory_bytes: 64 << 20, ..workload(form) };
    table.begin(Preparation::default(), big("a"));
    table.scenario.observed.memory_available_bytes = Some(8 << 20);
    table.scenario.bundle([("web", big("b"))]);
    table.row("available", "the same, with too little memory for both", 0);
    table.begin(Preparation::default(), workload("a"));
    table.scenario.bundle([("web", Workload { replicas: 2, ..workload("a") })]);
    table.row("available", "a bundle asks for one more of its form", 0);
}
