//! `Container`: what a template says over what the image says.

use std::collections::{BTreeMap, BTreeSet};

use wherry_bundle::model::{
    CAPABILITIES, Container, Image, Mount, Port, Protocol, Resources, is_container_path,
};
use wherry_bundle::{Digest, Name};

use super::place::{Object, Place};
use super::quantity::{cpu_millis, memory_bytes};
use super::seccomp::seccomp;
use super::{Context, health, shapes};
use crate::image::ImageInfo;
use crate::image::reference::familiar;

/// What every container engine gives a program that has no `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Reads one container. The image that it runs is added to `images`.
pub(super) fn container(
    place: &Place<'_>,
    context: Context<'_>,
    volumes: &[&Name],
    images: &mut BTreeMap<Digest, Image>,
) -> Option<Container> {
    let object = place.object(&shapes::CONTAINER)?;
    let name = object.require("name").and_then(|place| place.name());
    let own_env = environment(&object);
    let command = object.get("command").map(|place| place.texts());
    let args = object.get("args").map(|place| place.texts());
    let ports: Vec<_> =
        object.get("ports").iter().flat_map(Place::items).map(|p| port(&p)).collect();
    let resources = resources(&object);
    let mounts = mounts(&object, volumes);
    let security = object.get("securityContext").and_then(|p| p.object(&shapes::SECURITY));
    let capabilities = capabilities(security.as_ref());
    let seccomp = seccomp(security.as_ref(), context.seccomp);
    let working_dir = object.get("workingDir").map(|place| {
        let path = place.text()?;
        if !is_container_path(&path) {
            place.problem("must be a plain absolute path, not below /proc");
        }
        Some(path)
    });
    let image = image(&object, context)?;
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
    let probes = health::probes(&object, &ports);
    let pre_stop = health::pre_stop(&object, &ports);
    Some(Container {
        name: name?,
        image: image.digest,
        args,
        env: merged(&image.env, own_env),
        working_dir: working_dir.unwrap_or(Some(image.working_dir))?,
        user: image.user,
        capabilities: capabilities?,
        ports,
        resources: resources?,
        mounts: mounts?,
        stop_signal: image.stop_signal,
        probes: probes?,
        pre_stop: pre_stop?,
        seccomp: seccomp?,
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
    env: &[(String, String)],
) -> Vec<String> {
    let own = |words: Vec<String>| words.iter().map(|word| expand(word, env)).collect::<Vec<_>>();
    match (command, args) {
        (Some(command), args) => [own(command), own(args.unwrap_or_default())].concat(),
        (None, Some(args)) => [image.entrypoint.clone(), own(args)].concat(),
        (None, None) => [image.entrypoint.clone(), image.cmd.clone()].concat(),
    }
}

fn environment(object: &Object<'_>) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    for place in object.get("env").iter().flat_map(Place::items) {
        let Some(variable) = place.object(&shapes::ENV_VAR) else { continue };
        let name = variable.require("name").and_then(|place| place.text());
        let value = variable.get("value").map_or(Some(String::new()), |place| place.text());
        let (Some(name), Some(value)) = (name, value) else { continue };
        if name.is_empty() || name.contains(['=', '\0']) {
            place.problem(format!("`{name}` is not a variable's name"));
        }
        let value = expand(&value, &env);
        env.push((name, value));
    }
    env
}

/// The image's variables, each overridden by one of the template's.
fn merged(image: &[String], own: Vec<(String, String)>) -> Vec<(String, String)> {
    let split = |word: &String| {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        (name.to_owned(), value.to_owned())
    };
    let mut env: Vec<(String, String)> = vec![("PATH".into(), PATH.into())];
    for (name, value) in image.iter().map(split).chain(own) {
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => env.push((name, value)),
        }
    }
    env
}

/// `$(NAME)` becomes the variable's value, `$$` a dollar; what names no
/// variable stays as it is.
fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let name = rest.strip_prefix("$(").and_then(|tail| tail.split_once(')'));
        let known = name.and_then(|(name, tail)| {
            Some((&env.iter().rev().find(|(known, _)| known == name)?.1, tail))
        });
        if let Some((value, tail)) = known {
            out.push_str(value);
            rest = tail;
        } else {
            out.push('$');
            rest = rest.strip_prefix("$$").unwrap_or(&rest[1..]);
        }
    }
    out + rest
}

fn port(place: &Place<'_>) -> Option<Port> {
    let object = place.object(&shapes::CONTAINER_PORT)?;
    let name = object.get("name").map_or(Some(String::new()), |place| place.text());
    let number = |field: &str| object.get(field).map(|place| place.int::<u16>(1, 65_535));
    let container_port = object.require("containerPort").and_then(|_| number("containerPort"));
    let host_port = number("hostPort");
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
        container_port: container_port??,
        host_port: match host_port {
            Some(port) => Some(port?),
            None => None,
        },
    })
}

fn resources(object: &Object<'_>) -> Option<Resources> {
    let mut resources = Resources::default();
    let Some(place) = object.get("resources") else { return Some(resources) };
    let Some(limits) = place.object(&shapes::RESOURCES)?.get("limits") else {
        return Some(resources);
    };
    let limits = limits.object(&shapes::LIMITS)?;
    if let Some(place) = limits.get("cpu") {
        resources.cpu_millis = Some(cpu_millis(&place.scalar_text()?).or_else(|| {
            place.problem("must be processors, such as 2, 0.5 or 250m");
            None
        })?);
    }
    if let Some(place) = limits.get("memory") {
        resources.memory_bytes = Some(memory_bytes(&place.scalar_text()?).or_else(|| {
            place.problem("must be bytes, such as 64Mi, 100M or 1Gi");
            None
        })?);
    }
    Some(resources)
}

fn mounts(object: &Object<'_>, volumes: &[&Name]) -> Option<Vec<Mount>> {
    let places: Vec<_> = object.get("volumeMounts").iter().flat_map(Place::items).collect();
    let mounts: Vec<_> = places.iter().map(|place| mount(place, volumes)).collect();
    let mut paths = BTreeSet::new();
    for (place, mount) in places.iter().zip(&mounts) {
        if let Some(mount) = mount
            && !paths.insert(&mount.path)
        {
            place.problem(format!("`{}` is mounted at twice", mount.path));
        }
    }
    mounts.into_iter().collect()
}

fn mount(place: &Place<'_>, volumes: &[&Name]) -> Option<Mount> {
    let object = place.object(&shapes::VOLUME_MOUNT)?;
    let volume = object.require("name").and_then(|place| {
        let name = place.name()?;
        if !volumes.contains(&&name) {
            place.problem(format!("there is no volume `{name}` in this pod"));
        }
        Some(name)
    });
    let path = object.require("mountPath").and_then(|place| {
        let path = place.text()?;
        if !is_container_path(&path) || path == "/" {
            place.problem("must be a plain absolute path, not / and not below /proc");
        }
        Some(path)
    });
    let sub_path = object.get("subPath").map(|place| place.relative_path());
    let read_only = object.get("readOnly").map_or(Some(true), |place| {
        let read_only = place.bool()?;
        if !read_only {
            place.problem("config maps and secrets are always read-only");
        }
        Some(true)
    });
    Some(Mount {
        volume: volume?,
        path: path?,
        sub_path: match sub_path {
            Some(path) => Some(path?),
            None => None,
        },
        read_only: read_only?,
    })
}

/// What is added; all others are dropped anyway, so `drop` only takes back.
fn capabilities(security: Option<&Object<'_>>) -> Option<BTreeSet<String>> {
    let Some(place) = security.and_then(|object| object.get("capabilities")) else {
        return Some(BTreeSet::new());
    };
    let lists = place.object(&shapes::CAPABILITIES)?;
    let read = |field: &str, all_allowed: bool| -> BTreeSet<String> {
        let places = lists.get(field).iter().flat_map(Place::items).collect::<Vec<_>>();
        let names = places.iter().filter_map(|place| {
            let text = place.text()?;
            let name = text.strip_prefix("CAP_").unwrap_or(&text).to_owned();
            let all = all_allowed && name == "ALL";
            if !all && !CAPABILITIES.contains(&name.as_str()) {
                place.problem(format!("`{text}` is not a capability that can be named here"));
            }
            Some(name)
        });
        names.collect()
    };
    let dropped = read("drop", true);
    let added = read("add", false);
    Some(added.into_iter().filter(|name| !dropped.contains(name)).collect())
}
