//! What a bundle asks for that its node's configuration has to allow.

use std::path::Path;

use wherry_bundle::Bundle;
use wherry_bundle::model::{Container, HostPath, HostPathKind, Seccomp, VolumeSource};
use wherry_runtime::check::Allowed;

use super::Offer;

/// Why `bundle` may not run here, for people.
pub fn reasons(bundle: &Bundle, offer: &Offer) -> Vec<String> {
    let mut reasons = host_paths(bundle, &offer.allowed);
    reasons.extend(unconfined(bundle, offer.allowed.seccomp_unconfined));
    reasons
}

fn host_paths(bundle: &Bundle, allowed: &Allowed) -> Vec<String> {
    let volumes = bundle.deployments.iter().flat_map(|deployment| {
        deployment.pod.volumes.iter().map(move |volume| (&deployment.name, volume))
    });
    let refused = volumes.filter_map(|(deployment, volume)| {
        let VolumeSource::HostPath(HostPath { path, kind }) = &volume.source else { return None };
        let (allowed, what) = match kind {
            HostPathKind::CharDevice => {
                (&allowed.devices, format!("the device `{path}` is not among `[devices] paths`"))
            }
            HostPathKind::Any | HostPathKind::Directory | HostPathKind::DirectoryOrCreate => (
                &allowed.host_paths,
                format!("the host path `{path}` is not below one of `[volumes] host_paths`"),
            ),
        };
        let is_allowed = allowed.iter().any(|prefix| Path::new(path).starts_with(prefix));
        let at = format!("deployment {deployment}, volume {}", volume.name);
        (!is_allowed).then(|| format!("{at}: {what} in the node's configuration"))
    });
    refused.collect()
}

fn unconfined(bundle: &Bundle, allowed: bool) -> Vec<String> {
    let containers = bundle.deployments.iter().flat_map(|deployment| {
        deployment.pod.containers.iter().map(move |container| (&deployment.name, container))
    });
    let refused = containers.filter(|(_, container)| match container.seccomp {
        Seccomp::RuntimeDefault => false,
        Seccomp::Unconfined => !allowed,
    });
    let text = |(deployment, container): (_, &Container)| {
        format!(
            "deployment {deployment}, container {}: seccomp `Unconfined` needs `[security] \
             seccomp_unconfined = true` in the node's configuration",
            container.name
        )
    };
    refused.map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::sample;

    #[test]
    fn a_container_is_unconfined_only_where_that_is_allowed() {
        let mut bundle = sample::bundle();
        assert_eq!(unconfined(&bundle, false), Vec::<String>::new());
        bundle.deployments[0].pod.containers[0].seccomp = Seccomp::Unconfined;
        assert_eq!(unconfined(&bundle, true), Vec::<String>::new());
        let [why] = &unconfined(&bundle, false)[..] else { panic!() };
        for part in ["container lion", "Unconfined", "[security] seccomp_unconfined = true"] {
            assert!(why.contains(part), "{part} is not in: {why}");
        }
    }
}
