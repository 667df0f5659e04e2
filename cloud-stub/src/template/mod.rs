//! Kubernetes' YAML, compiled into the model of a bundle.
//!
//! Every field is honoured, accepted because it can have no effect here, or
//! refused with its full path ([`fields`] is the list); nothing is ignored.
//! Never here: files, the network, a cluster.

mod annotations;
pub mod claim;
mod config;
mod container;
mod environment;
pub mod fields;
mod health;
mod names;
mod nearest;
mod others;
pub mod place;
mod quantity;
pub mod references;
mod seccomp;
mod security;
pub mod shapes;
mod volume;
mod workload;
pub mod yaml;

use std::collections::BTreeMap;

use wherry_bundle::model::{Claim, Config, ConfigKind, Deployment, Image};
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
    pub configs: &'a references::Configs,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("application", self.application).finish_non_exhaustive()
    }
}

/// The documents of a file; none if it is not YAML.
#[must_use]
pub fn parse(file: &str, text: &str, problems: &Problems) -> Vec<Node> {
    yaml::parse(text).unwrap_or_else(|error| {
        problems.add_yaml(file, error);
        Vec::new()
    })
}

/// What a document is, if it is a config map or a secret. Any workload may name
/// them, so they are read before it.
#[must_use]
pub fn config(place: &Place<'_>) -> Option<Config> {
    match kind_of(place)? {
        Kind::Config(kind) => config::config(place, kind),
        Kind::Deployment | Kind::Pod | Kind::Job | Kind::Claim => None,
    }
}

/// What a document is, if it is a claim.
#[must_use]
pub fn claim(place: &Place<'_>) -> Option<Claim> {
    if is_claim(place) { claim::claim(place) } else { None }
}

fn is_claim(place: &Place<'_>) -> bool {
    matches!(kind_of(place), Some(Kind::Claim))
}

/// What a document runs, if it is anything else. Images that its containers run
/// are added to `images`.
pub fn workload(
    place: &Place<'_>,
    context: Context<'_>,
    images: &mut BTreeMap<Digest, Image>,
) -> Option<Deployment> {
    annotations::check(place);
    match kind_of(place) {
        Some(Kind::Deployment) => workload::deployment(place, context, images),
        Some(Kind::Pod) => workload::pod(place, context, images),
        Some(Kind::Job) => workload::job(place, context, images),
        Some(Kind::Config(_) | Kind::Claim) => None,
        None => {
            let (api, kind) = (top(place, "apiVersion"), top(place, "kind"));
            place.refuse(
                format!("apiVersion `{api}`, kind `{kind}`"),
                "use apps/v1 Deployment, batch/v1 Job, or v1 Pod, ConfigMap, Secret or \
                 PersistentVolumeClaim",
            );
            None
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Deployment,
    Pod,
    Job,
    Config(ConfigKind),
    Claim,
}

fn kind_of(place: &Place<'_>) -> Option<Kind> {
    match (top(place, "apiVersion").as_str(), top(place, "kind").as_str()) {
        ("apps/v1", "Deployment") => Some(Kind::Deployment),
        ("batch/v1", "Job") => Some(Kind::Job),
        ("v1", "Pod") => Some(Kind::Pod),
        ("v1", "ConfigMap") => Some(Kind::Config(ConfigKind::ConfigMap)),
        ("v1", "Secret") => Some(Kind::Config(ConfigKind::Secret)),
        ("v1", "PersistentVolumeClaim") => Some(Kind::Claim),
        _ => None,
    }
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
