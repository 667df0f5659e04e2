//! From a bundle's deployment to what the launcher is asked for: pure.
//!
//! Never here: files, addresses being chosen.

use std::net::{IpAddr, Ipv4Addr};

use heapless::Vec as Bounded;
use wherry_bundle::model::{
    CAPABILITIES, Container, Deployment, HostPath, Mount, PodTemplate, Volume, VolumeSource,
};
use wherry_bundle::{Bundle, Digest, Fact, Name};
use wherry_runtime::proto::{
    ClaimSpec, ContainerSpec, Dns, EmptyDir, MountSource, MountSpec, Names, PathText, PodSpec,
    join_words,
};

/// Why a pod cannot be asked for. A bundle's checks leave few ways.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("the current bundle has no deployment `{0}`")]
    NoDeployment(Name),
    #[error("container {container}: its image is not in the bundle")]
    NoImage { container: Name },
    #[error("pod {0} has too much of something for a request to the launcher")]
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
        let facts = |fact| match fact {
            Fact::PodName => name.to_string(),
            Fact::NodeName => bundle.node.to_string(),
            // A bundle that asks for it on the host's network is not valid.
            Fact::PodAddress => address.map(|address| address.to_string()).unwrap_or_default(),
        };
        let containers = template
            .containers
            .iter()
            .map(|container| container_spec(bundle, template, container, &facts, &hash))
            .collect::<Result<Vec<_>, _>>()?;
        let order = bounded(template.containers.iter().map(|c| (c.name.clone(), c.role)));
        let empty_dirs = template.volumes.iter().filter_map(|v| empty_dir(v, template.fs_group));
        Ok(Self {
            pod: PodSpec {
                name: name.clone(),
                deployment: deployment.name.clone(),
                generation: bundle.generation,
                hash,
                address,
                restart_policy: template.restart_policy,
                grace_millis: u64::from(template.termination_grace_seconds) * 1000,
                containers: order.ok_or_else(|| SpecError::TooMany(name.clone()))?,
                empty_dirs: bounded(empty_dirs).ok_or_else(|| SpecError::TooMany(name.clone()))?,
                host_aliases: host_aliases(template)
                    .ok_or_else(|| SpecError::TooMany(name.clone()))?,
                dns: dns(template).ok_or_else(|| SpecError::TooMany(name.clone()))?,
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

fn empty_dir(volume: &Volume, gid: Option<u32>) -> Option<EmptyDir> {
    let VolumeSource::EmptyDir { bytes_max } = volume.source else { return None };
    Some(EmptyDir { volume: volume.name.clone(), bytes_max, gid })
}

/// The claims that `deployment`'s pods mount. A folder that is made for one gets
/// the user of the first container that mounts it.
pub fn claim_specs(bundle: &Bundle, deployment: &Deployment) -> impl Iterator<Item = ClaimSpec> {
    let pod = &deployment.pod;
    pod.volumes.iter().filter_map(|volume| {
        let VolumeSource::Claim(source) = &volume.source else { return None };
        let claim = bundle.claim(&source.claim)?;
        let mounts = |it: &&Container| it.mounts.iter().any(|mount| mount.volume == volume.name);
        let user = &pod.containers.iter().find(mounts)?.user;
        Some(ClaimSpec {
            name: claim.name.clone(),
            bytes_max: claim.bytes_max,
            owner: (user.uid, user.gid),
            gid: pod.fs_group,
        })
    })
}

fn host_aliases<const N: usize>(template: &PodTemplate) -> Option<Bounded<(IpAddr, Names), N>> {
    let mut all = Bounded::new();
    for alias in &template.host_aliases {
        all.push((alias.address, names(&alias.names)?)).ok()?;
    }
    Some(all)
}

fn dns(template: &PodTemplate) -> Option<Dns> {
    let dns = &template.dns;
    Some(Dns {
        alone: dns.alone,
        nameservers: bounded(dns.nameservers.iter().copied())?,
        searches: names(&dns.searches)?,
        options: names(&dns.options)?,
    })
}

fn names(names: &[String]) -> Option<Names> {
    names.join(" ").as_str().try_into().ok()
}

fn container_spec(
    bundle: &Bundle,
    template: &PodTemplate,
    container: &Container,
    facts: &impl Fn(Fact) -> String,
    hash: &Digest,
) -> Result<ContainerSpec, SpecError> {
    let name = || container.name.clone();
    let too_large = |what| move || SpecError::TooLarge { container: name(), what };
    let image = bundle
        .image(&container.image)
        .ok_or_else(|| SpecError::NoImage { container: container.name.clone() })?;
    let env = environment(container, facts);
    let env = env.iter().map(String::as_str);
    let args: Vec<String> = container.args.iter().map(|word| word.resolve(facts)).collect();
    let args = args.iter().map(String::as_str);
    let layers = image.layers.iter().map(|layer| layer.digest);
    let image_volumes = container.image_volumes.iter().map(|path| path_text(path));
    let image_volumes = image_volumes.collect::<Option<Vec<_>>>().and_then(bounded);
    let mounts = container.mounts.iter().map(|mount| mount_spec(mount, template, hash));
    let mounts = mounts.collect::<Option<Vec<_>>>().and_then(bounded);
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
        pids: container.resources.pids,
        storage_bytes: container.resources.storage_bytes,
        layers: bounded(layers).ok_or_else(too_large("the list of layers"))?,
        mounts: mounts.ok_or_else(too_large("the list of mounts"))?,
        stop_signal: container.stop_signal,
        read_only_root: container.read_only_root,
        image_volumes: image_volumes.ok_or_else(too_large("a volume of its image"))?,
        seccomp: container.seccomp,
    })
}

/// `None` if it does not fit.
fn mount_spec(mount: &Mount, template: &PodTemplate, hash: &Digest) -> Option<MountSpec> {
    let volume = template.volumes.iter().find(|volume| volume.name == mount.volume)?;
    let sub_path = mount.sub_path.as_deref();
    let mut read_only = mount.read_only;
    let below = |folder: &str| match sub_path {
        Some(path) => path_text(&format!("{folder}/{path}")),
        None => path_text(folder),
    };
    let source = match &volume.source {
        VolumeSource::Config(_) => {
            MountSource::Files(below(&format!("{}/{}", volumes_folder(hash), mount.volume))?)
        }
        VolumeSource::HostPath(HostPath { path, kind }) => {
            MountSource::Host { path: below(path)?, kind: *kind }
        }
        VolumeSource::EmptyDir { .. } => {
            MountSource::Empty { volume: mount.volume.clone(), sub_path: folder_in(sub_path)? }
        }
        VolumeSource::Claim(source) => {
            read_only |= source.read_only;
            MountSource::Claim { claim: source.claim.clone(), sub_path: folder_in(sub_path)? }
        }
    };
    Some(MountSpec { source, destination: path_text(&mount.path)?, read_only })
}

/// Whether there is one, and whether it fits.
fn folder_in(path: Option<&str>) -> Option<Option<PathText>> {
    path.map_or(Some(None), |path| path_text(path).map(Some))
}

/// `NAME=value` words: each name once, since programs differ in which of two
/// they take; the last one wins, at the place of the first.
fn environment(container: &Container, facts: &impl Fn(Fact) -> String) -> Vec<String> {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    let hostname = [("HOSTNAME", facts(Fact::PodName))];
    let own = container.env.iter().map(|(name, value)| (name.as_str(), value.resolve(facts)));
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
    use wherry_bundle::Word;
    use wherry_bundle::model::{AccessMode, Claim, ClaimVolume, HostPathKind, Role, Seccomp};
    use wherry_runtime::packet;
    use wherry_runtime::proto::{Packet, Request, split_words};

    use super::*;
    use crate::supervisor::sample;

    fn order(bundle: &Bundle) -> PodOrder {
        let address = Some(Ipv4Addr::new(10, 87, 0, 2));
        PodOrder::new(bundle, &bundle.deployments[0], &sample::name("web-1"), address).unwrap()
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
            lion.mounts.iter().map(|m| (files(&m.source), m.destination.as_str())).collect();
        assert_eq!(
            mounts,
            [
                (format!("{folder}/config").as_str(), "/etc/lion"),
                (format!("{folder}/keys/key.pem").as_str(), "/etc/key.pem"),
            ]
        );
        assert!(lion.mounts.iter().all(|mount| mount.read_only));
        assert!(lion.read_only_root);
        assert_eq!((lion.pids, lion.storage_bytes), (Some(9), Some(1 << 20)));
        assert_eq!(lion.image_volumes[0].as_str(), "/var/lib/lion");
        let (address, names) = &pod.host_aliases[0];
        assert_eq!((address.to_string().as_str(), names.as_str()), ("10.0.0.9", "plc plc.example"));
        let dns = &pod.dns;
        assert_eq!((dns.alone, dns.nameservers[0].to_string().as_str()), (true, "10.0.0.53"));
        assert_eq!(
            (dns.searches.as_str(), dns.options.as_str()),
            ("a.example b.example", "ndots:2")
        );
        assert_eq!(pod.containers[..], [(sample::name("lion"), Role::Main)]);
    }

    fn files(source: &MountSource) -> &str {
        let MountSource::Files(path) = source else { panic!("{source:?}") };
        path.as_str()
    }

    #[test]
    fn volumes_of_the_host_and_of_the_pod_arrive() {
        let mut bundle = sample::bundle();
        let pod = &mut bundle.deployments[0].pod;
        pod.fs_group = Some(7);
        let (path, kind) = ("/run/line".to_owned(), HostPathKind::Directory);
        for (name, source) in [
            ("line", VolumeSource::HostPath(HostPath { path, kind })),
            ("run", VolumeSource::EmptyDir { bytes_max: 9 }),
        ] {
            pod.volumes.push(Volume { name: sample::name(name), source });
            for sub_path in [None, Some("one".to_owned())] {
                let (volume, read_only) = (sample::name(name), sub_path.is_some());
                let mount = Mount { volume, path: "/a".into(), sub_path, read_only };
                pod.containers[0].mounts.push(mount);
            }
        }
        let PodOrder { pod, containers } = order(&bundle);
        let dir = EmptyDir { volume: sample::name("run"), bytes_max: 9, gid: Some(7) };
        assert_eq!(pod.empty_dirs[..], [dir]);
        let empty = |sub_path: Option<&str>| MountSource::Empty {
            volume: sample::name("run"),
            sub_path: sub_path.map(|path| path.try_into().unwrap()),
        };
        let host = |path: &str| MountSource::Host { path: path.try_into().unwrap(), kind };
        let wanted = [host("/run/line"), host("/run/line/one"), empty(None), empty(Some("one"))];
        let mounts = &containers[0].mounts;
        let found: Vec<_> = mounts.iter().map(|mount| mount.source.clone()).collect();
        assert_eq!(found[found.len() - 4..], wanted);
        assert!(mounts.last().unwrap().read_only);
    }

    #[test]
    fn claims_arrive_with_who_mounts_them() {
        let mut bundle = sample::bundle();
        let (data, access) = (sample::name("data"), AccessMode::ReadWriteOnce);
        bundle.claims = vec![Claim { name: data.clone(), bytes_max: 9, access }];
        let pod = &mut bundle.deployments[0].pod;
        for (name, read_only) in [("store", false), ("look", true)] {
            let source = VolumeSource::Claim(ClaimVolume { claim: data.clone(), read_only });
            let volume = sample::name(name);
            pod.volumes.push(Volume { name: volume.clone(), source });
            let sub_path = read_only.then(|| "one".to_owned());
            let mount = Mount { volume, path: format!("/{name}"), sub_path, read_only: false };
            pod.containers[0].mounts.push(mount);
        }
        pod.fs_group = Some(7);
        // Nobody mounts it.
        let source = VolumeSource::Claim(ClaimVolume { claim: data.clone(), read_only: false });
        pod.volumes.push(Volume { name: sample::name("idle"), source });
        let hash = bundle.pod_hash(&bundle.deployments[0]);
        let spec =
            ClaimSpec { name: data.clone(), bytes_max: 9, owner: (1000, 1001), gid: Some(7) };
        let specs: Vec<_> = claim_specs(&bundle, &bundle.deployments[0]).collect();
        assert_eq!(specs, [spec.clone(), spec]);
        let PodOrder { containers, .. } = order(&bundle);
        let mounts = &containers[0].mounts;
        let claim = |sub_path: Option<&str>| MountSource::Claim {
            claim: data.clone(),
            sub_path: sub_path.map(|path| path.try_into().unwrap()),
        };
        let found: Vec<_> = mounts.iter().map(|it| (it.source.clone(), it.read_only)).collect();
        assert_eq!(found[found.len() - 2..], [(claim(None), false), (claim(Some("one")), true)]);
        // A new size needs no new pod.
        bundle.claims[0].bytes_max = 10;
        assert_eq!(bundle.pod_hash(&bundle.deployments[0]), hash);
    }

    #[test]
    fn a_pod_learns_where_it_is() {
        let mut bundle = sample::bundle();
        let container = &mut bundle.deployments[0].pod.containers[0];
        let mut at = Word::from("--at=");
        at.append(&Fact::PodAddress.into());
        container.args.push(at);
        container.env.push(("NODE".into(), Fact::NodeName.into()));
        container.env.push(("POD".into(), Fact::PodName.into()));
        let PodOrder { containers, .. } = order(&bundle);
        assert_eq!(split_words(&containers[0].args).last(), Some("--at=10.87.0.2"));
        let env: Vec<&str> = split_words(&containers[0].env).collect();
        let node = format!("NODE={}", bundle.node);
        assert_eq!(env[env.len() - 2..], [node.as_str(), "POD=web-1"]);
    }

    #[test]
    fn the_largest_valid_container_fits_in_a_packet() {
        use wherry_bundle::limits::{LAYERS_MAX, PATH_BYTES_MAX, VOLUMES_MAX, WORDS_BYTES_MAX};
        let mut bundle = sample::bundle();
        bundle.images[0].layers = vec![sample::layer(b"x"); LAYERS_MAX];
        bundle.chunk_lists = [sample::cut(b"x")].into();
        let container = &mut bundle.deployments[0].pod.containers[0];
        container.args = vec!["x".repeat(WORDS_BYTES_MAX).into()];
        container.env = vec![("A".into(), "x".repeat(WORDS_BYTES_MAX - 1).into())];
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
