//! `rolling.json`: how long it takes to put a new pod in the place of one that
//! serves, with its image there, from the moment at which the node has taken
//! up the bundle:
//!
//! - `start`: to the first instruction of the new pod's program. What the
//!   program itself needs to be ready is its own.
//! - `whole`: until nothing of the old pod is left. A second of it is what its
//!   connections get to end.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use wherry_tests::host::Host;
use wherry_tests::node::Node;
use wherry_tests::package::{Component, Package};
use wherry_tests::templates::{EVERYWHERE, env, lion};
use wherry_tests::world::cloud;

use crate::gateway::Gateway;
use crate::program;
use crate::spread::Spread;

const ROUNDS: u64 = 40;
const NANOS_A_MILLI: u64 = 1_000_000;

pub fn measure() -> Result<Value> {
    let program = program::wherry()?;
    let named = program::named(&program)?;
    let host = Host::new("bench")?;
    let cloud = cloud(&host)?;
    let gateway = Gateway::start(&host, &cloud, &program)?;
    let (mut starts, mut wholes) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let number = format!("1.0.{round}");
        let template = lion("web", "", "", &env(&[EVERYWHERE, ("LION_VERSION", &number)]));
        let components = vec![Component::new("web", "lion:1.0.0", template)];
        Package::new(&number, components).roll_out(&cloud, &host)?;
        gateway.wait_running(round + 1, 1)?;
        // The first one had to fetch its image.
        if round > 0 {
            let (start, whole) = replaced_millis(gateway.node(), round + 1)?;
            starts.push(start.saturating_mul(NANOS_A_MILLI));
            wholes.push(whole.saturating_mul(NANOS_A_MILLI));
        }
    }
    gateway.purge()?;
    let (start, whole) = (Spread::of(starts), Spread::of(wholes));
    for (name, spread) in [("start", &start), ("whole", &whole)] {
        println!("rolling ({name}), p50: {:.1} ms, p95: {:.1} ms", spread.p50, spread.p95);
    }
    Ok(json!({
        "program": named,
        "rounds": ROUNDS,
        "median_ms": start.p50,
        "p95_ms": start.p95,
        "start_ms": start.json(),
        "whole_ms": whole.json(),
    }))
}

/// By the node's own events, of the boot clock: start and whole.
fn replaced_millis(node: &Node<'_>, generation: u64) -> Result<(u64, u64)> {
    let events = node.json(&["events", "--tail", "20"])?;
    let at = |kind: &str| {
        let events = events.as_array()?.iter();
        let mut own = events.filter(|e| e["generation"] == generation && e["kind"] == kind);
        own.next_back()?["boot_millis"].as_u64()
    };
    let of = |kind: &str| at(kind).with_context(|| format!("no {kind} in {events}"));
    let begin = of("bundle-taken-up")?;
    let since = |end: u64| end.saturating_sub(begin);
    Ok((since(of("container-started")?), since(of("pod-removed")?)))
}
