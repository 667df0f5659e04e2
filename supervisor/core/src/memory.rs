//! Whether there is memory for a new pod beside the old ones.
//!
//! Asked before each of them. Where it is short, old pods are stopped first
//! until the deployment has reached its form: what is free changes with every
//! pod that comes or goes, and one that is on its way stays.

use wherry_bundle::Name;
use wherry_bundle::message::EventKind;

use crate::draft::Draft;
use crate::ledger::Ledger;
use crate::model::Workload;
use crate::pods::Pod;

/// Stays free for everything else that runs.
pub const MEMORY_MARGIN_BYTES: u64 = 8 << 20;
const MIB: u64 = 1 << 20;

/// Whether the pods `own` of deployment `name` are to be replaced stop-first
/// for want of memory.
pub(crate) fn is_short(
    name: &Name,
    workload: &Workload,
    own: &[&Pod],
    ledger: &mut Ledger,
    draft: &mut Draft<'_>,
) -> bool {
    let Some(entry) = ledger.deployments.get_mut(name) else { return false };
    if entry.short == Some(workload.hash) {
        return true;
    }
    let has_old = own
        .iter()
        .any(|pod| !pod.is_pending() && pod.stopping.is_none() && !pod.is_current(workload));
    let in_place = own.iter().filter(|pod| !pod.is_mere_plan()).count();
    let has_surged = in_place > usize::from(workload.replicas);
    if !has_old || has_surged || workload.is_exclusive() || !workload.surges() {
        return false;
    }
    let (needed, free) = (workload.memory_bytes, draft.observed.memory_available_bytes);
    let (Some(needed), Some(free)) = (needed, free) else { return false };
    let is_short = free < needed.saturating_add(MEMORY_MARGIN_BYTES);
    entry.short = is_short.then_some(workload.hash);
    if is_short {
        let (needed, free) = (needed.div_ceil(MIB), free / MIB);
        let text = format!(
            "{name}: old pods are stopped first: a new one may take {needed} MiB, {free} MiB are free"
        );
        draft.notice(EventKind::StrategyChanged, "", &text);
    }
    is_short
}
