//! `/v1/images`: names have slashes and colons, so they come after the `?`.

use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use futures_util::StreamExt;
use serde::Deserialize;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;

use super::ApiError;
use super::extract::{Asked, json};
use crate::chunks;
use crate::clock::now_millis;
use crate::cloud::Cloud;
use crate::db::{self, DbError};
use crate::image::reference::{familiar, is_valid};
use crate::image::{self, ImportLimits, ImportOptions, ImportedImage};
use crate::limits::UPLOAD_BYTES_MAX;
use crate::unused_layers;
use crate::view::{Image, ImageImported};

type Shared = State<Arc<Cloud>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    reference: Option<String>,
    architecture: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct How {
    name: Option<String>,
    architecture: Option<String>,
}

/// All, or those of one name.
pub(super) async fn list(
    State(cloud): Shared,
    Asked(which): Asked<Which>,
) -> Result<Json<Vec<Image>>, ApiError> {
    json(&cloud, move |cloud| {
        cloud.db.read(|c| match &which.reference {
            Some(reference) => db::image::show(c, &familiar(reference)),
            None => db::image::list(c),
        })
    })
    .await
}

/// The body is the archive.
pub(super) async fn import(
    State(cloud): Shared,
    Asked(how): Asked<How>,
    body: Body,
) -> Result<Json<Vec<ImageImported>>, ApiError> {
    if let Some(name) = how.name.as_deref().filter(|name| !is_valid(name)) {
        return Err(ApiError::invalid(format!("`{name}` cannot be an image's name")));
    }
    let upload = receive(&cloud, body).await?;
    let options = ImportOptions { name: how.name, architecture: how.architecture };
    json(&cloud, move |cloud| import_file(cloud, &upload, &options)).await
}

pub(super) async fn remove(
    State(cloud): Shared,
    Asked(which): Asked<Which>,
) -> Result<Json<()>, ApiError> {
    let Some(reference) = which.reference else {
        return Err(ApiError::invalid("say which image: ?reference=NAME"));
    };
    json(&cloud, move |cloud| {
        let _alone = cloud.images.lock().unwrap_or_else(PoisonError::into_inner);
        let architecture = which.architecture.as_deref();
        cloud.db.write(|tx| db::image::remove(tx, &familiar(&reference), architecture))?;
        remove_unused_layers(cloud)
    })
    .await
}

/// Writes an upload to a file that goes away with the returned value.
async fn receive(cloud: &Cloud, body: Body) -> Result<NamedTempFile, ApiError> {
    let file = NamedTempFile::new_in(&cloud.uploads).map_err(ApiError::internal)?;
    let handle = file.reopen().map_err(ApiError::internal)?;
    let mut handle = tokio::fs::File::from_std(handle);
    let mut stream = body.into_data_stream();
    let mut bytes_left = UPLOAD_BYTES_MAX;
    while let Some(piece) = stream.next().await {
        let piece =
            piece.map_err(|error| ApiError::invalid(format!("upload broken off: {error}")))?;
        bytes_left = bytes_left.checked_sub(piece.len() as u64).ok_or_else(|| {
            ApiError::too_large(format!("an archive has at most {UPLOAD_BYTES_MAX} bytes"))
        })?;
        handle.write_all(&piece).await.map_err(ApiError::internal)?;
    }
    handle.flush().await.map_err(ApiError::internal)?;
    Ok(file)
}

fn import_file(
    cloud: &Cloud,
    upload: &NamedTempFile,
    options: &ImportOptions,
) -> Result<Vec<ImageImported>, ApiError> {
    let _alone = cloud.images.lock().unwrap_or_else(PoisonError::into_inner);
    let imported = image::import(upload.path(), options, &cloud.blobs, &ImportLimits::default())?;
    let layers = imported.iter().flat_map(|image| &image.info.layers).map(|layer| layer.digest);
    chunks::cut_new(&cloud.db, &cloud.blobs, &layers.collect())?;
    cloud.db.write(|tx| {
        imported.iter().try_for_each(|image| db::image::put(tx, &image.info, now_millis()))
    })?;
    Ok(imported.into_iter().map(view).collect())
}

fn view(ImportedImage { info, layers_new }: ImportedImage) -> ImageImported {
    ImageImported {
        layers: info.layers.len(),
        layers_new,
        size_bytes: info.layers.iter().map(|layer| layer.size_bytes).sum(),
        reference: info.reference,
        architecture: info.architecture,
        digest: info.digest,
    }
}

/// Layers that neither an image nor a version names go. A node that fetches
/// one at the moment has it by a version.
fn remove_unused_layers(cloud: &Cloud) -> Result<(), DbError> {
    let used = cloud.db.read(db::image::layers_in_use)?;
    match unused_layers::remove(&cloud.db, &cloud.blobs, &used) {
        Ok(removed) => log::info!("{removed} unused layers removed"),
        // They are only in the way; the next removal tries again.
        Err(error) => log::warn!("unused layers are not removed: {error}"),
    }
    Ok(())
}
