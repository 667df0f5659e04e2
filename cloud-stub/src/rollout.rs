//! Rollouts: a version becomes part of what some nodes shall run, and each of
//! them gets a new signed bundle of all its applications.
//!
//! All or nothing: one node that cannot take it stops the whole rollout, with
//! the reasons of all nodes. Never here: MQTT.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::PoisonError;

use wherry_bundle::envelope::{self, EnvelopeError};
use wherry_bundle::health::UpgradePolicy;
use wherry_bundle::model::{Bundle, Config, ConfigRef, Deployment, Image, VersionRef};
use wherry_bundle::{Digest, Generation, Name};

use crate::architecture;
use crate::clock::now_millis;
use crate::cloud::Cloud;
use crate::db::rollout::Given;
use crate::db::site::Queued;
use crate::db::version::StoredVersion;
use crate::db::{self, DbError};
use crate::image::{ImageInfo, reference::familiar};
use crate::limits::ROLLOUT_NODES_MAX;
use crate::selector::{InvalidSelector, Selector};
use crate::version::{self, Compiled};
use crate::view::{Node, Rollout, RolloutRequest, VersionId};

/// Problems that one answer lists.
const PROBLEMS_MAX: usize = 100;

/// Why a rollout did not start.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    #[error(transparent)]
    Selector(#[from] InvalidSelector),
    #[error("`{selector}` selects no node of project `{project}`")]
    NoNode { selector: Selector, project: Name },
    #[error("{0} nodes at once are too many (at most {ROLLOUT_NODES_MAX}): use narrower selectors")]
    TooManyNodes(usize),
    /// A line each, with the node's name.
    #[error("the version cannot go to these nodes")]
    Refused(Vec<String>),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// A node with its next bundle; its generation is not given yet.
struct Prepared {
    node: Node,
    bundle: Bundle,
}

/// A rollout that was stored, and what follows from it.
#[derive(Debug)]
pub struct Started {
    pub rollout: Rollout,
    /// Nodes whose bundle is to be published now ([`Cloud::publish_desired`]).
    pub due: Vec<Name>,
}

/// Compiles and stores a bundle for each selected node. A dry run stores
/// nothing.
///
/// # Errors
/// [`RolloutError`]; then nothing was changed.
pub fn start(cloud: &Cloud, request: &RolloutRequest) -> Result<Started, RolloutError> {
    let selector: Selector = request.nodes.parse()?;
    let _one_at_a_time = cloud.rollouts.lock().unwrap_or_else(PoisonError::into_inner);
    let nodes = select(cloud, request, &selector)?;
    let prepared = prepare(cloud, &request.version, nodes)?;
    if request.dry_run {
        dry_run(cloud, request, prepared)
    } else {
        store(cloud, request, prepared)
    }
}

fn select(
    cloud: &Cloud,
    request: &RolloutRequest,
    selector: &Selector,
) -> Result<Vec<Node>, RolloutError> {
    let (project, mut nodes) = cloud.db.read(|c| {
        let project = db::application::show(c, &request.version.application)?.project;
        let nodes = db::node::of_project(c, &project)?;
        Ok::<_, DbError>((project, nodes))
    })?;
    nodes.retain(|node| selector.matches(&node.name, &node.labels));
    match nodes.len() {
        0 => Err(RolloutError::NoNode { selector: selector.clone(), project }),
        1..=ROLLOUT_NODES_MAX => Ok(nodes),
        count => Err(RolloutError::TooManyNodes(count)),
    }
}

fn prepare(
    cloud: &Cloud,
    version: &VersionId,
    nodes: Vec<Node>,
) -> Result<Vec<Prepared>, RolloutError> {
    let mut compiler = Compiler { cloud, versions: HashMap::new(), compiled: HashMap::new() };
    // One that does not exist is an error of the request, not of each node.
    compiler.load(version)?;
    let mut prepared = Vec::new();
    let mut problems = Vec::new();
    for node in nodes {
        let mut wanted = cloud.db.read(|c| db::rollout::assigned(c, &node.name))?;
        wanted.retain(|assigned| assigned.application != version.application);
        wanted.push(version.clone());
        wanted.sort();
        match compiler.bundle(&node, &wanted)? {
            Ok(bundle) => prepared.push(Prepared { node, bundle }),
            Err(found) => {
                problems.extend(found.into_iter().map(|what| format!("{}: {what}", node.name)));
            }
        }
    }
    if problems.is_empty() {
        return Ok(prepared);
    }
    let count = problems.len();
    problems.truncate(PROBLEMS_MAX);
    if count > PROBLEMS_MAX {
        problems.push(format!("and {} more", count - PROBLEMS_MAX));
    }
    Err(RolloutError::Refused(problems))
}

/// Versions and what they compile to, each once a rollout.
struct Compiler<'a> {
    cloud: &'a Cloud,
    versions: HashMap<VersionId, StoredVersion>,
    compiled: HashMap<(VersionId, String), Result<Compiled, Vec<String>>>,
}

impl Compiler<'_> {
    fn load(&mut self, id: &VersionId) -> Result<&StoredVersion, DbError> {
        if !self.versions.contains_key(id) {
            let stored = self.cloud.db.read(|c| db::version::load(c, id))?;
            self.versions.insert(id.clone(), stored);
        }
        self.versions.get(id).ok_or_else(|| DbError::version_not_found(&id.application, id.number))
    }

    /// The bundle of all `wanted` versions, or why there cannot be one.
    fn bundle(
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
        let bundle = Bundle {
            node: node.name.clone(),
            // Stands for the one that it will get.
            generation: Generation(1),
            versions,
            deployments: parts.deployments.into_values().collect(),
            configs: parts.configs.into_values().map(|(_, config)| config).collect(),
            images: parts.images.into_values().collect(),
            upgrade: upgrade.unwrap_or_default(),
        };
        if problems.is_empty()
            && let Err(error) = envelope::seal(&bundle, &self.cloud.key)
        {
            problems.push(error.to_string());
        }
        Ok(if problems.is_empty() { Ok(bundle) } else { Err(problems) })
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
                let name = |name: Option<&Name>| name.map_or("?", Name::as_str).to_owned();
                problems.push(format!(
                    "the applications `{}` and `{}` both have a {:?} `{}`: names are unique on a \
                     node",
                    name(other.as_ref()),
                    name(application.as_ref()),
                    config.key.kind,
                    config.key.name
                ));
            }
        }
        for image in &compiled.images {
            self.images.insert(image.digest, image.clone());
        }
    }
}

fn store(
    cloud: &Cloud,
    request: &RolloutRequest,
    prepared: Vec<Prepared>,
) -> Result<Started, RolloutError> {
    cloud.db.write(|tx| {
        let version = &request.version;
        let row = db::version::load(tx, version)?.row;
        let (mut given, mut queued, mut due) = (Vec::new(), Vec::new(), Vec::new());
        for Prepared { node, mut bundle } in prepared {
            // It may have been removed since it was selected.
            db::node::show(tx, &node.name)?;
            bundle.generation = db::rollout::next_generation(tx, &node.name)?;
            let sealed = envelope::seal(&bundle, &cloud.key).map_err(|e| refused(&node, &e))?;
            db::rollout::assign(tx, &node.name, &version.application, row)?;
            let (site, generation) = (db::site::of(&node).map(str::to_owned), bundle.generation);
            match &site {
                Some(site) => queued.push((node.name.clone(), site.clone(), generation, sealed)),
                None => {
                    db::rollout::issue(tx, &node.name, generation, &sealed)?;
                    due.push(node.name.clone());
                }
            }
            given.push(Given { node: node.name, site, generation });
        }
        let id = db::rollout::add(tx, version, &request.nodes, &given, now_millis())?;
        for (node, site, generation, envelope) in &queued {
            let (generation, envelope) = (*generation, envelope.as_slice());
            db::site::queue(tx, id, &Queued { node, site, generation, envelope })?;
        }
        due.extend(db::site::advance(tx)?);
        Ok(Started { rollout: db::rollout::show(tx, id)?, due })
    })
}

fn dry_run(
    cloud: &Cloud,
    request: &RolloutRequest,
    prepared: Vec<Prepared>,
) -> Result<Started, RolloutError> {
    let nodes = cloud.db.read(|c| {
        prepared
            .into_iter()
            .map(|Prepared { mut node, .. }| {
                let next = db::rollout::last_generation(c, &node.name)?.0 + 1;
                node.generation_wanted = Generation(next);
                Ok(db::rollout::rollout_node(node, Generation(next), false, false))
            })
            .collect::<Result<_, DbError>>()
    })?;
    let rollout = Rollout {
        id: None,
        version: request.version.clone(),
        selector: request.nodes.clone(),
        created_at: now_millis(),
        nodes,
    };
    Ok(Started { rollout, due: Vec::new() })
}

fn refused(node: &Node, error: &EnvelopeError) -> RolloutError {
    RolloutError::Refused(vec![format!("{}: {error}", node.name)])
}
