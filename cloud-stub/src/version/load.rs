//! Reads `version.yaml` and the files that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use wherry_bundle::Name;
use wherry_bundle::health::UpgradePolicy;
use wherry_bundle::limits::{
    CONFIG_BYTES_MAX, DEPLOYMENTS_MAX, TEXT_BYTES_MAX, UPGRADE_BOOTS_MAX, UPGRADE_SECONDS_MAX,
};
use wherry_bundle::model::is_relative_path;

use super::{Component, Contents, Number, PackageConfig, ProductType, Source, VersionPackage};
use crate::template::place::{Object, Place, Problem, Problems, Shape, honoured};
use crate::template::yaml;

const VERSION: Shape = Shape {
    kind: "version.yaml",
    fields: &[
        honoured("application"),
        honoured("version"),
        honoured("description"),
        honoured("productType"),
        honoured("components"),
        honoured("configurationFiles"),
        honoured("upgrade"),
    ],
};

const COMPONENT: Shape = Shape {
    kind: "component",
    fields: &[honoured("name"), honoured("image"), honoured("template"), honoured("startAfter")],
};

const UPGRADE: Shape = Shape {
    kind: "upgrade",
    fields: &[honoured("stableSeconds"), honoured("bootsMax"), honoured("holdSecondsMax")],
};

const CONFIGURATION: Shape = Shape {
    kind: "configuration files",
    fields: &[honoured("name"), honoured("secret"), honoured("files")],
};

/// Reads the package that the file `path` describes; other files are named
/// relative to its folder and stay below it.
///
/// # Errors
/// Every problem that was found.
pub fn load(path: &Path) -> Result<VersionPackage, Vec<Problem>> {
    let problems = Problems::default();
    let file = path.display().to_string();
    let package = read(path, &file, &problems);
    let package = problems.result(package)?;
    package.ok_or_else(|| vec![Problem::whole(&file, "could not be read")])
}

fn read(path: &Path, file: &str, problems: &Problems) -> Option<VersionPackage> {
    let whole = |what: String| problems.add(Problem::whole(file, what));
    let text = fs::read_to_string(path).map_err(|error| whole(error.to_string())).ok()?;
    let documents = yaml::parse(&text).map_err(|error| problems.add_yaml(file, error)).ok()?;
    let [document] = &documents[..] else {
        whole(format!("{} YAML documents, where one is expected", documents.len()));
        return None;
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let object = Place::root(file, document, problems).object(&VERSION)?;
    let application = object.require("application").and_then(|place| place.name());
    let number = object.require("version").and_then(|place| number(&place));
    let description = object.get("description").map_or(Some(String::new()), |p| description(&p));
    let product_type = object.require("productType").and_then(|place| {
        place.text()?.parse::<ProductType>().map_err(|error| place.problem(error)).ok()
    });
    let components = components(&object, folder);
    let configs = object.get("configurationFiles").map_or(Some(Vec::new()), |place| {
        place.items().iter().map(|place| configuration(place, folder)).collect()
    });
    let upgrade =
        object.get("upgrade").map_or(Some(UpgradePolicy::default()), |place| upgrade(&place));
    Some(VersionPackage {
        application: application?,
        number: number?,
        description: description?,
        product_type: product_type?,
        components: components?,
        configs: configs?,
        upgrade: upgrade?,
    })
}

/// When the version is good, when it has failed, and for how long it may be
/// held back.
fn upgrade(place: &Place<'_>) -> Option<UpgradePolicy> {
    let object = place.object(&UPGRADE)?;
    let default = UpgradePolicy::default();
    let number = |field: &str, max: u32, default: u32| {
        object.get(field).map_or(Some(default), |place| place.int(0, i64::from(max)))
    };
    let stable = number("stableSeconds", UPGRADE_SECONDS_MAX, default.stable_seconds);
    let boots = number("bootsMax", UPGRADE_BOOTS_MAX, default.boots_max);
    let hold = number("holdSecondsMax", UPGRADE_SECONDS_MAX, default.hold_seconds_max);
    Some(UpgradePolicy { stable_seconds: stable?, boots_max: boots?, hold_seconds_max: hold? })
}

fn number(place: &Place<'_>) -> Option<Number> {
    place
        .scalar_text()?
        .parse()
        .map_err(|error: super::InvalidNumber| place.problem(error.to_string()))
        .ok()
}

fn description(place: &Place<'_>) -> Option<String> {
    let text = place.text()?;
    if text.len() > TEXT_BYTES_MAX {
        place.problem(format!("longer than {TEXT_BYTES_MAX} bytes"));
    }
    Some(text)
}

fn components(object: &Object<'_>, folder: &Path) -> Option<Vec<Component>> {
    let places = object.require("components")?.items();
    if places.is_empty() || places.len() > DEPLOYMENTS_MAX {
        object.place().problem(format!("`components` must have 1 to {DEPLOYMENTS_MAX} entries"));
    }
    let read: Vec<Option<Component>> =
        places.iter().map(|place| component(place, folder)).collect();
    let names: Vec<&Name> = read.iter().flatten().map(|component| &component.name).collect();
    for (place, component) in places.iter().zip(&read) {
        let Some(component) = component else { continue };
        if names.iter().filter(|name| **name == &component.name).count() > 1 {
            place.problem(format!("the component `{}` is there twice", component.name));
        }
        for name in &component.start_after {
            if !names.contains(&name) || *name == component.name {
                place.problem(format!("startAfter: there is no other component `{name}`"));
            }
        }
    }
    read.into_iter().collect()
}

fn component(place: &Place<'_>, folder: &Path) -> Option<Component> {
    let object = place.object(&COMPONENT)?;
    let name = object.require("name").and_then(|place| place.name());
    let image = object.get("image").map(|place| place.text());
    let template = object.require("template").and_then(|place| {
        let file = place.text()?;
        let bytes = file_of(&place, folder, &file, yaml::TEXT_BYTES_MAX)?;
        let text = String::from_utf8(bytes).map_err(|_| place.problem("is not UTF-8 text")).ok()?;
        Some(Source { file, text })
    });
    let start_after: Option<BTreeSet<Name>> = object
        .get("startAfter")
        .map_or(Some(BTreeSet::new()), |place| place.items().iter().map(Place::name).collect());
    Some(Component {
        name: name?,
        image: match image {
            Some(image) => Some(image?),
            None => None,
        },
        template: template?,
        start_after: start_after?,
    })
}

fn configuration(place: &Place<'_>, folder: &Path) -> Option<PackageConfig> {
    let object = place.object(&CONFIGURATION)?;
    let name = object.require("name").and_then(|place| place.name());
    let secret = object.get("secret").map_or(Some(false), |place| place.bool());
    let mut files = BTreeMap::new();
    let mut left = CONFIG_BYTES_MAX;
    for place in object.require("files")?.items() {
        let path = place.text()?;
        let bytes = file_of(&place, folder, &path, left)?;
        left -= bytes.len();
        let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
        if files.insert(name.clone(), Contents(bytes)).is_some() {
            place.problem(format!("a second file named `{name}`"));
        }
    }
    Some(PackageConfig { name: name?, secret: secret?, files })
}

/// The bytes of a file below `folder`.
fn file_of(place: &Place<'_>, folder: &Path, path: &str, bytes_max: usize) -> Option<Vec<u8>> {
    if !is_relative_path(path) {
        place.problem(format!("`{path}` must be a plain path below the folder of version.yaml"));
        return None;
    }
    let full = folder.join(path);
    if !is_file_below(folder, &full) {
        place.problem(format!("`{path}` must be a plain file below the folder of version.yaml"));
        return None;
    }
    let bytes = fs::metadata(&full).and_then(|meta| {
        let too_large = usize::try_from(meta.len()).map_or(true, |bytes| bytes > bytes_max);
        if too_large { Ok(None) } else { fs::read(&full).map(Some) }
    });
    match bytes {
        Ok(Some(bytes)) => return Some(bytes),
        Ok(None) => {
            place.problem(format!("{path} has more than the {bytes_max} bytes that are left here"))
        }
        Err(error) => place.problem(format!("{}: {error}", full.display())),
    }
    None
}

/// Links may lead about in the folder, not out of it: a package that a person
/// got from others must not carry their own keys to the cloud. What does not
/// exist is for the reader to tell.
fn is_file_below(folder: &Path, path: &Path) -> bool {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match (folder.canonicalize(), path.canonicalize()) {
        (Ok(folder), Ok(path)) => path.starts_with(folder) && path.is_file(),
        (Err(_), _) | (_, Err(_)) => true,
    }
}
