//! `/v1/versions`

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use wherry_bundle::{BuildVersion, Name};

use super::ApiError;
use super::extract::{Asked, At, Body, json};
use crate::clock::now_millis;
use crate::cloud::Cloud;
use crate::db::{self, DbError};
use crate::image::{ImageInfo, reference::familiar};
use crate::version::{self, VersionPackage};
use crate::view::{Version, VersionId};

type Shared = State<Arc<Cloud>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    application: Option<Name>,
}

pub(super) async fn list(
    State(cloud): Shared,
    Asked(which): Asked<Which>,
) -> Result<Json<Vec<Version>>, ApiError> {
    json(&cloud, move |cloud| cloud.db.read(|c| db::version::list(c, which.application.as_ref())))
        .await
}

pub(super) async fn show(
    State(cloud): Shared,
    At((application, number)): At<(Name, BuildVersion)>,
) -> Result<Json<Version>, ApiError> {
    let id = VersionId { application, number };
    json(&cloud, move |cloud| cloud.db.read(|c| db::version::show(c, &id))).await
}

/// Checks and keeps a package, with the images that it names as they are now.
pub(super) async fn add(
    State(cloud): Shared,
    Body(package): Body<VersionPackage>,
) -> Result<Json<Version>, ApiError> {
    json(&cloud, move |cloud| create(cloud, &package)).await
}

pub(super) async fn remove(
    State(cloud): Shared,
    At((application, number)): At<(Name, BuildVersion)>,
) -> Result<Json<()>, ApiError> {
    let id = VersionId { application, number };
    json(&cloud, move |cloud| cloud.db.write(|tx| db::version::remove(tx, &id))).await
}

fn create(cloud: &Cloud, package: &VersionPackage) -> Result<Version, ApiError> {
    cloud.db.read(|c| db::application::show(c, &package.application))?;
    // Any architecture serves to check the templates; all are kept.
    let images = images_of(cloud, package)?;
    let lookup = |name: &str| {
        let name = familiar(name);
        images.iter().find(|info| info.reference == name).cloned()
    };
    version::compile(package, &lookup).map_err(|problems| ApiError::version(&problems))?;
    Ok(cloud.db.write(|tx| {
        let id = db::version::add(tx, package, &images, now_millis())?;
        db::version::show(tx, &id)
    })?)
}

/// The images that the package names, in every architecture that there is.
fn images_of(cloud: &Cloud, package: &VersionPackage) -> Result<Vec<ImageInfo>, DbError> {
    let named = RefCell::new(BTreeSet::new());
    let note = |name: &str| {
        named.borrow_mut().insert(familiar(name));
        None
    };
    // Only to learn the names: what is wrong is found when they are known.
    let _ = version::compile(package, &note);
    let mut images = Vec::new();
    for name in named.into_inner() {
        images.extend(cloud.db.read(|c| db::image::infos(c, &name))?);
    }
    Ok(images)
}
