//! Kubernetes' YAML, compiled into the model of a bundle.
//!
//! Every field is honoured, accepted because it can have no effect here, or
//! refused with its full path ([`shapes`] is the list); nothing is ignored.
//! Never here: files, the network, a cluster.

mod config;
mod container;
mod health;
pub mod place;
mod quantity;
mod seccomp;
pub mod shapes;
mod workload;
pub mod yaml;

use std::collections::BTreeMap;

use wherry_bundle::model::{Config, ConfigKind, Deployment, Image, Seccomp};
use wherry_bundle::{Digest, Name};

use crate::image::ImageInfo;
use place::{Place, Problems};

/// Looks an image up by its short name ([`crate::image::reference::familiar`]).
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<ImageInfo>;

/// What surrounds a template.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub application: &'a Name,
    /// For containers that name no image.
    pub default_image: Option<&'a str>,
    pub images: Lookup<'a>,
    /// For containers that say nothing of it: their pod's.
    pub seccomp: Seccomp,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("application", self.application).finish_non_exhaustive()
    }
}

/// What a template's documents are.
#[derive(Clone, Debug, Default)]
pub struct Template {
    pub deployments: Vec<Deployment>,
    pub configs: Vec<Config>,
    /// Those that its containers run.
    pub images: BTreeMap<Digest, Image>,
}

/// Compiles the documents of one file.
#[must_use]
pub fn compile(file: &str, text: &str, context: Context<'_>, problems: &Problems) -> Template {
    let mut template = Template::default();
    let documents = match yaml::parse(text) {
        Ok(documents) => documents,
        Err(error) => {
            problems.add_yaml(file, error);
            return template;
        }
    };
    for node in &documents {
        document(&Place::root(file, node, problems), context, &mut template);
    }
    template
}

fn document(place: &Place<'_>, context: Context<'_>, template: &mut Template) {
    let field = |name: &str| {
        let entries = place.entries();
        let found = entries.iter().find(|(key, _)| key == name);
        found.and_then(|(_, place)| place.text()).unwrap_or_default()
    };
    match (field("apiVersion").as_str(), field("kind").as_str()) {
        ("apps/v1", "Deployment") => {
            template.deployments.extend(workload::deployment(place, context, &mut template.images));
        }
        ("v1", "Pod") => {
            template.deployments.extend(workload::pod(place, context, &mut template.images));
        }
        ("v1", "ConfigMap") => template.configs.extend(config::config(place, ConfigKind::ConfigMap)),
        ("v1", "Secret") => template.configs.extend(config::config(place, ConfigKind::Secret)),
        (api, kind) => place.problem(format!(
            "apiVersion `{api}`, kind `{kind}`: use apps/v1 Deployment, or v1 Pod, ConfigMap or Secret"
        )),
    }
}

/// The name of a document; its other metadata is checked.
fn metadata_name(object: &place::Object<'_>) -> Option<Name> {
    object.require("metadata")?.object(&shapes::META)?.require("name")?.name()
}
