//! A small bundle for tests.

use std::collections::{BTreeMap, BTreeSet};

use wherry_bundle::health::{Probes, UpgradePolicy};
use wherry_bundle::model::{
    Config, ConfigKind, ConfigRef, ConfigVolume, Container, Deployment, Dns, HostAlias, Image,
    Layer, Mount, PodTemplate, Port, Protocol, Resources, RestartPolicy, Role, Seccomp, Strategy,
    User, VersionRef, Volume, VolumeSource,
};
use wherry_bundle::{Bundle, Digest, Generation, Name};

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn bundle() -> Bundle {
    let secret = ConfigRef { kind: ConfigKind::Secret, name: name("keys") };
    let map = ConfigRef { kind: ConfigKind::ConfigMap, name: name("lion-config") };
    let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    Bundle {
        node: name("gw-1"),
        generation: Generation(1),
        versions: vec![VersionRef {
            application: name("shop"),
            number: "1.0.0.1".parse().unwrap(),
            description: "the first".into(),
        }],
        deployments: vec![deployment(&map, &secret)],
        claims: Vec::new(),
        configs: vec![
            Config { key: secret, files: BTreeMap::from([file("key.pem", "secret\n")]) },
            Config {
                key: map,
                files: BTreeMap::from([file("lion.properties", "a=1\n"), file("box.conf", "b\n")]),
            },
        ],
        images: vec![Image {
            digest: Digest::of(b"image"),
            reference: "lion:1.0.0".into(),
            layers: vec![layer(b"base"), layer(b"top")],
        }],
        chunk_lists: [b"base".as_slice(), b"top"].map(cut).into(),
        upgrade: UpgradePolicy::default(),
    }
}

/// How a layer is cut, for whoever never looks.
pub fn cut(text: &[u8]) -> (Digest, Vec<Digest>) {
    (Digest::of(text), vec![Digest::of(b"a list")])
}

pub fn layer(text: &[u8]) -> Layer {
    Layer { digest: Digest::of(text), size_bytes: text.len() as u64 }
}

fn deployment(map: &ConfigRef, secret: &ConfigRef) -> Deployment {
    let volume = |volume: &str, config: &ConfigRef, items: &[(&str, &str)], mode| Volume {
        name: name(volume),
        source: VolumeSource::Config(ConfigVolume {
            config: config.clone(),
            items: items.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
            mode,
        }),
    };
    Deployment {
        name: name("web"),
        application: name("shop"),
        replicas: 2,
        strategy: Strategy::RollingUpdate { max_unavailable: 1, max_surge: 0 },
        min_ready_seconds: 3,
        progress_deadline_seconds: 600,
        after: BTreeSet::new(),
        pod: PodTemplate {
            host_network: false,
            restart_policy: RestartPolicy::Always,
            termination_grace_seconds: 10,
            containers: vec![container()],
            volumes: vec![
                volume("config", map, &[("lion.properties", "conf.d/lion.properties")], 0o644),
                volume("all", map, &[], 0o444),
                volume("keys", secret, &[], 0o400),
            ],
            fs_group: None,
            host_aliases: vec![HostAlias {
                address: "10.0.0.9".parse().unwrap(),
                names: vec!["plc".into(), "plc.example".into()],
            }],
            dns: Dns {
                alone: true,
                nameservers: vec!["10.0.0.53".parse().unwrap()],
                searches: vec!["a.example".into(), "b.example".into()],
                options: vec!["ndots:2".into()],
            },
        },
        job: None,
    }
}

fn container() -> Container {
    let mount = |volume: &str, path: &str, sub_path: Option<&str>| Mount {
        volume: name(volume),
        path: path.into(),
        sub_path: sub_path.map(Into::into),
        read_only: true,
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.into());
    Container {
        name: name("lion"),
        role: Role::Main,
        image: Digest::of(b"image"),
        args: vec!["/lion".into(), "--port=80".into()],
        env: vec![pair("MODE", "old"), pair("B", "1"), pair("MODE", "new")],
        working_dir: "/srv".into(),
        user: User { uid: 1000, gid: 1001, additional_gids: vec![5] },
        capabilities: BTreeSet::from(["NET_BIND_SERVICE".to_owned(), "CHOWN".to_owned()]),
        ports: vec![Port {
            name: "http".into(),
            protocol: Protocol::Tcp,
            container_port: 80,
            host_port: Some(8080),
        }],
        resources: Resources {
            cpu_millis: Some(500),
            memory_bytes: Some(32 << 20),
            pids: Some(9),
            storage_bytes: Some(1 << 20),
        },
        mounts: vec![
            mount("config", "/etc/lion", None),
            mount("keys", "/etc/key.pem", Some("key.pem")),
        ],
        stop_signal: 15,
        probes: Probes::default(),
        pre_stop: None,
        read_only_root: true,
        image_volumes: vec!["/var/lib/lion".into()],
        seccomp: Seccomp::RuntimeDefault,
    }
}
