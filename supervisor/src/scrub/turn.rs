//! Which layer is checked next. No clock, no file but the record.

use std::collections::BTreeSet;

use wherry_bundle::Digest;
use wherry_bundle::model::Layer;
use wherry_core::Millis;

use super::{Damage, Order, Pace, Record};

#[derive(Debug)]
pub(super) struct Turn {
    record: Record,
    pace: Pace,
    /// What the node needs.
    watched: Vec<Layer>,
    /// To be checked before all others, without pauses.
    suspected: Vec<Layer>,
    /// Not to be had: the next list brings them again.
    skipped: BTreeSet<Digest>,
}

impl Turn {
    pub fn new(record: Record, pace: Pace) -> Self {
        let (watched, suspected) = (Vec::new(), Vec::new());
        Self { record, pace, watched, suspected, skipped: BTreeSet::new() }
    }

    pub fn take(&mut self, order: Order, now: Millis) {
        match order {
            Order::Watch(layers) => {
                let needed: BTreeSet<Digest> = layers.iter().map(|layer| layer.digest).collect();
                self.record.keep(|layer| needed.contains(layer));
                self.suspected.retain(|layer| needed.contains(&layer.digest));
                self.skipped.clear();
                self.watched = layers;
            }
            Order::Suspect(layers) => {
                for layer in layers {
                    let is_known = self.record.sound_at(&layer.digest).is_some()
                        || self.is_suspected(&layer.digest)
                        || self.skipped.contains(&layer.digest);
                    if !is_known {
                        self.suspected.push(layer);
                    }
                }
            }
            Order::Fresh(layer) => self.is_sound(layer, now),
        }
    }

    /// What is due now.
    pub fn next(&self, now: Millis) -> Option<Layer> {
        if self.pace.bytes_per_second == 0 {
            return None;
        }
        let suspected = self.suspected.first().copied();
        suspected.or_else(|| self.open().find(|layer| self.due_at(layer) <= now).copied())
    }

    /// When the next one will be due; `None` if none will.
    pub fn due(&self, now: Millis) -> Option<Millis> {
        let is_on = self.pace.bytes_per_second > 0;
        self.open().filter(|_| is_on).map(|layer| self.due_at(layer)).min().map(|at| at.max(now))
    }

    /// Whether a check of this layer is to be gone on with.
    pub fn goes_on(&self, layer: &Layer) -> bool {
        let first = self.suspected.first();
        first.is_none_or(|first| first == layer)
            && (first.is_some() || self.watched.contains(layer))
    }

    pub fn is_suspected(&self, layer: &Digest) -> bool {
        self.suspected.iter().any(|suspected| suspected.digest == *layer)
    }

    pub fn is_sound(&mut self, layer: Digest, now: Millis) {
        self.forget_suspicion(layer);
        self.skipped.remove(&layer);
        self.record.is_sound(layer, now);
    }

    pub fn is_damaged(&mut self, layer: Digest, damage: Damage) {
        self.skip(layer);
        self.record.is_damaged(layer, damage);
    }

    pub fn skip(&mut self, layer: Digest) {
        self.forget_suspicion(layer);
        self.skipped.insert(layer);
    }

    fn forget_suspicion(&mut self, layer: Digest) {
        self.suspected.retain(|suspected| suspected.digest != layer);
    }

    fn open(&self) -> impl Iterator<Item = &Layer> {
        self.watched.iter().filter(|layer| !self.skipped.contains(&layer.digest))
    }

    fn due_at(&self, layer: &Layer) -> Millis {
        let last = self.record.sound_at(&layer.digest);
        last.map_or(Millis(0), |at| at.saturating_add(self.pace.interval))
    }
}
