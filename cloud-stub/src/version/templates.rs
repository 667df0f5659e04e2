//! Templates by themselves: all that can be told without a server, images and
//! the rest of a version.

use std::collections::{BTreeMap, BTreeSet};

use wherry_bundle::model::{Config, ConfigRef, Deployment, Layer, User};
use wherry_bundle::{Digest, Name};

use super::compile::{Compiled, trial};
use super::{Number, Source};
use crate::image::ImageInfo;
use crate::template::place::{Place, Problem, Problems};
use crate::template::references::{self, Configs, Reference};
use crate::template::yaml::{self, Node, Value};
use crate::template::{self, Context, Template};

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
    let parsed: Vec<(&str, Vec<Node>)> =
        files.iter().map(|source| (source.file.as_str(), parse(source, &problems))).collect();
    let objects: Vec<Place<'_>> = parsed
        .iter()
        .flat_map(|(file, nodes)| nodes.iter().map(|node| Place::root(file, node, &problems)))
        .collect();
    let context =
        Context { application: &application, default_image: Some("any"), images: &any_image };
    let mut configs = Configs::new();
    let mut good = Vec::new();
    for object in &objects {
        let before = problems.len();
        let mut template = Template::default();
        template::document(object, context, &mut template);
        if problems.len() == before {
            configs.extend(template.configs.drain(..).map(|config| (config.key.clone(), config)));
            good.push((object, template));
        }
    }
    let mut missing = Vec::new();
    good.retain(|(object, _)| {
        let before = problems.len();
        missing.extend(references::check(object, &configs));
        problems.len() == before
    });
    let elsewhere = stand_in(missing, &mut configs);
    check_names(&objects);
    check_together(&good, &application, &configs, &problems);
    let checked = Checked { objects: objects.len(), elsewhere };
    problems.result(checked)
}

fn parse(source: &Source, problems: &Problems) -> Vec<Node> {
    yaml::parse(&source.text).unwrap_or_else(|error| {
        problems.add_yaml(&source.file, error);
        Vec::new()
    })
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

/// Limits and the like, which no field shows by itself: of each object, then
/// of all.
fn check_together(
    good: &[(&Place<'_>, Template)],
    application: &Name,
    configs: &Configs,
    problems: &Problems,
) {
    for (object, template) in good {
        if let Err((at, what)) = validate(&[template], application, configs) {
            object.problem(format!("{at}: {what}"));
        }
    }
    if !problems.is_empty() {
        return;
    }
    let all: Vec<&Template> = good.iter().map(|(_, template)| template).collect();
    if let Err((at, what)) = validate(&all, application, configs) {
        let named =
            |deployment: &Deployment| at.split('.').nth(1) == Some(deployment.name.as_str());
        let object = good.iter().find(|(_, template)| template.deployments.iter().any(named));
        match object.or(good.first()) {
            Some((object, _)) => object.problem(format!("{at}: {what}")),
            None => problems.add(Problem::whole("template", format!("{at}: {what}"))),
        }
    }
}

/// As the cloud and each node do it with a whole version.
fn validate(
    templates: &[&Template],
    application: &Name,
    configs: &Configs,
) -> Result<(), (String, String)> {
    let images: BTreeMap<_, _> =
        templates.iter().flat_map(|template| template.images.clone()).collect();
    let compiled = Compiled {
        deployments: templates.iter().flat_map(|template| template.deployments.clone()).collect(),
        configs: configs.values().cloned().collect(),
        images: images.into_values().collect(),
    };
    let bundle = trial(application, Number { x: 0, y: 0, z: 0 }, "", &compiled);
    bundle.validate().map_err(|error| (error.at, error.what))
}
