//! What the node tells: status and events.

use wherry_bundle::limits::bounded_text;
use wherry_bundle::message::{Event as NodeEvent, EventKind, FlashUse, NodeStatus};
use wherry_core::{Millis, NodeView};

use super::Node;
use crate::clock;
use crate::store::NewEvent;
use crate::supervisor::flash::children_bytes;
use crate::supervisor::report::Facts;

/// Unacknowledged events that `wherry events` shows after a restart.
const OLD_EVENTS_BYTES_MAX: usize = 64 * 1024;

impl Node {
    pub(super) fn status(&self, view: &NodeView, now: Millis) -> NodeStatus {
        self.identity.status(&Facts {
            bundle: self.bundle.as_ref(),
            view,
            observed: &self.observed,
            pids: &self.pids,
            transfer: self.transfer,
            flash: self.flash(),
            last_good: self.durable.last_good(),
            refused: self.durable.refused(),
            failed: self.durable.failed(),
            held: self.held(),
            outbox: self.durable.outbox(),
            now,
        })
    }

    /// What Wherry wrote since the node booted.
    fn flash(&self) -> FlashUse {
        let store = self.durable.store();
        let own = store.map_or(0, |store| store.written_bytes());
        self.flash.total(FlashUse {
            layer_bytes: self.durable.layers().written_bytes(),
            // The only children that write are keepers.
            state_bytes: own.saturating_add(children_bytes()),
            // They are below the run folder.
            log_bytes: 0,
        })
    }

    /// For the next supervisor of this boot.
    pub(super) fn keep_flash(&mut self) {
        let total = self.flash();
        self.flash.keep(total);
    }

    /// Sends the status if it is due; when it will be, if it is not.
    pub(super) fn publish_status(&mut self, view: &NodeView, now: Millis) -> Option<Millis> {
        let agent = self.agent.as_ref()?;
        let status = self.status(view, now);
        let due = self.gate.due(&status, now)?;
        if due > now {
            return Some(due);
        }
        agent.publish_status(status.clone());
        self.gate.sent(status, now);
        None
    }

    /// To people here and in the cloud.
    pub(super) fn tell(&mut self, kind: EventKind, subject: &str, text: &str, now: Millis) {
        let about = if subject.is_empty() { String::new() } else { format!("{subject}: ") };
        match kind {
            EventKind::BundleRefused
            | EventKind::LayerFailed
            | EventKind::LayerDamaged
            | EventKind::ContainerFailed
            | EventKind::ContainerUnhealthy
            | EventKind::GenerationFailed
            | EventKind::VolumeOverLimit
            | EventKind::StoreRecovered => log::warn!("{about}{text}"),
            EventKind::Started
            | EventKind::BundleReceived
            | EventKind::BundleTakenUp
            | EventKind::TransferStarted
            | EventKind::LayerFetched
            | EventKind::LayersRemoved
            | EventKind::PodCreated
            | EventKind::ContainerStarted
            | EventKind::ContainerExited
            | EventKind::PodAvailable
            | EventKind::PodRemoved
            | EventKind::GenerationRunning
            | EventKind::GenerationGood
            | EventKind::GenerationHeld
            | EventKind::StrategyChanged
            | EventKind::CommandRun
            | EventKind::CommandDone => log::info!("{about}{text}"),
        }
        let event = NewEvent {
            wall_time: clock::wall_now().millis(),
            boot_millis: now.0,
            generation: self.desired.generation,
            kind,
            subject: subject.to_owned(),
            text: bounded_text(text),
        };
        let seq = self.durable.push_event(&event);
        if let Some(agent) = &self.agent {
            agent.events_pending();
        }
        let NewEvent { wall_time, boot_millis, generation, kind, subject, text } = event;
        let event = NodeEvent { seq, wall_time, boot_millis, generation, kind, subject, text };
        self.recent.push(event);
    }

    /// What the cloud does not have yet is shown here too after a restart.
    pub(super) fn recall_events(&mut self) {
        let Some(store) = self.durable.store() else { return };
        match store.events_after(0, OLD_EVENTS_BYTES_MAX) {
            Ok(events) => events.into_iter().for_each(|event| self.recent.push(event)),
            Err(error) => log::warn!("events of before cannot be read: {error}"),
        }
    }
}
