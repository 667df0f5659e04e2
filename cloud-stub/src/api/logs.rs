//! `/v1/nodes/NODE/logs`: log lines straight from the node, one
//! [`LogItem`] in JSON a line.
//!
//! A node ends a `follow` after [`FOLLOW_SECONDS_MAX`]; as long as somebody
//! reads, it is asked again.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::time::timeout;
use wherry_bundle::Name;
use wherry_bundle::message::{FOLLOW_SECONDS_MAX, LogLine, LogQuery, Order, WallMillis};

use super::ApiError;
use super::extract::{Asked, At};
use super::orders::{check_online, new_id, send};
use crate::cloud::Cloud;
use crate::ingest::replies::{Answer, Ticket};
use crate::limits::LOG_ANSWER_TIMEOUT;
use crate::view::LogItem;

type Shared = State<Arc<Cloud>>;

/// When a `follow` is renewed, it asks again for what came since so many
/// seconds, so that nothing falls between; what came twice is left out.
const OVERLAP_SECONDS: u64 = 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    /// A pod, or a deployment.
    pod: Name,
    container: Option<Name>,
    tail: Option<u32>,
    since_seconds: Option<u64>,
    #[serde(default)]
    follow: bool,
}

/// What one request is about.
struct Follow {
    cloud: Arc<Cloud>,
    node: Name,
    query: LogQuery,
    ticket: Ticket,
    /// The number of the next message.
    seq: u32,
    /// The last line of each container so far: what a renewal may repeat.
    last: HashMap<(Name, Name), WallMillis>,
    renewed: bool,
    answered: bool,
    /// The node was told to end, or has ended.
    over: bool,
}

pub(super) async fn stream(
    State(cloud): Shared,
    At(name): At<Name>,
    Asked(query): Asked<Query>,
) -> Result<Response, ApiError> {
    check_online(&cloud, &name).await?;
    let Query { pod, container, tail, since_seconds, follow } = query;
    let query = LogQuery { pod, container, tail, since_seconds, follow };
    let ticket = cloud.replies.wait(&name, new_id()?)?;
    send(&cloud, &name, ticket.id, Order::Logs(query.clone())).await?;
    let follow = Follow {
        cloud: Arc::clone(&cloud),
        node: name,
        query,
        ticket,
        seq: 0,
        last: HashMap::new(),
        renewed: false,
        answered: false,
        over: false,
    };
    let lines = stream::unfold(follow, |mut follow| async {
        let items = follow.next().await?;
        Some((Ok::<_, Infallible>(encode(&items)), follow))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

impl Follow {
    /// The next items, at least one; `None` after the end.
    async fn next(&mut self) -> Option<Vec<LogItem>> {
        loop {
            if self.over {
                return None;
            }
            let items = match self.answer().await {
                Ok(Some(Answer::Log(chunk))) => {
                    let mut items = Vec::new();
                    if chunk.seq > self.seq {
                        items.push(LogItem::Gap { messages: chunk.seq - self.seq });
                    }
                    self.seq = chunk.seq.saturating_add(1);
                    let lines = chunk.lines.into_iter().filter_map(|line| self.unseen(line));
                    items.extend(lines.collect::<Vec<_>>().into_iter().map(LogItem::Line));
                    items
                }
                Ok(Some(Answer::Reply(reply))) => match reply.result {
                    Ok(_) if self.query.follow => match self.renew().await {
                        Ok(()) => continue,
                        Err(error) => self.end(Some(error)),
                    },
                    Ok(_) => self.end(None),
                    Err(error) => self.end(Some(error)),
                },
                Ok(None) => self.end(Some("the end of the answer was lost".into())),
                Err(error) => self.end(Some(error)),
            };
            if !items.is_empty() {
                return Some(items);
            }
        }
    }

    /// The first answer has to come soon, even if it is that there is
    /// nothing yet; while a node follows, silence is normal for as long as it
    /// may take to its end.
    async fn answer(&mut self) -> Result<Option<Answer>, String> {
        let mut patience = LOG_ANSWER_TIMEOUT;
        if self.query.follow {
            patience += std::time::Duration::from_secs(FOLLOW_SECONDS_MAX);
        }
        let answer = timeout(patience, self.ticket.next()).await.map_err(|_| {
            let what = if self.answered { "is silent" } else { "does not answer" };
            format!("node `{}` {what}", self.node)
        })?;
        self.answered = true;
        Ok(answer)
    }

    async fn renew(&mut self) -> Result<(), String> {
        let id = new_id().map_err(|_| "no random numbers".to_owned())?;
        let ticket = self.cloud.replies.wait(&self.node, id).map_err(|error| error.to_string())?;
        let query =
            LogQuery { tail: None, since_seconds: Some(OVERLAP_SECONDS), ..self.query.clone() };
        send(&self.cloud, &self.node, id, Order::Logs(query)).await.map_err(|e| e.to_string())?;
        self.ticket = ticket;
        self.seq = 0;
        self.renewed = true;
        Ok(())
    }

    /// The line, unless it was in the stream before a renewal.
    fn unseen(&mut self, line: LogLine) -> Option<LogLine> {
        let key = (line.pod.clone(), line.container.clone());
        let last = self.last.get(&key).copied();
        if self.renewed && last.is_some_and(|last| line.wall_time <= last) {
            return None;
        }
        self.last.insert(key, line.wall_time);
        Some(line)
    }

    fn end(&mut self, error: Option<String>) -> Vec<LogItem> {
        self.over = true;
        vec![LogItem::End { error }]
    }
}

impl Drop for Follow {
    /// The reader has gone: the node need not go on.
    fn drop(&mut self) {
        if self.over || !self.query.follow {
            return;
        }
        let (cloud, node, id) = (Arc::clone(&self.cloud), self.node.clone(), self.ticket.id);
        tokio::spawn(async move {
            let sent = match new_id() {
                Ok(own) => send(&cloud, &node, own, Order::End { id }).await,
                Err(_) => return,
            };
            if let Err(error) = sent {
                log::debug!("{node} is not told that nobody reads its logs: {error}");
            }
        });
    }
}

fn encode(items: &[LogItem]) -> Bytes {
    let mut text = Vec::new();
    for item in items {
        // A LogItem has no map with other keys than texts, the only thing
        // that serde_json refuses.
        if serde_json::to_writer(&mut text, item).is_ok() {
            text.push(b'\n');
        }
    }
    text.into()
}
