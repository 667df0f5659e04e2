//! Log queries of the cloud, each on a thread of its own until it is answered.
//!
//! Never here: pods. Bounded by [`WORKERS_MAX`], and in time by
//! [`FOLLOW_SECONDS_MAX`]: a forgotten follower must not use the uplink for
//! ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wherry_bundle::limits::bounded_text;
use wherry_bundle::message::{FOLLOW_SECONDS_MAX, LogChunk, LogLine, LogQuery, Outcome, Reply};

use crate::agent::{AgentUplink, SendError};
use crate::logs::{self, LogFolder, Progress};

/// Log queries at a time: they share one thin uplink.
pub const WORKERS_MAX: usize = 4;
const STACK_BYTES: usize = 256 * 1024;
/// Between tries while the uplink's queue is full.
const FULL_PAUSE: Duration = Duration::from_millis(100);
/// After that the cloud is not there any more, and asks again if it wants to.
const FULL_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub struct LogOrders {
    /// Queries under way, by the command's id.
    workers: BTreeMap<u64, Worker>,
}

#[derive(Debug)]
struct Worker {
    cancelled: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl LogOrders {
    /// Begins to answer query `id`; the reply follows the last line. The same
    /// id again while it is under way changes nothing.
    ///
    /// # Errors
    /// Too many queries, or no thread: to be replied at once.
    pub fn begin(
        &mut self,
        id: u64,
        query: LogQuery,
        uplink: AgentUplink,
        folder: LogFolder,
        progress: Arc<Progress>,
    ) -> Result<(), String> {
        self.workers.retain(|_, worker| !worker.thread.is_finished());
        if self.workers.contains_key(&id) {
            return Ok(());
        }
        if self.workers.len() >= WORKERS_MAX {
            return Err(format!("{WORKERS_MAX} log queries are under way: try again later"));
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        let for_thread = Arc::clone(&cancelled);
        let thread = thread::Builder::new()
            .name("wherry-cloudlog".into())
            .stack_size(STACK_BYTES)
            .spawn(move || answer(id, &query, &uplink, &folder, &progress, &for_thread))
            .map_err(|error| format!("no thread for a log query: {error}"))?;
        self.workers.insert(id, Worker { cancelled, thread });
        Ok(())
    }

    /// Ends the follower of query `id`; one that is not there is fine.
    pub fn end(&mut self, id: u64) {
        if let Some(worker) = self.workers.get(&id) {
            worker.cancelled.store(true, Ordering::Relaxed);
        }
    }
}

fn answer(
    id: u64,
    query: &LogQuery,
    uplink: &AgentUplink,
    folder: &LogFolder,
    progress: &Progress,
    cancelled: &AtomicBool,
) {
    let start = Instant::now();
    let limit = Duration::from_secs(FOLLOW_SECONDS_MAX);
    let goes_on = || !cancelled.load(Ordering::Relaxed) && start.elapsed() < limit;
    let (mut seq, mut lines_sent, mut lost) = (0_u32, 0_usize, false);
    let result = logs::stream(
        folder,
        query,
        progress,
        |lines: Vec<LogLine>| {
            let count = lines.len();
            let chunk = LogChunk { id, seq, lines };
            lost = !send(|| uplink.log(&chunk));
            seq = seq.wrapping_add(1);
            lines_sent += count;
            !lost && !cancelled.load(Ordering::Relaxed)
        },
        goes_on,
    );
    if lost {
        log::info!("log query {id} was given up: the uplink takes nothing");
        return;
    }
    let result = match result {
        Ok(()) => Ok(Outcome::Done(format!("{lines_sent} lines"))),
        Err(error) => Err(bounded_text(&error.to_string())),
    };
    if !send(|| uplink.reply(&Reply { id, result: result.clone() })) {
        log::info!("the reply to log query {id} was given up: the uplink takes nothing");
    }
}

/// Tries until there is room; false when there was none for too long.
pub(super) fn send(try_once: impl Fn() -> Result<(), SendError>) -> bool {
    let start = Instant::now();
    loop {
        match try_once() {
            Ok(()) => return true,
            Err(SendError::Full) if start.elapsed() < FULL_PATIENCE => thread::sleep(FULL_PAUSE),
            Err(SendError::Full) => return false,
            Err(error @ SendError::Encoding(_)) => {
                log::error!("a message cannot be sent: {error}");
                return false;
            }
        }
    }
}
