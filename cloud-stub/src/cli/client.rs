//! HTTP requests to the API, and its failures as errors.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Response;
use ureq::{Agent, Body, BodyReader};

use crate::view::Failure;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An answer that is read at once; log streams are read line by line.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug)]
pub(super) struct Client {
    base: String,
    agent: Agent,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error("{}", .0.error)]
    Refused(Failure),
    #[error("cannot reach the API at {base}: {source}")]
    Unreachable { base: String, source: ureq::Error },
    #[error("the answer of the API at {base} is not understood: {source}")]
    Answer { base: String, source: serde_json::Error },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    /// Each a line.
    #[error("{what}")]
    Input { what: String, problems: Vec<String> },
    /// An answer that ends too early, or is something else.
    #[error("{what}")]
    BrokenOff { what: String },
    #[error("{0}")]
    Output(#[from] io::Error),
    /// What was asked for is bad news, and printed.
    #[error("there are problems")]
    Problems,
    /// Each a line.
    #[error("not all files can be read")]
    Unreadable(Vec<String>),
    /// A command on a node, by its own exit status.
    #[error("{}", what.as_deref().unwrap_or_default())]
    Ended { what: Option<String>, status: u8 },
}

impl CliError {
    pub fn input(what: impl ToString) -> Self {
        Self::Input { what: what.to_string(), problems: Vec::new() }
    }

    /// As the program's documentation has it.
    pub fn status(&self) -> ExitCode {
        match self {
            Self::Unreadable(_) => ExitCode::from(2),
            Self::Ended { status, .. } => ExitCode::from(*status),
            Self::Refused(_)
            | Self::Unreachable { .. }
            | Self::Answer { .. }
            | Self::File { .. }
            | Self::Input { .. }
            | Self::BrokenOff { .. }
            | Self::Output(_)
            | Self::Problems => ExitCode::FAILURE,
        }
    }

    /// All lines for standard error.
    pub fn report(&self) -> String {
        if let Self::Problems | Self::Ended { what: None, .. } = self {
            return String::new();
        }
        let mut lines = vec![format!("error: {self}")];
        let (problems, hint): (&[String], Option<String>) = match self {
            Self::Refused(failure) => (&failure.problems, failure.hint.clone()),
            Self::Input { problems, .. } | Self::Unreadable(problems) => (problems, None),
            Self::Unreachable { .. } => {
                let hint = "start it with `wherry-cloud serve`, or give its address with --api";
                (&[], Some(hint.into()))
            }
            Self::Answer { .. } => (&[], Some("are program and server of one version?".into())),
            Self::BrokenOff { .. } => (
                &[],
                Some("the log of `wherry-cloud serve` says why, unless the line broke".into()),
            ),
            Self::File { .. } | Self::Output(_) | Self::Problems | Self::Ended { .. } => {
                (&[], None)
            }
        };
        lines.extend(problems.iter().map(|problem| format!("  {problem}")));
        lines.extend(hint.map(|hint| format!("hint: {hint}")));
        lines.join("\n") + "\n"
    }
}

/// Pairs that follow the `?`.
pub(super) type Query<'a> = &'a [(&'a str, &'a str)];

impl Client {
    pub fn new(base: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .build();
        Self { base: base.trim_end_matches('/').to_owned(), agent: config.into() }
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str, query: Query<'_>) -> Result<T, CliError> {
        let request = self.agent.get(self.url(path)).query_pairs(query.iter().copied());
        self.json(request.call())
    }

    /// A text instead of JSON.
    pub fn text(&self, path: &str) -> Result<String, CliError> {
        let bytes = self.bytes(self.agent.get(self.url(path)).call())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        self.json(self.agent.post(self.url(path)).send_json(body))
    }

    /// Sends a file as it is.
    pub fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        query: Query<'_>,
        file: &File,
    ) -> Result<T, CliError> {
        let request = self.agent.post(self.url(path)).query_pairs(query.iter().copied());
        self.json(request.content_type("application/octet-stream").send(file))
    }

    pub fn delete(&self, path: &str, query: Query<'_>) -> Result<(), CliError> {
        let request = self.agent.delete(self.url(path)).query_pairs(query.iter().copied());
        self.json::<()>(request.call())
    }

    /// A stream to be read as it comes.
    pub fn stream(
        &self,
        path: &str,
        query: Query<'_>,
    ) -> Result<BufReader<impl Read + use<>>, CliError> {
        let request = self.agent.get(self.url(path)).query_pairs(query.iter().copied());
        let answer = self.checked(request.call())?;
        Ok(BufReader::new(answer.into_body().into_reader()))
    }

    /// As [`Client::stream`], for a request with a body.
    pub fn post_for_stream(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<BodyReader<'static>, CliError> {
        let answer = self.checked(self.agent.post(self.url(path)).send_json(body))?;
        Ok(answer.into_body().into_reader())
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn json<T: DeserializeOwned>(
        &self,
        result: Result<Response<Body>, ureq::Error>,
    ) -> Result<T, CliError> {
        let bytes = self.bytes(result)?;
        serde_json::from_slice(&bytes)
            .map_err(|source| CliError::Answer { base: self.base.clone(), source })
    }

    fn bytes(&self, result: Result<Response<Body>, ureq::Error>) -> Result<Vec<u8>, CliError> {
        let mut answer = self.checked(result)?;
        self.read(&mut answer)
    }

    fn read(&self, answer: &mut Response<Body>) -> Result<Vec<u8>, CliError> {
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        body.read_to_vec()
            .map_err(|source| CliError::Unreachable { base: self.base.clone(), source })
    }

    fn checked(
        &self,
        result: Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, CliError> {
        let mut answer =
            result.map_err(|source| CliError::Unreachable { base: self.base.clone(), source })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let bytes = self.read(&mut answer)?;
        let failure = serde_json::from_slice(&bytes).unwrap_or_else(|_| Failure {
            error: format!("{} answered {status}", self.base),
            ..Failure::default()
        });
        Err(CliError::Refused(failure))
    }
}
