//! Which nodes a person means: `site=berlin,role!=spare`, `name=gw-1`, `*`.
//!
//! Pure. Terms are separated by commas and must all hold. `name` is the
//! node's name, every other key is a label's. Never here: the database.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use wherry_bundle::Name;

use crate::limits::{LABEL_VALUE_BYTES_MAX, LABELS_MAX};

/// The key that is not a label.
pub const NAME_KEY: &str = "name";

/// A parsed selector; its text form reads back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Every node of the application's project.
    All,
    Terms(Vec<Term>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub key: String,
    /// False for `!=`, which a node without the label satisfies too.
    pub equal: bool,
    pub value: String,
}

/// Why a text is not a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    #[error("an empty selector selects nothing: write `*` for all nodes")]
    Empty,
    #[error("more than {LABELS_MAX} terms")]
    TooMany,
    #[error("`{0}` is neither key=value nor key!=value")]
    Term(String),
    #[error("{0}")]
    Label(#[from] InvalidLabel),
}

/// Why a key or value cannot be a label's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabel {
    #[error(
        "`{0}` is no label key: use 1 to {LABEL_VALUE_BYTES_MAX} of a-z, A-Z, 0-9, `-`, `_`, `.` \
         and `/`"
    )]
    Key(String),
    #[error(
        "`{0}` is no label value: use 1 to {LABEL_VALUE_BYTES_MAX} of a-z, A-Z, 0-9, `-`, `_`, `.`"
    )]
    Value(String),
    #[error("`name` cannot be a label: it means the node's own name")]
    Name,
}

impl Selector {
    #[must_use]
    pub fn matches(&self, name: &Name, labels: &BTreeMap<String, String>) -> bool {
        let Self::Terms(terms) = self else { return true };
        terms.iter().all(|term| {
            let found = match term.key.as_str() {
                NAME_KEY => Some(name.as_str()),
                key => labels.get(key).map(String::as_str),
            };
            (found == Some(term.value.as_str())) == term.equal
        })
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;
    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        let text = text.trim();
        match text {
            "" => return Err(InvalidSelector::Empty),
            "*" => return Ok(Self::All),
            _ => {}
        }
        let terms: Vec<Term> = text.split(',').map(term).collect::<Result<_, _>>()?;
        if terms.len() > LABELS_MAX {
            return Err(InvalidSelector::TooMany);
        }
        Ok(Self::Terms(terms))
    }
}

fn term(text: &str) -> Result<Term, InvalidSelector> {
    let text = text.trim();
    let bad = || InvalidSelector::Term(text.chars().take(80).collect());
    let (key, value) = text.split_once('=').ok_or_else(bad)?;
    let (key, equal) = key.strip_suffix('!').map_or((key, true), |key| (key, false));
    let (key, value) = (key.trim(), value.trim());
    if key != NAME_KEY {
        check_key(key)?;
    }
    check_value(value)?;
    Ok(Term { key: key.to_owned(), equal, value: value.to_owned() })
}

/// Checks a node's label.
///
/// # Errors
/// What is wrong with the key or the value.
pub fn check_label(key: &str, value: &str) -> Result<(), InvalidLabel> {
    if key == NAME_KEY {
        return Err(InvalidLabel::Name);
    }
    check_key(key)?;
    check_value(value)
}

fn check_key(key: &str) -> Result<(), InvalidLabel> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    let good = !key.is_empty() && key.len() <= LABEL_VALUE_BYTES_MAX && key.bytes().all(plain);
    if good { Ok(()) } else { Err(InvalidLabel::Key(key.chars().take(80).collect())) }
}

fn check_value(value: &str) -> Result<(), InvalidLabel> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let good =
        !value.is_empty() && value.len() <= LABEL_VALUE_BYTES_MAX && value.bytes().all(plain);
    if good { Ok(()) } else { Err(InvalidLabel::Value(value.chars().take(80).collect())) }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Terms(terms) = self else { return f.write_str("*") };
        for (index, Term { key, equal, value }) in terms.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let sign = if *equal { "=" } else { "!=" };
            write!(f, "{comma}{key}{sign}{value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(selector: &str) -> Vec<&'static str> {
        let nodes: [(&str, &[(&str, &str)]); 3] = [
            ("gw-1", &[("site", "berlin"), ("role", "edge")]),
            ("gw-2", &[("site", "berlin"), ("role", "spare")]),
            ("gw-3", &[("site", "bonn")]),
        ];
        let selector: Selector = selector.parse().unwrap();
        assert_eq!(selector.to_string().parse::<Selector>().unwrap(), selector);
        let matching = nodes.into_iter().filter(|(name, labels)| {
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            selector.matches(&Name::new(name).unwrap(), &labels)
        });
        matching.map(|(name, _)| name).collect()
    }

    #[test]
    fn what_is_selected() {
        for (selector, expected) in [
            ("*", &["gw-1", "gw-2", "gw-3"][..]),
            ("site=berlin", &["gw-1", "gw-2"]),
            ("site=berlin,role=edge", &["gw-1"]),
            (" site = berlin , role != edge ", &["gw-2"]),
            ("role!=edge", &["gw-2", "gw-3"]),
            ("name=gw-3", &["gw-3"]),
            ("name!=gw-3,site!=bonn", &["gw-1", "gw-2"]),
            ("site=Berlin", &[]),
            ("nothing=here", &[]),
            ("site=berlin,site=bonn", &[]),
        ] {
            assert_eq!(selected(selector), expected, "{selector}");
        }
    }

    #[test]
    fn what_is_no_selector() {
        for (selector, part) in [
            ("", "write `*`"),
            ("  ", "write `*`"),
            ("gw-1", "neither key=value"),
            ("site=", "no label value"),
            ("=berlin", "no label key"),
            ("site=a,,b=c", "neither key=value"),
            ("site==berlin", "no label value"),
            ("site=a b", "no label value"),
            ("*,site=berlin", "neither key=value"),
        ] {
            let error = selector.parse::<Selector>().unwrap_err().to_string();
            assert!(error.contains(part), "{selector}: {error}");
        }
        assert_eq!(check_label("name", "x"), Err(InvalidLabel::Name));
    }
}
