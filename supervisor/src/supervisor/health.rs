//! What pods asked for about their health, by the form that they have: probes,
//! and what is done before a stop.
//!
//! Pods of an earlier bundle still run while a newer one is taken up, and want
//! what theirs asked for. Pure; never here: asking.

use std::collections::BTreeMap;

use wherry_bundle::health::{Check, PreStop, Probes};
use wherry_bundle::model::PodTemplate;
use wherry_bundle::{Bundle, Digest, Name};
use wherry_core::{Millis, Preparation};

/// Of one form of pods; containers without a wish are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthSpec {
    pub probes: BTreeMap<Name, Probes>,
    pub pre_stop: BTreeMap<Name, PreStop>,
}

/// By [`Bundle::pod_hash`]; forms without a wish are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthSpecs(BTreeMap<Digest, HealthSpec>);

impl HealthSpecs {
    pub fn learn(&mut self, bundle: &Bundle) {
        for deployment in &bundle.deployments {
            let spec = HealthSpec::of(&deployment.pod);
            if spec != HealthSpec::default() {
                self.0.insert(bundle.pod_hash(deployment), spec);
            }
        }
    }

    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub fn retain(&mut self, keep: impl Fn(&Digest) -> bool) {
        self.0.retain(|hash, _| keep(hash));
    }

    #[must_use]
    pub fn of(&self, hash: &Digest) -> Option<&HealthSpec> {
        self.0.get(hash)
    }

    #[must_use]
    pub fn preparation(&self, hash: &Digest) -> Preparation {
        self.of(hash).map(HealthSpec::preparation).unwrap_or_default()
    }
}

impl HealthSpec {
    fn of(pod: &PodTemplate) -> Self {
        let mut spec = Self::default();
        for container in &pod.containers {
            if container.probes != Probes::default() {
                spec.probes.insert(container.name.clone(), container.probes.clone());
            }
            if let Some(pre_stop) = &container.pre_stop {
                spec.pre_stop.insert(container.name.clone(), pre_stop.clone());
            }
        }
        spec
    }

    fn preparation(&self) -> Preparation {
        let mut preparation = Preparation::default();
        for pre_stop in self.pre_stop.values() {
            match pre_stop {
                PreStop::Run(_) => preparation.runs = true,
                PreStop::Sleep { seconds } => {
                    let sleep = Millis(u64::from(*seconds).saturating_mul(1_000));
                    preparation.sleep = preparation.sleep.max(sleep);
                }
            }
        }
        preparation
    }

    /// What is run in which container before they are told to stop.
    pub fn hooks(&self) -> impl Iterator<Item = (&Name, &Check)> {
        self.pre_stop.iter().filter_map(|(container, pre_stop)| match pre_stop {
            PreStop::Run(check) => Some((container, check)),
            PreStop::Sleep { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::sample::{self, name};

    #[test]
    fn only_what_was_asked_for_is_kept() {
        let mut bundle = sample::bundle();
        let mut specs = HealthSpecs::default();
        specs.learn(&bundle);
        assert_eq!(specs, HealthSpecs::default());
        let containers = &mut bundle.deployments[0].pod.containers;
        containers[0].pre_stop = Some(PreStop::Sleep { seconds: 3 });
        let mut other = containers[0].clone();
        other.name = name("other");
        other.pre_stop = Some(PreStop::Run(Check::TcpConnect { port: 9 }));
        containers.push(other);
        specs.learn(&bundle);
        let hash = bundle.pod_hash(&bundle.deployments[0]);
        let wanted = Preparation { runs: true, sleep: Millis(3_000) };
        assert_eq!(specs.preparation(&hash), wanted);
        let hooks: Vec<_> = specs.of(&hash).unwrap().hooks().map(|(name, _)| name).collect();
        assert_eq!(hooks, [&name("other")]);
        specs.retain(|_| false);
        assert_eq!(specs.preparation(&hash), Preparation::default());
    }
}
