//! `rolling.json`: how long it takes to put a new pod in the place of one that
//! serves, with its image there: from the moment at which the node has taken
//! up the bundle to the first instruction of the new pod's program. What the
//! program itself needs to be ready is its own; so is what the old pod gets to
//! end its connections (a second), which comes after.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use wherry_tests::host::Host;
use wherry_tests::node::Node;
use wherry_tests::package::{Component, Package};
use wherry_tests::templates::{EVERYWHERE, env, lion};
use wherry_tests::world::bring_up;

use crate::spread::Spread;

const ROUNDS: u64 = 40;
const NANOS_A_MILLI: u64 = 1_000_000;

pub fn measure() -> Result<Value> {
    let host = Host::new("bench")?;
    let (cloud, node) = bring_up(&host)?;
    let mut nanos = Vec::new();
    for round in 0..=ROUNDS {
        let number = format!("1.0.{round}");
        let template = lion("web", "", "", &env(&[EVERYWHERE, ("LION_VERSION", &number)]));
        let components = vec![Component::new("web", "lion:1.0.0", template)];
        Package::new(&number, components).roll_out(&cloud, &host)?;
        node.wait_running(round + 1)?;
        // The first one had to fetch its image.
        if round > 0 {
            nanos.push(replaced_millis(&node, round + 1)?.saturating_mul(NANOS_A_MILLI));
        }
    }
    let spread = Spread::of(nanos);
    println!("rolling, p50: {:.1} ms, p95: {:.1} ms", spread.p50, spread.p95);
    Ok(json!({ "rounds": ROUNDS, "median_ms": spread.p50, "p95_ms": spread.p95 }))
}

/// By the node's own events, of the boot clock.
fn replaced_millis(node: &Node<'_>, generation: u64) -> Result<u64> {
    let events = node.json(&["events", "--tail", "20"])?;
    let at = |kind: &str| {
        let events = events.as_array()?.iter();
        let mut own = events.filter(|e| e["generation"] == generation && e["kind"] == kind);
        own.next_back()?["boot_millis"].as_u64()
    };
    let (taken_up, started) = (at("bundle-taken-up"), at("container-started"));
    let begin = taken_up.with_context(|| format!("no generation {generation} in {events}"))?;
    let end = started.with_context(|| format!("no start in {events}"))?;
    Ok(end.saturating_sub(begin))
}
