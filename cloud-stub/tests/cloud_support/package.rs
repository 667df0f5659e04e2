//! Images and version packages for the server's tests.

use std::fs;
use std::path::Path;

use serde_json::json;

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
        let layout = layout("lion:1.0", "roar", &["amd64"]);
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
