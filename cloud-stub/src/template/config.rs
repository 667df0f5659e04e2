//! `ConfigMap` and `Secret`: sets of files.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use wherry_bundle::limits::CONFIG_BYTES_MAX;
use wherry_bundle::model::{Config, ConfigKind, ConfigRef, is_relative_path};

use super::place::{Object, Place};
use super::{metadata_name, shapes};

/// Reads one document.
pub(super) fn config(place: &Place<'_>, kind: ConfigKind) -> Option<Config> {
    let (shape, plain, encoded) = match kind {
        ConfigKind::ConfigMap => (&shapes::CONFIG_MAP, "data", "binaryData"),
        ConfigKind::Secret => (&shapes::SECRET, "stringData", "data"),
    };
    let object = place.object(shape)?;
    let mut files = BTreeMap::new();
    // In a Secret, plain text wins over the encoded form of the same key, and
    // that is Kubernetes' rule; in a ConfigMap it is a mistake.
    if kind == ConfigKind::ConfigMap {
        let encoded = object.get(encoded).map(|place| place.entries()).unwrap_or_default();
        for (name, place) in object.get(plain).iter().flat_map(Place::entries) {
            if encoded.iter().any(|(other, _)| *other == name) {
                place.problem("is in binaryData too");
            }
        }
    }
    read(&object, encoded, &mut files, |place| {
        let text: String = place.text()?.split_whitespace().collect();
        BASE64.decode(text).map_err(|_| place.problem("must be base64")).ok()
    });
    read(&object, plain, &mut files, |place| place.text().map(String::into_bytes));
    let bytes: usize = files.values().map(Vec::len).sum();
    if bytes > CONFIG_BYTES_MAX {
        place.problem(format!("{bytes} bytes, where at most {CONFIG_BYTES_MAX} are allowed"));
    }
    Some(Config { key: ConfigRef { kind, name: metadata_name(&object)? }, files })
}

fn read(
    object: &Object<'_>,
    field: &str,
    files: &mut BTreeMap<String, Vec<u8>>,
    contents: impl Fn(&Place<'_>) -> Option<Vec<u8>>,
) {
    for (name, place) in object.get(field).iter().flat_map(Place::entries) {
        if !is_relative_path(&name) || name.contains('/') {
            place.problem(format!("`{name}` is not a plain file name"));
        }
        if let Some(bytes) = contents(&place) {
            files.insert(name, bytes);
        }
    }
}
