//! `securityContext.seccompProfile` of pods and containers.

use wherry_bundle::model::Seccomp;

use super::place::Object;
use super::shapes;

/// What the security context says, else `default`.
pub(super) fn seccomp(security: &Object<'_>, default: Seccomp) -> Option<Seccomp> {
    let Some(place) = security.get("seccompProfile") else { return Some(default) };
    let place = place.object(&shapes::SECCOMP_PROFILE)?.require("type")?;
    match place.text()?.as_str() {
        "RuntimeDefault" => Some(Seccomp::RuntimeDefault),
        "Unconfined" => Some(Seccomp::Unconfined),
        "Localhost" => {
            place.problem("nodes have no profiles of their own: use RuntimeDefault");
            None
        }
        _ => {
            place.problem("must be RuntimeDefault or Unconfined");
            None
        }
    }
}
