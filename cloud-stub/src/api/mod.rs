//! The HTTP API: JSON over `/v1/…`, one file an entity, all of one shape.
//!
//! It authenticates nobody: it listens on loopback, or behind something that
//! does. A browser is turned away, so that no web page can use it behind its
//! user's back. Every answer but a success is a [`crate::view::Failure`].
//! Never here: SQL, compiling, MQTT.

mod applications;
mod carried;
mod customers;
mod error;
mod exec;
mod extract;
mod images;
mod logs;
mod nodes;
mod orders;
mod projects;
mod rollouts;
mod system;
mod versions;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::header::ORIGIN;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::cloud::Cloud;
use crate::limits::{PACKAGE_BYTES_MAX, REQUEST_BYTES_MAX};

pub use error::ApiError;
pub use nodes::NewNodeRequest;
pub use system::{Health, Key};

/// All routes.
pub fn router(cloud: Arc<Cloud>) -> Router {
    let uploads = get(images::list).post(images::import).delete(images::remove);
    Router::new()
        .route("/v1/customers", get(customers::list).post(customers::add))
        .route("/v1/customers/{name}", get(customers::show).delete(customers::remove))
        .route("/v1/projects", get(projects::list).post(projects::add))
        .route("/v1/projects/{name}", get(projects::show).delete(projects::remove))
        .route("/v1/applications", get(applications::list).post(applications::add))
        .route("/v1/applications/{name}", get(applications::show).delete(applications::remove))
        .route("/v1/nodes", get(nodes::list).post(nodes::add))
        .route("/v1/nodes/{name}", get(nodes::show).delete(nodes::remove))
        .route("/v1/nodes/{name}/config", get(nodes::config))
        .route("/v1/nodes/{name}/events", get(nodes::events))
        .route("/v1/nodes/{name}/logs", get(logs::stream))
        .route("/v1/nodes/{name}/exec", post(exec::run))
        // A stream to a file, with a limit of its own.
        .route("/v1/images", uploads.layer(DefaultBodyLimit::disable()))
        .route(
            "/v1/versions",
            get(versions::list)
                .merge(post(versions::add).layer(DefaultBodyLimit::max(PACKAGE_BYTES_MAX))),
        )
        .route("/v1/versions/{application}/{number}", get(versions::show).delete(versions::remove))
        .route("/v1/rollouts", get(rollouts::list).post(rollouts::start))
        .route("/v1/rollouts/{id}", get(rollouts::show))
        .route("/v1/exports", post(carried::export))
        // With a limit of its own.
        .route("/v1/reports", post(carried::import_report).layer(DefaultBodyLimit::disable()))
        .route("/v1/key", get(system::key))
        .route("/v1/health", get(system::health))
        .route("/metrics", get(system::metrics))
        .fallback(async || ApiError::not_found("there is nothing at this address"))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .layer(middleware::from_fn(no_browser))
        .with_state(cloud)
}

/// Programs do not send `Origin`; browsers do, with all that changes
/// something, whatever page it comes from.
async fn no_browser(request: Request, next: Next) -> Response {
    if request.headers().contains_key(ORIGIN) {
        return ApiError::forbidden("the API takes no requests from browsers").into_response();
    }
    next.run(request).await
}
