//! Images and version packages for the server's tests.

use std::fs;
use std::path::Path;

use serde_json::json;
use wherry_bundle::Digest;

use super::{Cloud, text};
use crate::image_support::{Blob, Entry, Layout, tar};

/// An image layout `name` with one program, for these architectures.
pub fn layout(name: &str, contents: &str, architectures: &[&str]) -> Layout {
    let layout = Layout::new();
    let manifests: Vec<_> = architectures
        .iter()
        .map(|architecture| {
            let entries = [
                Entry::dir("bin"),
                Entry::file("bin/lion", &format!("{contents} {architecture}")).mode(0o755),
            ];
            let execution = json!({"Entrypoint": ["/bin/lion"]});
            (name, layout.image(&[Blob::tar(tar(&entries))], architecture, execution))
        })
        .collect();
    layout.index(&manifests);
    layout
}

/// An image layout `name` for amd64, a layer of a megabyte that does not
/// compress for each seed; each has other contents.
pub fn big_layers(name: &str, seeds: &[u64]) -> Layout {
    let files = seeds.iter().map(|seed| (format!("data-{seed}"), noise(*seed, 1 << 20)));
    layers_of(name, files.collect())
}

/// An image layout `name` for amd64, a layer with one file for each of
/// `files`.
pub fn layers_of(name: &str, files: Vec<(String, Vec<u8>)>) -> Layout {
    let layer = |(name, data): (String, Vec<u8>)| {
        Blob::tar(tar(&[Entry { data, ..Entry::file(&name, "") }]))
    };
    let layers: Vec<Blob> = files.into_iter().map(layer).collect();
    let layout = Layout::new();
    let manifest = layout.image(&layers, "amd64", json!({"Entrypoint": ["/bin/lion"]}));
    layout.index(&[(name, manifest)]);
    layout
}

/// The same bytes for the same seed, of no pattern.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    // xorshift64*
    let mut state = seed;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    };
    (0..bytes.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(bytes).collect()
}

/// So many chunks of the smallest size: layers of one chunk each, that the
/// cloud finds when it starts again.
pub fn small_chunks(cloud: &mut Cloud, count: u64) -> Vec<Digest> {
    let write = |seed| {
        let bytes = noise(seed + 1, 8 * 1024);
        let digest = Digest::of(&bytes);
        let file = cloud.data().join(format!("layers/{}.squashfs", digest.hex()));
        fs::write(file, bytes).unwrap();
        digest
    };
    let digests = (0..count).map(write).collect();
    cloud.restart();
    digests
}

/// A deployment of one container with the package's image.
pub fn deployment(name: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{ name: {name} }}\nspec:\n  \
         selector: {{ matchLabels: {{ app: {name} }} }}\n  template:\n    \
         metadata: {{ labels: {{ app: {name} }} }}\n    spec:\n      \
         containers: [{{ name: lion }}]\n"
    )
}

/// Writes a package of one component.
pub fn write(dir: &Path, application: &str, number: &str, image: &str, template: &str) {
    let version = format!(
        "application: {application}\nversion: {number}\ndescription: New lion enclosure\n\
         productType: gateway-single-node\ncomponents:\n  - name: web\n    image: {image}\n    \
         template: web.yaml\n"
    );
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("web.yaml"), template).unwrap();
    fs::write(dir.join("version.yaml"), version).unwrap();
}

impl Cloud {
    /// Imports `lion:1.0` for amd64.
    pub fn import_lion(&self) {
        self.import(&layout("lion:1.0", "roar", &["amd64"]));
    }

    pub fn import(&self, layout: &Layout) {
        self.cli(&["image", "import", text(layout.path())]);
    }

    /// Creates a version of `application` with a deployment of this name;
    /// what `rollout start` wants.
    pub fn create_version(&self, application: &str, number: &str, deployment_name: &str) -> String {
        let dir = self.dir.path().join(format!("{application}-{number}"));
        write(&dir, application, number, "lion:1.0", &deployment(deployment_name));
        let file = dir.join("version.yaml");
        self.cli(&["version", "create", "-f", text(&file)]).trim().to_owned()
    }
}
