//! The reconciler itself: learns, decides deployment by deployment, and puts
//! the plan together. The only place that changes which pods there are.

use std::collections::BTreeMap;

use wherry_bundle::limits::PODS_MAX;
use wherry_bundle::message::EventKind;
use wherry_bundle::{Generation, Name};

use crate::draft::Draft;
use crate::ledger::{JobRun, Ledger, Planned, PodLedger};
use crate::model::{Action, Desired, Millis, Observed, Plan, Workload};
use crate::order::{self, Gate};
use crate::pods::{self, Pod};
use crate::{
    addresses, fetch, jobs, learn, publish, rolling, sidecars, status, stopping, surge, unhealthy,
};

/// Decides everything that the node does with its pods, at this moment.
///
/// Pure and total: the same inputs give the same plan. To be called again
/// with the plan's ledger whenever an observation changes, and at `wake_at`.
/// With nothing to do the plan has no action and no time to wake at.
#[must_use]
pub fn reconcile(desired: &Desired, observed: &Observed, ledger: &Ledger, now: Millis) -> Plan {
    let mut ledger = ledger.clone();
    let mut draft = Draft::new(observed, now);
    if desired.generation == Generation(0) {
        return draft.finish(ledger);
    }
    learn::learn(desired, &mut ledger, &mut draft);
    addresses::learn(desired, observed, &mut ledger);
    let succeeded = jobs::learn(desired, &mut ledger, &mut draft);
    let desired = &*jobs::outstanding(desired, observed, &ledger);
    let pods = pods::all(observed, &ledger);
    order::learn_reached(desired, &pods, &mut ledger);
    draft.set_aside_bytes = surge::set_aside(desired, pods.values());

    let order = order::start_order(&desired.workloads);
    let mut may_create: Vec<&Name> = Vec::new();
    for name in &order {
        let Some(workload) = desired.workloads.get(*name) else { continue };
        let gate = order::gate(name, workload, desired, observed, &ledger, &pods);
        let is_open = match gate {
            Gate::Open => true,
            Gate::Layers(_) | Gate::Dependency(_) | Gate::Failed(_) => false,
        };
        roll(desired.generation, name, workload, is_open, &pods, &mut ledger, &mut draft);
        if is_open {
            may_create.push(name);
        }
    }
    stop_unwanted(desired, &pods, &mut ledger, &draft);

    let pods = pods::all(observed, &ledger);
    create(&may_create, desired, &pods, &mut ledger, &mut draft);
    run(desired, &pods, &mut ledger, &mut draft);
    let wanted = publish::wanted(desired, &ledger, &pods);
    report_running(desired, &pods, &wanted, &mut ledger, &mut draft);
    publish::publish(wanted, &mut ledger, &mut draft);
    fetch::fetch(&order, desired, &mut draft);
    Plan { succeeded, ..draft.finish(ledger) }
}

/// Brings the number of one deployment's pods closer to what it should be.
fn roll(
    generation: Generation,
    name: &Name,
    workload: &Workload,
    can_create: bool,
    pods: &BTreeMap<Name, Pod>,
    ledger: &mut Ledger,
    draft: &mut Draft<'_>,
) {
    let own: Vec<&Pod> = pods.values().filter(|pod| pod.deployment == *name).collect();
    let surge = surge::allowed(generation, name, workload, &own, can_create, ledger, draft);
    let decision = rolling::decide(workload, generation, &own, can_create, surge);
    if can_create {
        let plans =
            own.iter().filter(|pod| pod.is_mere_plan() && !decision.drop.contains(&pod.name));
        let coming = plans.count().saturating_add(decision.create);
        let bytes = workload.memory_bytes.saturating_mul(coming as u64);
        draft.set_aside_bytes = draft.set_aside_bytes.saturating_add(bytes);
    }
    for pod in &decision.drop {
        ledger.pods.remove(pod);
    }
    for pod in decision.stop.iter().filter_map(|pod| pods.get(pod)) {
        stop(pod, ledger, draft);
    }
    for _ in 0..decision.create {
        // Names do not run out in practice: 2³² serials.
        let Some(pod) = addresses::next_pod_name(ledger, name) else { return };
        let planned =
            Planned { deployment: name.clone(), generation, hash: workload.hash, address: None };
        let job = workload.job.map(|_| JobRun::Tried);
        ledger.pods.insert(pod, PodLedger { planned: Some(planned), job, ..Default::default() });
    }
}

/// Pods of deployments that are no longer desired.
fn stop_unwanted(
    desired: &Desired,
    pods: &BTreeMap<Name, Pod>,
    ledger: &mut Ledger,
    draft: &Draft<'_>,
) {
    for pod in pods.values().filter(|pod| !desired.workloads.contains_key(&pod.deployment)) {
        if pod.is_mere_plan() {
            ledger.pods.remove(&pod.name);
        } else {
            stop(pod, ledger, draft);
        }
    }
}

fn stop(pod: &Pod, ledger: &mut Ledger, draft: &Draft<'_>) {
    if let Some(entry) = ledger.pods.get_mut(&pod.name) {
        stopping::begin(entry, draft.now);
    }
}

/// Asks for planned pods, deployment by deployment in start order, as far as
/// the node holds them.
fn create(
    deployments: &[&Name],
    desired: &Desired,
    pods: &BTreeMap<Name, Pod>,
    ledger: &mut Ledger,
    draft: &mut Draft<'_>,
) {
    let mut made = pods.values().filter(|pod| !pod.is_mere_plan()).count();
    for deployment in deployments {
        let Some(workload) = desired.workloads.get(*deployment) else { continue };
        for pod in pods.values().filter(|pod| pod.deployment == **deployment) {
            let is_new = pod.is_mere_plan();
            let fits = pod.is_current(workload) && (!is_new || made < PODS_MAX);
            if !fits || !pod.is_pending() {
                continue;
            }
            let address = pick_address(pod, workload, ledger, draft.observed);
            let Some(entry) = ledger.pods.get_mut(&pod.name) else { continue };
            let Some(planned) = &mut entry.planned else { continue };
            if address.is_none() && !workload.host_network {
                continue;
            }
            planned.address = address;
            let action = Action::CreatePod {
                pod: pod.name.clone(),
                deployment: pod.deployment.clone(),
                address,
            };
            if draft.attempt(&mut entry.attempts, action) && is_new {
                made = made.saturating_add(1);
            }
        }
    }
}

/// A pod keeps the address that it was first asked for with.
fn pick_address(
    pod: &Pod,
    workload: &Workload,
    ledger: &mut Ledger,
    observed: &Observed,
) -> Option<u16> {
    if workload.host_network {
        return None;
    }
    pod.address.or_else(|| addresses::next_pod_address(ledger, observed))
}

/// Pods that are there: starts what is to run, and goes on with what stops.
fn run(desired: &Desired, pods: &BTreeMap<Name, Pod>, ledger: &mut Ledger, draft: &mut Draft<'_>) {
    for (name, pod) in pods {
        let Some(entry) = ledger.pods.get_mut(name) else { continue };
        let seen = draft.observed.pods.get(name);
        if entry.stopping.is_some() {
            let how = seen.map(stopping::How::of).unwrap_or_default();
            stopping::advance(pod, how, entry, draft);
        } else if let Some(seen) = seen.filter(|seen| seen.complete) {
            if pods::is_over(seen) || entry.job == Some(JobRun::Failed) {
                sidecars::wind_down(name, seen, entry, draft);
                continue;
            }
            let workload = desired.workloads.get(&pod.deployment);
            unhealthy::restart(name, seen, entry, draft);
            // A start that must fail would count as one of the program's.
            let waits = workload.is_some_and(|workload| {
                workload.hash == pod.hash
                    && order::missing(workload, draft.observed).next().is_some()
            });
            if !waits {
                pods::start_containers(name, seen, entry, draft);
            }
        }
    }
}

fn report_running(
    desired: &Desired,
    pods: &BTreeMap<Name, Pod>,
    wanted: &crate::Publication,
    ledger: &mut Ledger,
    draft: &mut Draft<'_>,
) {
    let phase = status::node_phase(desired, draft.observed, pods, wanted);
    if phase.is_running() && ledger.running != desired.generation {
        ledger.running = desired.generation;
        let text = format!("generation {} is running", desired.generation);
        draft.notice(EventKind::GenerationRunning, "", &text);
    }
}
