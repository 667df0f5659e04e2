//! The command line's end of the HTTP API.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/customers`, `/v1/projects`, `/v1/applications`, `/v1/nodes` | | list of the view |
//! | `POST` on the same | the new one | nothing; of a node [`crate::view::NodeAdded`] |
//! | `GET`, `DELETE` `/v1/customers/NAME` … | | the view; nothing |
//! | `GET /v1/nodes/NAME/config` | | `wherry.toml` as text |
//! | `GET /v1/nodes/NAME/events?tail=` | | list of events |
//! | `GET /v1/nodes/NAME/logs?pod=&container=&tail=&since=&follow=` | | [`crate::view::LogItem`]s, a line each |
//! | `POST /v1/images?name=&architecture=` | the archive | list of [`crate::view::ImageImported`] |
//! | `GET`, `DELETE` `/v1/images?reference=` | | list of the view; nothing |
//! | `POST /v1/versions` | [`crate::version::VersionPackage`] | [`crate::view::Version`] |
//! | `GET /v1/versions?application=`, `GET`, `DELETE` `/v1/versions/APP/X.Y.Z.N` | | the view; nothing |
//! | `POST /v1/rollouts` | [`crate::view::RolloutRequest`] | [`crate::view::Rollout`] |
//! | `GET /v1/rollouts?application=`, `/v1/rollouts/ID` | | the view |
//! | `GET /v1/key` | | [`crate::api::Key`] |
//!
//! What is not a success carries a [`Failure`].

use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::view::Failure;

/// An answer that takes longer is no answer; imports and log streams have no
/// bound of their own.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The largest answer that is read into memory.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A cloud's API.
#[derive(Debug)]
pub struct Api {
    base: String,
    agent: ureq::Agent,
}

type Answer = ureq::http::Response<ureq::Body>;

impl Api {
    #[must_use]
    pub fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(TIMEOUT))
            .build();
        Self { base: base.trim_end_matches('/').to_owned(), agent: config.into() }
    }

    /// # Errors
    /// No answer, or the cloud's own words.
    pub fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T> {
        read(self.call_get(path, query)?)
    }

    /// # Errors
    /// As [`Self::get`].
    pub fn text(&self, path: &str) -> Result<String> {
        let mut answer = self.call_get(path, &[])?;
        Ok(answer.body_mut().read_to_string()?)
    }

    /// # Errors
    /// As [`Self::get`].
    pub fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T> {
        let sent = self.agent.post(self.url(path)).send_json(body);
        read(self.checked(sent)?)
    }

    /// Posts what has no answer.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn create<B: Serialize>(&self, path: &str, body: &B) -> Result<()> {
        let sent = self.agent.post(self.url(path)).send_json(body);
        self.checked(sent).map(drop)
    }

    /// # Errors
    /// As [`Self::get`].
    pub fn delete(&self, path: &str, query: &[(&str, &str)]) -> Result<()> {
        let request = self.agent.delete(self.url(path)).query_pairs(query.iter().copied());
        self.checked(request.call()).map(drop)
    }

    /// Posts a file as it is.
    ///
    /// # Errors
    /// As [`Self::get`], or the file cannot be read.
    pub fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        file: &std::fs::File,
    ) -> Result<T> {
        let request = self.agent.post(self.url(path)).query_pairs(query.iter().copied());
        let sent = request.content_type("application/octet-stream").send(file);
        read(self.checked(sent)?)
    }

    /// Calls `item` with each line of an answer that goes on.
    ///
    /// # Errors
    /// As [`Self::get`], or what `item` says.
    pub fn lines(
        &self,
        path: &str,
        query: &[(&str, &str)],
        mut item: impl FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        let answer = self.call_get(path, query)?;
        for line in BufReader::new(answer.into_body().into_reader()).lines() {
            item(&line.context("the stream from the cloud broke off")?)?;
        }
        Ok(())
    }

    fn call_get(&self, path: &str, query: &[(&str, &str)]) -> Result<Answer> {
        let request = self.agent.get(self.url(path)).query_pairs(query.iter().copied());
        self.checked(request.call())
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn checked(&self, answer: Result<Answer, ureq::Error>) -> Result<Answer> {
        let mut answer = answer.with_context(|| {
            format!(
                "no answer from {}: is `wherry-cloud serve` running there? (see --api)",
                self.base
            )
        })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        let Ok(failure) = serde_json::from_str::<Failure>(&text) else {
            bail!("the cloud answered {status}: {text}")
        };
        let mut message = failure.error;
        for problem in &failure.problems {
            message += &format!("\n  {problem}");
        }
        if let Some(hint) = failure.hint {
            message += &format!("\n{hint}");
        }
        bail!("{message}")
    }
}

fn read<T: DeserializeOwned>(answer: Answer) -> Result<T> {
    let body = answer.into_body().into_with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
    serde_json::from_str(&body).context("the cloud's answer is of another version of wherry-cloud")
}
