//! `/v1/applications`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use wherry_bundle::Name;

use super::ApiError;
use super::extract::{At, Body, json};
use crate::clock::now_millis;
use crate::cloud::Cloud;
use crate::db::application;
use crate::view::Application;

type Shared = State<Arc<Cloud>>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct New {
    name: Name,
    project: Name,
}

pub(super) async fn list(State(cloud): Shared) -> Result<Json<Vec<Application>>, ApiError> {
    json(&cloud, |cloud| cloud.db.read(application::list)).await
}

pub(super) async fn show(
    State(cloud): Shared,
    At(name): At<Name>,
) -> Result<Json<Application>, ApiError> {
    json(&cloud, move |cloud| cloud.db.read(|c| application::show(c, &name))).await
}

pub(super) async fn add(
    State(cloud): Shared,
    Body(New { name, project }): Body<New>,
) -> Result<Json<Application>, ApiError> {
    json(&cloud, move |cloud| {
        cloud.db.write(|tx| {
            application::add(tx, &name, &project, now_millis())?;
            application::show(tx, &name)
        })
    })
    .await
}

pub(super) async fn remove(State(cloud): Shared, At(name): At<Name>) -> Result<Json<()>, ApiError> {
    json(&cloud, move |cloud| cloud.db.write(|tx| application::remove(tx, &name))).await
}
