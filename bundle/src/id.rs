//! Names, versions, generations and digests.

use core::fmt;
use core::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

use crate::limits::NAME_BYTES_MAX;

/// A name that is safe as a host name, a folder and a topic level: a DNS
/// label of RFC 1123 (`[a-z0-9]([-a-z0-9]*[a-z0-9])?`, at most 63 bytes).
/// Copies share one text: every plan of the reconciler makes hundreds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a name: use 1 to 63 of a-z, 0-9 and `-`, with a letter or digit first and last"
)]
pub struct InvalidName(pub String);

impl Name {
    /// Checks `text` and makes it a name.
    ///
    /// # Errors
    /// [`InvalidName`] with the text, cut to a readable length.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        let ends_ok =
            bytes.first().copied().is_some_and(alnum) && bytes.last().copied().is_some_and(alnum);
        let all_ok = bytes.iter().all(|&b| alnum(b) || b == b'-');
        if ends_ok && all_ok && bytes.len() <= NAME_BYTES_MAX {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName(text.chars().take(80).collect()))
        }
    }

    /// The name of pod number `serial` of the deployment that `self` names.
    /// A serial is never used twice on a node while its ledger lives.
    ///
    /// # Errors
    /// [`InvalidName`] when `self` is longer than
    /// [`crate::limits::DEPLOYMENT_NAME_BYTES_MAX`] allows.
    pub fn pod(&self, serial: u32) -> Result<Self, InvalidName> {
        Self::new(&format!("{}-{serial}", self.0))
    }

    /// The serial number at the end of a pod's name, if it has one.
    #[must_use]
    pub fn pod_serial(&self) -> Option<u32> {
        self.0.rsplit_once('-')?.1.parse().ok()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for Name {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(de::Error::custom)
    }
}

/// Grows with every bundle that is issued to a node; 0 is "none yet".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a version: `X.Y.Z` chosen by a person, and a build number
/// given automatically. Written `X.Y.Z.N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildVersion {
    pub x: u32,
    pub y: u32,
    pub z: u32,
    pub build: u32,
}

impl fmt::Display for BuildVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.x, self.y, self.z, self.build)
    }
}

/// Why a text is not a [`BuildVersion`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a version number: write X.Y.Z.N, as in 1.4.0.2")]
pub struct InvalidVersion(pub String);

impl FromStr for BuildVersion {
    type Err = InvalidVersion;
    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let bad = || InvalidVersion(text.chars().take(80).collect());
        let parts: Vec<u32> =
            text.split('.').map(|p| p.parse().map_err(|_| bad())).collect::<Result<_, _>>()?;
        match parts[..] {
            [x, y, z, build] => Ok(Self { x, y, z, build }),
            _ => Err(bad()),
        }
    }
}

impl Serialize for BuildVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            (self.x, self.y, self.z, self.build).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for BuildVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        } else {
            let (x, y, z, build) = Deserialize::deserialize(deserializer)?;
            Ok(Self { x, y, z, build })
        }
    }
}

/// A SHA-256 digest. Written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 64 hexadecimal digits alone: a file name.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The first twelve digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }

    /// Reads 64 hexadecimal digits, with or without `sha256:` before them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.short())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Self::parse(&text).ok_or_else(|| de::Error::custom("not a sha256 digest"))
        } else {
            Ok(Self(Deserialize::deserialize(deserializer)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "web-1", "0", &"x".repeat(63)] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "..", "a\0", "a b", "ä", &"x".repeat(64)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pod_name_gives_its_serial_back() {
        let name = Name::new("web-2").unwrap().pod(17).unwrap();
        assert_eq!(name.as_str(), "web-2-17");
        assert_eq!(name.pod_serial(), Some(17));
        let longest = Name::new(&"d".repeat(crate::limits::DEPLOYMENT_NAME_BYTES_MAX)).unwrap();
        assert!(longest.pod(u32::MAX).is_ok());
    }

    #[test]
    fn a_hostile_name_does_not_deserialize() {
        let bytes = postcard::to_stdvec("../../etc").unwrap();
        assert!(postcard::from_bytes::<Name>(&bytes).is_err());
    }

    #[test]
    fn versions_and_digests_read_back() {
        let version: BuildVersion = "1.4.0.12".parse().unwrap();
        assert_eq!(version.to_string(), "1.4.0.12");
        assert!("1.4.0".parse::<BuildVersion>().is_err());
        let digest = Digest::of(b"");
        assert!(digest.to_string().starts_with("sha256:e3b0c44298fc1c14"));
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        assert_eq!(Digest::parse("sha256:+1"), None);
    }
}
