//! What goes wrong, as an HTTP answer.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use wherry_bundle::InvalidName;

use crate::chunks::CutError;
use crate::db::{DbError, What};
use crate::image::ImportError;
use crate::ingest::replies::TooMany;
use crate::ingest::report::ReportError;
use crate::mqtt::Away;
use crate::rollout::RolloutError;
use crate::template::place::Problem;
use crate::view::Failure;

#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    failure: Failure,
}

impl ApiError {
    #[must_use]
    pub fn new(status: StatusCode, error: impl ToString) -> Self {
        Self { status, failure: Failure { error: error.to_string(), ..Failure::default() } }
    }

    /// 400: the request itself is wrong.
    #[must_use]
    pub fn invalid(error: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    #[must_use]
    pub fn not_found(error: impl ToString) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    #[must_use]
    pub fn forbidden(error: impl ToString) -> Self {
        Self::new(StatusCode::FORBIDDEN, error)
    }

    #[must_use]
    pub fn too_large(error: impl ToString) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, error)
    }

    /// 422: the contents are wrong.
    #[must_use]
    pub fn unprocessable(error: impl ToString) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, error)
    }

    #[must_use]
    pub fn unavailable(error: impl ToString) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }

    /// 500, for the log too.
    #[must_use]
    pub fn internal(error: impl ToString) -> Self {
        let error = error.to_string();
        log::error!("{error}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error)
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.failure.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn problems(mut self, problems: Vec<String>) -> Self {
        self.failure.problems = problems;
        self
    }

    /// All that is wrong with a version.
    #[must_use]
    pub fn version(problems: &[Problem]) -> Self {
        Self::unprocessable("the version has errors")
            .problems(problems.iter().map(ToString::to_string).collect())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.failure)).into_response()
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        match &error {
            DbError::NotFound { what, .. } => {
                let list = match what {
                    What::Rollout => "wherry-cloud rollout status".to_owned(),
                    What::Customer
                    | What::Project
                    | What::Node
                    | What::Application
                    | What::Image
                    | What::Version => format!("wherry-cloud {what} list"),
                };
                Self::not_found(&error).hint(format!("`{list}` shows those that there are"))
            }
            DbError::Taken { what, name } => Self::new(StatusCode::CONFLICT, &error)
                .hint(format!("choose another name; `wherry-cloud {what} show {name}` shows it")),
            DbError::InUse { .. } => {
                Self::new(StatusCode::CONFLICT, &error).hint("remove what uses it first")
            }
            DbError::Newer { .. } | DbError::Corrupt(_) | DbError::Sqlite(_) => {
                Self::internal(&error)
            }
        }
    }
}

impl From<InvalidName> for ApiError {
    fn from(error: InvalidName) -> Self {
        Self::invalid(error)
    }
}

impl From<RolloutError> for ApiError {
    fn from(error: RolloutError) -> Self {
        match error {
            RolloutError::Selector(error) => Self::invalid(error)
                .hint("write label=value, label!=value, name=NODE, joined by commas, or `*`"),
            RolloutError::NoNode { .. } => {
                Self::unprocessable(error).hint("`wherry-cloud node list` shows nodes and labels")
            }
            RolloutError::TooManyNodes(_)
            | RolloutError::OtherProject { .. }
            | RolloutError::NoNodes(_) => Self::unprocessable(error),
            RolloutError::Refused(problems) => {
                Self::unprocessable("the version cannot go to these nodes; nothing was changed")
                    .problems(problems)
            }
            RolloutError::Db(error) => error.into(),
        }
    }
}

impl From<ImportError> for ApiError {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Io { .. } | ImportError::Tool { .. } | ImportError::ToolMissing { .. } => {
                Self::internal(error)
            }
            ImportError::TooLarge { .. } => Self::too_large(error),
            ImportError::NotAnImage(_) => Self::unprocessable(
                "this is not an image: give an OCI layout folder, an OCI archive or a `docker \
                 save` archive",
            ),
            ImportError::Archive { .. }
            | ImportError::Blob { .. }
            | ImportError::BlobDigest { .. }
            | ImportError::Json { .. }
            | ImportError::Image { .. }
            | ImportError::Layer { .. } => Self::unprocessable(error),
        }
    }
}

impl From<CutError> for ApiError {
    fn from(error: CutError) -> Self {
        match error {
            CutError::Lists { .. } => Self::too_large(error),
            CutError::Read { .. } | CutError::Damaged { .. } | CutError::Db(_) => {
                Self::internal(error)
            }
        }
    }
}

impl From<ReportError> for ApiError {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Db(error) => error.into(),
            ReportError::Item(_) | ReportError::Order(_) => Self::unprocessable(error)
                .hint("nothing was changed; let the gateway write it again"),
        }
    }
}

impl From<Away> for ApiError {
    fn from(error: Away) -> Self {
        Self::unavailable(error).hint("check the broker; the cloud connects again by itself")
    }
}

impl From<TooMany> for ApiError {
    fn from(error: TooMany) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, error)
    }
}
