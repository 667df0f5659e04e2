//! What the cloud keeps about an imported image: all that a template can
//! inherit from it, resolved to what the kernel takes.
//!
//! Never here: reading images. Nothing in it needs the image again.

use serde::{Deserialize, Serialize};
use wherry_bundle::Digest;
use wherry_bundle::model::{Layer, User};

/// One image for one platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// Of the image's configuration as the OCI image specification has it
    /// (`docker images` shows the same as the image's id).
    pub digest: Digest,
    /// The name in its short form, see [`crate::image::reference::familiar`].
    pub reference: String,
    /// `GOARCH` as in the OCI specification, with the variant after a slash
    /// where it matters: `amd64`, `arm64`, `arm/v7`, `arm/v6`, `riscv64`.
    pub architecture: String,
    /// squashfs files, bottom first.
    pub layers: Vec<Layer>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`, in the image's order.
    pub env: Vec<String>,
    /// Absolute; `/` when the image names none.
    pub working_dir: String,
    /// Looked up in the image's own `/etc/passwd` and `/etc/group`.
    pub user: User,
    /// Linux signal number; 15 when the image names none.
    pub stop_signal: u8,
    /// Plain absolute paths, ordered, none in another. Images that were
    /// imported before this was read have none.
    #[serde(default)]
    pub volumes: Vec<String>,
}
