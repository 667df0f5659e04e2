//! A cloud and a gateway, ready for a test, and taken away after it.

use anyhow::{Context, Result, ensure};

use crate::cloud::Cloud;
use crate::host::Host;
use crate::images;
use crate::node::Node;

/// Brings up cloud, images, organisation and gateway, calls `test`, removes
/// all and checks that nothing is left.
///
/// # Panics
/// When anything went wrong: with the whole chain of causes.
pub fn with_gateway(
    id: &str,
    test: impl FnOnce(&Host, &mut Cloud<'_>, &mut Node<'_>) -> Result<()>,
) {
    let outcome = (|| {
        let host = Host::new(id)?;
        let (mut cloud, mut node) = bring_up(&host)?;
        test(&host, &mut cloud, &mut node).with_context(|| format!("node:\n{}", tail(&node)))?;
        node.purge()?;
        let left = host.leftovers()?;
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    })();
    if let Err(error) = outcome {
        panic!("{error:#}");
    }
}

/// Cloud, images and organisation.
///
/// # Errors
/// Whatever does not come up.
pub fn cloud(host: &Host) -> Result<Cloud<'_>> {
    let mut cloud = Cloud::new(host);
    cloud.start()?;
    images::import(&cloud)?;
    cloud.organise()?;
    Ok(cloud)
}

/// Cloud, images, organisation, and a node that runs nothing yet.
///
/// # Errors
/// Whatever does not come up.
pub fn bring_up(host: &Host) -> Result<(Cloud<'_>, Node<'_>)> {
    let cloud = cloud(host)?;
    let mut node = Node::new(host, &cloud.cli(&["node", "config", "gw-1"])?)?;
    node.start()?;
    Ok((cloud, node))
}

/// The end of what the node logged.
fn tail(node: &Node<'_>) -> String {
    let output = node.output();
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
