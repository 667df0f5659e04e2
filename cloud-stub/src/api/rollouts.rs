//! `/v1/rollouts`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use wherry_bundle::Name;

use super::ApiError;
use super::extract::{Asked, At, Body, json};
use crate::cloud::Cloud;
use crate::db;
use crate::limits::ROLLOUTS_LISTED_MAX;
use crate::rollout::{self, Started};
use crate::view::{Rollout, RolloutRequest};

type Shared = State<Arc<Cloud>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    application: Option<Name>,
    /// The newest so many.
    limit: Option<u32>,
}

/// Newest first.
pub(super) async fn list(
    State(cloud): Shared,
    Asked(which): Asked<Which>,
) -> Result<Json<Vec<Rollout>>, ApiError> {
    let limit = which.limit.unwrap_or(ROLLOUTS_LISTED_MAX);
    json(&cloud, move |cloud| {
        cloud.db.read(|c| db::rollout::list(c, which.application.as_ref(), limit))
    })
    .await
}

pub(super) async fn show(State(cloud): Shared, At(id): At<u64>) -> Result<Json<Rollout>, ApiError> {
    json(&cloud, move |cloud| cloud.db.read(|c| db::rollout::show(c, id))).await
}

pub(super) async fn start(
    State(cloud): Shared,
    Body(request): Body<RolloutRequest>,
) -> Result<Json<Rollout>, ApiError> {
    let Started { rollout, due } =
        cloud.blocking(move |cloud| rollout::start(cloud, &request)).await?;
    for node in due {
        // Stored, so it is published when the broker is back.
        if let Err(error) = cloud.publish_desired(&node).await {
            log::warn!("the rollout waits for the broker: {error}");
            break;
        }
    }
    Ok(Json(rollout))
}
