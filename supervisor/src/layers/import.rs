//! Layers out of a file that a person brought ([`wherry_bundle::carrier`]).
//!
//! Nothing in the file is trusted: lists and chunks have to be those that a
//! signed bundle names. What was imported before the file turned out to be
//! damaged is kept, and need not come again. Never here: bundles.

use std::collections::BTreeMap;

use wherry_bundle::Digest;
use wherry_bundle::carrier::Item;
use wherry_bundle::model::Layer;

use super::{Assembly, LayerError, Layers, Step, WantedLayer};

/// Why a file does not help.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error(
        "the file lacks chunk {chunk} of layer {layer}, and this node does not hold it: export \
         the version without --since, or since a version that this node runs"
    )]
    Lacks { layer: Digest, chunk: Digest },
    #[error("the file lacks layer {layer}, which the bundle needs")]
    NoLayer { layer: Digest },
    #[error("layer {layer}: a chunk list that the bundle does not name: the file is damaged")]
    OtherList { layer: Digest },
    #[error("the file is out of order: {0}")]
    Order(&'static str),
}

/// What came out of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub layers: u32,
    /// From the file, and found on this node.
    pub bytes_supplied: u64,
    pub bytes_copied: u64,
}

#[derive(Debug)]
pub struct Import {
    layers: Layers,
    wanted: BTreeMap<Digest, WantedLayer>,
    current: Current,
    imported: Imported,
}

#[derive(Debug)]
enum Current {
    /// What follows is of no use here.
    Skipped,
    Lists {
        wanted: WantedLayer,
        came: Vec<Vec<u8>>,
    },
    Chunks(Box<Assembly>),
}

impl Import {
    /// Takes those of the `wanted` layers that are not whole.
    #[must_use]
    pub fn new(layers: Layers, wanted: Vec<WantedLayer>) -> Self {
        let wanted = wanted.into_iter().filter(|wanted| !layers.is_whole(&wanted.layer));
        let wanted = wanted.map(|wanted| (wanted.layer.digest, wanted)).collect();
        Self { layers, wanted, current: Current::Skipped, imported: Imported::default() }
    }

    /// Takes in the next item of the file, in its order.
    ///
    /// # Errors
    /// [`ImportError`]; then the rest of the file is of no use.
    pub fn take(&mut self, item: Item) -> Result<(), ImportError> {
        match item {
            Item::Start(_) | Item::Envelope { .. } => {
                Err(ImportError::Order("a bundle behind the first layer"))
            }
            Item::Layer(layer) => {
                self.finish_current()?;
                self.begin(layer)
            }
            Item::List(bytes) => self.list(bytes),
            Item::Chunk(bytes) => self.chunk(&bytes),
            Item::End => self.finish_current(),
        }
    }

    /// After [`Item::End`].
    ///
    /// # Errors
    /// A layer that was not in the file.
    pub fn finish(self) -> Result<Imported, ImportError> {
        match self.wanted.into_keys().next() {
            Some(layer) => Err(ImportError::NoLayer { layer }),
            None => Ok(self.imported),
        }
    }

    fn begin(&mut self, layer: Layer) -> Result<(), ImportError> {
        let known = self.wanted.get(&layer.digest).filter(|wanted| wanted.layer == layer);
        self.current = match known.cloned() {
            None => Current::Skipped,
            Some(wanted) if self.layers.has_lists(&layer, &wanted.lists) => {
                Current::Chunks(Box::new(Assembly::begin(&self.layers, layer)?))
            }
            Some(wanted) => Current::Lists { wanted, came: Vec::new() },
        };
        Ok(())
    }

    fn list(&mut self, bytes: Vec<u8>) -> Result<(), ImportError> {
        // Else the lists are there already, or of no use.
        let Current::Lists { wanted, came } = &mut self.current else { return Ok(()) };
        let layer = wanted.layer;
        if wanted.lists.get(came.len()) != Some(&Digest::of(&bytes)) {
            return Err(ImportError::OtherList { layer: layer.digest });
        }
        came.push(bytes);
        if came.len() == wanted.lists.len() {
            self.layers.put_lists(&layer, came)?;
            self.current = Current::Chunks(Box::new(Assembly::begin(&self.layers, layer)?));
        }
        Ok(())
    }

    fn chunk(&mut self, bytes: &[u8]) -> Result<(), ImportError> {
        match &mut self.current {
            Current::Skipped => Ok(()),
            Current::Lists { .. } => Err(ImportError::Order("a chunk before all chunk lists")),
            Current::Chunks(assembly) => {
                // One that is not needed next is on this node already.
                if let Some(needed) = needed(assembly)?
                    && needed == Digest::of(bytes)
                {
                    assembly.supply(bytes)?;
                }
                Ok(())
            }
        }
    }

    fn finish_current(&mut self) -> Result<(), ImportError> {
        match std::mem::replace(&mut self.current, Current::Skipped) {
            Current::Skipped => Ok(()),
            Current::Lists { .. } => Err(ImportError::Order("a layer without all chunk lists")),
            Current::Chunks(mut assembly) => {
                let layer = assembly.layer().digest;
                if let Some(chunk) = needed(&mut assembly)? {
                    return Err(ImportError::Lacks { layer, chunk });
                }
                self.imported.layers += 1;
                self.imported.bytes_supplied += assembly.supplied_bytes();
                self.imported.bytes_copied += assembly.copied_bytes();
                assembly.finish()?;
                self.wanted.remove(&layer);
                Ok(())
            }
        }
    }
}

/// Adds what is on this node; the chunk that is needed then, if any.
fn needed(assembly: &mut Assembly) -> Result<Option<Digest>, LayerError> {
    loop {
        match assembly.advance()? {
            Step::More => {}
            Step::Needs(located) => return Ok(Some(located.chunk.digest)),
            Step::Whole => return Ok(None),
        }
    }
}
