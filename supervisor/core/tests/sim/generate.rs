//! What the simulated node is asked to run: random bundles, and what the
//! programs in them do.

use std::collections::{BTreeMap, BTreeSet};

use wherry_bundle::model::{Job, Layer, RestartPolicy, Role, Strategy};
use wherry_bundle::{Digest, Generation, Name};
use wherry_core::{Desired, Millis, Preparation, Workload};

use crate::rng::Rng;

/// The only one that is a job; the others may depend on it.
pub const JOB: &str = "batch";
const DEPLOYMENTS: [&str; 6] = [JOB, "broker", "db", "gate", "job", "web"];
/// Forms that a deployment's pods may have: [`BROKEN_FORM`] never runs long,
/// [`MUTE_FORM`] is never ready, the others are sound.
const FORMS: u64 = 5;
const BROKEN_FORM: u64 = 3;
const MUTE_FORM: u64 = 4;

/// How a program behaves once it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    RunsOn,
    /// Ends with 0 after a while.
    Completes,
    /// Ends with an error after a moment.
    Crashes,
    /// Runs on, and its readiness probe never says yes.
    NeverReady,
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// The form's identity; also tells what programs of that hash do.
pub fn hash_of(deployment: &str, form: u64) -> Digest {
    Digest::of(format!("{deployment} {form}").as_bytes())
}

pub fn program_of(hash: Digest) -> Program {
    for deployment in DEPLOYMENTS {
        for form in 0..FORMS {
            if hash_of(deployment, form) == hash {
                return match (form, deployment) {
                    (BROKEN_FORM, _) => Program::Crashes,
                    (MUTE_FORM, "db" | "web") => Program::NeverReady,
                    (_, "job" | JOB) => Program::Completes,
                    _ => Program::RunsOn,
                };
            }
        }
    }
    panic!("no such hash: {hash}")
}

/// Has readiness probes in all its containers.
pub fn is_probed(deployment: &Name) -> bool {
    matches!(deployment.as_str(), "db" | "web")
}

/// What pods of it do before they stop.
pub fn preparation(deployment: &Name) -> Preparation {
    match deployment.as_str() {
        "web" => Preparation { runs: true, sleep: Millis(0) },
        "db" => Preparation { runs: false, sleep: Millis(1_500) },
        "broker" => Preparation { runs: true, sleep: Millis(20_000) },
        _ => Preparation::default(),
    }
}

/// A random bundle. A `sound` one has no broken form in it, so that a node
/// can come to rest with it.
pub fn desired(rng: &mut Rng, generation: u64, sound: bool) -> Desired {
    let mut workloads = BTreeMap::new();
    for deployment in DEPLOYMENTS {
        if rng.chance(300) {
            continue;
        }
        let form = match (sound, deployment) {
            // Only where there are probes can one be mute.
            (false, "db" | "web") => rng.below(FORMS),
            (false, _) => rng.below(MUTE_FORM),
            // Form 0 of it is never started again: were it told to stop, and
            // that forgotten, it would stay as it is.
            (true, "job") => 1,
            (true, _) => rng.below(BROKEN_FORM),
        };
        let earlier: Vec<Name> = workloads.keys().cloned().collect();
        let after: BTreeSet<Name> = earlier.into_iter().filter(|_| rng.chance(350)).collect();
        let mut workload = workload(rng, deployment, form, after);
        if sound {
            // What the faults before it left, such as a kill that is tried again
            // after a minute, must not count against it.
            workload.progress_deadline = Millis(600_000);
            if let Some(job) = &mut workload.job {
                *job = Job { backoff_limit: 1_000, deadline_seconds: None };
            }
        }
        workloads.insert(name(deployment), workload);
    }
    Desired { generation: Generation(generation), workloads, replace: BTreeSet::new() }
}

/// What is wrong with a generation that has to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doom {
    Crashes,
    NeverReady,
    /// The cloud does not have its layers.
    NoLayers,
}

/// The next generation after `sound`, with something wrong in one deployment:
/// which, and what; `None` if there is none that has pods.
pub fn doomed(rng: &mut Rng, sound: &Desired, generation: u64) -> Option<(Desired, Name, Doom)> {
    let with_pods = sound.workloads.iter().filter(|(_, workload)| workload.replicas > 0);
    let with_pods: Vec<&Name> = with_pods.map(|(name, _)| name).collect();
    if with_pods.is_empty() {
        return None;
    }
    let name = (*rng.pick(&with_pods)).clone();
    let doom = match rng.below(3) {
        0 if is_probed(&name) => Doom::NeverReady,
        1 => Doom::NoLayers,
        _ => Doom::Crashes,
    };
    let form = if doom == Doom::NeverReady { MUTE_FORM } else { BROKEN_FORM };
    let mut desired = Desired { generation: Generation(generation), ..sound.clone() };
    let was = &sound.workloads[&name];
    let new = workload(rng, name.as_str(), form, was.after.clone());
    // Long enough for a crash loop to be found out.
    let (replicas, progress_deadline) = (was.replicas, Millis(600_000));
    desired.workloads.insert(name.clone(), Workload { replicas, progress_deadline, ..new });
    Some((desired, name, doom))
}

fn workload(rng: &mut Rng, deployment: &str, form: u64, after: BTreeSet<Name>) -> Workload {
    let strategy = match rng.below(5) {
        0 => Strategy::Recreate,
        1 => Strategy::RollingUpdate { max_unavailable: 1, max_surge: 0 },
        2 => Strategy::RollingUpdate { max_unavailable: 1, max_surge: 2 },
        _ => Strategy::RollingUpdate { max_unavailable: 0, max_surge: 1 },
    };
    // What belongs to the pod's template follows from its form.
    let layer = |n: u64| Layer {
        digest: Digest::of(format!("layer {deployment} {n}").as_bytes()),
        size_bytes: 1_000 + n,
    };
    let main = (name("main"), Role::Main);
    let containers = match form {
        1 => vec![main, (name("aside"), Role::Main)],
        2 => vec![(name("zero"), Role::Init), (name("helper"), Role::Sidecar), main],
        _ => vec![main],
    };
    let host_network = deployment == "gate";
    let limits = (rng.below(3), rng.below(4));
    let job = (deployment == JOB).then(|| Job {
        backoff_limit: u32::try_from(limits.0).unwrap(),
        deadline_seconds: (limits.1 == 0).then_some(12),
    });
    let ports = if matches!(deployment, "gate" | "web") {
        vec![wherry_core::PublishedPort {
            protocol: wherry_bundle::model::Protocol::Tcp,
            host_port: 80,
            container_port: 8080,
        }]
    } else {
        Vec::new()
    };
    Workload {
        hash: hash_of(deployment, form),
        replicas: u16::try_from(if host_network || job.is_some() { 1 } else { rng.below(4) })
            .unwrap(),
        strategy: if job.is_some() { Strategy::Recreate } else { strategy },
        job,
        progress_deadline: Millis(*rng.pick(&[60_000, 600_000])),
        min_ready: Millis(if job.is_some() { 0 } else { *rng.pick(&[0, 0, 700, 5_000]) }),
        after,
        restart_policy: match deployment {
            "job" if form == 0 => RestartPolicy::Never,
            JOB if form.is_multiple_of(2) => RestartPolicy::Never,
            "job" | JOB => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        },
        grace: Millis([3_000, 0, 10_000, 1_000, 500][usize::try_from(form).unwrap()]),
        containers,
        layers: BTreeSet::from([layer(0), layer(form + 1)]),
        host_network,
        ports,
        has_device: deployment == "db" && form == 3,
        has_claim: deployment == "db" && form == 2,
        memory_bytes: if form == 2 { 0 } else { 64 << 20 },
    }
}
