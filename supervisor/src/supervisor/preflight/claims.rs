//! What claims ask of the flash. Pure.

use std::collections::BTreeMap;

use wherry_bundle::Name;
use wherry_bundle::model::{Bundle, Claim};

use crate::supervisor::report::megabytes;

/// What claims' folders hold that are there, by name.
pub type Held = BTreeMap<Name, u64>;

/// Bytes that the claims of `bundle` may yet come to. Nothing if all of them are
/// as they were `before`: that was looked at when they came.
pub fn wanted_bytes(bundle: &Bundle, before: Option<&Bundle>, held: &Held) -> u64 {
    let has_grown = |claim: &Claim| size(before, &claim.name).is_none_or(|it| it < claim.bytes_max);
    if !bundle.claims.iter().any(has_grown) {
        return 0;
    }
    let left = |claim: &Claim| {
        claim.bytes_max.saturating_sub(held.get(&claim.name).copied().unwrap_or_default())
    };
    bundle.claims.iter().map(left).fold(0, u64::saturating_add)
}

/// Claims into which what they hold would no longer fit.
pub fn too_small(bundle: &Bundle, before: Option<&Bundle>, held: &Held) -> Vec<String> {
    let changed = bundle
        .claims
        .iter()
        .filter(|claim| size(before, &claim.name).is_none_or(|size| size != claim.bytes_max));
    let reason = |Claim { name, bytes_max, .. }: &Claim| {
        let bytes = held.get(name).copied().filter(|bytes| bytes > bytes_max)?;
        let (held, max) = (megabytes(bytes), megabytes(*bytes_max));
        Some(format!("volume {name} holds {held}, and its claim is for {max}"))
    };
    changed.filter_map(reason).collect()
}

fn size(bundle: Option<&Bundle>, name: &Name) -> Option<u64> {
    Some(bundle?.claim(name)?.bytes_max)
}

#[cfg(test)]
mod tests {
    use wherry_bundle::model::AccessMode;

    use super::*;
    use crate::supervisor::sample::{self, name};

    fn bundle(claims: &[(&str, u64)]) -> Bundle {
        let claim = |&(text, bytes_max): &(&str, u64)| Claim {
            name: name(text),
            bytes_max,
            access: AccessMode::ReadWriteOnce,
        };
        Bundle { claims: claims.iter().map(claim).collect(), ..sample::bundle() }
    }

    #[test]
    fn what_is_new_or_grows_has_to_fit_with_the_others() {
        let (before, held) = (bundle(&[("a", 100), ("b", 50)]), Held::from([(name("a"), 30)]));
        let wanted = |claims: &[(&str, u64)]| wanted_bytes(&bundle(claims), Some(&before), &held);
        assert_eq!(wanted(&[("a", 100), ("b", 50)]), 0);
        assert_eq!(wanted(&[("a", 90)]), 0);
        assert_eq!(wanted(&[("a", 100), ("b", 60)]), 70 + 60);
        assert_eq!(wanted(&[("a", 100), ("c", 1)]), 70 + 1);
        assert_eq!(wanted_bytes(&before, None, &held), 70 + 50);
    }

    #[test]
    fn none_shrinks_below_what_it_holds() {
        let held = Held::from([(name("a"), 80 << 20)]);
        let before = bundle(&[("a", 100 << 20)]);
        let reasons = |bytes| too_small(&bundle(&[("a", bytes)]), Some(&before), &held);
        assert_eq!(reasons(80 << 20), Vec::<String>::new());
        assert_eq!(reasons(64 << 20), ["volume a holds 83.9 MB, and its claim is for 67.2 MB"]);
        // What is too full as it is stays so.
        let full = bundle(&[("a", 64 << 20)]);
        assert_eq!(too_small(&full, Some(&full), &held), Vec::<String>::new());
        assert_eq!(too_small(&full, None, &held).len(), 1);
    }
}
