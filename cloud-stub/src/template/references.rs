//! What objects say of config maps and secrets, held against those that there
//! are. What a field means beyond that is told elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use wherry_bundle::Name;
use wherry_bundle::model::{Config, ConfigKind, ConfigRef};

use super::place::Place;
use super::yaml::Value;

/// Longer keys are not of Kubernetes, and would make long paths.
const KEY_BYTES_MAX: usize = 64;

/// Config maps and secrets by name.
pub type Configs = BTreeMap<ConfigRef, Config>;

/// A place that names a config map or a secret.
#[derive(Clone, Debug)]
pub struct Reference<'a> {
    pub config: ConfigRef,
    /// Of the name.
    pub at: Place<'a>,
    /// Files that have to be there.
    pub files: Vec<(String, Place<'a>)>,
}

/// Tells what names a file that its config map or secret does not have. The
/// result is what names one that is not in `configs`.
pub fn check<'a>(object: &Place<'a>, configs: &Configs) -> Vec<Reference<'a>> {
    let mut missing = Vec::new();
    let Some(spec) = object.find("spec") else { return missing };
    let mut references = Vec::new();
    walk(&spec, &mut references);
    for reference in references {
        let Some(config) = configs.get(&reference.config) else {
            missing.push(reference);
            continue;
        };
        for (file, place) in reference.files {
            if !config.files.contains_key(&file) {
                place.problem(format!("`{}` has no file `{file}`", config.key.name));
            }
        }
    }
    sub_paths(&pod_spec(spec), configs);
    missing
}

/// Of a workload with this `spec`: a `Pod`'s own, or its template's.
pub(super) fn pod_spec(spec: Place<'_>) -> Place<'_> {
    spec.find("template").and_then(|template| template.find("spec")).unwrap_or(spec)
}

fn walk<'a>(place: &Place<'a>, references: &mut Vec<Reference<'a>>) {
    for (key, child) in place.find_entries().filter(|(key, _)| key.len() <= KEY_BYTES_MAX) {
        references.extend(reference(key, &child));
        walk(&child, references);
    }
    for item in place.find_items() {
        walk(&item, references);
    }
}

/// As volume, as source of a variable, or of all variables.
fn reference<'a>(key: &str, place: &Place<'a>) -> Option<Reference<'a>> {
    let kind = match key {
        "configMap" | "configMapKeyRef" | "configMapRef" => ConfigKind::ConfigMap,
        "secret" | "secretKeyRef" | "secretRef" => ConfigKind::Secret,
        _ => return None,
    };
    if place.find("optional").is_some_and(|place| *place.value() == Value::Bool(true)) {
        return None;
    }
    let at = place.find("secretName").or(place.find("name"))?;
    let name = Name::new(text(&at)?).ok()?;
    let keys = list(place, "items").chain([place.clone()]).filter_map(|item| item.find("key"));
    let files = keys.filter_map(|place| Some((text(&place)?.to_owned(), place))).collect();
    Some(Reference { config: ConfigRef { kind, name }, at, files })
}

/// A mount of a file that its volume does not have could never be made.
fn sub_paths(pod: &Place<'_>, configs: &Configs) {
    let volumes: Vec<_> = list(pod, "volumes").collect();
    let files: BTreeMap<&str, BTreeSet<&str>> =
        volumes.iter().filter_map(|volume| files(volume, configs)).collect();
    let containers = list(pod, "initContainers").chain(list(pod, "containers"));
    for mount in containers.flat_map(|container| list(&container, "volumeMounts")) {
        let (Some(volume), Some(sub_path)) = (mount.find("name"), mount.find("subPath")) else {
            continue;
        };
        if let (Some(volume), Some(wanted)) = (text(&volume), text(&sub_path))
            && files.get(volume).is_some_and(|files| !files.contains(wanted))
        {
            sub_path.problem(format!("the volume `{volume}` has no file `{wanted}`"));
        }
    }
}

/// A volume's name and its files, where they are known.
fn files<'a>(volume: &Place<'a>, configs: &'a Configs) -> Option<(&'a str, BTreeSet<&'a str>)> {
    let name = text(&volume.find("name")?)?;
    let mut sources = volume.find_entries();
    let (source, found) =
        sources.find_map(|(key, place)| Some((place.clone(), reference(key, &place)?)))?;
    let config = configs.get(&found.config)?;
    let items: Vec<_> = list(&source, "items").collect();
    let files = if items.is_empty() {
        config.files.keys().map(String::as_str).collect()
    } else {
        items.iter().filter_map(|item| text(&item.find("path")?)).collect()
    };
    Some((name, files))
}

pub(super) fn list<'a>(place: &Place<'a>, key: &str) -> impl Iterator<Item = Place<'a>> + use<'a> {
    place.find(key).into_iter().flat_map(|list| list.find_items())
}

pub(super) fn text<'a>(place: &Place<'a>) -> Option<&'a str> {
    if let Value::Text(text) = place.value() { Some(text) } else { None }
}
