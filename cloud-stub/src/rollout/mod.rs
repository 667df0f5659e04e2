//! Rollouts: a version becomes part of what some nodes shall run, and each of
//! them gets a new signed bundle of all its applications.
//!
//! All or nothing: one node that cannot take it stops the whole rollout, with
//! the reasons of all nodes. Never here: MQTT.

mod compiler;
mod export;

use std::sync::PoisonError;

use wherry_bundle::envelope::{self, EnvelopeError};
use wherry_bundle::{Bundle, Generation, Name};

pub use export::{Export, WriteError, prepare as export};

use crate::clock::now_millis;
use crate::cloud::Cloud;
use crate::db::rollout::Given;
use crate::db::site::Queued;
use crate::db::{self, DbError};
use crate::limits::ROLLOUT_NODES_MAX;
use crate::selector::{InvalidSelector, Selector};
use crate::view::{Node, Rollout, RolloutRequest, VersionId};
use compiler::Compiler;

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
    /// Of an export.
    #[error("{what} is not of project `{project}`, as application `{application}` is")]
    OtherProject { what: String, project: Name, application: Name },
    #[error("project `{0}` has no node")]
    NoNodes(Name),
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
    let mut compiler = Compiler::new(cloud);
    // One that does not exist is an error of the request, not of each node.
    compiler.load(version)?;
    let mut prepared = Vec::new();
    let mut problems = Vec::new();
    for node in nodes {
        let wanted = wanted(cloud, &node.name, version)?;
        match compiler.bundle(&node, &wanted)? {
            Ok(bundle) => prepared.push(Prepared { node, bundle }),
            Err(found) => {
                problems.extend(found.into_iter().map(|what| format!("{}: {what}", node.name)));
            }
        }
    }
    if problems.is_empty() { Ok(prepared) } else { Err(refused(problems)) }
}

/// All that the node shall run once it was given `version`.
fn wanted(cloud: &Cloud, node: &Name, version: &VersionId) -> Result<Vec<VersionId>, DbError> {
    let mut wanted = cloud.db.read(|c| db::rollout::assigned(c, node))?;
    wanted.retain(|assigned| assigned.application != version.application);
    wanted.push(version.clone());
    wanted.sort();
    Ok(wanted)
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
            let sealed = envelope::seal(&bundle, &cloud.key).map_err(|e| not_sealed(&node, &e))?;
            db::rollout::assign(tx, &node.name, &version.application, row)?;
            db::carried::forget(tx, &node.name)?;
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

fn not_sealed(node: &Node, error: &EnvelopeError) -> RolloutError {
    refused(vec![format!("{}: {error}", node.name)])
}

fn refused(mut problems: Vec<String>) -> RolloutError {
    let count = problems.len();
    problems.truncate(PROBLEMS_MAX);
    if count > PROBLEMS_MAX {
        problems.push(format!("and {} more", count - PROBLEMS_MAX));
    }
    RolloutError::Refused(problems)
}
