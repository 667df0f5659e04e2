//! A pod's volumes, and a container's mounts of them.

use std::collections::{BTreeMap, BTreeSet};

use wherry_bundle::limits::EMPTY_DIR_BYTES_MAX;
use wherry_bundle::model::{
    ClaimVolume, ConfigKind, ConfigRef, ConfigVolume, HostPath, HostPathKind, Mount, Volume,
    VolumeSource, is_below, is_mount_path, is_mount_point,
};

use super::place::{Object, Place};
use super::quantity::memory_bytes;
use super::shapes;

const FILE_MODE: u16 = 0o644;
/// Of a volume in memory that names no `sizeLimit`. Only what is used counts.
const EMPTY_DIR_BYTES: u64 = 64 << 20;

pub(super) fn volume(place: &Place<'_>) -> Option<Volume> {
    let object = place.object(&shapes::VOLUME)?;
    let name = object.require("name").and_then(|place| place.name());
    let sources = ["configMap", "secret", "emptyDir", "hostPath", "persistentVolumeClaim"];
    let sources = sources.map(|field| object.get(field));
    let source = match sources {
        [Some(source), None, None, None, None] => {
            let object = source.object(&shapes::CONFIG_MAP_SOURCE)?;
            config_volume(&object, ConfigKind::ConfigMap, "name").map(VolumeSource::Config)
        }
        [None, Some(source), None, None, None] => {
            let object = source.object(&shapes::SECRET_SOURCE)?;
            config_volume(&object, ConfigKind::Secret, "secretName").map(VolumeSource::Config)
        }
        [None, None, Some(source), None, None] => empty_dir(&source),
        [None, None, None, Some(source), None] => host_path(&source).map(VolumeSource::HostPath),
        [None, None, None, None, Some(source)] => claim(&source).map(VolumeSource::Claim),
        _ => {
            place.problem(
                "must have one of configMap, secret, emptyDir, hostPath and persistentVolumeClaim",
            );
            None
        }
    };
    Some(Volume { name: name?, source: source? })
}

fn config_volume(source: &Object<'_>, kind: ConfigKind, key: &str) -> Option<ConfigVolume> {
    let config = source.require(key).and_then(|place| place.name());
    let mode = source.get("defaultMode").map_or(Some(FILE_MODE), |place| place.int(0, 0o777));
    let mut items = BTreeMap::new();
    for place in source.get("items").iter().flat_map(Place::items) {
        let item = place.object(&shapes::KEY_TO_PATH)?;
        let key = item.require("key").and_then(|place| place.text());
        let path = item.require("path").and_then(|place| place.relative_path());
        let (key, path) = (key?, path?);
        if items.values().any(|known| *known == path) {
            place.problem(format!("two files at `{path}`"));
        }
        if items.insert(key.clone(), path).is_some() {
            place.problem(format!("the key `{key}` is there twice"));
        }
    }
    Some(ConfigVolume { config: ConfigRef { kind, name: config? }, items, mode: mode? })
}

/// Whether a node allows it is known there only.
fn host_path(place: &Place<'_>) -> Option<HostPath> {
    let object = place.object(&shapes::HOST_PATH_SOURCE)?;
    let place = object.require("path")?;
    let path = place.text().filter(|path| {
        let is_plain = is_mount_path(path);
        if !is_plain {
            place.problem("must be a plain absolute path outside /proc");
        }
        is_plain
    });
    let kind =
        object.get("type").map_or(Some(HostPathKind::Any), |place| match place.text()?.as_str() {
            "" => Some(HostPathKind::Any),
            "Directory" => Some(HostPathKind::Directory),
            "DirectoryOrCreate" => Some(HostPathKind::DirectoryOrCreate),
            "CharDevice" => Some(HostPathKind::CharDevice),
            _ => {
                place.problem("must be Directory, DirectoryOrCreate, CharDevice or empty");
                None
            }
        });
    let (path, kind) = (path?, kind?);
    let in_dev = path.starts_with("/dev/");
    if (kind == HostPathKind::CharDevice) != in_dev {
        place.problem(if in_dev {
            "a device needs `type: CharDevice`"
        } else {
            "a device is somewhere below /dev"
        });
    }
    Some(HostPath { path, kind })
}

/// Whether there is such a claim is looked at with all templates together.
fn claim(place: &Place<'_>) -> Option<ClaimVolume> {
    let object = place.object(&shapes::CLAIM_SOURCE)?;
    let claim = object.require("claimName").and_then(|place| place.name());
    let read_only = object.get("readOnly").map_or(Some(false), |place| place.bool());
    Some(ClaimVolume { claim: claim?, read_only: read_only? })
}

/// In memory, whatever its `medium` is.
fn empty_dir(place: &Place<'_>) -> Option<VolumeSource> {
    let object = place.object(&shapes::EMPTY_DIR_SOURCE)?;
    if let Some(place) = object.get("medium")
        && !matches!(place.text()?.as_str(), "" | "Memory")
    {
        place.problem("must be Memory, or left out: it is in memory anyway");
    }
    let Some(place) = object.get("sizeLimit") else {
        return Some(VolumeSource::EmptyDir { bytes_max: EMPTY_DIR_BYTES });
    };
    let bytes = memory_bytes(&place.scalar_text()?);
    let fits = bytes.filter(|bytes| (1..=EMPTY_DIR_BYTES_MAX).contains(bytes));
    if fits.is_none() {
        place.problem("must be bytes, such as 16Mi, and 1Gi at most");
    }
    Some(VolumeSource::EmptyDir { bytes_max: fits? })
}

pub(super) fn mounts(object: &Object<'_>, volumes: &[Volume]) -> Option<Vec<Mount>> {
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

fn is_device(volume: &Volume) -> bool {
    matches!(&volume.source, VolumeSource::HostPath(host) if host.kind == HostPathKind::CharDevice)
}

/// Volumes of an image into which nothing else is mounted.
pub(super) fn of_image(paths: &[String], mounts: &[Mount]) -> Vec<String> {
    let is_free = |path: &&String| !mounts.iter().any(|mount| is_below(path, &mount.path));
    paths.iter().filter(is_free).cloned().collect()
}

fn mount(place: &Place<'_>, volumes: &[Volume]) -> Option<Mount> {
    let object = place.object(&shapes::VOLUME_MOUNT)?;
    let volume = object.require("name").and_then(|place| {
        let name = place.name()?;
        let volume = volumes.iter().find(|volume| volume.name == name);
        if volume.is_none() {
            place.problem(format!("there is no volume `{name}` in this pod"));
        }
        volume
    });
    let is_config = volume.is_some_and(|v| matches!(v.source, VolumeSource::Config(_)));
    let path = object.require("mountPath").and_then(|place| {
        let path = place.text()?;
        if !is_mount_point(&path) {
            place.problem("must be a plain absolute path outside /proc and what each container has in /dev, and not /");
        }
        Some(path)
    });
    let is_device = volume.is_some_and(is_device);
    let sub_path = object.optional("subPath", |place| {
        if is_device {
            place.problem("a device has nothing below it");
        }
        place.relative_path()
    });
    let read_only = object.get("readOnly").map_or(Some(is_config), |place| {
        let read_only = place.bool()?;
        if is_config && !read_only {
            place.problem("config maps and secrets are always read-only");
        }
        if is_device && read_only {
            place.problem("no mount keeps a program from writing to a device: leave it out");
        }
        Some(read_only)
    });
    Some(Mount {
        volume: volume?.name.clone(),
        path: path?,
        sub_path: sub_path?,
        read_only: read_only?,
    })
}
