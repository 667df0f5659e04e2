//! Layer files, as far as the node cares for them once they are there: which
//! are checked, what becomes of damage, and what goes when space is wanted.
//!
//! Never here: fetching. A damaged layer is a missing one to the reconciler,
//! which asks for it.

use std::collections::BTreeMap;

use wherry_bundle::message::{EventKind, Exit};
use wherry_bundle::{Digest, Name};
use wherry_core::{CoreNotice, Millis};

use super::Node;
use crate::layers::WantedLayer;
use crate::scrub::{Damage, Damaged};
use crate::supervisor::report::megabytes;

/// Starts in a row without a stable run after which a container's layers are
/// suspected.
const SUSPECT_STARTS: u32 = 3;
/// Removed when the disk is full, whatever it says of its room.
const NO_SPACE_BYTES: u64 = 4 << 20;

impl Node {
    /// To be called when other layers are needed than before.
    pub(super) fn watch_layers(&self) {
        if let Some(scrubber) = &self.scrubber {
            let needed = self.durable.needed_layers(self.bundle.as_ref());
            scrubber.watch(needed.into_iter().collect());
        }
    }

    /// A layer was built, and its digest is right.
    pub(super) fn layer_is_whole(&mut self, layer: Digest, now: Millis) {
        self.durable.layers().mark([layer], self.desired.generation);
        if let Some(scrubber) = &self.scrubber {
            scrubber.is_fresh(layer);
        }
        self.damaged.remove(&layer);
        self.tell_pods_of_damage();
        self.make_room(now);
    }

    /// A layer was found damaged, and is put aside.
    pub(super) fn layer_is_damaged(&mut self, Damaged { layer, damage }: Damaged, now: Millis) {
        self.observed.layers.remove(&layer);
        self.damaged.insert(layer, damage);
        self.tell_pods_of_damage();
        let text = damage_text(&layer, damage, self.cloud.connected);
        self.tell(EventKind::LayerDamaged, "", &text, now);
        self.want_layers();
    }

    /// Others may have built layers: those that are there are no longer damaged.
    pub(super) fn look_for_mended(&mut self, now: Millis) {
        let here = |layer: &&Digest| self.durable.layers().path(layer).exists();
        let mended: Vec<Digest> = self.damaged.keys().filter(here).copied().collect();
        mended.into_iter().for_each(|layer| self.layer_is_whole(layer, now));
    }

    /// Of those that wait for a damaged layer, what each waits for. To be
    /// called when that, or the connection, has changed.
    pub(super) fn tell_pods_of_damage(&mut self) {
        let online = self.cloud.connected;
        let text =
            |(layer, damage): (&Digest, &Damage)| (*layer, damage_text(layer, *damage, online));
        self.observed.damaged = self.damaged.iter().map(text).collect::<BTreeMap<_, _>>();
    }

    /// Damaged layers that no pod of the current generation waits for: the
    /// node may have to go back to them.
    pub(super) fn repairs(&self) -> Vec<WantedLayer> {
        let needed = self.durable.needed_layers(None);
        let damaged = needed.into_iter().filter(|layer| self.damaged.contains_key(&layer.digest));
        let others = damaged.filter(|layer| !self.observed.fetching.contains(layer));
        let lists = |layer: &Digest| self.durable.chunk_lists(layer).cloned().unwrap_or_default();
        others.map(|layer| WantedLayer { layer, lists: lists(&layer.digest) }).collect()
    }

    /// A pod that cannot be started, or does not stay up, may have a layer that
    /// is no longer what it was.
    pub(super) fn suspect_layers(&self, notices: &[CoreNotice]) {
        let Some(scrubber) = &self.scrubber else { return };
        for notice in notices {
            let is_trouble =
                matches!(notice.kind, EventKind::ContainerFailed | EventKind::ContainerExited);
            let pod = Name::new(&notice.subject).ok().filter(|_| is_trouble);
            let Some(pod) = pod.filter(|pod| self.does_not_stay_up(pod)) else { continue };
            let workload = self.observed.pods.get(&pod).and_then(|seen| {
                let workload = self.desired.workloads.get(&seen.deployment)?;
                (workload.hash == seen.hash).then_some(workload)
            });
            if let Some(workload) = workload {
                scrubber.suspect(workload.layers.iter().copied().collect());
            }
        }
    }

    fn does_not_stay_up(&self, pod: &Name) -> bool {
        let containers = self.ledger.pods.get(pod).into_iter().flat_map(|pod| &pod.containers);
        containers.map(|(_, known)| known).any(|known| {
            let is_abnormal = known.last_exit.is_some_and(|exit| exit != Exit::Code(0));
            known.attempts.failed || (is_abnormal && known.attempts.count >= SUSPECT_STARTS)
        })
    }

    /// Removes what nothing needs if space is wanted.
    pub(super) fn make_room(&mut self, now: Millis) {
        self.make_room_of(0, now);
    }

    /// The disk took no more.
    pub(super) fn disk_is_full(&mut self, now: Millis) {
        self.make_room_of(NO_SPACE_BYTES, now);
    }

    fn make_room_of(&mut self, bytes_min: u64, now: Millis) {
        let free_bytes_min = self.config.layers.free_bytes_min;
        let removed = self.durable.make_room(self.bundle.as_ref(), free_bytes_min, bytes_min);
        if removed.bytes == 0 {
            return;
        }
        let layers: Vec<String> = removed.layers.iter().map(Digest::short).collect();
        let what = match layers.len() {
            0 => "what was left of transfers".to_owned(),
            1 => format!("layer {}, which nothing needs,", layers.concat()),
            _ => format!("layers {}, which nothing needs,", layers.join(" ")),
        };
        let text = format!("{what} made room: {}", megabytes(removed.bytes));
        self.tell(EventKind::LayersRemoved, "", &text, now);
    }
}

fn damage_text(layer: &Digest, damage: Damage, online: bool) -> String {
    let what = match damage {
        Damage { chunks: 0, .. } => "it is".to_owned(),
        Damage { chunks_bad: 1, chunks } => format!("1 of {chunks} chunks is"),
        Damage { chunks_bad, chunks } => format!("{chunks_bad} of {chunks} chunks are"),
    };
    let when = if online { "" } else { " once the cloud is there" };
    format!("layer {} is damaged: {what} fetched again{when}", layer.short())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_with_numbers() {
        let text = |chunks_bad, chunks, online| {
            let text = damage_text(&Digest([0x1a; 32]), Damage { chunks_bad, chunks }, online);
            text.split_once(" is damaged: ").unwrap().1.to_owned()
        };
        assert_eq!(text(2, 480, true), "2 of 480 chunks are fetched again");
        assert_eq!(text(1, 480, false), "1 of 480 chunks is fetched again once the cloud is there");
        assert_eq!(text(1, 0, true), "it is fetched again");
    }
}
