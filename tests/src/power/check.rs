//! What has to hold on a node's data disk after a power cut, whatever the
//! moment: looked at with the node's own store.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use wherry::layers::Layers;
use wherry::store::{Generations, NewEvent, Store, Stored};
use wherry_bundle::message::{Event, EventKind, WallMillis};
use wherry_bundle::{Bundle, Digest, Generation, Name, envelope};

use super::marks::Known;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// The file system does not mount.
    Mount,
    /// The store does not open, or had to be restored.
    Store,
    /// The bundle is not whole, or not the one that it has to be.
    Generation,
    /// A file with a layer's name is not that layer, or one that ran is gone.
    Layers,
    /// An event that the cloud was told of is gone, changed, or its number
    /// would be used again.
    Events,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    pub subject: Subject,
    pub text: String,
}

/// All events at once.
const BYTES_MAX: usize = usize::MAX;

/// Checks the node's data folder `data`; changes it as a start of the node
/// would. Empty: nothing that was told is lost.
#[must_use]
pub fn check(data: &Path, node: &Name, known: &Known) -> Vec<Finding> {
    let mut findings = Findings::default();
    let state = data.join("state");
    if let Some((store, current)) = open(&state, node, known, &mut findings) {
        check_layers(&data.join("layers"), current.as_ref(), known, &mut findings);
        check_events(&store, known, &mut findings);
    }
    findings.0
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, subject: Subject, text: impl Into<String>) {
        self.0.push(Finding { subject, text: text.into() });
    }

    fn note(&mut self, subject: Subject, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.add(subject, text());
        }
    }
}

fn open(
    state: &Path,
    node: &Name,
    known: &Known,
    findings: &mut Findings,
) -> Option<(Store, Option<Bundle>)> {
    let (store, recoveries) = match Store::open(state) {
        Ok(opened) => opened,
        Err(error) => {
            findings.add(Subject::Store, format!("it does not open: {error}"));
            return None;
        }
    };
    // A store that nobody was told of may have been half made.
    let told = known.taken_up > 0 || !known.events.is_empty();
    for recovery in recoveries.iter().filter(|_| told) {
        findings.add(Subject::Store, recovery.to_string());
    }
    match store.generations() {
        Ok(generations) => {
            let current = check_generations(&generations, node, known, findings);
            Some((store, current))
        }
        Err(error) => {
            findings.add(Subject::Store, format!("generations cannot be read: {error}"));
            None
        }
    }
}

fn check_generations(
    generations: &Generations,
    node: &Name,
    known: &Known,
    findings: &mut Findings,
) -> Option<Bundle> {
    let Generations { current, last_good, highest_seen } = generations;
    let held = current.as_ref().map_or(0, |stored| stored.generation.0);
    findings.note(Subject::Generation, held >= known.taken_up, || {
        format!("holds {held}, and told the cloud that it took up {}", known.taken_up)
    });
    findings.note(Subject::Generation, held <= known.issued, || {
        format!("holds {held}, where only {} was issued", known.issued)
    });
    findings.note(Subject::Generation, highest_seen.0 == held, || {
        format!("holds {held}, with the anti-rollback mark at {highest_seen}")
    });
    if let Some(stored) = last_good {
        read_bundle(stored, node, findings);
    }
    read_bundle(current.as_ref()?, node, findings)
}

fn read_bundle(stored: &Stored, node: &Name, findings: &mut Findings) -> Option<Bundle> {
    match envelope::open_kept(&stored.envelope, node) {
        Ok(bundle) if bundle.generation == stored.generation => Some(bundle),
        Ok(bundle) => {
            let text = format!("generation {} kept as {}", bundle.generation, stored.generation);
            findings.add(Subject::Generation, text);
            None
        }
        Err(error) => {
            let text = format!("generation {} is not whole: {error}", stored.generation);
            findings.add(Subject::Generation, text);
            None
        }
    }
}

fn check_layers(path: &Path, current: Option<&Bundle>, known: &Known, findings: &mut Findings) {
    let present = match Layers::open(path).and_then(|layers| Ok((layers.present()?, layers))) {
        Ok((present, layers)) => present.into_keys().map(|d| (d, layers.path(&d))).collect(),
        Err(error) => {
            findings.add(Subject::Layers, error.to_string());
            Vec::new()
        }
    };
    for (digest, path) in &present {
        let found = fs::read(path).map(|bytes| Digest::of(&bytes));
        findings.note(Subject::Layers, found.as_ref().is_ok_and(|found| found == digest), || {
            format!("{digest} is a file with {found:?}")
        });
    }
    let Some(bundle) = current.filter(|bundle| known.ran.contains(&bundle.generation.0)) else {
        return;
    };
    for layer in bundle.deployments.iter().flat_map(|deployment| bundle.layers_of(deployment)) {
        let there = present.iter().any(|(digest, _)| *digest == layer.digest);
        findings.note(Subject::Layers, there, || {
            format!("{} is gone, and generation {} ran", layer.digest, bundle.generation)
        });
    }
}

fn check_events(store: &Store, known: &Known, findings: &mut Findings) {
    let held = match store.events_after(0, BYTES_MAX) {
        Ok(held) => held,
        Err(error) => {
            findings.add(Subject::Events, format!("they cannot be read: {error}"));
            return;
        }
    };
    let find = |seq: u64| held.iter().find(|event| event.seq == seq);
    for told in &known.events {
        match find(told.seq) {
            Some(event) => findings.note(Subject::Events, event == told, || {
                format!("{} is {event:?}, and was told as {told:?}", told.seq)
            }),
            None => findings.note(Subject::Events, told.seq <= known.acked, || {
                format!("{} is gone, and the cloud has only up to {}", told.seq, known.acked)
            }),
        }
    }
    let next = store.push_event(&any_event());
    let last = held.iter().map(|event: &Event| event.seq).fold(known.last_seq(), u64::max);
    findings.note(Subject::Events, next > last, || {
        format!("the next one gets number {next}, and {last} was told")
    });
    findings.note(Subject::Events, store.outbox_status().dropped == 0, || "dropped".into());
}

fn any_event() -> NewEvent {
    NewEvent {
        wall_time: WallMillis(0),
        boot_millis: 0,
        generation: Generation(0),
        kind: EventKind::Started,
        subject: String::new(),
        text: String::new(),
    }
}
