//! The ledger's bytes, and what a bundle becomes.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use wherry_bundle::health::{Probes, UpgradePolicy};
use wherry_bundle::message::{Exit, JobFailure};
use wherry_bundle::model::{
    AccessMode, Claim, ClaimVolume, Container, Deployment, Dns, HostPath, HostPathKind, Image,
    Layer, PodTemplate, Port, Protocol, Resources, RestartPolicy, Role, Seccomp, Strategy, User,
    Volume, VolumeSource,
};
use wherry_bundle::{Bundle, Digest, Generation, Name, wire};
use wherry_core::ledger::{
    Attempts, ContainerLedger, DeploymentLedger, Ending, FailedJob, JobLedger, JobRun, Planned,
    PodLedger, Stopping,
};
use wherry_core::{Desired, Ledger, Millis, PublishedPort};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A supervisor of another version may find it in the run folder. Whoever
/// changes these bytes gives `Ledger::SCHEMA` a new number.
#[test]
fn the_ledger_keeps_its_bytes() {
    let attempts = Attempts { count: 2, failed: true, not_before: Millis(9_000) };
    let container = ContainerLedger {
        restarts: 1,
        last_exit: Some(Exit::Code(1)),
        failures: 8,
        started: Some(Millis(5_000)),
        ended: Some(Millis(6_000)),
        attempts,
        ending: Some(Ending {
            started: Millis(5_000),
            kill_at: Millis(7_000),
            killing: true,
            attempts,
        }),
    };
    let pod = PodLedger {
        planned: Some(Planned {
            deployment: name("web"),
            generation: Generation(7),
            hash: Digest([1; 32]),
            address: Some(2),
        }),
        containers: BTreeMap::from([(name("main"), container)]),
        available_since: Some(Millis(5_000)),
        published: true,
        unpublished_at: Some(Millis(300)),
        replace: true,
        stopping: Some(Stopping::Terminating { kill_at: Millis(400) }),
        job: Some(JobRun::Failed),
        wind_down_until: Some(Millis(400)),
        attempts,
        last_error: Some("e".into()),
    };
    let deployment = DeploymentLedger {
        last_serial: 3,
        service_address: Some(4),
        reached: Some(Digest([2; 32])),
        stop_first: Some(Digest([1; 32])),
        job: Some(JobLedger {
            hash: Digest([2; 32]),
            generation: Generation(7),
            since: Some(Millis(5_000)),
            failures: 9,
            failed: Some(FailedJob {
                why: JobFailure::BackoffLimit { failures: 9 },
                pod: name("web-3"),
                exit: Some(Exit::Code(1)),
            }),
        }),
    };
    let ledger = Ledger {
        deployments: BTreeMap::from([(name("web"), deployment)]),
        serial_floor: 5,
        next_address: 6,
        pods: BTreeMap::from([(name("web-3"), pod)]),
        running: Generation(7),
        publish: Attempts::default(),
        publish_error: Some("p".into()),
    };
    let bytes = wire::encode(Ledger::SCHEMA, &ledger).unwrap();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let hex = hex.replace(&"01".repeat(32), "[01]").replace(&"02".repeat(32), "[02]");
    assert_eq!(hex, GOLDEN);
    assert_eq!(wire::decode::<Ledger>(Ledger::SCHEMA, &bytes).unwrap(), ledger);
}

const GOLDEN: &str = concat!(
    "03010377656203010401[02][01]0101[02]0701882709010009057765622d330100",
    "01050601057765622d33010377656207[01]010201046d61696e0101000108018827",
    "01f02e0201a846018827d836010201a8460188270101ac0201010390030101019003",
    "0201a84601016507000000010170",
);

#[test]
fn a_bundle_becomes_what_decisions_need() {
    let layer = |n: u8| Layer { digest: Digest([n; 32]), size_bytes: u64::from(n) };
    let port = |container_port, host_port| Port {
        name: String::new(),
        protocol: Protocol::Tcp,
        container_port,
        host_port,
    };
    let container = Container {
        name: name("main"),
        role: Role::Main,
        image: Digest([9; 32]),
        args: vec!["/bin/web".into()],
        env: Vec::new(),
        working_dir: "/".into(),
        user: User::default(),
        capabilities: BTreeSet::new(),
        ports: vec![port(8080, Some(80)), port(9090, None)],
        resources: Resources::default(),
        mounts: Vec::new(),
        stop_signal: 15,
        probes: Probes::default(),
        pre_stop: None,
        read_only_root: true,
        image_volumes: Vec::new(),
        seccomp: Seccomp::RuntimeDefault,
    };
    let deployment = Deployment {
        name: name("web"),
        application: name("shop"),
        replicas: 2,
        strategy: Strategy::Recreate,
        min_ready_seconds: 3,
        progress_deadline_seconds: 600,
        after: BTreeSet::new(),
        pod: PodTemplate {
            host_network: false,
            restart_policy: RestartPolicy::OnFailure,
            termination_grace_seconds: 30,
            containers: vec![container],
            volumes: Vec::new(),
            fs_group: None,
            host_aliases: Vec::new(),
            dns: Dns::default(),
        },
        job: None,
    };
    let image = Image {
        digest: Digest([9; 32]),
        reference: "web:1".into(),
        layers: vec![layer(2), layer(1)],
    };
    let mut bundle = Bundle {
        node: name("gw-1"),
        generation: Generation(4),
        versions: Vec::new(),
        deployments: vec![deployment],
        configs: Vec::new(),
        claims: Vec::new(),
        chunk_lists: [1, 2].map(|number| (layer(number).digest, vec![Digest([number; 32])])).into(),
        images: vec![image],
        upgrade: UpgradePolicy::default(),
    };
    bundle.validate().unwrap();
    let desired = Desired::of(&bundle);
    assert_eq!(desired.generation, Generation(4));
    let web = &desired.workloads[&name("web")];
    assert_eq!(web.hash, bundle.pod_hash(&bundle.deployments[0]));
    assert_eq!((web.min_ready, web.grace), (Millis(3_000), Millis(30_000)));
    assert_eq!(web.layers, BTreeSet::from([layer(1), layer(2)]));
    let published = |host_port, container_port| PublishedPort {
        protocol: Protocol::Tcp,
        host_port,
        container_port,
    };
    assert_eq!(web.ports, [published(80, 8080)]);
    // On the host's network a container's port is the host's.
    bundle.deployments[0].pod.host_network = true;
    let web = &Desired::of(&bundle).workloads[&name("web")];
    assert_eq!(web.ports, [published(8080, 8080), published(9090, 9090)]);
    assert!(!web.has_device);
    for (kind, is_device) in [(HostPathKind::Any, false), (HostPathKind::CharDevice, true)] {
        let source = VolumeSource::HostPath(HostPath { path: "/dev/ttyS0".into(), kind });
        bundle.deployments[0].pod.volumes = vec![Volume { name: name("line"), source }];
        let web = &Desired::of(&bundle).workloads[&name("web")];
        assert_eq!(web.has_device, is_device, "{kind:?}");
    }
    // A claim for one is in the way of who writes to it.
    for (access, read_only, has_claim) in [
        (AccessMode::ReadWriteOnce, false, true),
        (AccessMode::ReadWriteOnce, true, false),
        (AccessMode::ReadWriteMany, false, false),
    ] {
        let claim = Claim { name: name("data"), bytes_max: 1, access };
        bundle.claims = vec![claim];
        let source = VolumeSource::Claim(ClaimVolume { claim: name("data"), read_only });
        bundle.deployments[0].pod.volumes = vec![Volume { name: name("store"), source }];
        let web = &Desired::of(&bundle).workloads[&name("web")];
        assert_eq!((web.has_claim, web.has_device), (has_claim, false), "{access:?} {read_only}");
    }
}
