//! Claims: what their folders hold against what they may, and who uses them.
//!
//! Never here: measuring, removing (`crate::claims` does both), and making
//! folders, which is the launcher's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::SyncSender;

use wherry_bundle::message::EventKind;
use wherry_bundle::{Bundle, Name};
use wherry_core::{Millis, ObservedContainer};
use wherry_runtime::proto::ClaimSpec;

use super::Node;
use crate::claims::{ClaimUse, Measured, Surveyor};
use crate::control::{Response, VolumeStatus};
use crate::supervisor::executor::LauncherLost;
use crate::supervisor::preflight::claims::Held;
use crate::supervisor::report::megabytes;
use crate::supervisor::spec::claim_specs;

#[derive(Debug)]
pub(super) struct Claims {
    surveyor: Surveyor,
    held: BTreeMap<Name, ClaimUse>,
    /// Those of running pods, as the launcher was told last.
    in_use: BTreeMap<Name, ClaimSpec>,
    /// Those of which it was told that they hold too much.
    over: BTreeSet<Name>,
}

impl Claims {
    pub fn new(surveyor: Surveyor) -> Self {
        let (held, in_use, over) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { surveyor, held, in_use, over }
    }

    pub fn held(&self) -> Held {
        self.held.iter().map(|(name, held)| (name.clone(), held.bytes)).collect()
    }
}

impl Node {
    /// Keeps the limits of claims that pods use as the bundle has them, and has
    /// those claims looked at. A new size needs no new pod.
    pub(super) fn tend_claims(&mut self) -> Result<(), LauncherLost> {
        let runs = |state: &ObservedContainer| matches!(state, ObservedContainer::Running { .. });
        let pods = self.observed.pods.values().filter(|pod| pod.containers.values().any(runs));
        let running: BTreeSet<&Name> = pods.map(|pod| &pod.deployment).collect();
        let mut in_use = BTreeMap::new();
        if let Some(bundle) = &self.bundle {
            let deployments = running.into_iter().filter_map(|name| bundle.deployment(name));
            let specs = deployments.flat_map(|deployment| claim_specs(bundle, deployment));
            in_use.extend(specs.map(|spec| (spec.name.clone(), spec)));
        }
        if in_use == self.claims.in_use {
            return Ok(());
        }
        for (name, spec) in &in_use {
            if self.claims.in_use.get(name) != Some(spec) {
                self.executor.provide_claim(spec.clone())?;
            }
        }
        self.claims.surveyor.watch(in_use.keys().cloned().collect());
        self.claims.in_use = in_use;
        Ok(())
    }

    pub(super) fn claim_is_measured(&mut self, Measured { claim, held }: Measured, now: Millis) {
        let Some(held) = held else {
            self.claims.held.remove(&claim);
            self.claims.over.remove(&claim);
            return;
        };
        self.claims.held.insert(claim.clone(), held);
        let max = self.bundle.as_ref().and_then(|bundle| bundle.claim(&claim)).map(|c| c.bytes_max);
        let Some(max) = max.filter(|max| held.bytes > *max && !held.is_limited) else {
            self.claims.over.remove(&claim);
            return;
        };
        if self.claims.over.insert(claim.clone()) {
            let (bytes, max) = (megabytes(held.bytes), megabytes(max));
            let text = format!("the volume holds {bytes}, and its claim is for {max}");
            self.tell(EventKind::VolumeOverLimit, claim.as_str(), &text, now);
        }
    }

    /// All that have a folder, or are asked for.
    pub(super) fn volumes(&self) -> Vec<VolumeStatus> {
        let current = self.current();
        let claims = current.into_iter().flat_map(|bundle| &bundle.claims);
        let mut names: BTreeSet<&Name> = claims.map(|claim| &claim.name).collect();
        names.extend(self.claims.held.keys());
        names.extend(self.durable.last_good_claims());
        let status = |name: &Name| {
            let held = self.claims.held.get(name);
            VolumeStatus {
                name: name.clone(),
                bytes_used: held.map(|held| held.bytes),
                bytes_max: current.and_then(|it| it.claim(name)).map(|claim| claim.bytes_max),
                is_limited: held.is_some_and(|held| held.is_limited),
                is_partial: held.is_some_and(|held| held.is_partial),
                used_by: current.map(|bundle| users(bundle, name)).unwrap_or_default(),
                last_good: self.durable.last_good_claims().contains(name),
            }
        };
        names.into_iter().map(status).collect()
    }

    /// Answers, now or once the folder is gone.
    pub(super) fn remove_volume(&mut self, name: Name, answer: SyncSender<Response>) {
        if let Some(why) = self.needs_volume(&name) {
            let _ = answer.try_send(Response::Error(why));
            return;
        }
        self.claims.surveyor.remove(name, answer);
    }

    fn needs_volume(&self, name: &Name) -> Option<String> {
        let current = self.current();
        if self.durable.store().is_none() || (current.is_none() && self.durable.has_current()) {
            return Some("the node's store cannot be read: nobody knows who needs it".into());
        }
        let current = current.filter(|bundle| bundle.claim(name).is_some());
        let last_good = self.durable.last_good_claims().contains(name);
        let (what, generation) = match (current, last_good) {
            (Some(bundle), _) => ("current", bundle.generation),
            (None, true) => ("last good", self.durable.last_good()),
            (None, false) => return None,
        };
        Some(format!(
            "volume {name} is claimed by the {what} generation, {generation}: roll out a version \
             without the claim first"
        ))
    }

    /// Also while the last good one stands in for it.
    fn current(&self) -> Option<&Bundle> {
        self.interim.as_ref().map(super::Interim::current).or(self.bundle.as_ref())
    }
}

fn users(bundle: &Bundle, claim: &Name) -> Vec<Name> {
    let uses = bundle
        .deployments
        .iter()
        .filter(|deployment| deployment.pod.claims().any(|volume| volume.claim == *claim));
    uses.map(|deployment| deployment.name.clone()).collect()
}
