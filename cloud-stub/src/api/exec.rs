//! `/v1/nodes/NODE/exec`: a command in a container of the node, and what came
//! of it. First the node is asked for a number, which the signed order then
//! holds.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use tokio::time::timeout;
use wherry_bundle::Name;
use wherry_bundle::exec::{Exec, SignedExec};
use wherry_bundle::message::{Order, Outcome};

use super::ApiError;
use super::extract::{At, Body};
use super::orders::{check_online, new_id, send};
use crate::cloud::Cloud;
use crate::ingest::replies::{Answer, Ticket};
use crate::limits::{EXEC_ANSWER_TIMEOUT, LOG_ANSWER_TIMEOUT};
use crate::view::{ExecRequest, Executed};

type Shared = State<Arc<Cloud>>;

pub(super) async fn run(
    State(cloud): Shared,
    At(node): At<Name>,
    Body(request): Body<ExecRequest>,
) -> Result<Json<Executed>, ApiError> {
    let ExecRequest { pod, container, args, seconds_max, asked_by } = request;
    let mut order = Order::PrepareExec;
    let mut exec =
        Exec { node, nonce: Default::default(), pod, container, args, seconds_max, asked_by };
    // What is wrong with it is said even if the node is away.
    exec.validate().map_err(ApiError::invalid)?;
    check_online(&cloud, &exec.node).await?;
    let mut patience = LOG_ANSWER_TIMEOUT;
    loop {
        let mut asked = Asked::begin(&cloud, &exec.node, order).await?;
        match asked.outcome(patience).await? {
            Outcome::Prepared(nonce) => exec.nonce = nonce,
            Outcome::Executed(executed) => return Ok(Json(executed.into())),
            Outcome::Done(text) => {
                return Err(ApiError::internal(format!("node `{}` says: {text}", exec.node)));
            }
        }
        let signed = SignedExec::seal(&exec, &cloud.key).map_err(ApiError::internal)?;
        order = Order::Exec(signed);
        patience = Duration::from_secs(exec.seconds_max.into()) + EXEC_ANSWER_TIMEOUT;
        log::info!("{} runs `{}` on {}", exec.asked_by, exec.args.join(" "), exec.node);
    }
}

/// One order, until it was answered.
struct Asked {
    cloud: Arc<Cloud>,
    node: Name,
    ticket: Ticket,
    is_command: bool,
    answered: bool,
}

impl Asked {
    async fn begin(cloud: &Arc<Cloud>, node: &Name, order: Order) -> Result<Self, ApiError> {
        let ticket = cloud.replies.wait(node, new_id()?)?;
        let is_command = matches!(order, Order::Exec(_));
        send(cloud, node, ticket.id, order).await?;
        let (cloud, node) = (Arc::clone(cloud), node.clone());
        Ok(Self { cloud, node, ticket, is_command, answered: false })
    }

    async fn outcome(&mut self, patience: Duration) -> Result<Outcome, ApiError> {
        let node = &self.node;
        let Ok(answer) = timeout(patience, self.ticket.next()).await else {
            let seconds = patience.as_secs();
            let hint = format!("`wherry-cloud events {node}` tells what was run, once it is back");
            return Err(ApiError::unavailable(format!(
                "node `{node}` did not answer within {seconds} s"
            ))
            .hint(hint));
        };
        self.answered = true;
        match answer {
            Some(Answer::Reply(reply)) => reply
                .result
                .map_err(|error| ApiError::unprocessable(format!("node `{node}`: {error}"))),
            Some(Answer::Log(_)) | None => {
                Err(ApiError::unavailable(format!("the answer of node `{node}` was lost")))
            }
        }
    }
}

impl Drop for Asked {
    /// Who asked has gone: nobody waits for the command any more.
    fn drop(&mut self) {
        if self.answered || !self.is_command {
            return;
        }
        let (cloud, node, id) = (Arc::clone(&self.cloud), self.node.clone(), self.ticket.id);
        tokio::spawn(async move {
            let Ok(own) = new_id() else { return };
            if let Err(error) = send(&cloud, &node, own, Order::End { id }).await {
                log::debug!("{node} is not told that nobody waits for a command: {error}");
            }
        });
    }
}
