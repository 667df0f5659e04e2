//! A version for nodes without a line, as one file that a person carries.
//!
//! Each node gets a signed bundle as in a rollout, but it is neither published
//! nor issued: see [`db::carried`]. Never here: HTTP.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError};

use rusqlite::Connection;
use wherry_bundle::carrier::{self, Item, Start};
use wherry_bundle::chunk::{Chunk, ChunkList, ChunkListError};
use wherry_bundle::model::Layer;
use wherry_bundle::{Bundle, Digest, Generation, Name, envelope};

use super::compiler::Compiler;
use super::{Prepared, RolloutError, not_sealed, refused, wanted};
use crate::chunks::{self, ReadError};
use crate::cloud::Cloud;
use crate::db::{self, DbError};
use crate::limits::ROLLOUT_NODES_MAX;
use crate::view::{ExportRequest, Node, Recipients, VersionId};

/// Why a file breaks off.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("its reader went away")]
    Gone,
    #[error("layer {}: {source}", .layer.short())]
    Read { layer: Digest, source: ReadError },
    #[error("layer {}: {source}", .layer.short())]
    Lists { layer: Digest, source: ChunkListError },
    #[error("an item: {0}")]
    Item(String),
}

/// What a file will hold; layers are read when it is written.
#[derive(Debug)]
pub struct Export {
    start: Start,
    envelopes: Vec<(Name, Vec<u8>)>,
    layers: Vec<Part>,
    /// It is for one node, which holds what came earlier in the file.
    one_node: bool,
}

/// A layer in the file.
#[derive(Debug)]
struct Part {
    layer: Layer,
    lists: Vec<Digest>,
    /// What those who need it hold, for each of their architectures.
    held: BTreeMap<String, Held>,
}

/// Chunks that a node has already.
type Held = Arc<HashSet<Digest>>;

/// Compiles and keeps a bundle for each node. Exporting the same again gives
/// the same bundle, unless the node tried it in vain.
///
/// # Errors
/// [`RolloutError`]; then nothing was changed. Of a project's nodes those that
/// cannot take the version are left out, as long as one can.
pub fn prepare(cloud: &Cloud, request: &ExportRequest) -> Result<Export, RolloutError> {
    let _one_at_a_time = cloud.rollouts.lock().unwrap_or_else(PoisonError::into_inner);
    let ExportRequest { version, since, to } = request;
    let nodes = select(cloud, &version.application, to)?;
    let mut compiler = Compiler::new(cloud);
    // What does not exist is an error of the request, not of each node.
    for version in since.iter().chain([version]) {
        compiler.load(version)?;
    }
    let mut held = BTreeMap::new();
    let mut prepared = Vec::new();
    let mut problems = Vec::new();
    for node in nodes {
        let bundle = compiler.bundle(&node, &wanted(cloud, &node.name, version)?)?;
        let since = since
            .as_ref()
            .map_or(Ok(Ok(())), |since| hold(cloud, &mut compiler, since, &node, &mut held))?;
        match since.and(bundle) {
            Ok(bundle) => prepared.push(Prepared { node, bundle }),
            Err(found) => {
                problems.extend(found.into_iter().map(|what| format!("{}: {what}", node.name)));
            }
        }
    }
    if prepared.is_empty() {
        return Err(refused(problems));
    }
    let layers = parts(&prepared, &held);
    let envelopes = cloud.db.write(|tx| {
        let row = db::version::load(tx, version)?.row;
        prepared.into_iter().map(|prepared| give(tx, cloud, prepared, row)).collect()
    });
    Ok(Export {
        start: Start {
            version: version.to_string(),
            since: since.as_ref().map(ToString::to_string),
        },
        envelopes: envelopes?,
        layers,
        one_node: matches!(to, Recipients::Node(_)),
    })
}

fn select(cloud: &Cloud, application: &Name, to: &Recipients) -> Result<Vec<Node>, RolloutError> {
    let project = cloud.db.read(|c| db::application::show(c, application))?.project;
    let (what, own, nodes) = cloud.db.read(|c| {
        Ok::<_, DbError>(match to {
            Recipients::Node(name) => {
                let node = db::node::show(c, name)?;
                (format!("node `{name}`"), node.project.clone(), vec![node])
            }
            Recipients::AnyOfProject(name) => {
                let own = db::project::show(c, name)?.name;
                (format!("project `{name}`"), own, db::node::of_project(c, name)?)
            }
        })
    })?;
    if own != project {
        let application = application.clone();
        return Err(RolloutError::OtherProject { what, project, application });
    }
    match nodes.len() {
        0 => Err(RolloutError::NoNodes(project)),
        1..=ROLLOUT_NODES_MAX => Ok(nodes),
        count => Err(RolloutError::TooManyNodes(count)),
    }
}

/// Notes what nodes of this architecture hold that run `since`.
fn hold(
    cloud: &Cloud,
    compiler: &mut Compiler<'_>,
    since: &VersionId,
    node: &Node,
    held: &mut BTreeMap<String, Held>,
) -> Result<Result<(), Vec<String>>, DbError> {
    if held.contains_key(&node.architecture) {
        return Ok(Ok(()));
    }
    let layers = match compiler.layers(since, node)? {
        Ok(layers) => layers,
        Err(problems) => return Ok(Err(problems)),
    };
    let chunks = cloud.db.read(|c| db::chunk::of_layers(c, &layers))?;
    held.insert(node.architecture.clone(), Arc::new(chunks));
    Ok(Ok(()))
}

/// The layers of all bundles, each once.
fn parts(prepared: &[Prepared], held: &BTreeMap<String, Held>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut index: BTreeMap<Digest, usize> = BTreeMap::new();
    for Prepared { node, bundle } in prepared {
        for layer in bundle.images.iter().flat_map(|image| &image.layers) {
            let at = *index.entry(layer.digest).or_insert_with(|| {
                let lists = bundle.chunk_lists.get(&layer.digest).cloned().unwrap_or_default();
                parts.push(Part { layer: *layer, lists, held: BTreeMap::new() });
                parts.len() - 1
            });
            let own = held.get(&node.architecture).cloned().unwrap_or_default();
            parts[at].held.insert(node.architecture.clone(), own);
        }
    }
    parts
}

/// The node's envelope for this bundle, the one that it was given last if
/// that is the same and may still be taken.
fn give(
    connection: &Connection,
    cloud: &Cloud,
    Prepared { node, mut bundle }: Prepared,
    version_row: i64,
) -> Result<(Name, Vec<u8>), RolloutError> {
    // It may have changed or gone since it was selected.
    let node = db::node::show(connection, &node.name)?;
    let last = db::rollout::last_generation(connection, &node.name)?;
    let given = [
        db::carried::envelope(connection, &node.name)?,
        db::rollout::envelope(connection, &node.name)?,
    ];
    let same = |bytes: &Vec<u8>| {
        bundle.generation = last;
        // One that an earlier version sealed does not open: it is another.
        envelope::open_kept(bytes, &node.name).is_ok_and(|given: Bundle| given == bundle)
    };
    if let Some(bytes) = given.into_iter().flatten().find(same)
        && !tried_in_vain(&node, last)
    {
        return Ok((node.name, bytes));
    }
    bundle.generation = db::rollout::next_generation(connection, &node.name)?;
    let sealed = envelope::seal(&bundle, &cloud.key).map_err(|error| not_sealed(&node, &error))?;
    db::carried::put(connection, &node.name, bundle.generation, version_row, &sealed)?;
    Ok((node.name, sealed))
}

/// The node does not take this generation again.
fn tried_in_vain(node: &Node, generation: Generation) -> bool {
    node.refused.as_ref().is_some_and(|refused| refused.generation == generation)
        || node.failed.as_ref().is_some_and(|failed| failed.generation == generation)
}

impl Export {
    /// Writes the file, piece by piece; `sink` is false when nobody wants more.
    /// Holds one chunk in memory, and a layer's chunk lists.
    ///
    /// # Errors
    /// [`WriteError`]; what was written so far is no whole file.
    pub fn write(
        self,
        cloud: &Cloud,
        mut sink: impl FnMut(Vec<u8>) -> bool,
    ) -> Result<(), WriteError> {
        let mut put = |item: Item| {
            let mut frame = Vec::new();
            carrier::write(&mut frame, &item).map_err(|e| WriteError::Item(e.to_string()))?;
            if sink(frame) { Ok(()) } else { Err(WriteError::Gone) }
        };
        put(Item::Start(self.start))?;
        for (node, bytes) in self.envelopes {
            put(Item::Envelope { node, bytes })?;
        }
        let mut written = HashSet::new();
        for Part { layer, lists, held } in &self.layers {
            if !self.one_node {
                written.clear();
            }
            let failed = |source| WriteError::Read { layer: layer.digest, source };
            let read =
                |digest: &Digest| chunks::read(&cloud.db, &cloud.blobs, digest).map_err(failed);
            put(Item::Layer(*layer))?;
            let lists = lists.iter().map(read).collect::<Result<Vec<_>, _>>()?;
            let chunks = ChunkList::join(lists.iter().map(Vec::as_slice), layer.size_bytes)
                .map_err(|source| WriteError::Lists { layer: layer.digest, source })?;
            for list in lists {
                put(Item::List(list))?;
            }
            for Chunk { digest, .. } in chunks {
                let everybody_has = held.values().all(|held| held.contains(&digest));
                if !everybody_has && written.insert(digest) {
                    put(Item::Chunk(read(&digest)?))?;
                }
            }
        }
        put(Item::End)
    }
}
