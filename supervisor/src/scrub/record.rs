//! What was checked since the node booted. Kept in a file below the run
//! folder, which a reboot empties: a supervisor that comes back goes on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use wherry_bundle::Digest;
use wherry_core::Millis;

use super::Damage;
use crate::supervisor::run_file;

/// Changes whenever the postcard form of [`Contents`] does.
const SCHEMA: u8 = 1;

#[derive(Debug, Default)]
pub struct Record {
    path: PathBuf,
    contents: Contents,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Contents {
    /// When each layer was found sound, on the boot clock.
    sound: BTreeMap<Digest, Millis>,
    damaged: BTreeMap<Digest, Damage>,
}

impl Record {
    /// One that cannot be read is as good as none: all is checked again.
    #[must_use]
    pub fn load(path: PathBuf) -> Self {
        let contents = run_file::load(SCHEMA, &path).unwrap_or_else(|error| {
            log::warn!("all layers are checked again: {error}");
            None
        });
        Self { path, contents: contents.unwrap_or_default() }
    }

    /// What was found damaged and not mended since.
    #[must_use]
    pub fn damaged(&self) -> &BTreeMap<Digest, Damage> {
        &self.contents.damaged
    }

    pub(super) fn sound_at(&self, layer: &Digest) -> Option<Millis> {
        self.contents.sound.get(layer).copied()
    }

    pub(super) fn is_sound(&mut self, layer: Digest, now: Millis) {
        self.contents.sound.insert(layer, now);
        self.contents.damaged.remove(&layer);
        self.save();
    }

    pub(super) fn is_damaged(&mut self, layer: Digest, damage: Damage) {
        self.contents.sound.remove(&layer);
        self.contents.damaged.insert(layer, damage);
        self.save();
    }

    /// Forgets all other layers.
    pub(super) fn keep(&mut self, needed: impl Fn(&Digest) -> bool) {
        let count = |contents: &Contents| contents.sound.len() + contents.damaged.len();
        let before = count(&self.contents);
        self.contents.sound.retain(|layer, _| needed(layer));
        self.contents.damaged.retain(|layer, _| needed(layer));
        if count(&self.contents) != before {
            self.save();
        }
    }

    fn save(&self) {
        if let Err(error) = run_file::save(SCHEMA, &self.path, &self.contents) {
            log::warn!("what was checked is not remembered: {error}");
        }
    }
}
