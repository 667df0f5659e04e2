//! Processor architectures, as OCI images name them: `GOARCH`, with the
//! variant after a slash where it matters.
//!
//! Pure.

/// What a node may be.
const KNOWN: [&str; 8] =
    ["386", "amd64", "arm/v5", "arm/v6", "arm/v7", "arm64", "loong64", "riscv64"];
/// Other names that people use.
const ALIASES: [(&str, &str); 8] = [
    ("aarch64", "arm64"),
    ("arm", "arm/v7"),
    ("arm64/v8", "arm64"),
    ("armhf", "arm/v7"),
    ("armv6", "arm/v6"),
    ("armv7", "arm/v7"),
    ("armv7l", "arm/v7"),
    ("x86_64", "amd64"),
];

/// Why a text is no architecture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no architecture: use one of {known}", known = KNOWN.join(", "))]
pub struct UnknownArchitecture(String);

/// The name as images have it.
///
/// # Errors
/// A name that nobody uses.
pub fn canonical(text: &str) -> Result<&'static str, UnknownArchitecture> {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == text).map(|(_, name)| *name);
    let known = KNOWN.iter().find(|name| **name == text).copied();
    alias.or(known).ok_or_else(|| UnknownArchitecture(text.chars().take(40).collect()))
}

/// Which of `offered` a node of architecture `own` runs best: its own, else
/// an older variant of the same family.
#[must_use]
pub fn best<'a>(own: &str, offered: &[&'a str]) -> Option<&'a str> {
    let exact = offered.iter().find(|name| **name == own);
    let (family, variant) = split(own);
    let older = offered
        .iter()
        .filter(|name| {
            let (other, older) = split(name);
            other == family && variant.is_some() && older < variant
        })
        .max_by_key(|name| split(name).1);
    exact.or(older).copied()
}

fn split(name: &str) -> (&str, Option<u32>) {
    match name.split_once("/v") {
        Some((family, variant)) => (family, variant.parse().ok()),
        None => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_people_use() {
        for (text, name) in [
            ("amd64", "amd64"),
            ("x86_64", "amd64"),
            ("aarch64", "arm64"),
            ("armv7l", "arm/v7"),
            ("arm/v6", "arm/v6"),
        ] {
            assert_eq!(canonical(text), Ok(name));
        }
        assert!(canonical("amd65").unwrap_err().to_string().contains("arm/v7"));
    }

    #[test]
    fn the_best_image_for_a_node() {
        for (own, offered, best_one) in [
            ("amd64", &["arm64", "amd64"][..], Some("amd64")),
            ("amd64", &["arm64", "386"], None),
            ("arm/v7", &["arm/v5", "arm/v6", "arm64"], Some("arm/v6")),
            ("arm/v7", &["arm/v6", "arm/v7"], Some("arm/v7")),
            ("arm/v6", &["arm/v7"], None),
            ("arm/v7", &["arm"], Some("arm")),
            ("arm64", &["arm/v7"], None),
            ("arm64", &[], None),
        ] {
            assert_eq!(best(own, offered), best_one, "{own} {offered:?}");
        }
    }
}
