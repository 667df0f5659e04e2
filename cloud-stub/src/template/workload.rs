//! `Deployment`, `Pod` and `Job`: what runs, how often, and how it is replaced.

use std::collections::{BTreeMap, BTreeSet};

use wherry_bundle::limits::{
    DEPLOYMENT_NAME_BYTES_MAX, GRACE_SECONDS_MAX, JOB_FAILURES_MAX, JOB_SECONDS_MAX, PODS_MAX,
};
use wherry_bundle::model::{Deployment, Image, Job, PodTemplate, RestartPolicy, Strategy};
use wherry_bundle::{Digest, Name};

use super::place::{Object, Place};
use super::quantity::percent_of;
use super::{Context, container, metadata_name, names, security, shapes, volume};

/// As in Kubernetes.
const GRACE_SECONDS: u32 = 30;
const BACKOFF_LIMIT: u32 = 6;
const PROGRESS_DEADLINE_SECONDS: u32 = 600;
/// One pod at a time: memory is what a gateway has least of. Kubernetes has 25 %
/// of both.
const MAX_SURGE: u16 = 1;
const MAX_UNAVAILABLE: u16 = 0;
/// A day: more is a typing error.
const SECONDS_MAX: i64 = 86_400;

/// Reads a `Deployment`.
pub(super) fn deployment(
    place: &Place<'_>,
    context: Context<'_>,
    images: &mut BTreeMap<Digest, Image>,
) -> Option<Deployment> {
    let object = place.object(&shapes::DEPLOYMENT)?;
    let name = metadata_name(&object);
    let spec = object.require("spec")?.object(&shapes::DEPLOYMENT_SPEC)?;
    let replicas = spec.get("replicas").map_or(Some(1), |p| p.int(0, PODS_MAX as i64));
    let strategy = strategy(&spec, replicas.unwrap_or(1));
    let seconds = |field: &str, default: u32| {
        spec.get(field).map_or(Some(default), |place| place.int(0, SECONDS_MAX))
    };
    let min_ready_seconds = seconds("minReadySeconds", 0);
    let progress_deadline_seconds = seconds("progressDeadlineSeconds", PROGRESS_DEADLINE_SECONDS);
    if let (Some(ready), Some(deadline)) = (min_ready_seconds, progress_deadline_seconds)
        && deadline <= ready
    {
        let place = spec.get("progressDeadlineSeconds").or(spec.get("minReadySeconds"));
        let what = format!("must be more than minReadySeconds, which is {ready}");
        place.unwrap_or(spec.place().clone()).problem(what);
    }
    let template = spec.require("template")?;
    let template = template.object(&shapes::POD_TEMPLATE)?;
    selector(&spec, &template);
    let pod_spec = template.require("spec")?;
    let pod = pod_template(&pod_spec, context, images)?;
    if pod.restart_policy != RestartPolicy::Always {
        pod_spec.problem("a Deployment's restartPolicy is Always; use a Job or a Pod for others");
    }
    Some(Deployment {
        name: deployment_name(&object, name?)?,
        application: context.application.clone(),
        replicas: replicas?,
        strategy: strategy?,
        min_ready_seconds: min_ready_seconds?,
        progress_deadline_seconds: progress_deadline_seconds?,
        after: BTreeSet::new(),
        pod,
        job: None,
    })
}

/// Reads a `Pod`: one replica, that goes before its successor comes.
pub(super) fn pod(
    place: &Place<'_>,
    context: Context<'_>,
    images: &mut BTreeMap<Digest, Image>,
) -> Option<Deployment> {
    let object = place.object(&shapes::POD)?;
    let name = metadata_name(&object);
    let pod = pod_template(&object.require("spec")?, context, images)?;
    Some(single(deployment_name(&object, name?)?, context, pod, None))
}

/// Reads a `Job`: a pod that goes on until it has succeeded once.
pub(super) fn job(
    place: &Place<'_>,
    context: Context<'_>,
    images: &mut BTreeMap<Digest, Image>,
) -> Option<Deployment> {
    let object = place.object(&shapes::JOB)?;
    let name = metadata_name(&object);
    let spec = object.require("spec")?.object(&shapes::JOB_SPEC)?;
    let backoff_limit = spec
        .get("backoffLimit")
        .map_or(Some(BACKOFF_LIMIT), |place| place.int(0, JOB_FAILURES_MAX.into()));
    let deadline_seconds =
        spec.optional("activeDeadlineSeconds", |place| place.int(1, JOB_SECONDS_MAX.into()));
    let template = spec.require("template")?.object(&shapes::POD_TEMPLATE)?;
    let pod_spec = template.require("spec")?;
    let pod = pod_template(&pod_spec, context, images)?;
    if pod.restart_policy == RestartPolicy::Always {
        let at = pod_spec.find("restartPolicy").unwrap_or_else(|| pod_spec.clone());
        at.problem("a Job's restartPolicy has to be there, and is Never or OnFailure");
    }
    // Nothing leads to it: it is available once it has ended.
    let lists = ["initContainers", "containers"].into_iter().filter_map(|key| pod_spec.find(key));
    let ports = lists.flat_map(|list| list.find_items()).filter_map(|one| one.find("ports"));
    let ports = ports.flat_map(|list| list.find_items());
    for place in ports.filter_map(|port| port.find("hostPort")).filter(|_| !pod.host_network) {
        place.refuse("not supported: nothing leads to a Job's pod", "use a Deployment");
    }
    let job = Job { backoff_limit: backoff_limit?, deadline_seconds: deadline_seconds? };
    Some(single(deployment_name(&object, name?)?, context, pod, Some(job)))
}

/// One pod, that goes before its successor comes.
fn single(name: Name, context: Context<'_>, pod: PodTemplate, job: Option<Job>) -> Deployment {
    Deployment {
        name,
        application: context.application.clone(),
        replicas: 1,
        strategy: Strategy::Recreate,
        min_ready_seconds: 0,
        progress_deadline_seconds: PROGRESS_DEADLINE_SECONDS,
        after: BTreeSet::new(),
        pod,
        job,
    }
}

fn deployment_name(object: &Object<'_>, name: Name) -> Option<Name> {
    let bytes = name.as_str().len();
    if bytes > DEPLOYMENT_NAME_BYTES_MAX {
        let what =
            format!("a name has at most {DEPLOYMENT_NAME_BYTES_MAX} characters, this {bytes}");
        object.place().problem(what);
        return None;
    }
    Some(name)
}

/// `selector.matchLabels` must be labels of the template, as Kubernetes
/// demands: a mismatch is a mistake that is worth telling.
fn selector(spec: &Object<'_>, template: &Object<'_>) {
    let labels: BTreeMap<String, String> = template
        .get("metadata")
        .and_then(|place| place.object(&shapes::TEMPLATE_META))
        .and_then(|meta| meta.get("labels"))
        .iter()
        .flat_map(Place::entries)
        .filter_map(|(key, place)| Some((key, place.text()?)))
        .collect();
    let Some(selector) = spec.get("selector").and_then(|p| p.object(&shapes::SELECTOR)) else {
        return;
    };
    for (key, place) in selector.get("matchLabels").iter().flat_map(Place::entries) {
        let wanted = place.text();
        if wanted.is_some() && labels.get(&key) != wanted.as_ref() {
            place.problem("no such label in template.metadata.labels");
        }
    }
}

fn strategy(spec: &Object<'_>, replicas: u16) -> Option<Strategy> {
    let Some(place) = spec.get("strategy") else { return rolling(None, replicas) };
    let object = place.object(&shapes::STRATEGY)?;
    let kind = object.get("type").map_or(Some("RollingUpdate".to_owned()), |place| place.text())?;
    let details = object.get("rollingUpdate");
    match kind.as_str() {
        "RollingUpdate" => rolling(details, replicas),
        "Recreate" => {
            if let Some(details) = details {
                details.problem("has no place beside type: Recreate");
            }
            Some(Strategy::Recreate)
        }
        _ => {
            object
                .place()
                .problem(format!("`{kind}` is no strategy: use RollingUpdate or Recreate"));
            None
        }
    }
}

fn rolling(details: Option<Place<'_>>, replicas: u16) -> Option<Strategy> {
    let object = match &details {
        Some(place) => Some(place.object(&shapes::ROLLING_UPDATE)?),
        None => None,
    };
    let read = |field: &str, default: u16, up: bool| -> Option<u16> {
        let Some(place) = object.as_ref().and_then(|object| object.get(field)) else {
            return Some(default);
        };
        if let super::yaml::Value::Text(text) = place.value() {
            let found = percent_of(text, replicas, up);
            if found.is_none() {
                place.problem("must be a whole number or a percentage, such as 1 or 25%");
            }
            return found;
        }
        place.int(0, PODS_MAX as i64)
    };
    let max_surge = read("maxSurge", MAX_SURGE, true)?;
    let max_unavailable = read("maxUnavailable", MAX_UNAVAILABLE, false)?;
    if max_surge == 0 && max_unavailable == 0 {
        let zero = |field: &str| {
            let place = object.as_ref().and_then(|object| object.get(field));
            place.is_some_and(|place| {
                place.scalar_text().is_some_and(|text| text.trim_end_matches('%').parse() == Ok(0))
            })
        };
        if zero("maxSurge") && zero("maxUnavailable") {
            object?.place().problem("maxUnavailable and maxSurge cannot both be 0");
            return None;
        }
        // Rounding or a default made both 0 and nothing could ever be
        // replaced: as in Kubernetes, one may then be missing.
        return Some(Strategy::RollingUpdate { max_unavailable: 1, max_surge });
    }
    Some(Strategy::RollingUpdate { max_unavailable, max_surge })
}

fn pod_template(
    place: &Place<'_>,
    context: Context<'_>,
    images: &mut BTreeMap<Digest, Image>,
) -> Option<PodTemplate> {
    let spec = place.object(&shapes::POD_SPEC)?;
    let host_network = spec.get("hostNetwork").map_or(Some(false), |place| place.bool());
    let restart_policy = spec.get("restartPolicy").map_or(Some(RestartPolicy::Always), |place| {
        match place.text()?.as_str() {
            "Always" => Some(RestartPolicy::Always),
            "OnFailure" => Some(RestartPolicy::OnFailure),
            "Never" => Some(RestartPolicy::Never),
            _ => {
                place.problem("must be Always, OnFailure or Never");
                None
            }
        }
    });
    let termination_grace_seconds = spec
        .get("terminationGracePeriodSeconds")
        .map_or(Some(GRACE_SECONDS), |place| place.int(0, GRACE_SECONDS_MAX.into()));
    let security = security::of_pod(&spec);
    let host_aliases = names::host_aliases(&spec);
    let dns = names::dns(&spec);
    let volume_places: Vec<_> = spec.get("volumes").iter().flat_map(Place::items).collect();
    let volumes: Vec<_> = volume_places.iter().map(volume::volume).collect();
    let surroundings = container::Surroundings {
        context,
        volumes: volumes.iter().flatten().cloned().collect(),
        security: security.clone().unwrap_or_default(),
        host_network: host_network == Some(true),
    };
    let main_places = spec.require("containers")?.items();
    if main_places.is_empty() {
        spec.place().problem("`containers` is empty");
    }
    let init_places: Vec<_> = spec.get("initContainers").iter().flat_map(Place::items).collect();
    let read_init = |place| container::init_container(place, &surroundings, images);
    let mut containers: Vec<_> = init_places.iter().map(read_init).collect();
    let read_main = |place| container::main_container(place, &surroundings, images);
    containers.extend(main_places.iter().map(read_main));
    let host_network = host_network?;
    let mut containers = containers.into_iter().collect::<Option<Vec<_>>>()?;
    if host_network {
        // It already listens on the node itself.
        for port in containers.iter_mut().flat_map(|container| &mut container.ports) {
            if port.host_port.is_some_and(|host| host != port.container_port) {
                place.problem("with hostNetwork, hostPort must equal containerPort");
            }
            port.host_port = None;
        }
    }
    Some(PodTemplate {
        host_network,
        restart_policy: restart_policy?,
        termination_grace_seconds: termination_grace_seconds?,
        containers,
        volumes: volumes.into_iter().collect::<Option<_>>()?,
        fs_group: security?.fs_group,
        host_aliases: host_aliases?,
        dns: dns?,
    })
}
