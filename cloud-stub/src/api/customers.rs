//! `/v1/customers`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use wherry_bundle::Name;

use super::ApiError;
use super::extract::{At, Body, json};
use crate::clock::now_millis;
use crate::cloud::Cloud;
use crate::db::customer;
use crate::view::Customer;

type Shared = State<Arc<Cloud>>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct New {
    name: Name,
}

pub(super) async fn list(State(cloud): Shared) -> Result<Json<Vec<Customer>>, ApiError> {
    json(&cloud, |cloud| cloud.db.read(customer::list)).await
}

pub(super) async fn show(
    State(cloud): Shared,
    At(name): At<Name>,
) -> Result<Json<Customer>, ApiError> {
    json(&cloud, move |cloud| cloud.db.read(|c| customer::show(c, &name))).await
}

pub(super) async fn add(
    State(cloud): Shared,
    Body(New { name }): Body<New>,
) -> Result<Json<Customer>, ApiError> {
    json(&cloud, move |cloud| {
        cloud.db.write(|tx| {
            customer::add(tx, &name, now_millis())?;
            customer::show(tx, &name)
        })
    })
    .await
}

pub(super) async fn remove(State(cloud): Shared, At(name): At<Name>) -> Result<Json<()>, ApiError> {
    json(&cloud, move |cloud| cloud.db.write(|tx| customer::remove(tx, &name))).await
}
