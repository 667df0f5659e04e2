//! What the node publishes: a service for each deployment that is not on the
//! host's network, leading to its available pods of whatever form.
//!
//! One publication at a time: the next is asked for when the one before was
//! answered, so that the last one asked for is the one that holds.

use std::collections::BTreeMap;

use wherry_bundle::Name;

use crate::draft::Draft;
use crate::ledger::{Attempts, Ledger};
use crate::model::{Action, Desired, Observed, Publication, Service};
use crate::pods::Pod;

/// What should be published with `pods` as they are.
pub(crate) fn wanted(
    desired: &Desired,
    ledger: &Ledger,
    pods: &BTreeMap<Name, Pod>,
) -> Publication {
    let services = desired.workloads.iter().filter(|(_, workload)| !workload.host_network);
    let services = services.filter_map(|(name, workload)| {
        let address = ledger.deployments.get(name)?.service_address?;
        let serving = pods
            .values()
            .filter(|pod| pod.deployment == *name && pod.counts_as_available() && pod.running);
        let pods = serving.filter_map(|pod| pod.address).collect();
        Some((name.clone(), Service { address, pods, ports: workload.ports.clone() }))
    });
    Publication { services: services.collect() }
}

/// Publishes `wanted` if the kernel does not have it.
pub(crate) fn publish(wanted: Publication, ledger: &mut Ledger, draft: &mut Draft<'_>) {
    if draft.observed.publication.as_ref() == Some(&wanted) {
        ledger.publish = Attempts::default();
        ledger.publish_error = None;
        return;
    }
    if is_publishing(draft) {
        return;
    }
    // Only a failure makes it wait: what is new is published at once.
    if draft.now < ledger.publish.not_before {
        draft.wake(ledger.publish.not_before);
        return;
    }
    ledger.publish.count = ledger.publish.count.saturating_add(1);
    draft.act(Action::Publish { publication: wanted });
}

/// The kernel leads connections to `address`, or is about to.
pub(crate) fn leads_to(address: u16, observed: &Observed) -> bool {
    let leads = |publication: &Publication| {
        publication.services.values().any(|service| service.pods.contains(&address))
    };
    observed.publication.as_ref().is_some_and(leads)
        || observed.in_flight.iter().any(|action| match action {
            Action::Publish { publication } => leads(publication),
            Action::Fetch { .. }
            | Action::CreatePod { .. }
            | Action::StartContainer { .. }
            | Action::TerminateContainer { .. }
            | Action::KillContainer { .. }
            | Action::PreStop { .. }
            | Action::TerminatePod { .. }
            | Action::KillPod { .. }
            | Action::RemovePod { .. } => false,
        })
}

fn is_publishing(draft: &Draft<'_>) -> bool {
    draft.observed.in_flight.iter().any(|action| match action {
        Action::Publish { .. } => true,
        Action::Fetch { .. }
        | Action::CreatePod { .. }
        | Action::StartContainer { .. }
        | Action::TerminateContainer { .. }
        | Action::KillContainer { .. }
        | Action::PreStop { .. }
        | Action::TerminatePod { .. }
        | Action::KillPod { .. }
        | Action::RemovePod { .. } => false,
    })
}
