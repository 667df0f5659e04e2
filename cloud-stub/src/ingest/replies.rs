//! Which waiting request gets which answer of a node.
//!
//! A node answers only what it was asked: an id that was given to another
//! node, or to nobody, leads nowhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use wherry_bundle::Name;
use wherry_bundle::message::{LogChunk, Reply};

use crate::limits::{LOG_QUEUE_MAX, LOG_STREAMS_MAX};

/// A message for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Log(LogChunk),
    /// The last one.
    Reply(Reply),
}

/// Too many requests are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{LOG_STREAMS_MAX} questions to nodes are open already: try again later")]
pub struct TooMany;

#[derive(Debug, Default)]
pub struct Replies {
    waiting: Mutex<HashMap<u64, Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    node: Name,
    answers: mpsc::Sender<Answer>,
}

/// A request's end; nothing is kept for it once it is dropped.
#[derive(Debug)]
pub struct Ticket {
    pub id: u64,
    answers: mpsc::Receiver<Answer>,
    replies: Arc<Replies>,
}

impl Replies {
    /// Registers a request to `node` under `id`, which must be unused.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn wait(self: &Arc<Self>, node: &Name, id: u64) -> Result<Ticket, TooMany> {
        let (sender, answers) = mpsc::channel(LOG_QUEUE_MAX);
        let mut waiting = self.lock();
        if waiting.len() >= LOG_STREAMS_MAX {
            return Err(TooMany);
        }
        waiting.insert(id, Waiting { node: node.clone(), answers: sender });
        drop(waiting);
        Ok(Ticket { id, answers, replies: Arc::clone(self) })
    }

    pub(super) fn log(&self, node: &Name, chunk: LogChunk) {
        let id = chunk.id;
        self.answer(node, id, Answer::Log(chunk));
    }

    pub(super) fn reply(&self, node: &Name, reply: Reply) {
        let id = reply.id;
        self.answer(node, id, Answer::Reply(reply));
    }

    fn answer(&self, node: &Name, id: u64, answer: Answer) {
        let mut waiting = self.lock();
        let Some(request) = waiting.get(&id).filter(|request| request.node == *node) else {
            return log::debug!("{node} answers {id}, which nobody waits for");
        };
        let last = matches!(answer, Answer::Reply(_));
        // A reader that is too slow sees the gap in the numbers. The end of
        // its channel tells it of a reply that found no room.
        if request.answers.try_send(answer).is_err() {
            log::debug!("log lines of {node} dropped, their reader is slow");
        }
        if last {
            waiting.remove(&id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// The next answer; `None` after the last one.
    pub async fn next(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.replies.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use wherry_bundle::message::Outcome;

    use super::*;

    fn chunk(id: u64, seq: u32) -> LogChunk {
        LogChunk { id, seq, lines: Vec::new() }
    }

    #[tokio::test]
    async fn answers_reach_who_asked() {
        let replies = Arc::new(Replies::default());
        let (one, two): (Name, Name) = ("gw-1".parse().unwrap(), "gw-2".parse().unwrap());
        let mut ticket = replies.wait(&one, 7).unwrap();
        replies.log(&two, chunk(7, 0));
        replies.log(&one, chunk(8, 0));
        replies.log(&one, chunk(7, 0));
        replies.reply(&one, Reply { id: 7, result: Ok(Outcome::Done(String::new())) });
        replies.log(&one, chunk(7, 1));
        assert_eq!(ticket.next().await, Some(Answer::Log(chunk(7, 0))));
        assert!(matches!(ticket.next().await, Some(Answer::Reply(_))));
        assert_eq!(ticket.next().await, None);
    }

    #[tokio::test]
    async fn a_slow_reader_costs_a_bounded_amount() {
        let replies = Arc::new(Replies::default());
        let node: Name = "gw-1".parse().unwrap();
        let mut ticket = replies.wait(&node, 7).unwrap();
        for seq in 0..1000 {
            replies.log(&node, chunk(7, seq));
        }
        replies.reply(&node, Reply { id: 7, result: Ok(Outcome::Done(String::new())) });
        let mut count = 0;
        while ticket.next().await.is_some() {
            count += 1;
        }
        assert_eq!(count, LOG_QUEUE_MAX);
    }

    #[test]
    fn places_are_limited_and_given_back() {
        let replies = Arc::new(Replies::default());
        let node: Name = "gw-1".parse().unwrap();
        let tickets: Vec<Ticket> =
            (0..LOG_STREAMS_MAX as u64).map(|id| replies.wait(&node, id).unwrap()).collect();
        assert_eq!(replies.wait(&node, 999).unwrap_err(), TooMany);
        drop(tickets);
        assert!(replies.wait(&node, 999).is_ok());
    }
}
