//! A bounded text on the heap.
//!
//! `heapless` keeps the small ones. Of this size, a `heapless::String` lies on
//! the stack several times over while a packet is decoded, and a stack never
//! shrinks: that was 0.6 MB of the launcher's memory.

use std::fmt;
use std::ops::Deref;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text of at most `MAX` bytes. A longer one is refused before it is copied.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BoundedText<const MAX: usize>(Box<str>);

/// A text that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes, where at most {max} are allowed")]
pub struct TooLong {
    pub bytes: usize,
    pub max: usize,
}

impl<const MAX: usize> BoundedText<MAX> {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> TryFrom<&str> for BoundedText<MAX> {
    type Error = TooLong;
    fn try_from(text: &str) -> Result<Self, TooLong> {
        if text.len() <= MAX {
            Ok(Self(text.into()))
        } else {
            Err(TooLong { bytes: text.len(), max: MAX })
        }
    }
}

impl<const MAX: usize> Deref for BoundedText<MAX> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for BoundedText<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<const MAX: usize> fmt::Display for BoundedText<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MAX: usize> Serialize for BoundedText<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for BoundedText<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<const MAX: usize>;
        impl<const MAX: usize> Visitor<'_> for Text<MAX> {
            type Value = BoundedText<MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a text of at most {MAX} bytes")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                BoundedText::try_from(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_text_is_refused_on_every_way_in() {
        assert!(BoundedText::<4>::try_from("four").is_ok());
        assert_eq!(BoundedText::<3>::try_from("four"), Err(TooLong { bytes: 4, max: 3 }));
        let bytes = postcard::to_stdvec("four").unwrap();
        assert!(postcard::from_bytes::<BoundedText<4>>(&bytes).is_ok_and(|t| t.as_str() == "four"));
        assert!(postcard::from_bytes::<BoundedText<3>>(&bytes).is_err());
    }
}
