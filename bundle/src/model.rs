//! The model of a bundle: a version compiled for one node.
//!
//! Everything is resolved here: images to layers, commands and users to what
//! the kernel takes. A node never sees YAML, nor an image's own configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::health::{PreStop, Probes, UpgradePolicy};
use crate::limits::{
    CHUNK_LISTS_MAX, CLAIM_BYTES_MAX, CLAIMS_MAX, CONFIG_BYTES_MAX, CONFIG_FILES_MAX, CONFIGS_MAX,
    CONTAINER_PIDS_MAX, CONTAINERS_MAX, DEPLOYMENT_NAME_BYTES_MAX, DEPLOYMENTS_MAX,
    EMPTY_DIR_BYTES_MAX, GRACE_SECONDS_MAX, HOST_NAMES_MAX, IMAGES_MAX, JOB_FAILURES_MAX,
    JOB_SECONDS_MAX, LAYERS_MAX, NAME_BYTES_MAX, NAMESERVERS_MAX, PATH_BYTES_MAX, PODS_MAX,
    PORTS_MAX, TEXT_BYTES_MAX, UPGRADE_BOOTS_MAX, UPGRADE_SECONDS_MAX, VOLUMES_MAX,
    WORDS_BYTES_MAX, WORDS_MAX,
};
use crate::word::{Fact, Word};
use crate::{BuildVersion, Digest, Generation, Name};

/// What one node has to run. Immutable; a newer generation replaces it whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// The only node that may take it.
    pub node: Name,
    pub generation: Generation,
    /// The versions that were compiled into it, at most one an application.
    pub versions: Vec<VersionRef>,
    /// Ordered by name; names are unique on a node.
    pub deployments: Vec<Deployment>,
    /// Config maps and secrets, ordered by name.
    pub configs: Vec<Config>,
    /// Ordered by name; names are unique on a node.
    pub claims: Vec<Claim>,
    /// Every image that a container names, ordered by digest.
    pub images: Vec<Image>,
    /// How each layer of the images is cut: its [`ChunkList`]s, in order, by
    /// their digests.
    ///
    /// [`ChunkList`]: crate::chunk::ChunkList
    pub chunk_lists: BTreeMap<Digest, Vec<Digest>>,
    pub upgrade: UpgradePolicy,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRef {
    pub application: Name,
    pub number: BuildVersion,
    pub description: String,
}

/// Replicas of one pod template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    pub name: Name,
    pub application: Name,
    pub replicas: u16,
    pub strategy: Strategy,
    /// A pod counts as available once it was ready for this long.
    pub min_ready_seconds: u32,
    /// Without progress for this long, an upgrade counts as failed.
    pub progress_deadline_seconds: u32,
    /// Deployments that must be available before a pod of this one starts.
    pub after: BTreeSet<Name>,
    pub pod: PodTemplate,
    /// Its pod runs until it has succeeded once.
    pub job: Option<Job>,
}

/// How long a [`Deployment`] that is a job is tried. No part of its pod's
/// hash: what succeeded stays done when only this changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// With one failure more it has failed for good.
    pub backoff_limit: u32,
    /// From its first start, all tries together.
    pub deadline_seconds: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// Counts of pods, not both zero.
    RollingUpdate { max_unavailable: u16, max_surge: u16 },
    /// All old pods go before a new one comes.
    Recreate,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodTemplate {
    /// Shares the node's network namespace instead of having its own.
    pub host_network: bool,
    pub restart_policy: RestartPolicy,
    /// Between SIGTERM and SIGKILL.
    pub termination_grace_seconds: u32,
    /// In the order in which they start: those that go before the others
    /// first ([`Role`]).
    pub containers: Vec<Container>,
    pub volumes: Vec<Volume>,
    /// Of the volumes that are made for the pod.
    pub fs_group: Option<u32>,
    /// More lines of its `/etc/hosts`.
    pub host_aliases: Vec<HostAlias>,
    pub dns: Dns,
}

/// Names of a machine that is no pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAlias {
    pub address: IpAddr,
    pub names: Vec<String>,
}

/// What a pod's resolver has besides what the node's own has, or instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Instead.
    pub alone: bool,
    pub nameservers: Vec<IpAddr>,
    pub searches: Vec<String>,
    /// Such as `ndots:2`.
    pub options: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub name: Name,
    pub role: Role,
    /// An [`Image`] of the same bundle.
    pub image: Digest,
    /// The whole command line; never empty.
    pub args: Vec<Word>,
    /// In order; a later variable of the same name wins.
    pub env: Vec<(String, Word)>,
    /// Absolute, not below `/proc`.
    pub working_dir: String,
    pub user: User,
    /// Linux capabilities that it holds, such as `NET_ADMIN` (no `CAP_`);
    /// all others are dropped.
    pub capabilities: BTreeSet<String>,
    pub ports: Vec<Port>,
    pub resources: Resources,
    pub mounts: Vec<Mount>,
    /// The signal number that asks it to stop; the image may choose it.
    pub stop_signal: u8,
    pub probes: Probes,
    pub pre_stop: Option<PreStop>,
    /// Of its image it can change nothing; `/tmp` is its own.
    pub read_only_root: bool,
    /// Folders that its image declares as volumes: it may write there, and it
    /// lasts as long as the container. None lies in another, nor in a mount.
    pub image_volumes: Vec<String>,
    pub seccomp: Seccomp,
}

/// Which system calls a container's programs may make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// Those that programs in containers are known to need.
    #[default]
    RuntimeDefault,
    /// All, where the node's configuration allows that.
    Unconfined,
}

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Starts once every one before it, that is no main one itself, is done or
    /// ready.
    Main,
    /// Ends by itself, before what follows begins (`initContainers`).
    Init,
    /// As a main one, but ready before what follows begins (an init container
    /// with `restartPolicy: Always`).
    Sidecar,
}

/// Linux' capabilities, each at its number (`linux/capability.h`).
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Empty when the template gave none.
    pub name: String,
    pub protocol: Protocol,
    pub container_port: u16,
    /// Published on the node; shared by all available pods of the deployment.
    pub host_port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// Limits; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
    pub memory_bytes: Option<u64>,
    /// Processes and threads; [`CONTAINER_PIDS_MAX`] without.
    pub pids: Option<u32>,
    /// What it writes outside its volumes;
    /// [`STORAGE_BYTES`](crate::limits::STORAGE_BYTES) without.
    pub storage_bytes: Option<u64>,
}

/// What containers of a pod may mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: Name,
    pub source: VolumeSource,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeSource {
    Config(ConfigVolume),
    HostPath(HostPath),
    /// A folder in memory that the pod's containers share, empty at first and
    /// gone with the pod. What is in it counts as memory of who wrote it.
    EmptyDir {
        bytes_max: u64,
    },
    Claim(ClaimVolume),
}

/// The folder of a [`Claim`] of the same bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimVolume {
    pub claim: Name,
    /// Whatever its mounts say.
    pub read_only: bool,
}

/// A folder on the node's flash that outlives pods and versions, whose files
/// are those of whoever claims it by this name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub name: Name,
    pub bytes_max: u64,
    pub access: AccessMode,
}

/// What becomes of an old pod that writes to a claim when a new one is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessMode {
    /// It ends before the new one starts.
    ReadWriteOnce,
    /// They may run side by side.
    ReadWriteMany,
}

/// A file, folder or device of the gateway's own, below a path that the node's
/// configuration allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPath {
    /// Absolute and plain; no part of it may be a symlink, unless it is a
    /// device's.
    pub path: String,
    pub kind: HostPathKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostPathKind {
    /// Whatever is there.
    Any,
    Directory,
    /// Made if it is not there, for the user of the container that mounts it.
    DirectoryOrCreate,
    /// A character device, such as a serial line.
    CharDevice,
}

/// A folder of files from a config map or a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigVolume {
    /// The name of a [`Config`] of the same bundle.
    pub config: ConfigRef,
    /// Which files, and under which relative path; all of them under their
    /// own names when empty.
    pub items: BTreeMap<String, String>,
    /// Permission bits of the files.
    pub mode: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConfigRef {
    pub kind: ConfigKind,
    pub name: Name,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConfigKind {
    ConfigMap,
    Secret,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub volume: Name,
    /// Absolute path in the container.
    pub path: String,
    /// A single file of the volume instead of the folder.
    pub sub_path: Option<String>,
    pub read_only: bool,
}

/// A config map or a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    pub key: ConfigRef,
    /// File name (one path component) and contents.
    pub files: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Of the image's OCI configuration, which names all its layers.
    pub digest: Digest,
    /// What a person called it, such as `nginx:1.22`.
    pub reference: String,
    /// Bottom first.
    pub layers: Vec<Layer>,
}

/// One read-only squashfs file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Layer {
    pub digest: Digest,
    pub size_bytes: u64,
}

/// What is wrong with a bundle, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct InvalidBundle {
    /// Such as `deployments.web.containers.nginx.args`.
    pub at: String,
    pub what: String,
}

impl Bundle {
    /// Checks every limit and every reference, so that what comes after can
    /// be total. The cloud checks what it compiles, the node what it got.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), InvalidBundle> {
        check(self.generation.0 > 0, "generation", || "must be at least 1".into())?;
        at_most("upgrade.boots", self.upgrade.boots_max as usize, UPGRADE_BOOTS_MAX as usize)?;
        for (at, seconds) in [
            ("upgrade.stable (seconds)", self.upgrade.stable_seconds),
            ("upgrade.hold (seconds)", self.upgrade.hold_seconds_max),
        ] {
            at_most(at, seconds as usize, UPGRADE_SECONDS_MAX as usize)?;
        }
        at_most("deployments", self.deployments.len(), DEPLOYMENTS_MAX)?;
        at_most("images", self.images.len(), IMAGES_MAX)?;
        at_most("configs", self.configs.len(), CONFIGS_MAX)?;
        unique("deployments", self.deployments.iter().map(|d| &d.name))?;
        unique("images", self.images.iter().map(|i| &i.digest))?;
        unique("configs", self.configs.iter().map(|c| &c.key))?;
        at_most("claims", self.claims.len(), CLAIMS_MAX)?;
        unique("claims", self.claims.iter().map(|claim| &claim.name))?;
        for Claim { name, bytes_max, .. } in &self.claims {
            check((1..=CLAIM_BYTES_MAX).contains(bytes_max), &format!("claims.{name}"), || {
                format!("{bytes_max} bytes, where 1 to {CLAIM_BYTES_MAX} are allowed")
            })?;
        }
        let pods: usize = self.deployments.iter().map(Deployment::pods_max).sum();
        at_most("pods (replicas and maxSurge of all deployments)", pods, PODS_MAX)?;
        for image in &self.images {
            let at = format!("images.{}", image.digest.short());
            at_most(&format!("{at}.layers"), image.layers.len(), LAYERS_MAX)?;
            check(!image.layers.is_empty(), &at, || "has no layer".into())?;
        }
        for config in &self.configs {
            config.validate()?;
        }
        for deployment in &self.deployments {
            deployment.validate(self)?;
        }
        self.check_chunk_lists()?;
        self.check_order()?;
        self.check_host_ports()
    }

    #[must_use]
    pub fn image(&self, digest: &Digest) -> Option<&Image> {
        self.images.iter().find(|image| image.digest == *digest)
    }

    #[must_use]
    pub fn config(&self, key: &ConfigRef) -> Option<&Config> {
        self.configs.iter().find(|config| config.key == *key)
    }

    #[must_use]
    pub fn claim(&self, name: &Name) -> Option<&Claim> {
        self.claims.iter().find(|claim| claim.name == *name)
    }

    #[must_use]
    pub fn deployment(&self, name: &Name) -> Option<&Deployment> {
        self.deployments.iter().find(|deployment| deployment.name == *name)
    }

    /// The layers that `deployment`'s images need, each once.
    #[must_use]
    pub fn layers_of(&self, deployment: &Deployment) -> BTreeSet<Layer> {
        let images = deployment.pod.containers.iter().filter_map(|c| self.image(&c.image));
        images.flat_map(|image| image.layers.iter().copied()).collect()
    }

    /// Identifies what a pod of `deployment` is made of: its template and the
    /// contents of the configuration it mounts. Pods of the same hash need
    /// not be replaced. Replicas, strategy, order, descriptions and what a
    /// claim may hold do not count.
    #[must_use]
    pub fn pod_hash(&self, deployment: &Deployment) -> Digest {
        let mut hasher = Sha256::new();
        let mut feed = |bytes: Result<Vec<u8>, postcard::Error>| {
            // A model type that postcard cannot encode does not exist; were
            // one added, the golden tests would fail on it first.
            let bytes = bytes.unwrap_or_default();
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        feed(postcard::to_stdvec(&deployment.pod));
        for container in &deployment.pod.containers {
            feed(postcard::to_stdvec(&self.image(&container.image).map(|i| &i.layers)));
        }
        for volume in &deployment.pod.volumes {
            match &volume.source {
                VolumeSource::Config(source) => {
                    feed(postcard::to_stdvec(&self.config(&source.config)));
                }
                VolumeSource::HostPath(_)
                | VolumeSource::EmptyDir { .. }
                | VolumeSource::Claim(_) => {}
            }
        }
        Digest(hasher.finalize().into())
    }

    fn check_chunk_lists(&self) -> Result<(), InvalidBundle> {
        let layers: BTreeSet<Digest> =
            self.images.iter().flat_map(|image| &image.layers).map(|layer| layer.digest).collect();
        for layer in &layers {
            let at = format!("chunk_lists.{}", layer.short());
            let count = self.chunk_lists.get(layer).map_or(0, Vec::len);
            check(count > 0, &at, || "is missing".into())?;
            at_most(&at, count, CHUNK_LISTS_MAX)?;
        }
        let other = self.chunk_lists.keys().find(|layer| !layers.contains(layer));
        check(other.is_none(), "chunk_lists", || "is of a layer that no image has".into())
    }

    fn check_order(&self) -> Result<(), InvalidBundle> {
        let mut started: BTreeSet<&Name> = BTreeSet::new();
        while started.len() < self.deployments.len() {
            let ready: Vec<&Name> = self
                .deployments
                .iter()
                .filter(|d| !started.contains(&d.name))
                .filter(|d| d.after.iter().all(|name| started.contains(name)))
                .map(|d| &d.name)
                .collect();
            if ready.is_empty() {
                let left: Vec<&str> = self
                    .deployments
                    .iter()
                    .filter(|d| !started.contains(&d.name))
                    .map(|d| d.name.as_str())
                    .collect();
                let what = format!("startup dependencies form a circle: {}", left.join(", "));
                return Err(InvalidBundle { at: "deployments".into(), what });
            }
            started.extend(ready);
        }
        Ok(())
    }

    fn check_host_ports(&self) -> Result<(), InvalidBundle> {
        let mut taken: BTreeMap<(Protocol, u16), &Name> = BTreeMap::new();
        for deployment in &self.deployments {
            for port in deployment.pod.containers.iter().flat_map(|c| &c.ports) {
                let Some(host_port) = port.host_port else { continue };
                let other = taken.insert((port.protocol, host_port), &deployment.name);
                check(other.is_none(), &format!("deployments.{}.ports", deployment.name), || {
                    format!("host port {host_port} is published twice")
                })?;
            }
        }
        Ok(())
    }
}

impl PodTemplate {
    /// The most that the limits of its containers come to at one time; one
    /// that has none counts as 0.
    #[must_use]
    pub fn memory_bytes_max(&self) -> u64 {
        self.most_at_once(|resources| resources.memory_bytes.unwrap_or_default())
    }

    /// The claims that its volumes name.
    pub fn claims(&self) -> impl Iterator<Item = &ClaimVolume> {
        self.volumes.iter().filter_map(|volume| match &volume.source {
            VolumeSource::Claim(claim) => Some(claim),
            VolumeSource::Config(_) | VolumeSource::HostPath(_) | VolumeSource::EmptyDir { .. } => {
                None
            }
        })
    }

    /// As [`Self::memory_bytes_max`].
    #[must_use]
    pub fn cpu_millis_max(&self) -> u32 {
        let most = self.most_at_once(|resources| resources.cpu_millis.unwrap_or_default().into());
        u32::try_from(most).unwrap_or(u32::MAX)
    }

    /// An init container is alone with the sidecars before it.
    fn most_at_once(&self, limit: impl Fn(&Resources) -> u64) -> u64 {
        let (mut run_on, mut most) = (0_u64, 0_u64);
        for container in &self.containers {
            let together = run_on.saturating_add(limit(&container.resources));
            if container.role != Role::Init {
                run_on = together;
            }
            most = most.max(together);
        }
        most
    }
}

impl Deployment {
    /// Pods that may exist at once: replicas and surge.
    #[must_use]
    pub fn pods_max(&self) -> usize {
        let surge = match self.strategy {
            Strategy::RollingUpdate { max_surge, .. } => max_surge,
            Strategy::Recreate => 0,
        };
        usize::from(self.replicas) + usize::from(surge)
    }

    fn validate(&self, bundle: &Bundle) -> Result<(), InvalidBundle> {
        let at = format!("deployments.{}", self.name);
        at_most(
            &format!("{at}.name (bytes)"),
            self.name.as_str().len(),
            DEPLOYMENT_NAME_BYTES_MAX,
        )?;
        if let Strategy::RollingUpdate { max_unavailable: 0, max_surge: 0 } = self.strategy {
            let what = "maxUnavailable and maxSurge cannot both be 0".into();
            return Err(InvalidBundle { at: format!("{at}.strategy"), what });
        }
        for name in &self.after {
            check(bundle.deployment(name).is_some(), &format!("{at}.after"), || {
                format!("there is no deployment `{name}`")
            })?;
        }
        let pod = &self.pod;
        if let Some(job) = self.job {
            job.validate(&format!("{at}.job"), self)?;
        }
        at_most(&format!("{at}.containers"), pod.containers.len(), CONTAINERS_MAX)?;
        check(!pod.containers.is_empty(), &at, || "has no container".into())?;
        unique(&format!("{at}.containers"), pod.containers.iter().map(|c| &c.name))?;
        let is_main = |container: &Container| container.role == Role::Main;
        let ordered = pod.containers.is_sorted_by_key(is_main);
        let has_main = pod.containers.iter().any(is_main);
        check(ordered && has_main, &format!("{at}.containers"), || {
            "must end with the main ones, one at least".into()
        })?;
        at_most(&format!("{at}.volumes"), pod.volumes.len(), VOLUMES_MAX)?;
        unique(&format!("{at}.volumes"), pod.volumes.iter().map(|v| &v.name))?;
        let grace = pod.termination_grace_seconds as usize;
        at_most(&format!("{at}.grace (seconds)"), grace, GRACE_SECONDS_MAX as usize)?;
        let ports = pod.containers.iter().flat_map(|container| &container.ports);
        let published = ports.filter(|port| port.host_port.is_some()).count();
        at_most(&format!("{at}.ports (published)"), published, PORTS_MAX)?;
        for volume in &pod.volumes {
            volume.validate(&format!("{at}.volumes.{}", volume.name), bundle)?;
        }
        at_most(&format!("{at}.hostAliases"), pod.host_aliases.len(), HOST_NAMES_MAX)?;
        for alias in &pod.host_aliases {
            host_names(&format!("{at}.hostAliases.{}", alias.address), &alias.names)?;
        }
        pod.dns.validate(&format!("{at}.dns"))?;
        for container in &pod.containers {
            let at = format!("{at}.containers.{}", container.name);
            check(bundle.image(&container.image).is_some(), &at, || {
                "its image is not in the bundle".into()
            })?;
            container.validate(&at, pod)?;
        }
        Ok(())
    }
}

impl Job {
    fn validate(&self, at: &str, of: &Deployment) -> Result<(), InvalidBundle> {
        check(of.replicas == 1 && of.strategy == Strategy::Recreate, at, || {
            "has one pod, that goes before its successor comes".into()
        })?;
        check(of.pod.restart_policy != RestartPolicy::Always, at, || {
            "would never end: its restart policy is never or on-failure".into()
        })?;
        at_most(&format!("{at}.failures"), self.backoff_limit as usize, JOB_FAILURES_MAX as usize)?;
        let seconds = self.deadline_seconds.unwrap_or(1);
        check((1..=JOB_SECONDS_MAX).contains(&seconds), at, || {
            format!("a deadline is 1 to {JOB_SECONDS_MAX} seconds")
        })
    }
}

impl Dns {
    fn validate(&self, at: &str) -> Result<(), InvalidBundle> {
        at_most(&format!("{at}.nameservers"), self.nameservers.len(), NAMESERVERS_MAX)?;
        check(!self.alone || !self.nameservers.is_empty(), at, || {
            "has no name server, and none of the node's".into()
        })?;
        if !self.searches.is_empty() {
            host_names(&format!("{at}.searches"), &self.searches)?;
        }
        at_most(&format!("{at}.options"), self.options.len(), HOST_NAMES_MAX)?;
        let bad = self.options.iter().find(|option| !is_resolver_option(option));
        check(bad.is_none(), &format!("{at}.options"), || {
            format!("`{}` is not an option of a resolver", bad.map_or("", String::as_str))
        })
    }
}

impl Volume {
    fn validate(&self, at: &str, bundle: &Bundle) -> Result<(), InvalidBundle> {
        match &self.source {
            VolumeSource::Config(source) => source.validate(at, bundle),
            VolumeSource::HostPath(HostPath { path, .. }) => check(is_mount_path(path), at, || {
                format!("`{path}` is not a plain absolute path outside /proc")
            }),
            VolumeSource::Claim(ClaimVolume { claim, .. }) => {
                check(bundle.claim(claim).is_some(), at, || format!("there is no claim `{claim}`"))
            }
            VolumeSource::EmptyDir { bytes_max } => {
                check((1..=EMPTY_DIR_BYTES_MAX).contains(bytes_max), at, || {
                    format!("{bytes_max} bytes, where 1 to {EMPTY_DIR_BYTES_MAX} are allowed")
                })
            }
        }
    }
}

impl ConfigVolume {
    fn validate(&self, at: &str, bundle: &Bundle) -> Result<(), InvalidBundle> {
        let Some(config) = bundle.config(&self.config) else {
            let what = format!("there is no {:?} `{}`", self.config.kind, self.config.name);
            return Err(InvalidBundle { at: at.into(), what });
        };
        check(self.mode <= 0o777, at, || format!("mode {:o} has more than rwxrwxrwx", self.mode))?;
        for (file, path) in &self.items {
            check(config.files.contains_key(file), at, || {
                format!("`{}` has no file `{file}`", self.config.name)
            })?;
            check(is_relative_path(path), at, || format!("`{path}` is not a plain relative path"))?;
        }
        Ok(())
    }
}

impl Container {
    fn validate(&self, at: &str, pod: &PodTemplate) -> Result<(), InvalidBundle> {
        check(!self.args.is_empty(), &format!("{at}.args"), || "is empty".into())?;
        check(self.args.len().max(self.env.len()) <= WORDS_MAX, at, || {
            format!("has more than {WORDS_MAX} words or variables")
        })?;
        long_words(&format!("{at}.args"), self.args.iter().map(|word| ("", word)))?;
        let env = self.env.iter().map(|(name, value)| (name.as_str(), value));
        long_words(&format!("{at}.env"), env)?;
        for (name, _) in &self.env {
            check(!name.is_empty() && !name.contains('='), &format!("{at}.env"), || {
                format!("`{name}` is not a variable name")
            })?;
        }
        at_most(&format!("{at}.ports"), self.ports.len(), PORTS_MAX)?;
        at_most(&format!("{at}.mounts"), self.mounts.len(), VOLUMES_MAX)?;
        at_most(&format!("{at}.user (groups)"), self.user.additional_gids.len(), VOLUMES_MAX)?;
        check(is_container_path(&self.working_dir), &format!("{at}.workingDir"), || {
            format!("`{}` is not a plain absolute path outside /proc", self.working_dir)
        })?;
        check((1..=64).contains(&self.stop_signal), at, || "unknown stop signal".into())?;
        self.validate_health(at, pod)?;
        for port in &self.ports {
            check(port.container_port > 0 && port.host_port != Some(0), at, || {
                "a port must be 1 to 65535".into()
            })?;
        }
        if pod.host_network {
            let mut all = self.args.iter().chain(self.env.iter().map(|(_, value)| value));
            check(all.all(|word| !word.has(Fact::PodAddress)), at, || {
                "on the host's network a pod has no address of its own".into()
            })?;
        }
        for name in &self.capabilities {
            let known = CAPABILITIES.contains(&name.as_str());
            check(known, &format!("{at}.capabilities"), || {
                format!("`{name}` is not a capability's name")
            })?;
        }
        let Resources { pids, storage_bytes, .. } = self.resources;
        check(pids.is_none_or(|pids| (1..=CONTAINER_PIDS_MAX).contains(&pids)), at, || {
            format!("a limit of processes is 1 to {CONTAINER_PIDS_MAX}")
        })?;
        let fits = storage_bytes.is_none_or(|bytes| (1..=EMPTY_DIR_BYTES_MAX).contains(&bytes));
        check(fits, at, || format!("a limit of storage is 1 to {EMPTY_DIR_BYTES_MAX} bytes"))?;
        self.validate_image_volumes(at)?;
        for mount in &self.mounts {
            let known = pod.volumes.iter().any(|volume| volume.name == mount.volume);
            check(known, at, || format!("there is no volume `{}`", mount.volume))?;
            check(is_mount_point(&mount.path), at, || {
                format!("cannot mount at `{}`: {NO_MOUNT_POINT}", mount.path)
            })?;
            if let Some(path) = &mount.sub_path {
                check(is_relative_path(path), at, || {
                    format!("`{path}` is not a plain relative path")
                })?;
            }
        }
        Ok(())
    }
}

impl Container {
    fn validate_image_volumes(&self, at: &str) -> Result<(), InvalidBundle> {
        at_most(&format!("{at}.imageVolumes"), self.image_volumes.len(), VOLUMES_MAX)?;
        let mounts = self.mounts.iter().map(|mount| &mount.path);
        for path in &self.image_volumes {
            check(is_mount_point(path), at, || format!("image volume `{path}`: {NO_MOUNT_POINT}"))?;
            let others = self.image_volumes.iter().filter(|other| *other != path);
            let around = others.chain(mounts.clone()).find(|other| is_below(path, other));
            check(around.is_none(), at, || {
                format!("image volume `{path}` lies in `{}`", around.map_or("", String::as_str))
            })?;
        }
        unique(&format!("{at}.imageVolumes"), self.image_volumes.iter())
    }

    fn validate_health(&self, at: &str, pod: &PodTemplate) -> Result<(), InvalidBundle> {
        for (name, probe) in self.probes.iter() {
            words(&format!("{at}.{name}"), probe.check.words().into_iter())?;
        }
        if let Some((name, what)) = self.probes.fault() {
            return Err(InvalidBundle { at: format!("{at}.{name}"), what });
        }
        let at = format!("{at}.preStop");
        match &self.pre_stop {
            None => Ok(()),
            Some(PreStop::Run(run)) => {
                words(&at, run.words().into_iter())?;
                run.fault().map_or(Ok(()), |what| Err(InvalidBundle { at, what }))
            }
            Some(PreStop::Sleep { seconds }) => {
                check(*seconds <= pod.termination_grace_seconds, &at, || {
                    "must not be longer than terminationGracePeriodSeconds".into()
                })
            }
        }
    }
}

impl Config {
    fn validate(&self) -> Result<(), InvalidBundle> {
        let at = format!("configs.{}", self.key.name);
        at_most(&format!("{at} (files)"), self.files.len(), CONFIG_FILES_MAX)?;
        let bytes = self.files.values().map(Vec::len).sum();
        at_most(&format!("{at} (bytes)"), bytes, CONFIG_BYTES_MAX)?;
        for name in self.files.keys() {
            check(is_relative_path(name) && !name.contains('/'), &at, || {
                format!("`{name}` is not a plain file name")
            })?;
        }
        Ok(())
    }
}

/// Relative, without `.`, `..`, empty components, or control characters.
#[must_use]
pub fn is_relative_path(path: &str) -> bool {
    path.len() <= PATH_BYTES_MAX
        && !path.chars().any(char::is_control)
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Absolute and plain, not `/proc` nor below it. `/` itself is plain.
#[must_use]
pub fn is_container_path(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    rest.is_empty() || (is_relative_path(rest) && rest.split('/').next() != Some("proc"))
}

/// What may be mounted of the host: as [`is_container_path`], and not `/`.
#[must_use]
pub fn is_mount_path(path: &str) -> bool {
    is_container_path(path) && path != "/"
}

/// Where a container may have something mounted: as [`is_mount_path`], and
/// neither `/dev` nor what each container has there of its own. Kernel files
/// are masked with its `/dev/null`.
#[must_use]
pub fn is_mount_point(path: &str) -> bool {
    let mut parts = path.split('/').skip(1);
    let is_own = match (parts.next(), parts.next()) {
        (Some("dev"), None) => true,
        (Some("dev"), Some(name)) => OWN_DEVICES.contains(&name),
        _ => false,
    };
    is_mount_path(path) && !is_own
}

/// What is said of a path that is no [`is_mount_point`].
pub const NO_MOUNT_POINT: &str =
    "not a plain absolute path outside /proc and what each container has in /dev";

/// What a container has in `/dev`, whatever it asks for; but for `shm`, which
/// programs want larger now and then.
const OWN_DEVICES: [&str; 16] = [
    "console", "core", "fd", "full", "kcore", "mqueue", "null", "ptmx", "pts", "random", "stderr",
    "stdin", "stdout", "tty", "urandom", "zero",
];

/// `path` is `folder`, or something in it. Both are plain.
#[must_use]
pub fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A name that is looked up in `/etc/hosts` or by DNS, or a search domain:
/// labels of letters, digits, `-` and `_`, with dots between (RFC 1123, and
/// what is in use beyond it).
#[must_use]
pub fn is_host_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=NAME_BYTES_MAX).contains(&label.len())
                && label.bytes().all(plain)
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// Such as `ndots:2` or `edns0` (resolv.conf(5)).
#[must_use]
pub fn is_resolver_option(option: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':' | b'.');
    (1..=NAME_BYTES_MAX).contains(&option.len()) && option.bytes().all(plain)
}

fn host_names(at: &str, names: &[String]) -> Result<(), InvalidBundle> {
    check(!names.is_empty(), at, || "has no name".into())?;
    at_most(at, names.len(), HOST_NAMES_MAX)?;
    at_most(&format!("{at} (bytes)"), names.iter().map(|n| n.len() + 1).sum(), TEXT_BYTES_MAX)?;
    let bad = names.iter().find(|name| !is_host_name(name));
    check(bad.is_none(), at, || format!("`{}` is not a host name", bad.map_or("", String::as_str)))
}

fn words<'a>(
    at: &str,
    words: impl Iterator<Item = &'a String> + Clone,
) -> Result<(), InvalidBundle> {
    at_most(at, words.clone().count(), WORDS_MAX)?;
    at_most(&format!("{at} (bytes)"), words.clone().map(String::len).sum(), WORDS_BYTES_MAX)?;
    check(words.clone().all(|word| !word.contains('\0')), at, || "contains a NUL character".into())
}

/// Words, each with what stands before it.
fn long_words<'a>(
    at: &str,
    words: impl Iterator<Item = (&'a str, &'a Word)> + Clone,
) -> Result<(), InvalidBundle> {
    let bytes = words.clone().map(|(before, word)| before.len() + word.bytes_max()).sum();
    at_most(&format!("{at} (bytes)"), bytes, WORDS_BYTES_MAX)?;
    let is_clean = |(before, word): (&str, &Word)| {
        !before.contains('\0') && word.texts().all(|text| !text.contains('\0'))
    };
    check(words.clone().all(is_clean), at, || "contains a NUL character".into())
}

fn unique<T: Ord + core::fmt::Debug>(
    at: &str,
    items: impl Iterator<Item = T>,
) -> Result<(), InvalidBundle> {
    let mut seen = BTreeSet::new();
    for item in items {
        let text = format!("{item:?}");
        check(seen.insert(item), at, || format!("{text} is there twice"))?;
    }
    Ok(())
}

fn at_most(at: &str, count: usize, max: usize) -> Result<(), InvalidBundle> {
    check(count <= max, at, || format!("{count}, where at most {max} are allowed"))
}

fn check(ok: bool, at: &str, what: impl FnOnce() -> String) -> Result<(), InvalidBundle> {
    if ok { Ok(()) } else { Err(InvalidBundle { at: at.to_owned(), what: what() }) }
}
