//! Whether the generation under way is good or has failed
//! ([`wherry_core::upgrade`] judges), and what follows: it becomes the last
//! good one, or the node goes back to that.
//!
//! Never here: pods. Going back is a bundle like any other to the reconciler,
//! which replaces one pod after the other.

use wherry_bundle::Name;
use wherry_bundle::limits::{FAILED_LINE_BYTES_MAX, FAILED_LINES_MAX, cut};
use wherry_bundle::message::{Cause, EventKind, Failed, LogQuery};
use wherry_core::Millis;
use wherry_core::upgrade::{Facts, Verdict};

use super::{Node, Removal};
use crate::logs::read::Merged;

/// A disk that cannot take a verdict now is asked again after this.
const AGAIN_AFTER: Millis = Millis(60_000);

impl Node {
    /// Does what follows from a verdict that is new; when to ask again at the
    /// latest.
    pub(super) fn judge_generation(&mut self, now: Millis) -> Option<Millis> {
        if self.removal != Removal::No {
            return None;
        }
        if let Some(at) = self.verdict_at.filter(|at| now < *at) {
            return Some(at);
        }
        self.verdict_at = None;
        let facts = self.facts()?;
        match self.watch.judge(facts, &self.desired, &self.observed, &self.ledger, now) {
            Verdict::Settled => None,
            Verdict::UnderWay { wake_at } => wake_at,
            Verdict::Good => self.is_good(now),
            Verdict::Failed(cause) => self.has_failed(cause, now),
        }
    }

    fn facts(&self) -> Option<Facts> {
        let bundle = self.bundle.as_ref()?;
        let layers = bundle.images.iter().flat_map(|image| &image.layers);
        let whole = layers.filter(|layer| self.observed.layers.contains(&layer.digest));
        let whole = whole.fold(0_u64, |sum, layer| sum.saturating_add(layer.size_bytes));
        let under_way = self.transfer.map_or(0, |transfer| transfer.bytes_done);
        Some(Facts {
            policy: bundle.upgrade,
            last_good: self.durable.last_good(),
            boots: self.durable.boots(),
            fetched_bytes: whole.saturating_add(under_way),
            online: self.cloud.connected,
        })
    }

    fn is_good(&mut self, now: Millis) -> Option<Millis> {
        let bundle = self.bundle.as_ref()?;
        let generation = bundle.generation;
        if let Err(error) = self.durable.mark_good(bundle, now) {
            log::warn!("generation {generation} is not marked as good yet: {error}");
            self.verdict_at = Some(now.saturating_add(AGAIN_AFTER));
            return self.verdict_at;
        }
        self.tell(EventKind::GenerationGood, "", &format!("generation {generation} is good"), now);
        self.watch_layers();
        None
    }

    fn has_failed(&mut self, cause: Cause, now: Millis) -> Option<Millis> {
        let generation = self.desired.generation;
        if self.durable.failed().is_some_and(|failed| failed.generation == generation) {
            // There was nothing to go back to.
            return None;
        }
        let failed = Failed { generation, lines: self.last_lines(&cause), cause };
        let back = match self.durable.fail(&failed) {
            Ok(back) => back,
            Err(error) => {
                log::error!("generation {generation} failed ({}): {error}", failed.cause);
                self.verdict_at = Some(now.saturating_add(AGAIN_AFTER));
                return self.verdict_at;
            }
        };
        let next = match &back {
            Some(bundle) => format!("going back to generation {}", bundle.generation),
            None => "there is no good one to go back to".to_owned(),
        };
        let mut text = format!("generation {generation} failed: {}; {next}", failed.cause);
        for line in &failed.lines {
            text.push_str("\n  ");
            text.push_str(line);
        }
        self.tell(EventKind::GenerationFailed, "", &text, now);
        self.desire(back?);
        Some(now)
    }

    /// What the pod that failed wrote last.
    fn last_lines(&self, cause: &Cause) -> Vec<String> {
        let (pod, container): (&Name, Option<&Name>) = match cause {
            Cause::CrashLoop { pod, container, .. } => (pod, Some(container)),
            Cause::ProgressDeadline { pod: Some(pod), .. } | Cause::Job { pod, .. } => (pod, None),
            Cause::ProgressDeadline { pod: None, .. }
            | Cause::Layers { .. }
            | Cause::BootLoop { .. } => return Vec::new(),
        };
        let query = LogQuery {
            pod: pod.clone(),
            container: container.cloned(),
            tail: u32::try_from(FAILED_LINES_MAX).ok(),
            since_seconds: None,
            follow: false,
        };
        let read = Merged::open(self.collector.folder(), &query);
        let lines = read.and_then(|mut merged| merged.batch()).unwrap_or_else(|error| {
            log::warn!("what {pod} wrote is not reported: {error}");
            Vec::new()
        });
        let newest = lines.len().saturating_sub(FAILED_LINES_MAX);
        let lines = lines.iter().skip(newest);
        lines.map(|line| cut(&line.text, FAILED_LINE_BYTES_MAX).to_owned()).collect()
    }
}
