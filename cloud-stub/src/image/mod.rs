//! Images into layers: OCI image layouts, OCI archives and `docker save`
//! archives in, one reproducible squashfs file a layer out.
//!
//! Everything that comes in is untrusted: every blob is checked against its
//! digest, every path, link and size before it counts, and a refused image
//! leaves nothing behind. Never here: network, database, extracting anything
//! onto the host's filesystem.

mod blobs;
mod error;
mod info;
pub mod limits;
pub mod reference;

pub use blobs::BlobDir;
pub use error::ImportError;
pub use info::ImageInfo;
pub use limits::ImportLimits;

/// What a person may say about an import.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The image's name, instead of the one that the source has. Needed when
    /// the source has none; refused when the source holds several images.
    pub name: Option<String>,
    /// Only this platform, written as [`ImageInfo::architecture`].
    pub architecture: Option<String>,
}

/// One image of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedImage {
    pub info: ImageInfo,
    /// Layers that were not in the folder before.
    pub layers_new: usize,
}

