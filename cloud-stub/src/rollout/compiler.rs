//! Versions compiled to the bundle of one node.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use wherry_bundle::envelope;
use wherry_bundle::health::UpgradePolicy;
use wherry_bundle::model::{Bundle, Claim, Config, ConfigRef, Deployment, Image, VersionRef};
use wherry_bundle::{Digest, Generation, Name};

use crate::architecture;
use crate::cloud::Cloud;
use crate::db::version::StoredVersion;
use crate::db::{self, DbError};
use crate::image::{ImageInfo, reference::familiar};
use crate::version::{self, Compiled};
use crate::view::{Node, VersionId};

/// Versions and what they compile to, each once a rollout.
pub(super) struct Compiler<'a> {
    cloud: &'a Cloud,
    versions: HashMap<VersionId, StoredVersion>,
    compiled: HashMap<(VersionId, String), Result<Compiled, Vec<String>>>,
    chunk_lists: HashMap<Digest, Vec<Digest>>,
}

impl<'a> Compiler<'a> {
    pub fn new(cloud: &'a Cloud) -> Self {
        let (versions, compiled) = (HashMap::new(), HashMap::new());
        Self { cloud, versions, compiled, chunk_lists: HashMap::new() }
    }

    pub fn load(&mut self, id: &VersionId) -> Result<&StoredVersion, DbError> {
        if !self.versions.contains_key(id) {
            let stored = self.cloud.db.read(|c| db::version::load(c, id))?;
            self.versions.insert(id.clone(), stored);
        }
        self.versions.get(id).ok_or_else(|| DbError::version_not_found(&id.application, id.number))
    }

    /// The bundle of all `wanted` versions, or why there cannot be one.
    pub fn bundle(
        &mut self,
        node: &Node,
        wanted: &[VersionId],
    ) -> Result<Result<Bundle, Vec<String>>, DbError> {
        let mut parts = Parts::default();
        let mut versions = Vec::new();
        let mut problems = Vec::new();
        let mut upgrade: Option<UpgradePolicy> = None;
        for id in wanted {
            let package = &self.load(id)?.package;
            let description = package.description.clone();
            upgrade = Some(upgrade.map_or(package.upgrade, |of| of.patient_as(package.upgrade)));
            versions.push(VersionRef {
                application: id.application.clone(),
                number: id.number,
                description,
            });
            match self.compile(id, node)? {
                Ok(compiled) => parts.add(compiled, &mut problems),
                Err(found) => problems.extend(found.iter().cloned()),
            }
        }
        let images: Vec<Image> = parts.images.into_values().collect();
        let chunk_lists = self.chunk_lists(&images, &mut problems)?;
        let bundle = Bundle {
            node: node.name.clone(),
            // Stands for the one that it will get.
            generation: Generation(1),
            versions,
            deployments: parts.deployments.into_values().collect(),
            configs: parts.configs.into_values().map(|(_, config)| config).collect(),
            claims: parts.claims.into_values().map(|(_, claim)| claim).collect(),
            images,
            chunk_lists,
            upgrade: upgrade.unwrap_or_default(),
        };
        if problems.is_empty()
            && let Err(error) = envelope::seal(&bundle, &self.cloud.key)
        {
            problems.push(error.to_string());
        }
        Ok(if problems.is_empty() { Ok(bundle) } else { Err(problems) })
    }

    /// The layers of a version as it is compiled for the node, or why it
    /// cannot be.
    pub fn layers(
        &mut self,
        id: &VersionId,
        node: &Node,
    ) -> Result<Result<BTreeSet<Digest>, Vec<String>>, DbError> {
        Ok(match self.compile(id, node)? {
            Ok(compiled) => {
                let layers = compiled.images.iter().flat_map(|image| &image.layers);
                Ok(layers.map(|layer| layer.digest).collect())
            }
            Err(problems) => Err(problems.clone()),
        })
    }

    /// How the layers of `images` are cut.
    fn chunk_lists(
        &mut self,
        images: &[Image],
        problems: &mut Vec<String>,
    ) -> Result<BTreeMap<Digest, Vec<Digest>>, DbError> {
        let mut lists = BTreeMap::new();
        for layer in images.iter().flat_map(|image| &image.layers).map(|layer| layer.digest) {
            if !self.chunk_lists.contains_key(&layer) {
                let found = self.cloud.db.read(|c| db::chunk::list_digests(c, &layer))?;
                self.chunk_lists.insert(layer, found);
            }
            match self.chunk_lists.get(&layer).filter(|lists| !lists.is_empty()) {
                Some(found) => _ = lists.insert(layer, found.clone()),
                None => problems.push(format!(
                    "layer {} is not cut into chunks: its file is missing or damaged, import its \
                     image again",
                    layer.short()
                )),
            }
        }
        Ok(lists)
    }

    fn compile(
        &mut self,
        id: &VersionId,
        node: &Node,
    ) -> Result<&Result<Compiled, Vec<String>>, DbError> {
        let key = (id.clone(), format!("{} {}", node.architecture, node.product_type));
        if !self.compiled.contains_key(&key) {
            let compiled = compile(self.load(id)?, node);
            self.compiled.insert(key.clone(), compiled);
        }
        self.compiled
            .get(&key)
            .ok_or_else(|| DbError::version_not_found(&id.application, id.number))
    }
}

/// Compiles one version for nodes of one kind.
fn compile(stored: &StoredVersion, node: &Node) -> Result<Compiled, Vec<String>> {
    let StoredVersion { id, package, images, .. } = stored;
    if package.product_type != node.product_type {
        return Err(vec![format!(
            "{id} is for {}, and the node is {}",
            package.product_type, node.product_type
        )]);
    }
    let references: BTreeSet<&str> = images.iter().map(|info| info.reference.as_str()).collect();
    let mut found: BTreeMap<&str, &ImageInfo> = BTreeMap::new();
    let mut problems = Vec::new();
    for reference in references {
        let offered: Vec<&ImageInfo> =
            images.iter().filter(|info| info.reference == reference).collect();
        let names: Vec<&str> = offered.iter().map(|info| info.architecture.as_str()).collect();
        let best = architecture::best(&node.architecture, &names);
        match offered.iter().find(|info| Some(info.architecture.as_str()) == best) {
            Some(info) => _ = found.insert(reference, *info),
            None => problems.push(format!(
                "image `{reference}` of {id} is not there for {}, only for {}: import it, then \
                 create the version again",
                node.architecture,
                names.join(", ")
            )),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let lookup = |name: &str| found.get(familiar(name).as_str()).map(|info| (*info).clone());
    version::compile(package, &lookup)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// What several versions come to together.
#[derive(Default)]
struct Parts {
    deployments: BTreeMap<Name, Deployment>,
    configs: BTreeMap<ConfigRef, (Option<Name>, Config)>,
    claims: BTreeMap<Name, (Option<Name>, Claim)>,
    images: BTreeMap<Digest, Image>,
}

impl Parts {
    fn add(&mut self, compiled: &Compiled, problems: &mut Vec<String>) {
        let application = compiled.deployments.first().map(|d| d.application.clone());
        for deployment in &compiled.deployments {
            let other = self.deployments.insert(deployment.name.clone(), deployment.clone());
            if let Some(other) = other {
                problems.push(format!(
                    "the applications `{}` and `{}` both have a deployment `{}`: names are unique \
                     on a node",
                    other.application, deployment.application, deployment.name
                ));
            }
        }
        for config in &compiled.configs {
            let entry = (application.clone(), config.clone());
            if let Some((other, _)) = self.configs.insert(config.key.clone(), entry) {
                let what = format!("{:?} `{}`", config.key.kind, config.key.name);
                problems.push(both_have(other.as_ref(), application.as_ref(), &what));
            }
        }
        for claim in &compiled.claims {
            let entry = (application.clone(), claim.clone());
            if let Some((other, _)) = self.claims.insert(claim.name.clone(), entry) {
                let what = format!("PersistentVolumeClaim `{}`", claim.name);
                problems.push(both_have(other.as_ref(), application.as_ref(), &what));
            }
        }
        for image in &compiled.images {
            self.images.insert(image.digest, image.clone());
        }
    }
}

fn both_have(one: Option<&Name>, other: Option<&Name>, what: &str) -> String {
    let [one, other] = [one, other].map(|name| name.map_or("?", Name::as_str));
    format!("the applications `{one}` and `{other}` both have a {what}: names are unique on a node")
}
