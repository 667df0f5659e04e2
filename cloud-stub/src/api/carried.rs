//! `/v1/exports` and `/v1/reports`: what a person carries to a node and back.

use std::io;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use futures_util::stream;
use tokio::sync::mpsc;

use super::ApiError;
use super::extract::{Body as JsonBody, json};
use crate::cloud::Cloud;
use crate::ingest::report::{self, Report};
use crate::ingest::status;
use crate::limits::{EXPORT_QUEUE_MAX, REPORT_BYTES_MAX};
use crate::rollout::{self, WriteError};
use crate::view::{ExportRequest, ReportImported};

type Shared = State<Arc<Cloud>>;

/// Answers with the file; an answer that breaks off is no whole one.
pub(super) async fn export(
    State(cloud): Shared,
    JsonBody(request): JsonBody<ExportRequest>,
) -> Result<impl IntoResponse, ApiError> {
    let prepared = cloud.blocking(move |cloud| rollout::export(cloud, &request)).await?;
    let (sender, pieces) = mpsc::channel::<io::Result<Bytes>>(EXPORT_QUEUE_MAX);
    tokio::task::spawn_blocking(move || {
        let send = |piece: Vec<u8>| sender.blocking_send(Ok(piece.into())).is_ok();
        match prepared.write(&cloud, send) {
            Ok(()) => {}
            Err(error @ WriteError::Gone) => log::info!("an export broke off: {error}"),
            Err(error) => {
                log::error!("an export broke off: {error}");
                // An error ends the connection in the middle: the reader sees
                // that the file is not whole. It may be gone itself.
                let _ = sender.blocking_send(Err(io::Error::other(error)));
            }
        }
    });
    let pieces = stream::unfold(pieces, |mut pieces| async {
        pieces.recv().await.map(|piece| (piece, pieces))
    });
    Ok(([(CONTENT_TYPE, "application/octet-stream")], Body::from_stream(pieces)))
}

/// The body is the report.
pub(super) async fn import_report(
    State(cloud): Shared,
    body: Body,
) -> Result<Json<ReportImported>, ApiError> {
    let bytes = axum::body::to_bytes(body, REPORT_BYTES_MAX).await.map_err(|_| {
        ApiError::too_large(format!("this is no report: one has at most {REPORT_BYTES_MAX} bytes"))
    })?;
    let report = Report::read(&bytes)?;
    let Json((imported, due)) = json(&cloud, move |cloud| report::import(cloud, &report)).await?;
    status::publish(&cloud, due).await;
    Ok(Json(imported))
}
