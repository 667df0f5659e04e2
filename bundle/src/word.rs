//! A word of a command line or of an environment: text, with places for what
//! only the node knows (Kubernetes' "downward API").

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::NAME_BYTES_MAX;

/// Parts that follow one another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word(pub Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    Text(String),
    Fact(Fact),
}

/// What a container can be told of where it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// `metadata.name`.
    PodName,
    /// `status.podIP`; a pod on the host's network has none.
    PodAddress,
    /// `spec.nodeName`.
    NodeName,
}

impl Word {
    /// The text, with what `fact` says in its places.
    #[must_use]
    pub fn resolve(&self, fact: impl Fn(Fact) -> String) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Fact(known) => fact(*known),
        });
        parts.collect()
    }

    #[must_use]
    pub fn has(&self, fact: Fact) -> bool {
        self.0.contains(&Part::Fact(fact))
    }

    /// Its texts.
    pub fn texts(&self) -> impl Iterator<Item = &String> + Clone {
        self.0.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text),
            Part::Fact(_) => None,
        })
    }

    /// The most bytes that it can come to.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        let bytes = |part: &Part| match part {
            Part::Text(text) => text.len(),
            // An address has fewer.
            Part::Fact(_) => NAME_BYTES_MAX,
        };
        self.0.iter().map(bytes).sum()
    }

    pub fn push(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Part::Text(last)) => last.push_str(text),
            _ if text.is_empty() => {}
            _ => self.0.push(Part::Text(text.to_owned())),
        }
    }

    pub fn append(&mut self, other: &Self) {
        for part in &other.0 {
            match part {
                Part::Text(text) => self.push(text),
                Part::Fact(fact) => self.0.push(Part::Fact(*fact)),
            }
        }
    }
}

impl From<&str> for Word {
    fn from(text: &str) -> Self {
        let mut word = Self::default();
        word.push(text);
        word
    }
}

impl From<String> for Word {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<Fact> for Word {
    fn from(fact: Fact) -> Self {
        Self(vec![Part::Fact(fact)])
    }
}

impl PartialEq<&str> for Word {
    fn eq(&self, other: &&str) -> bool {
        match &self.0[..] {
            [] => other.is_empty(),
            [Part::Text(text)] => text == other,
            _ => false,
        }
    }
}

/// For people: `$(metadata.name)` for what only the node knows.
impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Fact(fact) => write!(f, "$({fact})"),
        })
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PodName => "metadata.name",
            Self::PodAddress => "status.podIP",
            Self::NodeName => "spec.nodeName",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_whole_once_the_facts_are_known() {
        let mut word = Word::from("at ");
        word.append(&Word::from(Fact::PodAddress));
        word.push(":");
        word.push("80");
        word.append(&Word::from("/"));
        assert_eq!(word.0.len(), 3, "{word:?}");
        assert_eq!(word.to_string(), "at $(status.podIP):80/");
        assert_eq!(word.resolve(|fact| format!("<{fact:?}>")), "at <PodAddress>:80/");
        assert!(word.has(Fact::PodAddress) && !word.has(Fact::PodName));
        assert_eq!(word.bytes_max(), 3 + NAME_BYTES_MAX + 4);
        assert_eq!(Word::from(""), Word::default());
    }
}
