//! Why an image is refused, in words for the person who imports it.

use std::io;
use std::path::PathBuf;

use wherry_bundle::Digest;

/// Why an import failed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{0} is not an image: give an OCI layout folder, an OCI archive or a `docker save` archive"
    )]
    NotAnImage(PathBuf),
    #[error("archive entry `{entry}`: {what}")]
    Archive { entry: String, what: String },
    #[error("blob {blob}: {what}")]
    Blob { blob: String, what: String },
    #[error("blob {blob} has digest {found}: damaged or forged, export the image again")]
    BlobDigest { blob: String, found: Digest },
    #[error("{what} is not valid JSON of its kind: {source}")]
    Json { what: String, source: serde_json::Error },
    #[error("image `{image}`: {what}")]
    Image { image: String, what: String },
    #[error("layer {layer}, entry `{entry}`: {what}")]
    Layer { layer: String, entry: String, what: String },
    #[error("{what} is above the limit of {max} {unit}")]
    TooLarge { what: String, max: u64, unit: &'static str },
    #[error("`{tool}` is not installed: install the Debian package `{package}`")]
    ToolMissing { tool: &'static str, package: &'static str },
    #[error("`{tool}` failed ({status}): {stderr}")]
    Tool { tool: &'static str, status: String, stderr: String },
}

impl ImportError {
    /// Whether the image is at fault: trying again cannot help. Else this
    /// machine is: its disk, or a tool that is missing or fails.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NotAnImage(_)
            | Self::Archive { .. }
            | Self::Blob { .. }
            | Self::BlobDigest { .. }
            | Self::Json { .. }
            | Self::Image { .. }
            | Self::Layer { .. }
            | Self::TooLarge { .. } => true,
            Self::Io { .. } | Self::ToolMissing { .. } | Self::Tool { .. } => false,
        }
    }

    /// For `map_err` on an operation on `path`.
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(super) fn image(image: &str, what: impl Into<String>) -> Self {
        Self::Image { image: printable(image.as_bytes()), what: what.into() }
    }

    pub(super) fn blob(blob: &str, what: impl Into<String>) -> Self {
        Self::Blob { blob: printable(blob.as_bytes()), what: what.into() }
    }
}

/// Longest piece of a hostile name that a message repeats, in characters.
const PRINTABLE_CHARS_MAX: usize = 120;

/// A name from an archive as a message may show it: no control characters,
/// not too long.
#[must_use]
pub(super) fn printable(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let mut out: String =
        text.chars().take(PRINTABLE_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().count() > PRINTABLE_CHARS_MAX {
        out.push('…');
    }
    out
}
