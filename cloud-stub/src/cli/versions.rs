//! `wherry-cloud version …`

use std::path::PathBuf;

use clap::Subcommand;
use wherry_bundle::Name;

use super::carried::Export;
use super::client::{CliError, Client};
use super::output::{list, print, table};
use super::{Output, time};
use crate::version;
use crate::view::{self, VersionId};

#[derive(Debug, Subcommand)]
pub(super) enum Version {
    /// Create a version from a version.yaml and the files that it names.
    Create {
        #[arg(short, long)]
        file: PathBuf,
    },
    /// All versions.
    List {
        #[arg(long)]
        application: Option<Name>,
    },
    /// One version, as APPLICATION@X.Y.Z.N.
    Show { version: VersionId },
    /// Write a version for nodes without a line to a file, with signed bundles
    /// and layers, for a person to carry: `wherry apply FILE` takes it there.
    Export(Export),
    /// Remove a version that no node was given.
    Remove { version: VersionId },
}

impl Version {
    pub fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        match self {
            Self::Create { file } => {
                let package = version::load(&file).map_err(|problems| CliError::Input {
                    what: format!("{} has errors", file.display()),
                    problems: problems.iter().map(ToString::to_string).collect(),
                })?;
                let created: view::Version = client.post("/v1/versions", &package)?;
                print(output, &created, |created| format!("{}\n", created.id))
            }
            Self::List { application } => {
                let application = application.as_ref().map(Name::as_str);
                let query: Vec<_> =
                    application.map(|name| ("application", name)).into_iter().collect();
                let all: Vec<view::Version> = client.get("/v1/versions", &query)?;
                print(output, &all, |all| rows(all))
            }
            Self::Show { version } => {
                let one: view::Version = client.get(&path(&version), &[])?;
                print(output, &one, |one| rows(std::slice::from_ref(one)) + &images(one))
            }
            Self::Export(export) => export.run(client, None),
            Self::Remove { version } => client.delete(&path(&version), &[]),
        }
    }
}

fn path(VersionId { application, number }: &VersionId) -> String {
    format!("/v1/versions/{application}/{number}")
}

fn rows(all: &[view::Version]) -> String {
    let row = |version: &view::Version| {
        [
            version.id.to_string(),
            version.product_type.to_string(),
            list(&version.components),
            list(&version.nodes),
            time::text(version.created_at),
            version.description.clone(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(["VERSION", "PRODUCT TYPE", "COMPONENTS", "NODES", "CREATED", "DESCRIPTION"], &rows)
}

fn images(version: &view::Version) -> String {
    let row = |image: &view::VersionImage| {
        [image.reference.clone(), image.architecture.clone(), image.digest.short()]
    };
    let rows: Vec<_> = version.images.iter().map(row).collect();
    format!("\n{}", table(["IMAGE", "ARCH", "DIGEST"], &rows))
}
