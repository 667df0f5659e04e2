//! Image names.

/// Length of a name in bytes: as in the distribution specification, host and
/// tag included.
pub const REFERENCE_BYTES_MAX: usize = 255;

/// The short form that people write, which makes names comparable:
/// `docker.io/library/nginx:1.22`, `docker.io/nginx:1.22` and `nginx:1.22`
/// are all `nginx:1.22`, and `:latest` goes away. Use it on both sides of
/// every comparison.
#[must_use]
pub fn familiar(name: &str) -> String {
    let name = name.strip_prefix("index.docker.io/").unwrap_or(name);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    name.strip_suffix(":latest").unwrap_or(name).to_owned()
}

/// Whether `name` can name an image: printable ASCII without spaces, and no
/// longer than [`REFERENCE_BYTES_MAX`].
#[must_use]
pub fn is_valid(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= REFERENCE_BYTES_MAX
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@+".contains(&b))
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_name_is_one_name() {
        for (long, short) in [
            ("docker.io/library/nginx:1.22", "nginx:1.22"),
            ("docker.io/nginx:1.22", "nginx:1.22"),
            ("docker.io/acme/web:latest", "acme/web"),
            ("nginx", "nginx"),
            ("nginx:latest", "nginx"),
            ("localhost:5000/web", "localhost:5000/web"),
            ("registry.example/library/web:2", "registry.example/library/web:2"),
        ] {
            assert_eq!(familiar(long), short);
        }
    }

    #[test]
    fn a_name_is_plain_text() {
        assert!(is_valid("acme/web:1.2"));
        for bad in ["", "-a", "a b", "a\n", "ä", "../a", &"x".repeat(256)] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
