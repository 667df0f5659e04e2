//! Images into layers: OCI image layouts, OCI archives and `docker save`
//! archives in, one reproducible squashfs file a layer out.
//!
//! Everything that comes in is untrusted: every blob is checked against its
//! digest, every path, link and size before it counts, and a refused image
//! leaves nothing behind. Never here: network, database, extracting anything
//! onto the host's filesystem.

mod blobs;
mod config;
mod error;
mod import;
mod info;
pub mod limits;
mod manifest;
mod merged;
mod pax;
pub mod reference;
mod region;
mod source;
mod squashfs;
mod tar_reader;
mod tree;
mod user;

use std::path::Path;

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

/// Imports every image of `source` (a folder or a file, whose kind is found
/// out) for every Linux platform that it has: one result for each name and
/// platform. Blocks for as long as compressing takes. Idempotent: importing
/// again gives the same digests and writes nothing.
///
/// # Errors
/// The first reason to refuse it; then nothing is left in `blobs`. Only when
/// the disk fails at the very end, whole layers may be.
pub fn import(
    source: &Path,
    options: &ImportOptions,
    blobs: &BlobDir,
    limits: &ImportLimits,
) -> Result<Vec<ImportedImage>, ImportError> {
    import::run(source, options, blobs, limits)
}
