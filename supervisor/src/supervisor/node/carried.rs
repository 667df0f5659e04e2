//! Updates that a person brought: judged as those of the cloud are, and taken
//! up once their layers are here.

use wherry_bundle::{Bundle, Digest};
use wherry_core::Millis;

use super::Node;
use crate::control::{Applied, Response};
use crate::layers::{Imported, WantedLayer};
use crate::supervisor::judge::{Verdict, judge};

impl Node {
    /// The layers that a carried bundle needs; or why it is refused. Until its
    /// end is told, the agent fetches nothing: both would build one layer.
    pub(super) fn offered(
        &mut self,
        envelope: &[u8],
        now: Millis,
    ) -> Result<Vec<WantedLayer>, String> {
        let trusted = &self.config.trusted_keys;
        let bundle = match judge(envelope, trusted, &self.config.node, self.durable.held()) {
            Verdict::TakeUp(bundle) => {
                // What else is lacking is told at the end, before it is taken up.
                let lacks = self.kernel_lacks().unwrap_or_default();
                let reasons = self.reasons_against(&bundle, lacks);
                if !reasons.is_empty() {
                    return Err(reasons.join("; "));
                }
                self.brought = Some(bundle.generation);
                *bundle
            }
            // Its layers may still be on their way.
            Verdict::Same => self.bundle.clone().ok_or("there is no bundle")?,
            Verdict::Failed => return Err(self.failed_before()),
            Verdict::Nothing => return Err("the bundle is empty".into()),
            Verdict::Refuse(refused) => {
                self.refuse(&refused, now);
                return Err(format!("the bundle is refused: {}", refused.reason));
            }
        };
        self.is_applying = true;
        self.want_layers();
        Ok(wanted_layers(&bundle))
    }

    /// The end of an offer.
    pub(super) fn applied(
        &mut self,
        applied: Option<(Vec<u8>, Imported)>,
        now: Millis,
    ) -> Response {
        self.is_applying = false;
        self.observed.layers = self.durable.present(self.bundle.as_ref());
        let (layers, fetching) = (&self.observed.layers, &mut self.observed.fetching);
        fetching.retain(|layer| !layers.contains(&layer.digest));
        self.look_for_mended(now);
        self.want_layers();
        let Some((envelope, imported)) = applied else { return Response::Done };
        let digest = Digest::of(&envelope);
        self.judge(envelope, None, now);
        let current = self.durable.held().current.filter(|(_, current)| *current == digest);
        let (generation, outcome) = match (current, self.held()) {
            (Some((generation, _)), _) => (generation, "is taken up".into()),
            (None, Some(held)) => (held.generation, format!("is held: {}", held.by)),
            (None, None) => return Response::Error(self.why_not()),
        };
        Response::Applied(Applied {
            generation,
            outcome,
            layers: imported.layers,
            bytes_supplied: imported.bytes_supplied,
            bytes_copied: imported.bytes_copied,
        })
    }

    /// Why the last bundle was not taken up.
    fn why_not(&self) -> String {
        if self.unchecked.is_some() {
            return "it is looked first whether this machine can run it: `wherry status` tells"
                .into();
        }
        match (&self.uncommitted, self.durable.refused()) {
            (Some(_), _) => "the disk does not take the bundle: it is tried again".into(),
            (None, Some(refused)) => format!("the bundle is refused: {}", refused.reason),
            (None, None) => "the bundle was not taken up".into(),
        }
    }

    fn failed_before(&self) -> String {
        let cause = self.durable.failed().map(|failed| failed.cause.to_string());
        let cause = cause.unwrap_or_default();
        format!("this generation failed here, and is not tried again: {cause}")
    }
}

/// All layers of `bundle`, and how they are cut.
pub(super) fn wanted_layers(bundle: &Bundle) -> Vec<WantedLayer> {
    let layers = bundle.images.iter().flat_map(|image| &image.layers);
    let lists = |layer| bundle.chunk_lists.get(layer).cloned().unwrap_or_default();
    layers.map(|layer| WantedLayer { layer: *layer, lists: lists(&layer.digest) }).collect()
}
