//! `/v1/nodes`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use wherry_bundle::Name;
use wherry_bundle::message::Event;

use super::ApiError;
use super::extract::{Asked, At, Body, json};
use crate::architecture;
use crate::clock::now_millis;
use crate::cloud::Cloud;
use crate::db::node::{self, NewNode};
use crate::db::{self, DbError, What};
use crate::limits::{EVENTS_TAIL_MAX, LABELS_MAX};
use crate::selector::check_label;
use crate::version::ProductType;
use crate::view::{Node, NodeAdded, NodeDetail};
use crate::{keys, node_config};

type Shared = State<Arc<Cloud>>;

/// Events that are shown when nobody says how many.
const EVENTS_TAIL: u32 = 100;

/// The body of `node add`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewNodeRequest {
    pub name: Name,
    pub project: Name,
    pub product_type: ProductType,
    /// As images name it, or as `uname -m` does.
    pub architecture: String,
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tail {
    tail: Option<u32>,
}

pub(super) async fn list(State(cloud): Shared) -> Result<Json<Vec<Node>>, ApiError> {
    json(&cloud, |cloud| cloud.db.read(node::list)).await
}

pub(super) async fn show(
    State(cloud): Shared,
    At(name): At<Name>,
) -> Result<Json<NodeDetail>, ApiError> {
    json(&cloud, move |cloud| cloud.db.read(|c| node::detail(c, &name))).await
}

pub(super) async fn add(
    State(cloud): Shared,
    Body(request): Body<NewNodeRequest>,
) -> Result<Json<NodeAdded>, ApiError> {
    let architecture =
        architecture::canonical(&request.architecture).map_err(ApiError::invalid)?.to_owned();
    if request.labels.len() > LABELS_MAX {
        return Err(ApiError::invalid(format!("a node has at most {LABELS_MAX} labels")));
    }
    for (key, value) in &request.labels {
        check_label(key, value).map_err(ApiError::invalid)?;
    }
    let token = keys::new_token().map_err(ApiError::internal)?;
    let NewNodeRequest { name, project, product_type, labels, .. } = request;
    let new = NewNode { name, project, product_type, architecture, labels, token };
    json(&cloud, move |cloud| {
        cloud.db.write(|tx| node::add(tx, &new, now_millis()))?;
        Ok::<_, DbError>(NodeAdded { name: new.name, token: new.token })
    })
    .await
}

/// The node's bundle is taken back from the broker, and its connection ended.
pub(super) async fn remove(State(cloud): Shared, At(name): At<Name>) -> Result<Json<()>, ApiError> {
    let removed = name.clone();
    let Json(()) =
        json(&cloud, move |cloud| cloud.db.write(|tx| node::remove(tx, &removed))).await?;
    if let Err(error) = cloud.publish_desired(&name).await {
        log::warn!("the broker still holds what was desired of {name}: {error}");
    }
    // Nobody hears of it when the broker is an external one.
    let _ = cloud.removed.send(name);
    Ok(Json(()))
}

/// Its `wherry.toml`, as text.
pub(super) async fn config(
    State(cloud): Shared,
    At(name): At<Name>,
) -> Result<impl IntoResponse, ApiError> {
    let Json(text) = json(&cloud, move |cloud| {
        let token = cloud
            .db
            .read(|c| node::token(c, &name))?
            .ok_or_else(|| DbError::NotFound { what: What::Node, name: name.to_string() })?;
        let (host, port) = cloud
            .public_broker
            .get()
            .ok_or_else(|| ApiError::unavailable("the broker is not started yet"))?;
        let key = cloud.public_key_hex();
        Ok::<_, ApiError>(node_config::text(&name, &key, host, *port, &token))
    })
    .await?;
    Ok(([(CONTENT_TYPE, "application/toml")], text))
}

pub(super) async fn events(
    State(cloud): Shared,
    At(name): At<Name>,
    Asked(Tail { tail }): Asked<Tail>,
) -> Result<Json<Vec<Event>>, ApiError> {
    let tail = tail.unwrap_or(EVENTS_TAIL).min(EVENTS_TAIL_MAX);
    json(&cloud, move |cloud| cloud.db.read(|c| db::event::tail(c, &name, tail))).await
}
