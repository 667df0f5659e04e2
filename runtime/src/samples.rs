//! Specs for unit tests.

use std::net::Ipv4Addr;

use wherry_bundle::model::{HostPathKind, RestartPolicy, Role, Seccomp};
use wherry_bundle::{Digest, Generation, Name};

use crate::proto::{ContainerSpec, Dns, EmptyDir, MountSource, MountSpec, PodSpec, join_words};

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn pod() -> PodSpec {
    PodSpec {
        name: name("web-3"),
        deployment: name("web"),
        generation: Generation(7),
        hash: Digest([0xab; 32]),
        address: Some(Ipv4Addr::new(10, 87, 0, 5)),
        restart_policy: RestartPolicy::Always,
        grace_millis: 30_000,
        containers: [(name("nginx"), Role::Sidecar), (name("lion"), Role::Main)]
            .into_iter()
            .collect(),
        empty_dirs: [EmptyDir { volume: name("run"), bytes_max: 1 << 20, gid: Some(9) }]
            .into_iter()
            .collect(),
        host_aliases: [("10.0.0.9".parse().unwrap(), "plc plc.example".try_into().unwrap())]
            .into_iter()
            .collect(),
        dns: Dns {
            alone: true,
            nameservers: ["10.0.0.53".parse().unwrap()].into_iter().collect(),
            searches: "plant.example".try_into().unwrap(),
            options: "ndots:2 edns0".try_into().unwrap(),
        },
    }
}

pub fn container() -> ContainerSpec {
    ContainerSpec {
        name: name("nginx"),
        args: join_words(["nginx", "-g", "daemon off;"]).unwrap(),
        env: join_words(["LION=1"]).unwrap(),
        working_dir: "/srv".try_into().unwrap(),
        uid: 33,
        gid: 34,
        additional_gids: [4, 5].into_iter().collect(),
        capabilities: 1 << 10 | 1 << 40,
        cpu_millis: Some(250),
        memory_bytes: Some(32 << 20),
        pids: Some(32),
        storage_bytes: Some(1 << 20),
        layers: [Digest([1; 32]), Digest([2; 32])].into_iter().collect(),
        mounts: [
            MountSpec {
                source: MountSource::Files("abcd/deep".try_into().unwrap()),
                destination: "/etc/lion/deep".try_into().unwrap(),
                read_only: true,
            },
            MountSpec {
                source: MountSource::Files("abcd/lion".try_into().unwrap()),
                destination: "/etc/lion".try_into().unwrap(),
                read_only: true,
            },
            MountSpec {
                source: MountSource::Host {
                    path: "/run/line".try_into().unwrap(),
                    kind: HostPathKind::DirectoryOrCreate,
                },
                destination: "/line".try_into().unwrap(),
                read_only: false,
            },
            MountSpec {
                source: MountSource::Host {
                    path: "/dev/ttyS0".try_into().unwrap(),
                    kind: HostPathKind::CharDevice,
                },
                destination: "/dev/modem".try_into().unwrap(),
                read_only: false,
            },
            MountSpec {
                source: MountSource::Empty { volume: name("run"), sub_path: None },
                destination: "/run/lion".try_into().unwrap(),
                read_only: false,
            },
            MountSpec {
                source: MountSource::Claim {
                    claim: name("data"),
                    sub_path: Some("db".try_into().unwrap()),
                },
                destination: "/srv/data".try_into().unwrap(),
                read_only: false,
            },
        ]
        .into_iter()
        .collect(),
        stop_signal: 3,
        read_only_root: true,
        image_volumes: ["/var/lib/lion".try_into().unwrap()].into_iter().collect(),
        seccomp: Seccomp::RuntimeDefault,
    }
}
