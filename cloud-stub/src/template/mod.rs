//! Kubernetes' YAML, compiled into the model of a bundle.
//!
//! Every field is honoured, accepted because it can have no effect here, or
//! refused with its full path ([`shapes`] is the list); nothing is ignored.
//! Never here: files, the network, a cluster.

mod config;
mod container;
mod environment;
mod health;
pub mod place;
mod quantity;
mod security;
pub mod shapes;
mod volume;
mod workload;
pub mod yaml;

use std::collections::BTreeMap;

use wherry_bundle::model::{Config, ConfigKind, ConfigRef, Deployment, Image};
use wherry_bundle::{Digest, Name};

use crate::image::ImageInfo;
use place::{Place, Problems};
use yaml::Node;

/// Looks an image up by its short name ([`crate::image::reference::familiar`]).
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<ImageInfo>;

/// What surrounds a template.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub application: &'a Name,
    /// For containers that name no image.
    pub default_image: Option<&'a str>,
    pub images: Lookup<'a>,
    /// Of all templates and files of the version: what `env` can name.
    pub configs: &'a BTreeMap<ConfigRef, Config>,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("application", self.application).finish_non_exhaustive()
    }
}

/// The documents of one file.
#[derive(Debug)]
pub struct Documents<'a> {
    file: &'a str,
    nodes: Vec<Node>,
}

/// What a template's documents run.
#[derive(Clone, Debug, Default)]
pub struct Workloads {
    pub deployments: Vec<Deployment>,
    /// Those that its containers run.
    pub images: BTreeMap<Digest, Image>,
}

/// Takes a file apart; it has no document if it is not YAML.
#[must_use]
pub fn parse<'a>(file: &'a str, text: &str, problems: &Problems) -> Documents<'a> {
    let nodes = yaml::parse(text).unwrap_or_else(|error| {
        problems.add_yaml(file, error);
        Vec::new()
    });
    Documents { file, nodes }
}

impl Documents<'_> {
    /// The config maps and secrets; any workload may name them, so they are
    /// read before it.
    #[must_use]
    pub fn configs(&self, problems: &Problems) -> Vec<Config> {
        let configs = self.places(problems).filter_map(|place| match kind_of(&place)? {
            Kind::Config(kind) => config::config(&place, kind),
            Kind::Deployment | Kind::Pod => None,
        });
        configs.collect()
    }

    /// Everything else.
    #[must_use]
    pub fn workloads(&self, context: Context<'_>, problems: &Problems) -> Workloads {
        let Workloads { mut deployments, mut images } = Workloads::default();
        for place in self.places(problems) {
            match kind_of(&place) {
                Some(Kind::Deployment) => {
                    deployments.extend(workload::deployment(&place, context, &mut images));
                }
                Some(Kind::Pod) => {
                    deployments.extend(workload::pod(&place, context, &mut images));
                }
                Some(Kind::Config(_)) => {}
                None => unknown(&place),
            }
        }
        Workloads { deployments, images }
    }

    fn places<'a>(&'a self, problems: &'a Problems) -> impl Iterator<Item = Place<'a>> {
        self.nodes.iter().map(move |node| Place::root(self.file, node, problems))
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Deployment,
    Pod,
    Config(ConfigKind),
}

fn kind_of(place: &Place<'_>) -> Option<Kind> {
    match (top(place, "apiVersion").as_str(), top(place, "kind").as_str()) {
        ("apps/v1", "Deployment") => Some(Kind::Deployment),
        ("v1", "Pod") => Some(Kind::Pod),
        ("v1", "ConfigMap") => Some(Kind::Config(ConfigKind::ConfigMap)),
        ("v1", "Secret") => Some(Kind::Config(ConfigKind::Secret)),
        _ => None,
    }
}

fn unknown(place: &Place<'_>) {
    let (api, kind) = (top(place, "apiVersion"), top(place, "kind"));
    place.problem(format!(
        "apiVersion `{api}`, kind `{kind}`: use apps/v1 Deployment, or v1 Pod, ConfigMap or Secret"
    ));
}

/// A field at the top of a document, if it is a text.
fn top(place: &Place<'_>, field: &str) -> String {
    let entries = place.entries();
    let found = entries.iter().find(|(key, _)| key == field);
    found.and_then(|(_, place)| place.text()).unwrap_or_default()
}

/// The name of a document; its other metadata is checked.
fn metadata_name(object: &place::Object<'_>) -> Option<Name> {
    object.require("metadata")?.object(&shapes::META)?.require("name")?.name()
}
