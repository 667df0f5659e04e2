//! The node's figures: for a scraper that comes by HTTP, and for the cloud by
//! MQTT. One thread for both, which sleeps in between.
//!
//! It asks the supervisor's loop what `wherry status` and `wherry top` ask, and
//! reads the rest from `/proc` itself. Never here: making the loop wait; more
//! than one connection at a time.

mod http;
mod machine;
mod parse;
mod sample;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wherry_bundle::message::Message;
use wherry_bundle::metrics::{Metrics, text};

use crate::config::MetricsConfig;
use crate::control::{ANSWER_TIMEOUT, Ask, LocalStatus, PodDescription, Request, Response};
use http::Answer;
pub use machine::Places;

/// Decoding nothing, encoding and writing text; no recursion.
const STACK_BYTES: usize = 192 * 1024;
/// The first sample comes when the connection to the cloud is there, mostly.
const FIRST_PUSH: Duration = Duration::from_secs(5);
/// Until it is looked again whether it is there now.
const OFFLINE_RETRY: Duration = Duration::from_secs(30);
/// Until a port is tried again that could not be had: its interface may come.
const LISTEN_RETRY: Duration = Duration::from_secs(30);
/// Whoever asks more often gets the same once more: each time costs a question
/// to the launcher for each pod.
const FRESH: Duration = Duration::from_secs(1);

/// Starts the thread, which lives as long as the process; none if nobody is to
/// see anything. `ask` is false once the supervisor is ending.
///
/// # Errors
/// No thread is left.
pub fn start(
    config: MetricsConfig,
    places: Places,
    ask: impl Fn(Ask) -> bool + Send + 'static,
) -> io::Result<()> {
    if config.listen.is_none() && config.push.is_none() {
        return Ok(());
    }
    let exporter = Exporter { config, places, ask: Box::new(ask), last: None };
    let thread = thread::Builder::new().name("wherry-metrics".into()).stack_size(STACK_BYTES);
    thread.spawn(move || exporter.run()).map(drop)
}

struct Exporter {
    config: MetricsConfig,
    places: Places,
    ask: Box<dyn Fn(Ask) -> bool + Send>,
    /// What was told last, and when.
    last: Option<(Instant, String)>,
}

/// The supervisor is ending, or does not answer.
#[derive(Debug)]
struct NoAnswer;

impl Exporter {
    fn run(mut self) {
        let mut door = Door { address: self.config.listen, listener: None, told: false };
        let mut push_at = self.config.push.map(|_| Instant::now() + FIRST_PUSH);
        loop {
            let retry_at = door.open(Instant::now());
            let wake_at = push_at.into_iter().chain(retry_at).min();
            if door.wait(wake_at) {
                let text = || self.text().map_or(Answer::Unavailable, Answer::Metrics);
                if let Some(Err(error)) = door.accept().map(|stream| http::serve(&stream, text)) {
                    log::debug!("metrics: {error}");
                }
            }
            if let (Some(at), Some(period)) = (push_at, self.config.push)
                && at <= Instant::now()
            {
                let sent = self.push().unwrap_or_else(|NoAnswer| {
                    log::debug!("no figures for the cloud: the supervisor does not answer");
                    false
                });
                let pause = if sent { period } else { period.min(OFFLINE_RETRY) };
                push_at = Some(Instant::now() + pause);
            }
        }
    }

    fn text(&mut self) -> Option<String> {
        if let Some((at, text)) = &self.last
            && at.elapsed() < FRESH
        {
            return Some(text.clone());
        }
        let metrics = self.status().and_then(|status| self.sample(&status)).ok()?;
        let text = text::render(&[(text::Labels::new(), &metrics)]);
        self.last = Some((Instant::now(), text.clone()));
        Some(text)
    }

    /// False without a connection: nothing is made that could not be sent.
    fn push(&self) -> Result<bool, NoAnswer> {
        let status = self.status()?;
        if !status.cloud.connected {
            return Ok(false);
        }
        match self.sample(&status)?.to_bytes() {
            Ok(sample) => (self.ask)(Ask::Push { sample }).then_some(true).ok_or(NoAnswer),
            Err(error) => {
                log::warn!("the cloud gets no figures: {error}");
                Ok(true)
            }
        }
    }

    fn sample(&self, status: &LocalStatus) -> Result<Metrics, NoAnswer> {
        let pods = self.pods()?;
        let push_seconds = self.config.push.map_or(0, |period| period.as_secs());
        Ok(Metrics {
            push_seconds: u32::try_from(push_seconds).unwrap_or(u32::MAX),
            machine: machine::machine(&self.places),
            wherry: sample::wherry(status, machine::processes()),
            pods: pods.iter().map(sample::pod).collect(),
        }
        .tidy())
    }

    fn status(&self) -> Result<Box<LocalStatus>, NoAnswer> {
        match self.answer(Request::Status)? {
            Response::Status(status) => Ok(status),
            _ => Err(NoAnswer),
        }
    }

    fn pods(&self) -> Result<Vec<PodDescription>, NoAnswer> {
        match self.answer(Request::Describe { pod: None })? {
            Response::Pods(pods) => Ok(pods),
            _ => Err(NoAnswer),
        }
    }

    fn answer(&self, request: Request) -> Result<Response, NoAnswer> {
        let (answer, answered) = mpsc::sync_channel(1);
        if !(self.ask)(Ask::Request { request, answer }) {
            return Err(NoAnswer);
        }
        answered.recv_timeout(ANSWER_TIMEOUT).map_err(|_| NoAnswer)
    }
}

/// Where scrapers come in, if they may.
struct Door {
    address: Option<SocketAddr>,
    listener: Option<TcpListener>,
    /// Why it stays shut, once.
    told: bool,
}

impl Door {
    /// When to try again; `None` if it is open, or not wanted.
    fn open(&mut self, now: Instant) -> Option<Instant> {
        let address = self.address.filter(|_| self.listener.is_none())?;
        // Not to wait for a client that has gone before it was let in.
        let listen = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            io::Result::Ok(listener)
        };
        match listen() {
            Ok(listener) => {
                log::info!("metrics on http://{address}/metrics");
                self.listener = Some(listener);
                None
            }
            Err(error) => {
                if !self.told {
                    log::warn!("no metrics on {address} yet: {error}");
                }
                self.told = true;
                Some(now + LISTEN_RETRY)
            }
        }
    }

    /// Whether somebody is there, before it is time.
    fn wait(&self, until: Option<Instant>) -> bool {
        let left = until.map(|at| at.saturating_duration_since(Instant::now()));
        // Rounded up, so that the time has come when the wait ends.
        let left = left.map(|left| left.saturating_add(Duration::from_millis(1)));
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let door = self.listener.as_ref().map(|door| PollFd::new(door.as_fd(), PollFlags::POLLIN));
        let mut fds: Vec<PollFd<'_>> = door.into_iter().collect();
        // An interruption is looked at as an end of the wait.
        poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
    }

    fn accept(&mut self) -> Option<std::net::TcpStream> {
        match self.listener.as_ref()?.accept() {
            Ok((stream, _)) => Some(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => {
                // Such as no descriptor left: not to be asked again at once.
                log::debug!("metrics: accept: {error}");
                self.listener = None;
                thread::sleep(FRESH);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
