//! `version`: versions of applications.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Subcommand;
use wherry_bundle::Name;

use super::client::Api;
use super::table::{Output, columns, facts, list, print};
use crate::view::{self, VersionId};

#[derive(Debug, Subcommand)]
pub enum Version {
    /// Make a version of a version.yaml and the files that it names.
    Create {
        #[arg(short, long)]
        file: PathBuf,
    },
    /// List versions.
    List {
        #[arg(long)]
        application: Option<Name>,
    },
    /// Show one version, as APPLICATION@X.Y.Z.N.
    Show { version: VersionId },
    /// Remove a version that no node was given.
    Remove { version: VersionId },
}

impl Version {
    pub(super) fn run(self, api: &Api, output: Output) -> Result<()> {
        match self {
            Self::Create { file } => {
                let package = match crate::version::load(&file) {
                    Ok(package) => package,
                    Err(problems) => {
                        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                        bail!(
                            "the version has {} problem(s):\n  {}",
                            lines.len(),
                            lines.join("\n  ")
                        )
                    }
                };
                let made: view::Version = api.post("/v1/versions", &package)?;
                print(output, &made, |made| format!("{}\n", made.id))
            }
            Self::Remove { version } => api.delete(&path(&version), &[]),
            Self::List { application } => {
                let application = application.map(|name| name.to_string());
                let query: Vec<_> =
                    application.as_deref().map(|name| ("application", name)).into_iter().collect();
                let all: Vec<view::Version> = api.get("/v1/versions", &query)?;
                print(output, &all, |all| {
                    let rows = all.iter().map(|v| {
                        [
                            v.id.to_string(),
                            v.product_type.to_string(),
                            list(&v.components),
                            v.nodes.len().to_string(),
                            v.description.clone(),
                        ]
                    });
                    columns(["VERSION", "PRODUCT TYPE", "COMPONENTS", "NODES", "DESCRIPTION"], rows)
                })
            }
            Self::Show { version } => {
                let one: view::Version = api.get(&path(&version), &[])?;
                print(output, &one, |v| {
                    let images =
                        v.images.iter().map(|i| format!("{} ({})", i.reference, i.architecture));
                    facts([
                        ("version", v.id.to_string()),
                        ("description", v.description.clone()),
                        ("product type", v.product_type.to_string()),
                        ("components", list(&v.components)),
                        ("images", list(images)),
                        ("nodes", list(&v.nodes)),
                    ])
                })
            }
        }
    }
}

fn path(version: &VersionId) -> String {
    format!("/v1/versions/{}/{}", version.application, version.number)
}
