//! Whether a new pod may come beside the old ones, or an old one has to go
//! first.
//!
//! - Pods that want the same device, the same `ReadWriteOnce` claim, or the same
//!   ports of the host's own network, exclude each other.
//! - Memory is asked for before each new pod: its limits have to fit into what
//!   is free. Pods that are on their way and use none yet have theirs set
//!   aside, whichever deployment they are of. A container without a limit
//!   counts as nothing: what it will take nobody knows.
//! - Where memory is short only for what is set aside, the deployment waits:
//!   the pods on their way may need less than they are allowed. Where it is
//!   short as it is, old pods are stopped first until the deployment has
//!   reached its form: what is free changes with every pod that comes or goes.
//!   A pod that is on its way stays.

use wherry_bundle::message::EventKind;
use wherry_bundle::model::Strategy;
use wherry_bundle::{Digest, Generation, Name};

use crate::draft::Draft;
use crate::ledger::{DeploymentLedger, Ledger};
use crate::model::{Desired, Millis, Workload};
use crate::pods::Pod;
use crate::rolling;

/// Stays free for everything else that runs.
pub const MEMORY_MARGIN_BYTES: u64 = 8 << 20;
/// Between looks at memory by a deployment that waits for it: nobody tells when
/// it is freed.
const LOOK_AGAIN: Millis = Millis(5_000);
const MIB: u64 = 1 << 20;

/// How the pods of a deployment may be replaced now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surge {
    /// At most so many more than its replicas.
    Pods(usize),
    /// An old one has to be gone before a new one comes.
    StopFirst,
}

/// Of deployment `name`, of which there are the pods `own`, and whose new ones
/// may be made now (else that is for later).
pub(crate) fn allowed(
    generation: Generation,
    name: &Name,
    workload: &Workload,
    own: &[&Pod],
    can_create: bool,
    ledger: &mut Ledger,
    draft: &mut Draft<'_>,
) -> Surge {
    let (Some(entry), Strategy::RollingUpdate { max_surge, .. }) =
        (ledger.deployments.get_mut(name), workload.strategy)
    else {
        return Surge::Pods(0);
    };
    let most = usize::from(max_surge);
    let has_old = own
        .iter()
        .any(|pod| !pod.is_pending() && pod.stopping.is_none() && !pod.is_current(workload));
    let is_asked = has_old && most > 0 && can_create;
    if workload.is_exclusive() {
        if is_asked {
            let what = match (workload.has_device, workload.has_claim) {
                (true, _) => "device",
                (false, true) => "ReadWriteOnce claim",
                (false, false) => "ports",
            };
            let why = format!("two at once would want the same {what}");
            stop_first(entry, name, workload.hash, &why, draft);
        }
        return Surge::StopFirst;
    }
    if entry.stop_first == Some(workload.hash) {
        return Surge::StopFirst;
    }
    let Some(free) = draft.observed.memory_available_bytes.filter(|_| is_asked) else {
        return Surge::Pods(most);
    };
    let made = || own.iter().filter(|pod| !pod.is_mere_plan());
    let keeps_place = |pod: &&&Pod| match pod.stopping {
        Some(_) => rolling::keeps_its_place(pod),
        // What was begun from another bundle is given up.
        None => !pod.is_pending() || (pod.is_current(workload) && pod.generation == generation),
    };
    let (in_place, replicas) = (made().filter(keeps_place).count(), usize::from(workload.replicas));
    let surged = in_place.saturating_sub(replicas);
    let needed = workload.memory_bytes;
    // One that is about to be gone frees what it has: that is waited for.
    if made().count() <= replicas && room(free, needed) == 0 {
        let (needed, free) = (needed.div_ceil(MIB), free / MIB);
        let why = format!("a new one may take {needed} MiB, {free} MiB are free");
        stop_first(entry, name, workload.hash, &why, draft);
        return Surge::StopFirst;
    }
    // Those that are missing come anyway.
    let missing = replicas.saturating_sub(in_place);
    let more = room(free.saturating_sub(draft.set_aside_bytes), needed).saturating_sub(missing);
    if surged == 0 && more == 0 {
        draft.wake(draft.now.saturating_add(LOOK_AGAIN));
    }
    Surge::Pods(most.min(surged.saturating_add(more)))
}

/// The memory of pods that were asked for and use none yet, in bytes.
pub(crate) fn set_aside<'a>(desired: &Desired, pods: impl Iterator<Item = &'a Pod>) -> u64 {
    let coming = pods.filter_map(|pod| {
        let workload = desired.workloads.get(&pod.deployment)?;
        let is_coming = pod.unused && !pod.is_mere_plan() && pod.is_current(workload);
        is_coming.then_some(workload.memory_bytes)
    });
    coming.fold(0, u64::saturating_add)
}

/// How many pods that need so many bytes there is room for.
fn room(free: u64, needed: u64) -> usize {
    match free.checked_sub(MEMORY_MARGIN_BYTES) {
        None => 0,
        // Of what needs nothing any number fits.
        Some(left) => left
            .checked_div(needed)
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(usize::MAX),
    }
}

/// Keeps to it until the deployment has reached its form; says so once.
fn stop_first(
    entry: &mut DeploymentLedger,
    name: &Name,
    hash: Digest,
    why: &str,
    draft: &mut Draft<'_>,
) {
    if entry.stop_first.replace(hash) != Some(hash) {
        let text = format!("{name}: old pods are stopped first: {why}");
        draft.notice(EventKind::StrategyChanged, "", &text);
    }
}
