//! Numbers that are given out: serials of pods, host numbers of pods and of
//! services.
//!
//! A serial is never used twice. A pod's address is used again as late as
//! possible, since peers may still have the old pod in their neighbour tables.
//! A service's address follows from the deployment's name, so that it stays
//! the same even if the ledger is lost under running programs that looked it
//! up. Knows no subnet: turning a number into an address is the executor's.

use std::collections::BTreeSet;

use wherry_bundle::limits::{DEPLOYMENTS_MAX, PODS_MAX};
use wherry_bundle::{Digest, Name};

use crate::ledger::{DeploymentLedger, Ledger};
use crate::model::{Desired, Observed};

/// Host number 1 of the pods' subnet is the bridge.
pub const POD_HOST_MIN: u16 = 2;
/// The last host number of a /17, which is half of the node's /16.
pub const POD_HOST_MAX: u16 = 32_766;
pub const SERVICE_HOST_MIN: u16 = 1;
pub const SERVICE_HOST_MAX: u16 = 32_766;
/// Deployments whose serials and service address are remembered, those that
/// are gone included: all of two bundles, and one for each pod left over.
pub const DEPLOYMENTS_REMEMBERED_MAX: usize = 2 * DEPLOYMENTS_MAX + PODS_MAX;

/// Learns the serials that are in use, gives each service an address, and
/// forgets the deployments that are gone for good.
pub(crate) fn learn(desired: &Desired, observed: &Observed, ledger: &mut Ledger) {
    for (name, pod) in &observed.pods {
        let deployment = remember(ledger, &pod.deployment);
        deployment.last_serial = deployment.last_serial.max(name.pod_serial().unwrap_or(0));
    }
    if ledger.next_address == 0 {
        let highest = observed.pods.values().filter_map(|pod| pod.address).max();
        ledger.next_address = following(highest.unwrap_or(POD_HOST_MIN.saturating_sub(1)));
    }
    for (name, workload) in &desired.workloads {
        remember(ledger, name);
        if !workload.host_network {
            give_service_address(ledger, name);
        }
    }
    forget(desired, observed, ledger);
}

/// The name of the deployment's next pod; `None` if none can be had.
pub(crate) fn next_pod_name(ledger: &mut Ledger, deployment: &Name) -> Option<Name> {
    let entry = remember(ledger, deployment);
    let serial = entry.last_serial.checked_add(1)?;
    let name = deployment.pod(serial).ok()?;
    entry.last_serial = serial;
    Some(name)
}

/// The first free pod address from where the last search ended.
pub(crate) fn next_pod_address(ledger: &mut Ledger, observed: &Observed) -> Option<u16> {
    let planned = ledger.pods.values().filter_map(|pod| pod.planned.as_ref()?.address);
    let used: BTreeSet<u16> =
        observed.pods.values().filter_map(|pod| pod.address).chain(planned).collect();
    let mut candidate = ledger.next_address.clamp(POD_HOST_MIN, POD_HOST_MAX);
    for _ in 0..=used.len() {
        if !used.contains(&candidate) {
            ledger.next_address = following(candidate);
            return Some(candidate);
        }
        candidate = following(candidate);
    }
    None
}

fn following(address: u16) -> u16 {
    if address >= POD_HOST_MAX { POD_HOST_MIN } else { address.saturating_add(1).max(POD_HOST_MIN) }
}

fn remember<'a>(ledger: &'a mut Ledger, deployment: &Name) -> &'a mut DeploymentLedger {
    let fresh = DeploymentLedger { last_serial: ledger.serial_floor, ..Default::default() };
    ledger.deployments.entry(deployment.clone()).or_insert(fresh)
}

fn give_service_address(ledger: &mut Ledger, deployment: &Name) {
    let used: BTreeSet<u16> =
        ledger.deployments.values().filter_map(|entry| entry.service_address).collect();
    let entry = remember(ledger, deployment);
    if entry.service_address.is_none() {
        let preferred = preferred_service_address(deployment);
        let mut numbers = (preferred..=SERVICE_HOST_MAX).chain(SERVICE_HOST_MIN..preferred);
        entry.service_address = numbers.find(|number| !used.contains(number));
    }
}

/// Where the search for a free service address begins.
fn preferred_service_address(deployment: &Name) -> u16 {
    let [high, low, ..] = Digest::of(deployment.as_str().as_bytes()).0;
    SERVICE_HOST_MIN.saturating_add(u16::from_be_bytes([high, low]) % SERVICE_HOST_MAX)
}

fn forget(desired: &Desired, observed: &Observed, ledger: &mut Ledger) {
    let excess = ledger.deployments.len().saturating_sub(DEPLOYMENTS_REMEMBERED_MAX);
    if excess == 0 {
        return;
    }
    let planned = ledger.pods.values().filter_map(|pod| Some(&pod.planned.as_ref()?.deployment));
    let with_pods: BTreeSet<&Name> =
        observed.pods.values().map(|pod| &pod.deployment).chain(planned).collect();
    let gone = ledger.deployments.keys();
    let gone = gone.filter(|n| !desired.workloads.contains_key(*n) && !with_pods.contains(n));
    let gone: Vec<Name> = gone.take(excess).cloned().collect();
    for name in gone {
        if let Some(entry) = ledger.deployments.remove(&name) {
            ledger.serial_floor = ledger.serial_floor.max(entry.last_serial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Planned, PodLedger};
    use wherry_bundle::{Digest, Generation};

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn with_planned(addresses: &[u16], next_address: u16) -> Ledger {
        let pods = addresses.iter().map(|&address| {
            let planned = Planned {
                deployment: name("web"),
                generation: Generation(1),
                hash: Digest([0; 32]),
                address: Some(address),
            };
            let pod = PodLedger { planned: Some(planned), ..Default::default() };
            (name(&format!("web-{address}")), pod)
        });
        Ledger { pods: pods.collect(), next_address, ..Default::default() }
    }

    #[test]
    fn pod_addresses_go_round_and_skip_what_is_used() {
        let mut ledger = with_planned(&[2, 3, POD_HOST_MAX], POD_HOST_MAX);
        let observed = Observed::default();
        assert_eq!(next_pod_address(&mut ledger, &observed), Some(4));
        assert_eq!(next_pod_address(&mut ledger, &observed), Some(5));
    }

    #[test]
    fn serials_grow_and_outlive_a_forgotten_deployment() {
        let mut ledger = Ledger::default();
        assert_eq!(next_pod_name(&mut ledger, &name("web")), Some(name("web-1")));
        assert_eq!(next_pod_name(&mut ledger, &name("web")), Some(name("web-2")));
        for i in 0..DEPLOYMENTS_REMEMBERED_MAX {
            remember(&mut ledger, &name(&format!("x{i}")));
        }
        assert_eq!(ledger.deployments.len(), DEPLOYMENTS_REMEMBERED_MAX + 1);
        forget(&Desired::default(), &Observed::default(), &mut ledger);
        assert_eq!(ledger.deployments.len(), DEPLOYMENTS_REMEMBERED_MAX);
        assert!(!ledger.deployments.contains_key(&name("web")));
        assert_eq!(next_pod_name(&mut ledger, &name("web")), Some(name("web-3")));
    }

    #[test]
    fn the_last_serial_is_the_last() {
        let mut ledger = Ledger { serial_floor: u32::MAX, ..Default::default() };
        assert_eq!(next_pod_name(&mut ledger, &name("web")), None);
    }

    #[test]
    fn service_addresses_follow_from_names() {
        let mut ledger = Ledger::default();
        for deployment in ["b", "a", "b"] {
            give_service_address(&mut ledger, &name(deployment));
        }
        let of = |ledger: &Ledger, d: &str| ledger.deployments[&name(d)].service_address;
        let mut lost = Ledger::default();
        for deployment in ["a", "b"] {
            give_service_address(&mut lost, &name(deployment));
            assert!(of(&ledger, deployment).is_some());
            assert_eq!(of(&ledger, deployment), of(&lost, deployment));
        }
        assert_ne!(of(&ledger, "a"), of(&ledger, "b"));
    }

    #[test]
    fn no_two_services_share_an_address() {
        let mut ledger = Ledger::default();
        // Some 15 pairs of these want the same one.
        for i in 0..1_000 {
            give_service_address(&mut ledger, &name(&format!("d{i}")));
        }
        let given: BTreeSet<u16> =
            ledger.deployments.values().filter_map(|entry| entry.service_address).collect();
        assert_eq!(given.len(), 1_000);
        assert!(given.iter().all(|number| (SERVICE_HOST_MIN..=SERVICE_HOST_MAX).contains(number)));
    }
}
