//! Templates by themselves: all that can be told without a server, images and
//! the rest of a version.

use std::collections::{BTreeMap, BTreeSet};

use wherry_bundle::model::{Claim, Config, ConfigRef, Deployment, Image, Layer, User};
use wherry_bundle::{Digest, Name};

use super::compile::{Compiled, trial};
use super::{Number, Source};
use crate::image::ImageInfo;
use crate::template::place::{Place, Problem, Problems};
use crate::template::references::{self, Configs, Reference};
use crate::template::yaml::{Node, Value};
use crate::template::{self, Context};

/// Templates in which nothing is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub objects: usize,
    /// Used, but in none of the files: a version.yaml has to make them.
    pub elsewhere: BTreeSet<ConfigRef>,
}

/// Looks at all files together. Nobody knows here which images there are, nor
/// what they run: that is not looked at.
///
/// # Errors
/// Every problem that was found.
pub fn check_templates(files: &[Source]) -> Result<Checked, Vec<Problem>> {
    let application = match Name::new("check") {
        Ok(name) => name,
        Err(error) => return Err(vec![Problem::whole("template", error.to_string())]),
    };
    let problems = Problems::default();
    let parse = |source: &Source| template::parse(&source.file, &source.text, &problems);
    let parsed: Vec<(&str, Vec<Node>)> =
        files.iter().map(|source| (source.file.as_str(), parse(source))).collect();
    let objects: Vec<Place<'_>> = parsed
        .iter()
        .flat_map(|(file, nodes)| nodes.iter().map(|node| Place::root(file, node, &problems)))
        .collect();
    let mut configs: Configs = objects
        .iter()
        .filter_map(template::config)
        .map(|config| (config.key.clone(), config))
        .collect();
    let claims: Vec<Claim> = objects.iter().filter_map(template::claim).collect();
    let declared = template::claim::declared(objects.iter());
    let mut missing = Vec::new();
    // What names what is not there is told of already.
    let mut wrong = BTreeSet::new();
    for (number, object) in objects.iter().enumerate() {
        let before = problems.len();
        missing.extend(references::check(object, &configs));
        template::claim::check(object, &declared);
        if problems.len() > before {
            wrong.insert(number);
        }
    }
    let elsewhere = stand_in(missing, &mut configs);
    let context = Context {
        application: &application,
        default_image: Some("any"),
        images: &any_image,
        configs: &configs,
    };
    let mut good = Vec::new();
    for (number, object) in objects.iter().enumerate() {
        let before = problems.len();
        let mut images = BTreeMap::new();
        let deployment = template::workload(object, context, &mut images);
        if problems.len() == before
            && !wrong.contains(&number)
            && let Some(deployment) = deployment
        {
            good.push(Good { object, deployment, images });
        }
    }
    check_names(&objects);
    let all = Together { application: &application, configs: &configs, claims: &claims };
    check_together(&good, all, &problems);
    let checked = Checked { objects: objects.len(), elsewhere };
    problems.result(checked)
}

/// Stands for each image: one that runs something.
fn any_image(name: &str) -> Option<ImageInfo> {
    let digest = Digest::of(name.as_bytes());
    Some(ImageInfo {
        digest,
        reference: name.to_owned(),
        architecture: String::new(),
        layers: vec![Layer { digest, size_bytes: 1 }],
        entrypoint: vec!["program".into()],
        cmd: Vec::new(),
        env: Vec::new(),
        working_dir: "/".into(),
        user: User::default(),
        stop_signal: 15,
        volumes: Vec::new(),
    })
}

/// What is missing in `configs` goes there, with the files that it should have.
fn stand_in(missing: Vec<Reference<'_>>, configs: &mut Configs) -> BTreeSet<ConfigRef> {
    for Reference { config: key, files, .. } in &missing {
        let new = Config { key: key.clone(), files: BTreeMap::new() };
        let config = configs.entry(key.clone()).or_insert(new);
        config.files.extend(files.iter().map(|(file, _)| (file.clone(), Vec::new())));
    }
    missing.into_iter().map(|reference| reference.config).collect()
}

/// Two objects of one name would be one.
fn check_names(objects: &[Place<'_>]) {
    let mut known: BTreeMap<(&str, &str), String> = BTreeMap::new();
    for object in objects {
        let name = object.find("metadata").and_then(|meta| meta.find("name"));
        let (Some(kind), Some(place)) = (object.find("kind"), name) else { continue };
        let (Value::Text(kind), Value::Text(name)) = (kind.value(), place.value()) else {
            continue;
        };
        // Each becomes a deployment.
        let kind = if kind == "Pod" { "Deployment" } else { kind.as_str() };
        if let Some(first) = known.get(&(kind, name.as_str())) {
            place.refuse(format!("the name is taken at {first}"), "choose another one");
        } else {
            known.insert((kind, name), place.at());
        }
    }
}

/// A document in which nothing is wrong, by itself.
struct Good<'a> {
    object: &'a Place<'a>,
    deployment: Deployment,
    images: BTreeMap<Digest, Image>,
}

/// What every one of them may name.
#[derive(Clone, Copy)]
struct Together<'a> {
    application: &'a Name,
    configs: &'a Configs,
    claims: &'a [Claim],
}

/// Limits and the like, which no field shows by itself: of each object, then
/// of all.
fn check_together(good: &[Good<'_>], all: Together<'_>, problems: &Problems) {
    for one in good {
        if let Err((at, what)) = validate(std::slice::from_ref(one), all) {
            one.object.problem(format!("{at}: {what}"));
        }
    }
    if !problems.is_empty() {
        return;
    }
    if let Err((at, what)) = validate(good, all) {
        let named = |one: &&Good<'_>| at.split('.').nth(1) == Some(one.deployment.name.as_str());
        match good.iter().find(named).or(good.first()) {
            Some(one) => one.object.problem(format!("{at}: {what}")),
            None => problems.add(Problem::whole("template", format!("{at}: {what}"))),
        }
    }
}

/// As the cloud and each node do it with a whole version.
fn validate(good: &[Good<'_>], all: Together<'_>) -> Result<(), (String, String)> {
    let images: BTreeMap<_, _> = good.iter().flat_map(|one| one.images.clone()).collect();
    let compiled = Compiled {
        deployments: good.iter().map(|one| one.deployment.clone()).collect(),
        configs: all.configs.values().cloned().collect(),
        claims: all.claims.to_vec(),
        images: images.into_values().collect(),
    };
    let bundle = trial(all.application, Number { x: 0, y: 0, z: 0 }, "", &compiled);
    bundle.validate().map_err(|error| (error.at, error.what))
}
