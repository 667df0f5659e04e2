//! From a bundle's deployment to what the launcher is asked for: pure.
//!
//! Never here: files, addresses being chosen.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use heapless::Vec as Bounded;
use wherry_bundle::limits::VOLUMES_MAX;
use wherry_bundle::model::{
    CAPABILITIES, Container, Deployment, HostPath, PodTemplate, VolumeSource,
};
use wherry_bundle::{Bundle, Digest, Name};
use wherry_runtime::proto::{
    ContainerSpec, HostMountSpec, MountSpec, PathText, PodSpec, join_words,
};

/// Why a pod cannot be asked for. A bundle's checks leave few ways.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("the current bundle has no deployment `{0}`")]
    NoDeployment(Name),
    #[error("container {container}: its image is not in the bundle")]
    NoImage { container: Name },
    #[error("pod {0} has too many containers for a request to the launcher")]
    TooMany(Name),
    #[error("container {container}: {what} does not fit in a request to the launcher")]
    TooLarge { container: Name, what: &'static str },
}

/// A pod and its containers, as the launcher wants them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodOrder {
    pub pod: PodSpec,
    pub containers: Vec<ContainerSpec>,
}

impl PodOrder {
    /// The pod `name` of `deployment`, at `address`.
    ///
    /// # Errors
    /// [`SpecError`].
    pub fn new(
        bundle: &Bundle,
        deployment: &Deployment,
        name: &Name,
        address: Option<Ipv4Addr>,
    ) -> Result<Self, SpecError> {
        let hash = bundle.pod_hash(deployment);
        let template = &deployment.pod;
        let containers = template
            .containers
            .iter()
            .map(|container| container_spec(bundle, template, container, name, &hash))
            .collect::<Result<Vec<_>, _>>()?;
        let names = bounded(template.containers.iter().map(|container| container.name.clone()));
        Ok(Self {
            pod: PodSpec {
                name: name.clone(),
                deployment: deployment.name.clone(),
                generation: bundle.generation,
                hash,
                address,
                restart_policy: template.restart_policy,
                grace_millis: u64::from(template.termination_grace_seconds) * 1000,
                containers: names.ok_or_else(|| SpecError::TooMany(name.clone()))?,
            },
            containers,
        })
    }
}

/// The folder of a pod's volumes below the volumes' folder. Pods of one hash
/// have the same files and share them.
#[must_use]
pub fn volumes_folder(hash: &Digest) -> String {
    hash.hex()
}

fn container_spec(
    bundle: &Bundle,
    template: &PodTemplate,
    container: &Container,
    pod: &Name,
    hash: &Digest,
) -> Result<ContainerSpec, SpecError> {
    let name = || container.name.clone();
    let too_large = |what| move || SpecError::TooLarge { container: name(), what };
    let image = bundle
        .image(&container.image)
        .ok_or_else(|| SpecError::NoImage { container: container.name.clone() })?;
    let env = environment(container, pod);
    let env = env.iter().map(String::as_str);
    let args = container.args.iter().map(String::as_str);
    let layers = image.layers.iter().map(|layer| layer.digest);
    let (mounts, host_mounts) =
        mount_specs(container, template, hash).ok_or_else(too_large("the list of mounts"))?;
    Ok(ContainerSpec {
        name: container.name.clone(),
        args: join_words(args).ok_or_else(too_large("the command line"))?,
        env: join_words(env).ok_or_else(too_large("the environment"))?,
        working_dir: path_text(&container.working_dir).ok_or_else(too_large("the folder"))?,
        uid: container.user.uid,
        gid: container.user.gid,
        additional_gids: bounded(container.user.additional_gids.iter().copied())
            .ok_or_else(too_large("the list of groups"))?,
        capabilities: capability_bits(&container.capabilities),
        cpu_millis: container.resources.cpu_millis,
        memory_bytes: container.resources.memory_bytes,
        layers: bounded(layers).ok_or_else(too_large("the list of layers"))?,
        mounts,
        stop_signal: container.stop_signal,
        host_mounts,
        seccomp: container.seccomp,
    })
}

type Mounts = (Bounded<MountSpec, VOLUMES_MAX>, Bounded<HostMountSpec, VOLUMES_MAX>);

/// Of the pod's own files, and of the host; `None` if they do not fit.
fn mount_specs(container: &Container, template: &PodTemplate, hash: &Digest) -> Option<Mounts> {
    let mut mounts = Mounts::default();
    for mount in &container.mounts {
        let volume = template.volumes.iter().find(|volume| volume.name == mount.volume)?;
        let below = |mut path: String| {
            if let Some(sub_path) = &mount.sub_path {
                path.push('/');
                path.push_str(sub_path);
            }
            path_text(&path)
        };
        let (destination, read_only) = (path_text(&mount.path)?, mount.read_only);
        match &volume.source {
            VolumeSource::Config(_) => {
                let source = below(format!("{}/{}", volumes_folder(hash), mount.volume))?;
                mounts.0.push(MountSpec { source, destination, read_only }).ok()?;
            }
            VolumeSource::HostPath(HostPath { path, kind }) => {
                let (path, kind) = (below(path.clone())?, *kind);
                mounts.1.push(HostMountSpec { path, kind, destination, read_only }).ok()?;
            }
        }
    }
    Some(mounts)
}

/// The first host path that `bundle` asks for and `allowed` does not have, for
/// people.
#[must_use]
pub fn not_allowed(bundle: &Bundle, allowed: &[PathBuf]) -> Option<String> {
    bundle.deployments.iter().find_map(|deployment| {
        deployment.pod.volumes.iter().find_map(|volume| {
            let VolumeSource::HostPath(HostPath { path, .. }) = &volume.source else { return None };
            let is_allowed = allowed.iter().any(|prefix| Path::new(path).starts_with(prefix));
            (!is_allowed).then(|| {
                format!(
                    "deployment {}, volume {}: the host path `{path}` is not below one of \
                     `[volumes] host_paths` in the node's configuration",
                    deployment.name, volume.name
                )
            })
        })
    })
}

/// `NAME=value` words: each name once, since programs differ in which of two
/// they take; the last one wins, at the place of the first.
fn environment(container: &Container, pod: &Name) -> Vec<String> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    let hostname = [("HOSTNAME", pod.as_str())];
    let own = container.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in hostname.into_iter().chain(own) {
        match pairs.iter_mut().find(|pair| pair.0 == name) {
            Some(pair) => pair.1 = value,
            None => pairs.push((name, value)),
        }
    }
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn capability_bits<'a>(names: impl IntoIterator<Item = &'a String>) -> u64 {
    let bit = |name: &String| {
        CAPABILITIES.iter().position(|known| known == name).map_or(0, |number| 1_u64 << number)
    };
    names.into_iter().map(bit).fold(0, |bits, bit| bits | bit)
}

/// `None` if there are more than `N`.
fn bounded<T, const N: usize>(items: impl IntoIterator<Item = T>) -> Option<Bounded<T, N>> {
    let mut all = Bounded::new();
    for item in items {
        all.push(item).ok()?;
    }
    Some(all)
}

fn path_text(path: &str) -> Option<PathText> {
    path.try_into().ok()
}

#[cfg(test)]
mod tests {
    use wherry_bundle::model::{HostPathKind, Mount, Seccomp, Volume};
    use wherry_runtime::packet;
    use wherry_runtime::proto::{Packet, Request, split_words};

    use super::*;
    use crate::supervisor::sample;

    fn order(bundle: &Bundle) -> PodOrder {
        let address = Some(Ipv4Addr::new(10, 87, 0, 2));
        PodOrder::new(bundle, &bundle.deployments[0], &sample::name("web-1"), address).unwrap()
    }

    #[test]
    fn of_the_host_a_pod_gets_what_the_node_allows() {
        let mut bundle = sample::bundle();
        assert_eq!(not_allowed(&bundle, &[]), None);
        let pod = &mut bundle.deployments[0].pod;
        let (path, kind) = ("/run/line".to_owned(), HostPathKind::Directory);
        let source = VolumeSource::HostPath(HostPath { path, kind });
        pod.volumes.push(Volume { name: sample::name("line"), source });
        let mount = Mount {
            volume: sample::name("line"),
            path: "/line".into(),
            sub_path: Some("one".into()),
            read_only: false,
        };
        pod.containers[0].mounts.push(mount);
        for allowed in ["/run/line", "/run"] {
            assert_eq!(not_allowed(&bundle, &["/srv".into(), allowed.into()]), None);
        }
        for allowed in ["/run/line/one", "/run/li", "/srv"] {
            let reason = not_allowed(&bundle, &[allowed.into()]).unwrap();
            assert!(reason.contains("volume line: the host path `/run/line`"), "{reason}");
        }
        let mounts = &order(&bundle).containers[0].host_mounts;
        let mounts: Vec<_> =
            mounts.iter().map(|m| (m.path.as_str(), m.kind, m.destination.as_str())).collect();
        assert_eq!(mounts, [("/run/line/one", kind, "/line")]);
    }

    #[test]
    fn everything_of_the_template_arrives() {
        let bundle = sample::bundle();
        let PodOrder { pod, containers } = order(&bundle);
        assert_eq!(pod.hash, bundle.pod_hash(&bundle.deployments[0]));
        assert_eq!((pod.grace_millis, pod.containers.len()), (10_000, 1));
        assert_eq!(pod.address, Some(Ipv4Addr::new(10, 87, 0, 2)));
        let [lion] = &containers[..] else { panic!("{containers:?}") };
        assert_eq!(split_words(&lion.args).collect::<Vec<_>>(), ["/lion", "--port=80"]);
        let env: Vec<&str> = split_words(&lion.env).collect();
        assert_eq!(env, ["HOSTNAME=web-1", "MODE=new", "B=1"]);
        assert_eq!((lion.uid, lion.gid, &lion.additional_gids[..]), (1000, 1001, &[5][..]));
        // CAP_CHOWN is number 0, CAP_NET_BIND_SERVICE number 10.
        assert_eq!(lion.capabilities, 1 | 1 << 10);
        assert_eq!(lion.seccomp, Seccomp::RuntimeDefault);
        assert_eq!((lion.cpu_millis, lion.memory_bytes), (Some(500), Some(32 << 20)));
        assert_eq!(lion.layers[..], [sample::layer(b"base").digest, sample::layer(b"top").digest]);
        let folder = pod.hash.hex();
        let mounts: Vec<_> =
            lion.mounts.iter().map(|m| (m.source.as_str(), m.destination.as_str())).collect();
        assert_eq!(
            mounts,
            [
                (format!("{folder}/config").as_str(), "/etc/lion"),
                (format!("{folder}/keys/key.pem").as_str(), "/etc/key.pem"),
            ]
        );
        assert!(lion.mounts.iter().all(|mount| mount.read_only));
    }

    #[test]
    fn the_largest_valid_container_fits_in_a_packet() {
        use wherry_bundle::limits::{LAYERS_MAX, PATH_BYTES_MAX, WORDS_BYTES_MAX};
        let mut bundle = sample::bundle();
        bundle.images[0].layers = vec![sample::layer(b"x"); LAYERS_MAX];
        bundle.chunk_lists = [sample::cut(b"x")].into();
        let container = &mut bundle.deployments[0].pod.containers[0];
        container.args = vec!["x".repeat(WORDS_BYTES_MAX)];
        container.env = vec![("A".into(), "x".repeat(WORDS_BYTES_MAX - 1))];
        let path = |length| format!("/{}", "p".repeat(length - 1));
        container.mounts = (0..VOLUMES_MAX)
            .map(|_| Mount {
                volume: sample::name("config"),
                path: path(PATH_BYTES_MAX),
                sub_path: Some("conf.d/lion.properties".into()),
                read_only: true,
            })
            .collect();
        container.working_dir = path(PATH_BYTES_MAX);
        bundle.validate().unwrap();
        let PodOrder { mut containers, .. } = order(&bundle);
        let spec = Box::new(containers.remove(0));
        let pod = sample::name(&"p".repeat(63));
        let request = Request::DefineContainer { pod, spec };
        packet::encode(&Packet { seq: u32::MAX, request }).unwrap();
    }
}
