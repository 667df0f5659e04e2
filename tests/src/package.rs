//! Writes version packages for tests: `version.yaml` and what it names.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cloud::Cloud;
use crate::host::Host;

/// A version of the application `shop`.
#[derive(Clone, Debug)]
pub struct Package {
    /// `X.Y.Z`.
    pub number: String,
    pub description: String,
    pub components: Vec<Component>,
    /// Config maps of one file each: name of the map, of the file, and text.
    pub configs: Vec<[String; 3]>,
    /// How long it has to run to be good; the cloud's default if `None`.
    pub stable_seconds: Option<u32>,
}

#[derive(Clone, Debug)]
pub struct Component {
    pub name: String,
    pub image: String,
    /// The text of its template.
    pub template: String,
    pub start_after: Vec<String>,
}

impl Component {
    /// A component that starts at once.
    #[must_use]
    pub fn new(name: &str, image: &str, template: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            image: image.into(),
            template: template.into(),
            start_after: Vec::new(),
        }
    }
}

impl Package {
    #[must_use]
    pub fn new(number: &str, components: Vec<Component>) -> Self {
        let description = format!("version {number} of a test");
        Self {
            number: number.into(),
            description,
            components,
            configs: Vec::new(),
            stable_seconds: None,
        }
    }

    /// Creates the version in the cloud; its full number comes back.
    ///
    /// # Errors
    /// What the cloud says.
    pub fn create(&self, cloud: &Cloud<'_>, host: &Host) -> Result<String> {
        let folder = host.folder().join(format!("package-{}", self.number));
        self.write(&folder)?;
        let file = folder.join("version.yaml");
        cloud.cli(&["version", "create", "-f", file.to_str().context("a plain path")?])?;
        Ok(format!("shop@{}.1", self.number))
    }

    /// Creates the version and rolls it out to every node of the project.
    ///
    /// # Errors
    /// What the cloud says.
    pub fn roll_out(&self, cloud: &Cloud<'_>, host: &Host) -> Result<()> {
        start_rollout(cloud, &self.create(cloud, host)?)
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let mut text = format!(
            "application: shop\nversion: {}\ndescription: {}\nproductType: gateway-single-node\ncomponents:\n",
            self.number, self.description
        );
        fs::create_dir_all(folder)?;
        for Component { name, image, template, start_after } in &self.components {
            fs::write(folder.join(format!("{name}.yaml")), template)?;
            text += &format!("  - name: {name}\n    image: {image}\n    template: {name}.yaml\n");
            if !start_after.is_empty() {
                text += &format!("    startAfter: [{}]\n", start_after.join(", "));
            }
        }
        if let Some(seconds) = self.stable_seconds {
            text += &format!("upgrade: {{ stableSeconds: {seconds} }}\n");
        }
        if !self.configs.is_empty() {
            text += "configurationFiles:\n";
        }
        for [name, file, contents] in &self.configs {
            fs::create_dir_all(folder.join(name))?;
            fs::write(folder.join(name).join(file), contents)?;
            text += &format!("  - name: {name}\n    files: [{name}/{file}]\n");
        }
        fs::write(folder.join("version.yaml"), text)?;
        Ok(())
    }
}

/// Rolls a version that exists out to every node in Berlin: there is one.
///
/// # Errors
/// What the cloud says.
pub fn start_rollout(cloud: &Cloud<'_>, version: &str) -> Result<()> {
    cloud.cli(&["rollout", "start", "--version", version, "--nodes", "site=berlin"]).map(drop)
}
