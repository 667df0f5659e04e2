//! `/v1/projects`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use wherry_bundle::Name;

use super::ApiError;
use super::extract::{At, Body, json};
use crate::clock::now_millis;
use crate::cloud::Cloud;
use crate::db::project;
use crate::view::Project;

type Shared = State<Arc<Cloud>>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct New {
    name: Name,
    customer: Name,
}

pub(super) async fn list(State(cloud): Shared) -> Result<Json<Vec<Project>>, ApiError> {
    json(&cloud, |cloud| cloud.db.read(project::list)).await
}

pub(super) async fn show(
    State(cloud): Shared,
    At(name): At<Name>,
) -> Result<Json<Project>, ApiError> {
    json(&cloud, move |cloud| cloud.db.read(|c| project::show(c, &name))).await
}

pub(super) async fn add(
    State(cloud): Shared,
    Body(New { name, customer }): Body<New>,
) -> Result<Json<Project>, ApiError> {
    json(&cloud, move |cloud| {
        cloud.db.write(|tx| {
            project::add(tx, &name, &customer, now_millis())?;
            project::show(tx, &name)
        })
    })
    .await
}

pub(super) async fn remove(State(cloud): Shared, At(name): At<Name>) -> Result<Json<()>, ApiError> {
    json(&cloud, move |cloud| cloud.db.write(|tx| project::remove(tx, &name))).await
}
