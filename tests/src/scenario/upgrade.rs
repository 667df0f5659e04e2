//! From one version of the shop to the next and back, while clients ask.

use anyhow::{Context, Result, ensure};

use crate::cloud::Cloud;
use crate::host::Host;
use crate::node::Node;
use crate::observe::{Traffic, json_field, under_traffic};
use crate::package::start_rollout;
use crate::shop::{Shop, WEB_PORT};

/// The first version of the shop, for this gateway.
#[must_use]
pub fn first(node: &Node<'_>) -> Shop<'static> {
    let place = node.place();
    let (min_ready_seconds, stable_seconds) = (place.settle_seconds(), place.stable_seconds());
    Shop { min_ready_seconds, stable_seconds, ..Shop::default() }
}

/// Its second version.
#[must_use]
pub fn second(node: &Node<'_>) -> Shop<'static> {
    Shop { number: "2.0.0", lion: "lion:2.0.0", properties: "mane=short\n", ..first(node) }
}

/// From 1.0.0 to 2.0.0, which becomes `generation`: no request fails, both
/// versions answer, the bus is not touched.
///
/// # Errors
/// What is not so.
pub fn under_load(
    host: &Host,
    cloud: &Cloud<'_>,
    node: &Node<'_>,
    generation: u64,
) -> Result<Traffic> {
    let before = node.processes_of("bus")?;
    let web = node.place().address(WEB_PORT);
    let ((), traffic) = under_traffic(host, &web, "version", || {
        second(node).package().roll_out(cloud, host)?;
        node.wait_running(generation)
    })?;
    ensure!(traffic.failed.is_empty(), "failed requests: {:?}", traffic.failed);
    for version in ["1.0.0", "2.0.0"] {
        ensure!(traffic.seen.contains_key(version), "{version} never answered: {traffic:?}");
    }
    ensure!(before == node.processes_of("bus")?, "the bus was touched");
    Ok(traffic)
}

/// The cloud issues 1.0.0 again, as `generation`: no request fails, and what
/// answers then is what answered before the upgrade.
///
/// # Errors
/// What is not so.
pub fn and_back(
    host: &Host,
    cloud: &Cloud<'_>,
    node: &Node<'_>,
    generation: u64,
) -> Result<Traffic> {
    let web = node.place().address(WEB_PORT);
    let ((), traffic) = under_traffic(host, &web, "version", || {
        start_rollout(cloud, "shop@1.0.0.1")?;
        node.wait_running(generation)
    })?;
    ensure!(traffic.failed.is_empty(), "failed requests: {:?}", traffic.failed);
    answers(node, "1.0.0", "mane=long\n")?;
    Ok(traffic)
}

/// The shop answers outside with this version and this configuration.
///
/// # Errors
/// It does not.
pub fn answers(node: &Node<'_>, version: &str, properties: &str) -> Result<()> {
    let logs = || node.cli(&["logs", "web", "--tail", "20"]).unwrap_or_default();
    let body = node.http(WEB_PORT).with_context(logs)?;
    ensure!(json_field(&body, "version") == version, "answered {body}");
    ensure!(json_field(&body, "properties") == properties, "answered {body}");
    Ok(())
}
