//! A package and the images that it names, compiled to the parts of a bundle.

use std::collections::{BTreeMap, BTreeSet};

use wherry_bundle::health::UpgradePolicy;
use wherry_bundle::model::{
    Bundle, Config, ConfigKind, ConfigRef, ConfigVolume, Deployment, Image, Seccomp, VersionRef,
    VolumeSource,
};
use wherry_bundle::{BuildVersion, Digest, Generation, Name};

use super::VersionPackage;
use crate::template::place::{Problem, Problems};
use crate::template::{self, Context, Lookup};

/// All that a version adds to a node's bundle, each list ordered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    pub deployments: Vec<Deployment>,
    pub configs: Vec<Config>,
    pub images: Vec<Image>,
}

/// Compiles `package` with the images that `images` finds: those of the
/// architecture of the node that it is for.
///
/// # Errors
/// Every problem that was found, in the words of the person's own files.
pub fn compile(package: &VersionPackage, images: Lookup<'_>) -> Result<Compiled, Vec<Problem>> {
    let problems = Problems::default();
    let mut configs: BTreeMap<ConfigRef, Config> = BTreeMap::new();
    let mut found_images: BTreeMap<Digest, Image> = BTreeMap::new();
    let mut of_component: BTreeMap<&Name, Vec<Deployment>> = BTreeMap::new();
    check_components(package, &problems);
    for config in &package.configs {
        add_config(&mut configs, own_config(config), "version.yaml", &problems);
    }
    for component in &package.components {
        let context = Context {
            application: &package.application,
            default_image: component.image.as_deref(),
            images,
            seccomp: Seccomp::default(),
        };
        let file = &component.template.file;
        let read = template::compile(file, &component.template.text, context, &problems);
        for config in read.configs {
            add_config(&mut configs, config, file, &problems);
        }
        found_images.extend(read.images);
        of_component.insert(&component.name, read.deployments);
    }
    let names: BTreeMap<&Name, BTreeSet<Name>> = of_component
        .iter()
        .map(|(name, deployments)| (*name, deployments.iter().map(|d| d.name.clone()).collect()))
        .collect();
    let mut deployments: BTreeMap<Name, Deployment> = BTreeMap::new();
    for component in &package.components {
        let after: BTreeSet<Name> = component
            .start_after
            .iter()
            .filter_map(|name| names.get(name))
            .flatten()
            .cloned()
            .collect();
        for mut deployment in of_component.remove(&component.name).unwrap_or_default() {
            deployment.after.clone_from(&after);
            let name = deployment.name.clone();
            if deployments.insert(name.clone(), deployment).is_some() {
                let what = format!("there are two deployments named `{name}`");
                whole(&problems, &component.template.file, what);
            }
        }
    }
    let compiled = Compiled {
        deployments: deployments.into_values().collect(),
        configs: configs.into_values().collect(),
        images: found_images.into_values().collect(),
    };
    check(package, &compiled, &problems);
    problems.result(compiled)
}

/// The loader told a person already, with the line; but a package comes over
/// the network.
fn check_components(package: &VersionPackage, problems: &Problems) {
    let mut names = BTreeSet::new();
    for component in &package.components {
        if !names.insert(&component.name) {
            let what = format!("the component `{}` is there twice", component.name);
            whole(problems, "version.yaml", what);
        }
    }
    for component in &package.components {
        for name in &component.start_after {
            if !names.contains(name) || *name == component.name {
                let what = format!("startAfter: there is no other component `{name}`");
                whole(problems, "version.yaml", what);
            }
        }
    }
}

/// What only shows when all is together: references, circles, counts. The
/// node would refuse it too.
fn check(package: &VersionPackage, compiled: &Compiled, problems: &Problems) {
    if !problems.is_empty() {
        return;
    }
    if compiled.deployments.is_empty() {
        whole(problems, "version.yaml", "no template has a Deployment or a Pod".into());
    }
    // How its layers are cut is not the package's business: each stands for
    // its own list.
    let layers = compiled.images.iter().flat_map(|image| &image.layers);
    let chunk_lists = layers.map(|layer| (layer.digest, vec![layer.digest])).collect();
    let super::Number { x, y, z } = package.number;
    let bundle = Bundle {
        node: package.application.clone(),
        generation: Generation(1),
        versions: vec![VersionRef {
            application: package.application.clone(),
            number: BuildVersion { x, y, z, build: 0 },
            description: package.description.clone(),
        }],
        deployments: compiled.deployments.clone(),
        configs: compiled.configs.clone(),
        images: compiled.images.clone(),
        chunk_lists,
        upgrade: UpgradePolicy::default(),
    };
    if let Err(error) = bundle.validate() {
        together(problems, error.at, error.what);
    } else {
        check_sub_paths(&bundle, problems);
    }
}

/// A mount of a file that its volume does not have could never be made.
fn check_sub_paths(bundle: &Bundle, problems: &Problems) {
    for deployment in &bundle.deployments {
        for container in &deployment.pod.containers {
            for mount in &container.mounts {
                let Some(wanted) = &mount.sub_path else { continue };
                let volume = deployment.pod.volumes.iter().find(|v| v.name == mount.volume);
                let files = match volume.map(|volume| &volume.source) {
                    Some(VolumeSource::Config(source)) => files_of(bundle, source),
                    // What a node has there only it knows.
                    Some(VolumeSource::HostPath(_)) => continue,
                    None => Vec::new(),
                };
                if !files.contains(&wanted.as_str()) {
                    let at = format!(
                        "deployments.{}.containers.{}.mounts",
                        deployment.name, container.name
                    );
                    let what = format!("the volume `{}` has no file `{wanted}`", mount.volume);
                    together(problems, at, what);
                }
            }
        }
    }
}

fn files_of<'a>(bundle: &'a Bundle, volume: &'a ConfigVolume) -> Vec<&'a str> {
    if volume.items.is_empty() {
        let config = bundle.config(&volume.config);
        config.iter().flat_map(|config| config.files.keys()).map(String::as_str).collect()
    } else {
        volume.items.values().map(String::as_str).collect()
    }
}

fn own_config(config: &super::PackageConfig) -> Config {
    let kind = if config.secret { ConfigKind::Secret } else { ConfigKind::ConfigMap };
    Config {
        key: ConfigRef { kind, name: config.name.clone() },
        files: config.files.iter().map(|(name, bytes)| (name.clone(), bytes.0.clone())).collect(),
    }
}

fn add_config(
    configs: &mut BTreeMap<ConfigRef, Config>,
    config: Config,
    file: &str,
    problems: &Problems,
) {
    let key = config.key.clone();
    if configs.insert(key.clone(), config).is_some() {
        whole(problems, file, format!("there are two of {:?} `{}`", key.kind, key.name));
    }
}

/// About the compiled parts, which no single line made.
fn together(problems: &Problems, path: String, what: String) {
    problems.add(Problem { file: "version.yaml".into(), line: 0, path, what });
}

fn whole(problems: &Problems, file: &str, what: String) {
    problems.add(Problem { file: file.into(), line: 0, path: String::new(), what });
}
