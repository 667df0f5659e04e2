//! Every way in which a bundle is refused, and what the refusal says.

#![allow(clippy::unwrap_used)]

mod sample;

use ed25519_dalek::SigningKey;
use wherry_bundle::envelope::{self, EnvelopeError};
use wherry_bundle::health::{Check, PreStop, Probe};
use wherry_bundle::model::Container;
use wherry_bundle::model::{Strategy, VolumeSource};
use wherry_bundle::{Bundle, Digest};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn open(bytes: &[u8]) -> Result<Bundle, EnvelopeError> {
    envelope::open(bytes, &[key(1).verifying_key()], &sample::name("gw-1"))
}

fn sealed() -> Vec<u8> {
    envelope::seal(&sample::bundle(), &key(1)).unwrap()
}

#[test]
fn a_good_one_opens() {
    assert_eq!(open(&sealed()).unwrap(), sample::bundle());
}

#[test]
fn another_key_is_named() {
    let bytes = envelope::seal(&sample::bundle(), &key(2)).unwrap();
    let error = open(&bytes).unwrap_err();
    assert!(matches!(error, EnvelopeError::UnknownKey { .. }), "{error}");
    assert!(error.to_string().contains("does not trust"));
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let bytes = sealed();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(open(&damaged).is_err(), "flipped at {at}");
        assert!(open(&bytes[..at]).is_err(), "cut at {at}");
    }
    assert!(open(&[bytes, vec![0]].concat()).is_err(), "longer");
}

#[test]
fn an_unsigned_one_is_refused_before_it_is_parsed() {
    let mut bytes = sealed();
    bytes[13..77].fill(0);
    assert_eq!(open(&bytes), Err(EnvelopeError::Signature));
}

#[test]
fn another_node_is_named() {
    let mut bundle = sample::bundle();
    bundle.node = sample::name("gw-2");
    let error = open(&envelope::seal(&bundle, &key(1)).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "made for node `gw-2`, this is `gw-1`");
}

#[test]
fn an_unknown_schema_is_named_although_its_signature_holds() {
    use ed25519_dalek::Signer;
    let mut bytes = sealed();
    bytes[77] = 9;
    let message = [envelope::SIGNATURE_CONTEXT, &bytes[77..]].concat();
    let signature = key(1).sign(&message).to_bytes();
    bytes[13..77].copy_from_slice(&signature);
    let error = open(&bytes).unwrap_err().to_string();
    assert_eq!(error, "bundle schema 9 is not known here (this build reads 6): update the reader");
}

#[test]
fn an_unknown_envelope_is_named() {
    let mut bytes = sealed();
    bytes[4] = 3;
    assert_eq!(open(&bytes), Err(EnvelopeError::Version { found: 3 }));
}

/// Changes the sample and expects that neither side takes it, and why.
fn refused(change: impl FnOnce(&mut Bundle), why: &str) {
    let mut bundle = sample::bundle();
    change(&mut bundle);
    let error = bundle.validate().unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
    assert!(envelope::seal(&bundle, &key(1)).is_err());
}

#[test]
fn invalid_contents_are_refused_with_the_place() {
    let path = |bundle: &mut Bundle, path: &str| {
        bundle.deployments[1].pod.containers[2].mounts[0].path = path.into();
    };
    for bad in ["etc", "/", "/proc/sys", "/a/../b", "/a//b"] {
        refused(|b| path(b, bad), "deployments.web.containers.main");
    }
    refused(|b| b.generation.0 = 0, "generation");
    refused(|b| b.deployments.swap_remove(0).name = sample::name("x"), "no deployment `db`");
    refused(|b| b.deployments[0].name = sample::name("web"), "there twice");
    refused(|b| b.images.clear(), "image is not in the bundle");
    refused(|b| b.images[0].layers.clear(), "has no layer");
    let base = wherry_bundle::Digest::of(b"base");
    refused(|b| _ = b.chunk_lists.remove(&base), "is missing");
    refused(|b| b.chunk_lists.get_mut(&base).unwrap().clear(), "is missing");
    refused(|b| b.chunk_lists.get_mut(&base).unwrap().resize(65, base), "at most 64");
    refused(
        |b| _ = b.chunk_lists.insert(wherry_bundle::Digest::of(b"x"), vec![base]),
        "is of a layer that no image has",
    );
    refused(|b| b.configs.clear(), "no ConfigMap `lion`");
    refused(|b| b.deployments[0].pod.containers.clear(), "has no container");
    refused(|b| b.deployments[0].pod.containers[0].args.clear(), "args: is empty");
    refused(|b| b.deployments[1].pod.containers.swap(0, 2), "must end with the main ones");
    refused(|b| drop(b.deployments[1].pod.containers.pop()), "must end with the main ones");
    refused(|b| b.deployments[1].pod.host_network = true, "has no address of its own");
    refused(
        |b| b.deployments[1].pod.volumes[2].source = VolumeSource::EmptyDir { bytes_max: 0 },
        "0 bytes, where 1 to 1073741824 are allowed",
    );
    refused(|b| b.deployments[0].replicas = 1_000, "at most 128");
    refused(|b| b.deployments[0].pod.containers[0].working_dir = "/proc/self".into(), "workingDir");
    refused(|b| b.deployments[0].pod.containers[0].args[0] = "\0".into(), "NUL");
    refused(|b| b.deployments[0].pod.containers[0].stop_signal = 65, "stop signal");
    refused(|b| b.deployments[0].after = [sample::name("web")].into(), "form a circle: db, web");
    refused(
        |b| {
            b.deployments[0].pod.containers[0].ports =
                b.deployments[1].pod.containers[2].ports.clone()
        },
        "host port 8080 is published twice",
    );
    refused(
        |b| {
            b.deployments[0].strategy = Strategy::RollingUpdate { max_unavailable: 0, max_surge: 0 }
        },
        "cannot both be 0",
    );
    refused(
        |b| {
            let files = &mut b.configs[0].files;
            files.insert("../passwd".into(), Vec::new());
        },
        "not a plain file name",
    );
}

#[test]
fn invalid_probes_are_refused_with_the_place() {
    type Change = fn(&mut Container);
    let cases: [(Change, &str); 9] = [
        (|c| startup(c).success_threshold = 2, "startupProbe: successThreshold must be 1"),
        (|c| readiness(c).period_seconds = 0, "readinessProbe: periodSeconds must be 1 to"),
        (|c| readiness(c).timeout_seconds = 90_000, "timeoutSeconds must be 1 to 86400"),
        (|c| readiness(c).failure_threshold = 0, "failureThreshold must be 1"),
        (|c| readiness(c).check = Check::TcpConnect { port: 0 }, "1 to 65535"),
        (|c| startup(c).check = Check::Exec { args: vec![] }, "the command is empty"),
        (|c| path(c, "ready"), "`ready` is not a plain absolute path"),
        (|c| path(c, "/a HTTP/1.1\r\nX: y"), "is not a plain absolute path"),
        (|c| c.pre_stop = Some(PreStop::Sleep { seconds: 31 }), "preStop: must not be longer"),
    ];
    for (change, why) in cases {
        refused(|b| change(&mut b.deployments[1].pod.containers[2]), why);
    }
    refused(|b| b.upgrade.boots_max = 1_001, "upgrade.boots");
    refused(|b| b.upgrade.stable_seconds = u32::MAX, "upgrade.stable");
}

fn startup(container: &mut Container) -> &mut Probe {
    container.probes.startup.as_mut().unwrap()
}

fn readiness(container: &mut Container) -> &mut Probe {
    container.probes.readiness.as_mut().unwrap()
}

fn path(container: &mut Container, path: &str) {
    readiness(container).check =
        Check::HttpGet { port: 80, path: path.into(), headers: Vec::new() };
}

#[test]
fn a_pod_hash_changes_with_what_the_pod_is_made_of_only() {
    let web = |bundle: &Bundle| bundle.pod_hash(&bundle.deployments[1]);
    let before = web(&sample::bundle());
    let same = |change: &dyn Fn(&mut Bundle)| {
        let mut bundle = sample::bundle();
        change(&mut bundle);
        web(&bundle) == before
    };
    assert!(same(&|b| b.generation.0 = 8));
    assert!(same(&|b| b.deployments[1].replicas = 5));
    assert!(same(&|b| b.versions[0].description = "other".into()));
    assert!(same(&|b| b.deployments[1].after.clear()));
    assert!(!same(&|b| b.deployments[1].pod.containers[2].args.push("-v".into())));
    assert!(!same(&|b| b.images[0].layers[0].digest = Digest::of(b"other")));
    assert!(!same(&|b| {
        b.configs[0].files.insert("lion.properties".into(), b"mane=short\n".to_vec());
    }));
}

#[test]
fn what_the_node_kept_opens_without_its_key() {
    let bytes = sealed();
    let own = sample::name("gw-1");
    assert_eq!(envelope::open_kept(&bytes, &own).unwrap(), sample::bundle());
    let other = sample::name("gw-2");
    assert!(matches!(envelope::open_kept(&bytes, &other), Err(EnvelopeError::OtherNode { .. })));
    for cut in [0, 10, 77, bytes.len() - 1] {
        assert!(envelope::open_kept(&bytes[..cut], &own).is_err(), "cut at {cut}");
    }
}
