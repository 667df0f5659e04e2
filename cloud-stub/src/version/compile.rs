//! A package and the images that it names, compiled to the parts of a bundle.

use std::collections::{BTreeMap, BTreeSet};

use wherry_bundle::health::UpgradePolicy;
use wherry_bundle::model::{
    Bundle, Claim, Config, ConfigKind, ConfigRef, Deployment, Image, VersionRef,
};
use wherry_bundle::{BuildVersion, Digest, Generation, Name};

use super::{Component, Number, VersionPackage};
use crate::template::place::{Place, Problem, Problems};
use crate::template::references::{self, Configs};
use crate::template::yaml::Node;
use crate::template::{self, Context, Lookup};

/// All that a version adds to a node's bundle, each list ordered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    pub deployments: Vec<Deployment>,
    pub configs: Vec<Config>,
    pub claims: Vec<Claim>,
    pub images: Vec<Image>,
}

/// Compiles `package` with the images that `images` finds: those of the
/// architecture of the node that it is for.
///
/// # Errors
/// Every problem that was found, in the words of the person's own files.
pub fn compile(package: &VersionPackage, images: Lookup<'_>) -> Result<Compiled, Vec<Problem>> {
    let problems = Problems::default();
    let mut configs = Configs::new();
    let mut claims: BTreeMap<Name, Claim> = BTreeMap::new();
    let mut found_images: BTreeMap<Digest, Image> = BTreeMap::new();
    let mut of_component: BTreeMap<&Name, Vec<Deployment>> = BTreeMap::new();
    check_components(package, &problems);
    for config in &package.configs {
        add_config(&mut configs, own_config(config), "version.yaml", &problems);
    }
    let parse = |component| (component, parse(component, &problems));
    let documents: Vec<(&Component, Vec<Node>)> = package.components.iter().map(parse).collect();
    for parsed in &documents {
        for config in places(parsed, &problems).filter_map(|place| template::config(&place)) {
            add_config(&mut configs, config, &parsed.0.template.file, &problems);
        }
        for claim in places(parsed, &problems).filter_map(|place| template::claim(&place)) {
            let name = claim.name.clone();
            if claims.insert(name.clone(), claim).is_some() {
                let what = format!("there are two of PersistentVolumeClaim `{name}`");
                whole(&problems, &parsed.0.template.file, what);
            }
        }
    }
    for parsed in &documents {
        let component = parsed.0;
        let context = Context {
            application: &package.application,
            default_image: component.image.as_deref(),
            images,
            configs: &configs,
        };
        let read = |place| template::workload(&place, context, &mut found_images);
        of_component.insert(&component.name, places(parsed, &problems).filter_map(read).collect());
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
    check_references(&documents, &configs, &problems);
    let compiled = Compiled {
        deployments: deployments.into_values().collect(),
        configs: configs.into_values().collect(),
        claims: claims.into_values().collect(),
        images: found_images.into_values().collect(),
    };
    check(package, &compiled, &problems);
    problems.result(compiled)
}

fn parse(component: &Component, problems: &Problems) -> Vec<Node> {
    template::parse(&component.template.file, &component.template.text, problems)
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
    let bundle = trial(&package.application, package.number, &package.description, compiled);
    if let Err(error) = bundle.validate() {
        // About the compiled parts, which no single line made.
        let problem = Problem::whole("version.yaml", error.what);
        problems.add(Problem { path: error.at, ..problem });
    }
}

/// The bundle of a node that has nothing else.
pub(super) fn trial(
    application: &Name,
    number: Number,
    description: &str,
    compiled: &Compiled,
) -> Bundle {
    // How its layers are cut is not the package's business: each stands for
    // its own list.
    let layers = compiled.images.iter().flat_map(|image| &image.layers);
    let chunk_lists = layers.map(|layer| (layer.digest, vec![layer.digest])).collect();
    let Number { x, y, z } = number;
    Bundle {
        node: application.clone(),
        generation: Generation(1),
        versions: vec![VersionRef {
            application: application.clone(),
            number: BuildVersion { x, y, z, build: 0 },
            description: description.to_owned(),
        }],
        deployments: compiled.deployments.clone(),
        configs: compiled.configs.clone(),
        claims: compiled.claims.clone(),
        images: compiled.images.clone(),
        chunk_lists,
        upgrade: UpgradePolicy::default(),
    }
}

/// What names config maps, secrets and claims that there are not, or files that they
/// do not have.
fn check_references(documents: &[(&Component, Vec<Node>)], configs: &Configs, problems: &Problems) {
    if !problems.is_empty() {
        return;
    }
    let all: Vec<_> = documents.iter().flat_map(|parsed| places(parsed, problems)).collect();
    let declared = template::claim::declared(all.iter());
    for place in &all {
        for missing in references::check(place, configs) {
            let ConfigRef { kind, name } = missing.config;
            missing.at.problem(format!("there is no {kind:?} `{name}`"));
        }
        template::claim::check(place, &declared);
    }
}

fn places<'a>(
    (component, nodes): &'a (&Component, Vec<Node>),
    problems: &'a Problems,
) -> impl Iterator<Item = Place<'a>> {
    nodes.iter().map(|node| Place::root(&component.template.file, node, problems))
}

fn own_config(config: &super::PackageConfig) -> Config {
    let kind = if config.secret { ConfigKind::Secret } else { ConfigKind::ConfigMap };
    Config {
        key: ConfigRef { kind, name: config.name.clone() },
        files: config.files.iter().map(|(name, bytes)| (name.clone(), bytes.0.clone())).collect(),
    }
}

fn add_config(configs: &mut Configs, config: Config, file: &str, problems: &Problems) {
    let key = config.key.clone();
    if configs.insert(key.clone(), config).is_some() {
        whole(problems, file, format!("there are two of {:?} `{}`", key.kind, key.name));
    }
}

fn whole(problems: &Problems, file: &str, what: String) {
    problems.add(Problem::whole(file, what));
}
