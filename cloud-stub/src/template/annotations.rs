//! Annotations have no effect here, but a person may rely on some of them.

use super::place::Place;

/// With these a cluster confines a container: left out, it would not be.
const CONFINING: [&str; 2] = ["apparmor.security.", "seccomp.security."];

/// Refuses those of an object and of its pod template that confine programs.
pub(super) fn check(object: &Place<'_>) {
    let template = object.find("spec").and_then(|spec| spec.find("template"));
    let owners = [Some(object.clone()), template];
    let metas = owners.iter().flatten().filter_map(|owner| owner.find("metadata"));
    let annotations = metas.filter_map(|meta| meta.find("annotations"));
    for (key, place) in annotations.flat_map(|found| found.find_entries()) {
        if CONFINING.iter().any(|part| key.contains(part)) {
            place.refuse("not supported", "use securityContext, as far as it is supported");
        }
    }
}
