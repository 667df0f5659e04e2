//! `Container`: what a template says over what the image says.

use std::collections::BTreeMap;

use wherry_bundle::limits::{CONTAINER_PIDS_MAX, EMPTY_DIR_BYTES_MAX};
use wherry_bundle::model::{
    Container, Image, Port, Protocol, Resources, Role, Volume, is_container_path,
};
use wherry_bundle::{Digest, Fact, Word};

use super::environment::{expand, merged, variables};
use super::place::{Object, Place};
use super::quantity::{cpu_millis, memory_bytes};
use super::security::{self, PodSecurity};
use super::{Context, health, shapes, volume};
use crate::image::ImageInfo;
use crate::image::reference::familiar;

/// The pod of a container.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    pub context: Context<'a>,
    pub volumes: Vec<Volume>,
    pub security: PodSecurity,
    pub host_network: bool,
}

/// What a container has that ends by itself cannot be asked how it is.
const ONLY_WHAT_RUNS_ON: [&str; 4] =
    ["startupProbe", "livenessProbe", "readinessProbe", "lifecycle"];

/// Reads one of `initContainers`: with `restartPolicy: Always` it is a sidecar.
pub(super) fn init_container(
    place: &Place<'_>,
    pod: &Surroundings<'_>,
    images: &mut BTreeMap<Digest, Image>,
) -> Option<Container> {
    let object = place.object(&shapes::CONTAINER)?;
    let role = object.get("restartPolicy").map_or(Some(Role::Init), |place| {
        if place.text()? == "Always" {
            return Some(Role::Sidecar);
        }
        place.problem("must be Always, for a sidecar, or left out");
        None
    })?;
    if role == Role::Init {
        for place in ONLY_WHAT_RUNS_ON.iter().filter_map(|field| object.get(field)) {
            place.problem("only for what runs on: an init container ends by itself");
        }
    }
    read(&object, role, pod, images)
}

/// Reads one of `containers`.
pub(super) fn main_container(
    place: &Place<'_>,
    pod: &Surroundings<'_>,
    images: &mut BTreeMap<Digest, Image>,
) -> Option<Container> {
    let object = place.object(&shapes::CONTAINER)?;
    if let Some(place) = object.get("restartPolicy") {
        place.problem("only one of initContainers has its own: set the pod's");
    }
    read(&object, Role::Main, pod, images)
}

/// Reads one container. The image that it runs is added to `images`.
fn read(
    object: &Object<'_>,
    role: Role,
    pod: &Surroundings<'_>,
    images: &mut BTreeMap<Digest, Image>,
) -> Option<Container> {
    let place = object.place();
    let name = object.require("name").and_then(|place| place.name());
    let own_env = variables(object, pod.context.configs);
    let command = object.get("command").map(|place| place.texts());
    let args = object.get("args").map(|place| place.texts());
    let ports: Vec<_> =
        object.get("ports").iter().flat_map(Place::items).map(|p| port(&p)).collect();
    let resources = resources(object);
    let mounts = volume::mounts(object, &pod.volumes);
    let security = security::of_container(object, &pod.security);
    let working_dir = object.optional("workingDir", |place| {
        let path = place.text()?;
        if !is_container_path(&path) {
            place.problem("must be a plain absolute path, not below /proc");
        }
        Some(path)
    });
    let image = image(object, pod.context)?;
    let args = command_line(&image, command, args, &own_env);
    if args.is_empty() {
        place.problem("neither `command` nor the image says what to run");
        return None;
    }
    images.entry(image.digest).or_insert_with(|| Image {
        digest: image.digest,
        reference: image.reference.clone(),
        layers: image.layers.clone(),
    });
    let ports: Vec<Port> = ports.into_iter().collect::<Option<_>>()?;
    let probes = health::probes(object, &ports);
    let pre_stop = health::pre_stop(object, &ports);
    let security = security?;
    let mounts = mounts?;
    let image_volumes = volume::of_image(&image.volumes, &mounts);
    let env = merged(&image.env, own_env);
    let mut words = args.iter().chain(env.iter().map(|(_, value)| value));
    if pod.host_network && words.any(|word| word.has(Fact::PodAddress)) {
        place.problem("status.podIP: with hostNetwork the pod has no address of its own");
    }
    Some(Container {
        name: name?,
        role,
        image: image.digest,
        args,
        env,
        working_dir: working_dir?.unwrap_or(image.working_dir),
        user: security.user(place, &image.user),
        capabilities: security.capabilities,
        ports,
        resources: resources?,
        mounts,
        stop_signal: image.stop_signal,
        probes: probes?,
        pre_stop: pre_stop?,
        // Else it can write there anyway.
        image_volumes: if security.read_only_root { image_volumes } else { Vec::new() },
        read_only_root: security.read_only_root,
        seccomp: security.seccomp,
    })
}

fn image(object: &Object<'_>, context: Context<'_>) -> Option<ImageInfo> {
    let (place, name) = match object.get("image") {
        Some(place) => (place.clone(), place.text()?),
        None => match context.default_image {
            Some(name) => (object.place().clone(), name.to_owned()),
            None => {
                object.place().problem("`image` is missing, and the component names none");
                return None;
            }
        },
    };
    let found = (context.images)(&familiar(&name));
    if found.is_none() {
        place.problem(format!(
            "there is no image `{name}`: import it first (wherry-cloud image import)"
        ));
    }
    found
}

/// Docker's and Kubernetes' rule: `command` replaces entrypoint and command
/// of the image, `args` the command only. `$(NAME)` is a variable of `env`.
fn command_line(
    image: &ImageInfo,
    command: Option<Vec<String>>,
    args: Option<Vec<String>>,
    env: &[(String, Word)],
) -> Vec<Word> {
    let own = |words: Vec<String>| words.iter().map(|word| expand(word, env)).collect::<Vec<_>>();
    let plain = |words: &[String]| words.iter().map(|word| word.as_str().into()).collect();
    match (command, args) {
        (Some(command), args) => [own(command), own(args.unwrap_or_default())].concat(),
        (None, Some(args)) => [plain(&image.entrypoint), own(args)].concat(),
        (None, None) => [plain(&image.entrypoint), plain(&image.cmd)].concat(),
    }
}

fn port(place: &Place<'_>) -> Option<Port> {
    let object = place.object(&shapes::CONTAINER_PORT)?;
    let name = object.get("name").map_or(Some(String::new()), |place| place.text());
    let number = |place: &Place<'_>| place.int(1, 65_535);
    let container_port = object.require("containerPort").as_ref().and_then(number);
    let host_port = object.optional("hostPort", number);
    let protocol =
        object.get("protocol").map_or(Some(Protocol::Tcp), |place| match place.text()?.as_str() {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            _ => {
                place.problem("must be TCP or UDP");
                None
            }
        });
    Some(Port {
        name: name?,
        protocol: protocol?,
        container_port: container_port?,
        host_port: host_port?,
    })
}

fn resources(object: &Object<'_>) -> Option<Resources> {
    let Some(place) = object.get("resources") else { return Some(Resources::default()) };
    let Some(limits) = place.object(&shapes::RESOURCES)?.get("limits") else {
        return Some(Resources::default());
    };
    let limits = limits.object(&shapes::LIMITS)?;
    let cpu = limits.optional("cpu", |place| {
        let millis = cpu_millis(&place.scalar_text()?);
        if millis.is_none() {
            place.problem("must be processors, such as 2, 0.5 or 250m");
        }
        millis
    });
    let memory = limits.optional("memory", |place| {
        let bytes = memory_bytes(&place.scalar_text()?);
        if bytes.is_none() {
            place.problem("must be bytes, such as 64Mi, 100M or 1Gi");
        }
        bytes
    });
    let storage = limits.optional("ephemeral-storage", |place| {
        let bytes = memory_bytes(&place.scalar_text()?);
        let bytes = bytes.filter(|bytes| (1..=EMPTY_DIR_BYTES_MAX).contains(bytes));
        if bytes.is_none() {
            place.problem("must be bytes, such as 16Mi, and 1Gi at most: it is in memory");
        }
        bytes
    });
    let pids = limits.optional("pids", |place| place.int(1, CONTAINER_PIDS_MAX.into()));
    Some(Resources {
        cpu_millis: cpu?,
        memory_bytes: memory?,
        pids: pids?,
        storage_bytes: storage?,
    })
}
