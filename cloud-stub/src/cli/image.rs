//! `image`: container images.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;

use super::client::Api;
use super::table::{Output, columns, facts, list, print};
use crate::view;

#[derive(Debug, Subcommand)]
pub enum Image {
    /// Import an OCI layout folder, an OCI archive or a `docker save` archive.
    Import {
        path: PathBuf,
        /// What templates call it; needed if the archive does not say.
        #[arg(long)]
        name: Option<String>,
        /// Only this platform of several, such as arm64.
        #[arg(long)]
        arch: Option<String>,
    },
    /// List all images.
    List,
    /// Show an image, each of its platforms.
    Show { reference: String },
    /// Remove an image that no version uses.
    Remove { reference: String },
}

impl Image {
    pub(super) fn run(self, api: &Api, output: Output) -> Result<()> {
        match self {
            Self::Import { path, name, arch } => {
                let mut query = Vec::new();
                query.extend(name.as_deref().map(|name| ("name", name)));
                query.extend(arch.as_deref().map(|arch| ("architecture", arch)));
                let imported: Vec<view::ImageImported> =
                    api.upload("/v1/images", &query, &archive(&path)?)?;
                print(output, &imported, |imported| {
                    let rows = imported.iter().map(|i| {
                        let layers = format!("{} ({} new)", i.layers, i.layers_new);
                        [
                            i.reference.clone(),
                            i.architecture.clone(),
                            i.digest.short(),
                            layers,
                            megabytes(i.size_bytes),
                        ]
                    });
                    columns(["IMAGE", "ARCH", "DIGEST", "LAYERS", "SIZE"], rows)
                })
            }
            Self::Remove { reference } => api.delete("/v1/images", &[("reference", &reference)]),
            Self::List => {
                let all: Vec<view::Image> = api.get("/v1/images", &[])?;
                print(output, &all, |all| {
                    let rows = all.iter().map(|i| {
                        [
                            i.reference.clone(),
                            i.architecture.clone(),
                            i.digest.short(),
                            i.layers.to_string(),
                            megabytes(i.size_bytes),
                        ]
                    });
                    columns(["IMAGE", "ARCH", "DIGEST", "LAYERS", "SIZE"], rows)
                })
            }
            Self::Show { reference } => {
                let all: Vec<view::Image> = api.get("/v1/images", &[("reference", &reference)])?;
                print(output, &all, |all| {
                    let shown = all.iter().map(|i| {
                        facts([
                            ("image", i.reference.clone()),
                            ("architecture", i.architecture.clone()),
                            ("digest", i.digest.to_string()),
                            ("layers", i.layers.to_string()),
                            ("size", megabytes(i.size_bytes)),
                            ("used by", list(&i.used_by)),
                        ])
                    });
                    shown.collect::<Vec<_>>().join("\n")
                })
            }
        }
    }
}

/// The file at `path`; a folder becomes an archive, which is what travels.
fn archive(path: &Path) -> Result<File> {
    let shown = || path.display().to_string();
    if !path.is_dir() {
        return File::open(path).with_context(shown);
    }
    anyhow::ensure!(
        path.join("oci-layout").is_file(),
        "{}: a folder has to be an OCI image layout, with a file `oci-layout`",
        path.display()
    );
    let mut file = tempfile::tempfile().context("a temporary file for the archive")?;
    let mut builder = tar::Builder::new(&mut file);
    builder.follow_symlinks(false);
    builder.append_dir_all(".", path).with_context(shown)?;
    builder.finish().with_context(shown)?;
    drop(builder);
    std::io::Seek::rewind(&mut file)?;
    Ok(file)
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}
