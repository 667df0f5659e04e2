//! `wherry-cloud image …`

use std::path::PathBuf;

use clap::Subcommand;

use super::archive;
use super::client::{CliError, Client};
use super::output::{list, print, size, table};
use super::{Output, time};
use crate::view::{self, ImageImported};

#[derive(Debug, Subcommand)]
pub(super) enum Image {
    /// Import an OCI layout folder, an OCI archive or a `docker save` archive.
    Import {
        file: PathBuf,
        /// Instead of the name that it has.
        #[arg(long)]
        name: Option<String>,
        /// Only this one of several architectures.
        #[arg(long)]
        arch: Option<String>,
    },
    /// All images.
    List,
    /// One image, in every architecture that there is.
    Show { name: String },
    /// Remove an image that no version is made of.
    Remove {
        name: String,
        /// Only of this architecture.
        #[arg(long)]
        arch: Option<String>,
    },
}

impl Image {
    pub fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        match self {
            Self::Import { file, name, arch } => {
                let file = archive::open(&file)?;
                let query = [("name", name), ("architecture", arch)];
                let query = given(&query);
                let imported: Vec<ImageImported> = client.upload("/v1/images", &query, &file)?;
                print(output, &imported, |imported| imported_rows(imported))
            }
            Self::List => {
                let all: Vec<view::Image> = client.get("/v1/images", &[])?;
                print(output, &all, |all| rows(all))
            }
            Self::Show { name } => {
                let found: Vec<view::Image> = client.get("/v1/images", &[("reference", &name)])?;
                print(output, &found, |found| rows(found))
            }
            Self::Remove { name, arch } => {
                let query = [("reference", Some(name)), ("architecture", arch)];
                client.delete("/v1/images", &given(&query))
            }
        }
    }
}

/// Pairs that have a value.
fn given<'a>(pairs: &'a [(&'a str, Option<String>)]) -> Vec<(&'a str, &'a str)> {
    pairs.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?))).collect()
}

fn imported_rows(imported: &[ImageImported]) -> String {
    let row = |image: &ImageImported| {
        [
            image.reference.clone(),
            image.architecture.clone(),
            image.digest.short(),
            format!("{} ({} new)", image.layers, image.layers_new),
            size(image.size_bytes),
        ]
    };
    let rows: Vec<_> = imported.iter().map(row).collect();
    table(["NAME", "ARCH", "DIGEST", "LAYERS", "SIZE"], &rows)
}

fn rows(all: &[view::Image]) -> String {
    let row = |image: &view::Image| {
        [
            image.reference.clone(),
            image.architecture.clone(),
            image.digest.short(),
            image.layers.to_string(),
            size(image.size_bytes),
            time::text(image.imported_at),
            list(&image.used_by),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(["NAME", "ARCH", "DIGEST", "LAYERS", "SIZE", "IMPORTED", "USED BY"], &rows)
}
