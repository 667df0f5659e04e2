//! `PersistentVolumeClaim`: a folder on each node's flash, and how much it holds.

use std::collections::BTreeSet;

use wherry_bundle::limits::CLAIM_BYTES_MAX;
use wherry_bundle::model::{AccessMode, Claim};

use super::place::{Object, Place};
use super::quantity::memory_bytes;
use super::references::{list, pod_spec, text};
use super::{metadata_name, shapes};

const ONE_POD: &str =
    "use ReadWriteOnce: an old pod ends before the new one starts, and no other node is there";
const READ_ONLY: &str =
    "nothing could ever come into it: use ReadWriteMany, and `readOnly` where it is mounted";

/// Reads one document.
pub(super) fn claim(place: &Place<'_>) -> Option<Claim> {
    let object = place.object(&shapes::CLAIM)?;
    let name = metadata_name(&object);
    let spec = object.require("spec")?.object(&shapes::CLAIM_SPEC)?;
    let access = access(&spec);
    let resources = spec.require("resources")?.object(&shapes::CLAIM_RESOURCES)?;
    let requests = resources.require("requests")?.object(&shapes::CLAIM_SIZE)?;
    let place = requests.require("storage")?;
    let bytes = memory_bytes(&place.scalar_text()?);
    let fits = bytes.filter(|bytes| (1..=CLAIM_BYTES_MAX).contains(bytes));
    if fits.is_none() {
        place.problem("must be bytes, such as 64Mi, and 1Ti at most");
    }
    Some(Claim { name: name?, bytes_max: fits?, access: access? })
}

/// Several are what a volume can do, of which the most counts.
fn access(spec: &Object<'_>) -> Option<AccessMode> {
    let place = spec.require("accessModes")?;
    let mode = |place: &Place<'_>| match place.text()?.as_str() {
        "ReadWriteOnce" => Some(AccessMode::ReadWriteOnce),
        "ReadWriteMany" => Some(AccessMode::ReadWriteMany),
        mode @ ("ReadWriteOncePod" | "ReadOnlyMany") => {
            let hint = if mode == "ReadOnlyMany" { READ_ONLY } else { ONE_POD };
            place.refuse("not supported", hint);
            None
        }
        _ => {
            place.problem("must be ReadWriteOnce or ReadWriteMany");
            None
        }
    };
    let modes: Vec<_> = place.items().iter().map(mode).collect();
    if modes.is_empty() {
        place.problem("must have ReadWriteOnce or ReadWriteMany");
        return None;
    }
    let modes = modes.into_iter().collect::<Option<Vec<_>>>()?;
    let many = modes.contains(&AccessMode::ReadWriteMany);
    Some(if many { AccessMode::ReadWriteMany } else { AccessMode::ReadWriteOnce })
}

/// Names of the claims among `objects`, also of those in which something is
/// wrong: that is told once.
#[must_use]
pub fn declared<'a>(objects: impl Iterator<Item = &'a Place<'a>>) -> BTreeSet<&'a str> {
    let claims = objects.filter(|object| super::is_claim(object));
    claims.filter_map(|object| text(&object.find("metadata")?.find("name")?)).collect()
}

/// Tells of volumes of `object` that name a claim which is not `declared`.
pub fn check(object: &Place<'_>, declared: &BTreeSet<&str>) {
    let Some(spec) = object.find("spec") else { return };
    for volume in list(&pod_spec(spec), "volumes") {
        let claim = volume.find("persistentVolumeClaim").and_then(|it| it.find("claimName"));
        let Some(place) = claim else { continue };
        if let Some(name) = text(&place).filter(|name| !declared.contains(name)) {
            place.refuse(
                format!("there is no PersistentVolumeClaim `{name}` in this version"),
                "add one of that name to a template, with its size in \
                 spec.resources.requests.storage",
            );
        }
    }
}
