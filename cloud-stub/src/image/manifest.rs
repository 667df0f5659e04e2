//! What a source says it holds: OCI indexes and manifests (image
//! specification v1, "image-layout", "image-index", "manifest") or the
//! `manifest.json` of `docker save`. The result of both is a list of [`Plan`]s.
//!
//! Every JSON document but the outermost is checked against its digest before
//! it is parsed.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use wherry_bundle::Digest;

use super::error::{ImportError, printable};
use super::limits::{INDEX_DEPTH_MAX, ImportLimits};
use super::region::Region;
use super::source::{Source, small};

/// An image for one platform, before its layers are read.
#[derive(Debug)]
pub(super) struct Plan {
    /// What the source calls it; may be empty.
    pub names: Vec<String>,
    pub config_digest: Digest,
    /// The configuration, JSON, checked against its digest.
    pub config: Vec<u8>,
    /// The variant of the architecture, which some tools note only here.
    pub variant: Option<String>,
    /// Bottom first.
    pub layers: Vec<LayerBlob>,
}

#[derive(Clone, Debug)]
pub(super) struct LayerBlob {
    pub name: String,
    pub region: Region,
    /// `docker save` names none; the configuration's `diff_ids` still count.
    pub digest: Option<Digest>,
}

const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFEST_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const CONFIG_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const LAYER_TYPES: [&str; 5] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];
/// Set by BuildKit on what is not an image but says something about one.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// The full name, by containerd and Docker; then the OCI one, often a tag only.
const NAME_ANNOTATIONS: [&str; 2] =
    ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

#[derive(Deserialize)]
struct Layout {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    variant: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Finds out what `source` is and lists its Linux images.
pub(super) fn plans(source: &Source, limits: &ImportLimits) -> Result<Vec<Plan>, ImportError> {
    let mut plans = Vec::new();
    // Newer `docker save` archives are both; the OCI side has more digests.
    if let Some(index) = source.json("index.json")? {
        let Some(layout) = source.json("oci-layout")? else {
            return Err(ImportError::image("index.json", "has no file `oci-layout` beside it"));
        };
        let layout: Layout = json("oci-layout", &layout)?;
        if !layout.version.starts_with("1.") {
            let what = format!("layout version `{}` is not known here", shown(&layout.version));
            return Err(ImportError::image("oci-layout", what));
        }
        let index: Index = json("index.json", &index)?;
        let mut reader = OciReader { source, limits, plans: &mut plans };
        for descriptor in &index.manifests {
            reader.descriptor(descriptor, &[], 0)?;
        }
    } else if let Some(manifest) = source.json("manifest.json")? {
        let images: Vec<DockerImage> = json("manifest.json", &manifest)?;
        for image in images {
            too_many(plans.len(), limits)?;
            plans.push(docker_plan(source, image)?);
        }
    } else {
        return Err(ImportError::NotAnImage(source.path().to_owned()));
    }
    if plans.is_empty() {
        let name = source.path().display().to_string();
        return Err(ImportError::image(&name, "holds no image for Linux"));
    }
    Ok(plans)
}

struct OciReader<'a> {
    source: &'a Source,
    limits: &'a ImportLimits,
    plans: &'a mut Vec<Plan>,
}

impl OciReader<'_> {
    fn descriptor(
        &mut self,
        descriptor: &Descriptor,
        inherited: &[String],
        depth: usize,
    ) -> Result<(), ImportError> {
        let media_type = descriptor.media_type.as_str();
        let is_index = INDEX_TYPES.contains(&media_type);
        let other_system = descriptor.platform.as_ref().is_some_and(|p| p.os != "linux");
        let annotations = descriptor.annotations.iter().flatten();
        let about_another = annotations.clone().any(|(key, _)| key == REFERENCE_TYPE);
        if !(is_index || MANIFEST_TYPES.contains(&media_type)) || other_system || about_another {
            log::info!("passed over {}: not a Linux image", shown(&descriptor.digest));
            return Ok(());
        }
        if depth > 0 && self.source.file(&blob_path(descriptor)?)?.is_none() {
            // Allowed by the specification: an archive of one platform of many.
            log::warn!("{} is in the index, but not in the image", shown(&descriptor.digest));
            return Ok(());
        }
        let own = NAME_ANNOTATIONS
            .iter()
            .find_map(|key| annotations.clone().find(|(k, _)| k == key))
            .map(|(_, name)| name.clone());
        let names = own.map_or_else(|| inherited.to_vec(), |name| vec![name]);
        let (bytes, _) = self.checked(descriptor)?;
        if is_index {
            if depth >= INDEX_DEPTH_MAX {
                let max = INDEX_DEPTH_MAX as u64;
                let what = "the depth of indexes".into();
                return Err(ImportError::TooLarge { what, max, unit: "levels" });
            }
            let index: Index = json(&descriptor.digest, &bytes)?;
            for inner in &index.manifests {
                self.descriptor(inner, &names, depth + 1)?;
            }
            return Ok(());
        }
        let manifest: Manifest = json(&descriptor.digest, &bytes)?;
        self.manifest(&manifest, descriptor, names)
    }

    fn manifest(
        &mut self,
        manifest: &Manifest,
        descriptor: &Descriptor,
        names: Vec<String>,
    ) -> Result<(), ImportError> {
        if !CONFIG_TYPES.contains(&manifest.config.media_type.as_str()) {
            log::info!("passed over {}: an artifact, not an image", shown(&descriptor.digest));
            return Ok(());
        }
        too_many(self.plans.len(), self.limits)?;
        let (config, config_digest) = self.checked(&manifest.config)?;
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            if !LAYER_TYPES.contains(&layer.media_type.as_str()) {
                let what = format!("is a layer of the unknown type `{}`", shown(&layer.media_type));
                return Err(ImportError::blob(&layer.digest, what));
            }
            let (region, digest) = self.blob(layer)?;
            layers.push(LayerBlob { name: layer.digest.clone(), region, digest: Some(digest) });
        }
        let variant = descriptor.platform.as_ref().and_then(|p| p.variant.clone());
        self.plans.push(Plan { names, config_digest, config, variant, layers });
        Ok(())
    }

    /// A JSON blob, after its digest was checked.
    fn checked(&self, descriptor: &Descriptor) -> Result<(Vec<u8>, Digest), ImportError> {
        let (region, digest) = self.blob(descriptor)?;
        let bytes = small(&region, &descriptor.digest)?;
        let found = Digest::of(&bytes);
        if found != digest {
            return Err(ImportError::BlobDigest { blob: digest.to_string(), found });
        }
        Ok((bytes, digest))
    }

    /// The blob, of the right size; its digest is still to be checked.
    fn blob(&self, descriptor: &Descriptor) -> Result<(Region, Digest), ImportError> {
        let path = blob_path(descriptor)?;
        let digest = digest(descriptor)?;
        let region = self.source.file(&path)?;
        let region =
            region.ok_or_else(|| ImportError::blob(&descriptor.digest, "is not in the image"))?;
        if region.len() != descriptor.size {
            let what = format!("has {} bytes instead of {}", region.len(), descriptor.size);
            return Err(ImportError::blob(&descriptor.digest, what));
        }
        Ok((region, digest))
    }
}

fn digest(descriptor: &Descriptor) -> Result<Digest, ImportError> {
    let text = &descriptor.digest;
    let digest = text.starts_with("sha256:").then(|| Digest::parse(text)).flatten();
    digest.ok_or_else(|| ImportError::blob(text, "is not named by a SHA-256 digest"))
}

fn blob_path(descriptor: &Descriptor) -> Result<String, ImportError> {
    Ok(format!("blobs/sha256/{}", digest(descriptor)?.hex()))
}

fn docker_plan(source: &Source, image: DockerImage) -> Result<Plan, ImportError> {
    let absent = |name: &str| ImportError::blob(name, "is not in the archive");
    let region = source.file(&image.config)?.ok_or_else(|| absent(&image.config))?;
    let config = small(&region, &image.config)?;
    let config_digest = Digest::of(&config);
    if named_digest(&image.config).is_some_and(|named| named != config_digest) {
        return Err(ImportError::BlobDigest { blob: image.config, found: config_digest });
    }
    let mut layers = Vec::new();
    for name in image.layers {
        let region = source.file(&name)?.ok_or_else(|| absent(&name))?;
        // `HEX/layer.tar` of older archives is an id, not a digest.
        let digest = name.starts_with("blobs/sha256/").then(|| named_digest(&name)).flatten();
        layers.push(LayerBlob { name, region, digest });
    }
    let names = image.repo_tags.unwrap_or_default();
    Ok(Plan { names, config_digest, config, variant: None, layers })
}

/// The digest that a file's own name states: `…/HEX` or `HEX.json`.
fn named_digest(name: &str) -> Option<Digest> {
    let file = name.rsplit('/').next()?;
    Digest::parse(file.strip_suffix(".json").unwrap_or(file))
}

fn shown(text: &str) -> String {
    printable(text.as_bytes())
}

fn too_many(count: usize, limits: &ImportLimits) -> Result<(), ImportError> {
    if count < limits.images_max {
        return Ok(());
    }
    let max = limits.images_max as u64;
    Err(ImportError::TooLarge { what: "the number of images".into(), max, unit: "images" })
}

pub(super) fn json<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ImportError> {
    serde_json::from_slice(bytes)
        .map_err(|source| ImportError::Json { what: printable(what.as_bytes()), source })
}
