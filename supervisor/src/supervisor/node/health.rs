//! Asks containers for their health, and has done what pods want to do before
//! they stop. When and what follows is [`probes`]' and the reconciler's.
//!
//! [`probes`]: crate::supervisor::probes

use wherry_bundle::Name;
use wherry_bundle::message::EventKind;
use wherry_core::{Action, Millis, ObservedContainer};

use super::Node;
use crate::supervisor::executor::{Hook, LauncherLost};
use crate::supervisor::probes::{Kind, Running, Try};
use crate::supervisor::translate;

impl Node {
    /// Begins the probes that are due, and tells the reconciler what those
    /// before have come to.
    pub(super) fn tend_health(&mut self, now: Millis) -> Result<(), LauncherLost> {
        let (health, born) = (&self.health, self.born);
        let running = self.observed.pods.iter().flat_map(|(name, pod)| {
            let spec = health.of(&pod.hash);
            pod.containers.iter().filter_map(move |(container, state)| {
                let ObservedContainer::Running { since: started } = *state else { return None };
                let probes = spec?.probes.get(container)?;
                Some(Running { pod: name, container, started, probes, adopted: started < born })
            })
        });
        self.probes.observe(running, now);
        for due in self.probes.begin_due(now) {
            match translate::probe_check(&due.check) {
                Some(check) => self.executor.probe(due.of, check, due.timeout)?,
                None => self.probed(&due.of, Err("it does not fit in a request".into()), now),
            }
        }
        for (name, pod) in &mut self.observed.pods {
            pod.health = self.probes.health_of(name);
            pod.unhealthy = self.probes.sick_of(name);
            pod.preparation = self.health.preparation(&pod.hash);
        }
        Ok(())
    }

    pub(super) fn probed(&mut self, of: &Try, result: Result<(), String>, now: Millis) {
        let (pod, container) = &of.target;
        let probe = match of.kind {
            Kind::Startup => "startup",
            Kind::Liveness => "liveness",
            Kind::Readiness => "readiness",
        };
        if let Err(error) = &result {
            log::debug!("{pod}/{container}: {probe} probe: {error}");
        }
        let news = self.probes.answered(of, result.is_ok(), now);
        if let Err(error) = result
            && news
        {
            let text = format!("container {container} is restarted: {probe} probe: {error}");
            let pod = pod.to_string();
            self.tell(EventKind::ContainerUnhealthy, &pod, &text, now);
        }
    }

    /// What is run in the containers of `pod` that run, before they are told
    /// to stop.
    pub(super) fn prepare_to_stop(&mut self, pod: &Name) -> Result<(), LauncherLost> {
        let action = Action::PreStop { pod: pod.clone() };
        let mut hooks = Vec::new();
        if let Some(seen) = self.observed.pods.get(pod)
            && let Some(spec) = self.health.of(&seen.hash)
        {
            for (container, check) in spec.hooks() {
                let runs = seen
                    .containers
                    .get(container)
                    .is_some_and(|state| matches!(state, ObservedContainer::Running { .. }));
                if let (true, Some(check)) = (runs, translate::probe_check(check)) {
                    hooks.push(Hook { container: container.clone(), check, timeout: seen.grace });
                }
            }
        }
        if let Some(outcome) = self.executor.prepare_to_stop(action, pod, hooks)? {
            self.came_of(outcome);
        }
        Ok(())
    }
}
