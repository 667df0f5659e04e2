//! A version package: what a person writes as `version.yaml` and the files
//! that it names, carried whole to the cloud, and compiled there.
//!
//! Never here: the network, the database.

pub mod compile;
pub mod load;
mod templates;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use wherry_bundle::Name;
use wherry_bundle::health::UpgradePolicy;

pub use compile::{Compiled, compile};
pub use load::load;
pub use templates::{Checked, check_templates};

/// Everything of one version; nothing in it names a file of the person's
/// machine any more but for error messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionPackage {
    pub application: Name,
    pub number: Number,
    pub description: String,
    pub product_type: ProductType,
    pub components: Vec<Component>,
    pub configs: Vec<PackageConfig>,
    pub upgrade: UpgradePolicy,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    pub name: Name,
    /// For containers of the template that name no image.
    pub image: Option<String>,
    pub template: Source,
    /// Components whose deployments have to be available first.
    pub start_after: BTreeSet<Name>,
}

/// A text, and the file that it was in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub file: String,
    pub text: String,
}

/// A config map or secret made of plain files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageConfig {
    pub name: Name,
    pub secret: bool,
    pub files: BTreeMap<String, Contents>,
}

/// Bytes, in JSON as base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents(pub Vec<u8>);

impl Serialize for Contents {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Contents {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        let text = String::deserialize(deserializer)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text);
        bytes.map(Self).map_err(serde::de::Error::custom)
    }
}

/// What a person chooses: `X.Y.Z`; the build number comes from the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Number {
    pub x: u32,
    pub y: u32,
    pub z: u32,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.x, self.y, self.z)
    }
}

impl From<Number> for String {
    fn from(number: Number) -> Self {
        number.to_string()
    }
}

impl TryFrom<String> for Number {
    type Error = InvalidNumber;
    fn try_from(text: String) -> Result<Self, InvalidNumber> {
        text.parse()
    }
}

/// Why a text is not a [`Number`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a version number: write X.Y.Z, as in 1.4.0; the build number comes by itself"
)]
pub struct InvalidNumber(pub String);

impl FromStr for Number {
    type Err = InvalidNumber;
    fn from_str(text: &str) -> Result<Self, InvalidNumber> {
        let bad = || InvalidNumber(text.chars().take(80).collect());
        let digits = |part: &str| {
            let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if plain { part.parse().map_err(|_| bad()) } else { Err(bad()) }
        };
        let parts: Vec<u32> = text.split('.').map(digits).collect::<Result<_, _>>()?;
        match parts[..] {
            [x, y, z] => Ok(Self { x, y, z }),
            _ => Err(bad()),
        }
    }
}

/// What a version or a node is for: a version goes to nodes of its own type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProductType {
    GatewaySingleNode,
    ExtensiveSingleNode,
    /// Several nodes of one site.
    ExtensiveMultipleNodes,
}

impl ProductType {
    pub const ALL: [Self; 3] =
        [Self::GatewaySingleNode, Self::ExtensiveSingleNode, Self::ExtensiveMultipleNodes];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GatewaySingleNode => "gateway-single-node",
            Self::ExtensiveSingleNode => "extensive-single-node",
            Self::ExtensiveMultipleNodes => "extensive-multiple-nodes",
        }
    }
}

impl fmt::Display for ProductType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ProductType {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            format!("`{text}` is no product type: use one of {known}")
        })
    }
}
