//! One bundle that uses every field, shared by the tests of this crate.

#![allow(dead_code)] // each test file uses its part of it

pub mod metrics;

use std::collections::{BTreeMap, BTreeSet};

use wherry_bundle::health::{Check, PreStop, Probe, Probes, UpgradePolicy};
use wherry_bundle::model::{
    AccessMode, Bundle, Claim, ClaimVolume, Config, ConfigKind, ConfigRef, ConfigVolume, Container,
    Deployment, Dns, HostAlias, HostPath, HostPathKind, Image, Layer, Mount, PodTemplate, Port,
    Protocol, Resources, RestartPolicy, Role, Seccomp, Strategy, User, VersionRef, Volume,
    VolumeSource,
};
use wherry_bundle::{BuildVersion, Digest, Fact, Generation, Name};

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn bundle() -> Bundle {
    let image = Image {
        digest: Digest::of(b"image"),
        reference: "nginx:1.22".into(),
        layers: vec![
            Layer { digest: Digest::of(b"base"), size_bytes: 4096 },
            Layer { digest: Digest::of(b"top"), size_bytes: 300 },
        ],
    };
    let config = Config {
        key: ConfigRef { kind: ConfigKind::ConfigMap, name: name("lion") },
        files: BTreeMap::from([("lion.properties".to_owned(), b"mane=long\n".to_vec())]),
    };
    let db = deployment("db", &image, 1, Strategy::Recreate);
    let mut web =
        deployment("web", &image, 2, Strategy::RollingUpdate { max_unavailable: 0, max_surge: 1 });
    web.after = BTreeSet::from([name("db")]);
    let items = [("lion.properties".to_owned(), "app/lion.properties".to_owned())];
    web.pod.volumes = vec![
        Volume {
            name: name("conf"),
            source: VolumeSource::Config(ConfigVolume {
                config: config.key.clone(),
                items: BTreeMap::from(items),
                mode: 0o644,
            }),
        },
        Volume {
            name: name("line"),
            source: VolumeSource::HostPath(HostPath {
                path: "/run/line".into(),
                kind: HostPathKind::DirectoryOrCreate,
            }),
        },
        Volume {
            name: name("modem"),
            source: VolumeSource::HostPath(HostPath {
                path: "/dev/ttyS0".into(),
                kind: HostPathKind::CharDevice,
            }),
        },
        Volume { name: name("run"), source: VolumeSource::EmptyDir { bytes_max: 1 << 20 } },
        Volume {
            name: name("data"),
            source: VolumeSource::Claim(ClaimVolume { claim: name("data"), read_only: false }),
        },
    ];
    web.pod.fs_group = Some(104);
    for (role, text) in [(Role::Sidecar, "helper"), (Role::Init, "prepare")] {
        let mut first = web.pod.containers[0].clone();
        (first.role, first.name) = (role, name(text));
        (first.probes, first.pre_stop) = (Probes::default(), None);
        web.pod.containers.insert(0, first);
    }
    web.pod.containers[2].mounts = vec![Mount {
        volume: name("conf"),
        path: "/etc/lion".into(),
        sub_path: None,
        read_only: true,
    }];
    web.pod.containers[2].ports = vec![Port {
        name: "http".into(),
        protocol: Protocol::Tcp,
        container_port: 80,
        host_port: Some(8080),
    }];
    Bundle {
        node: name("gw-1"),
        generation: Generation(7),
        versions: vec![VersionRef {
            application: name("zoo"),
            number: BuildVersion { x: 1, y: 4, z: 0, build: 2 },
            description: "new enclosure".into(),
        }],
        deployments: vec![db, web],
        configs: vec![config],
        claims: vec![Claim {
            name: name("data"),
            bytes_max: 64 << 20,
            access: AccessMode::ReadWriteOnce,
        }],
        chunk_lists: image
            .layers
            .iter()
            .map(|layer| (layer.digest, vec![Digest::of(b"list")]))
            .collect(),
        images: vec![image],
        upgrade: UpgradePolicy { stable_seconds: 90, boots_max: 2, hold_seconds_max: 3_600 },
    }
}

fn deployment(text: &str, image: &Image, replicas: u16, strategy: Strategy) -> Deployment {
    Deployment {
        name: name(text),
        application: name("zoo"),
        replicas,
        strategy,
        min_ready_seconds: 2,
        progress_deadline_seconds: 600,
        after: BTreeSet::new(),
        pod: PodTemplate {
            host_network: false,
            restart_policy: RestartPolicy::Always,
            termination_grace_seconds: 30,
            containers: vec![Container {
                name: name("main"),
                role: Role::Main,
                image: image.digest,
                args: vec!["/bin/serve".into(), "--quiet".into()],
                env: vec![
                    ("LION".into(), "Leo".into()),
                    ("ADDRESS".into(), Fact::PodAddress.into()),
                ],
                working_dir: "/srv".into(),
                user: User { uid: 101, gid: 102, additional_gids: vec![103] },
                capabilities: BTreeSet::from(["NET_ADMIN".to_owned()]),
                ports: Vec::new(),
                resources: Resources {
                    cpu_millis: Some(250),
                    memory_bytes: Some(64 << 20),
                    pids: Some(32),
                    storage_bytes: Some(1 << 20),
                },
                mounts: Vec::new(),
                stop_signal: 15,
                probes: probes(),
                pre_stop: Some(PreStop::Sleep { seconds: 5 }),
                read_only_root: true,
                image_volumes: vec!["/var/lib/lion".into()],
                seccomp: Seccomp::Unconfined,
            }],
            volumes: Vec::new(),
            fs_group: None,
            host_aliases: vec![HostAlias {
                address: "10.0.0.9".parse().unwrap(),
                names: vec!["plc".into(), "plc.plant.example".into()],
            }],
            dns: Dns {
                alone: true,
                nameservers: vec!["10.0.0.53".parse().unwrap()],
                searches: vec!["plant.example".into()],
                options: vec!["ndots:2".into()],
            },
        },
        job: None,
    }
}

fn probes() -> Probes {
    let probe = |check, success_threshold| Probe {
        check,
        initial_delay_seconds: 1,
        period_seconds: 10,
        timeout_seconds: 2,
        success_threshold,
        failure_threshold: 3,
    };
    let headers = vec![("Host".to_owned(), "lion".to_owned())];
    Probes {
        startup: Some(probe(Check::Exec { args: vec!["/bin/roar".into()] }, 1)),
        liveness: Some(probe(Check::TcpConnect { port: 80 }, 1)),
        readiness: Some(probe(Check::HttpGet { port: 80, path: "/ready".into(), headers }, 2)),
    }
}
