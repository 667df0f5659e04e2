//! What a person may have meant who wrote a field that there is not.

use super::place::Shape;
use super::shapes;

/// A typing error changes no more letters than this.
const LETTERS_MAX: usize = 2;
/// Longer than any field's name.
const KEY_BYTES_MAX: usize = 64;
/// Kinds that are named for one field.
const KINDS_MAX: usize = 3;

/// A hint for `key`, which is no field of `shape`.
#[must_use]
pub fn hint(shape: &Shape, key: &str) -> String {
    let distance = |name: &str| distance(&name.to_lowercase(), &key.to_lowercase());
    let is_short = key.len() <= KEY_BYTES_MAX;
    let nearest =
        shape.all().filter(|_| is_short).map(|field| (distance(field.name), field.name)).min();
    if let Some((letters, name)) = nearest
        && letters <= LETTERS_MAX
        && letters * 2 < key.len()
    {
        return format!("did you mean `{name}`?");
    }
    // Most often it stands too far left or right.
    let mut kinds: Vec<&str> = shapes::ALL
        .iter()
        .filter(|other| other.all().any(|field| field.name == key))
        .map(|other| other.kind)
        .collect();
    kinds.truncate(KINDS_MAX);
    if kinds.is_empty() {
        format!("{} has no such field", shape.kind)
    } else {
        format!("{} has no such field; {} has", shape.kind, kinds.join(" or "))
    }
}

/// Letters to insert, remove or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_differ_are_counted() {
        for (a, b, letters) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("image", "imgae", 2)]
        {
            assert_eq!(distance(a, b), letters, "{a} {b}");
            assert_eq!(distance(b, a), letters, "{b} {a}");
        }
    }

    #[test]
    fn a_hint_names_what_was_meant() {
        for (shape, key, wanted) in [
            (&shapes::CONTAINER, "imgae", "did you mean `image`?"),
            (&shapes::CONTAINER, "volumemounts", "did you mean `volumeMounts`?"),
            (&shapes::POD_SPEC, "hostPid", "did you mean `hostPID`?"),
            (&shapes::POD_SPEC, "replicas", "PodSpec has no such field; DeploymentSpec has"),
            (&shapes::POD_SPEC, "zebra", "PodSpec has no such field"),
            (&shapes::CONTAINER_PORT, "x", "ContainerPort has no such field"),
        ] {
            assert_eq!(hint(shape, key), wanted, "{key}");
        }
    }
}
