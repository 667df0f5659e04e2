//! What a bundle asks for that its node's configuration has to allow.

use wherry_bundle::Bundle;
use wherry_bundle::model::Seccomp;

/// Why `bundle` may not run here, for people.
pub fn reasons(bundle: &Bundle, unconfined: bool) -> Vec<String> {
    let containers = bundle.deployments.iter().flat_map(|deployment| {
        deployment.pod.containers.iter().map(move |container| (&deployment.name, container))
    });
    let refused = containers.filter(|(_, container)| match container.seccomp {
        Seccomp::RuntimeDefault => false,
        Seccomp::Unconfined => !unconfined,
    });
    let text = |(deployment, container): (_, &wherry_bundle::model::Container)| {
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
        assert_eq!(reasons(&bundle, false), Vec::<String>::new());
        bundle.deployments[0].pod.containers[0].seccomp = Seccomp::Unconfined;
        assert_eq!(reasons(&bundle, true), Vec::<String>::new());
        let [why] = &reasons(&bundle, false)[..] else { panic!() };
        for part in ["container lion", "Unconfined", "[security] seccomp_unconfined = true"] {
            assert!(why.contains(part), "{part} is not in: {why}");
        }
    }
}
