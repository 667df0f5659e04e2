//! The supervisor's side of the control socket: a thread that accepts, and
//! one for each connection, so that a slow client waits for itself only.
//!
//! Never here: answers. Questions go to the supervisor's loop as [`Ask`]s;
//! only logs are read here, since that can take as long as the client likes.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wherry_bundle::Name;
use wherry_bundle::message::LogQuery;
use wherry_runtime::packet;

use super::apply;
use super::protocol::{Exec, REQUEST_BYTES_MAX, Request, Response};
use super::stream::{Frames, StreamError};
use crate::layers::{Imported, Layers, WantedLayer};
use crate::logs::{self, LogFolder, Progress};

/// People at one gateway, and a few followers of logs.
pub const CONNECTIONS_MAX: usize = 8;
/// Reading log files and encoding a status; no recursion.
const STACK_BYTES: usize = 256 * 1024;
/// A client that does not send its question.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A client that does not take its answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The loop answers at once, or after the launcher did.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const SOCKET_MODE: u32 = 0o600;
/// While a command runs.
const LOOK_AFTER_CLIENT: Duration = Duration::from_millis(200);
/// After `accept` failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A question for the supervisor's loop.
/// Each gets one answer; nobody may be listening any more.
#[derive(Debug)]
pub enum Ask {
    Request {
        request: Request,
        answer: SyncSender<Response>,
    },
    /// A bundle that a person brought: the layers that it needs, or why it is
    /// refused. Nothing is fetched by the agent until [`Ask::Apply`].
    Offer {
        envelope: Vec<u8>,
        answer: SyncSender<Result<Vec<WantedLayer>, String>>,
    },
    /// The end of an offer: its layers are here, or nothing came of it.
    Apply {
        applied: Option<(Vec<u8>, Imported)>,
        answer: SyncSender<Response>,
    },
    /// Answered twice: by [`Response::Executing`], and at the command's end.
    Exec {
        exec: Exec,
        streams: Vec<OwnedFd>,
        answer: SyncSender<Response>,
    },
    /// An encoded sample of the node's figures, for the cloud. Not answered.
    Push {
        sample: Vec<u8>,
    },
    /// Whoever ran the command of this number is gone.
    EndExec {
        number: u32,
    },
}

/// Serves until the process ends.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", path.display())]
pub struct ServerError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What each connection needs.
struct Shared {
    connections: AtomicUsize,
    folder: LogFolder,
    progress: Arc<Progress>,
    own: Name,
    layers: Layers,
    /// False: the supervisor is ending.
    ask: Box<dyn Fn(Ask) -> bool + Send + Sync>,
}

impl Server {
    /// Listens at `path`, in place of whoever listened there before.
    ///
    /// # Errors
    /// The socket cannot be made, or no thread is left.
    pub fn start(
        path: &Path,
        folder: LogFolder,
        progress: Arc<Progress>,
        own: Name,
        layers: Layers,
        ask: impl Fn(Ask) -> bool + Send + Sync + 'static,
    ) -> Result<Self, ServerError> {
        let error = |what| move |source| ServerError { what, path: path.to_owned(), source };
        let listener = listen(path).map_err(error("listen at"))?;
        let shared = Arc::new(Shared {
            connections: AtomicUsize::new(0),
            folder,
            progress,
            own,
            layers,
            ask: Box::new(ask),
        });
        thread::Builder::new()
            .name("wherry-control".into())
            .stack_size(STACK_BYTES)
            .spawn(move || accept(&listener, &shared))
            .map_err(error("start a thread for"))?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A command that comes now is told at once that nobody is there.
        let _ = fs::remove_file(&self.path);
    }
}

/// The socket gets its name only once its mode is set.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(SOCKET_MODE))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                log::warn!("control socket: accept: {error}");
                thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        if shared.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            refuse(stream);
            continue;
        }
        let connection = Connection(Arc::clone(shared));
        let thread = thread::Builder::new().name("wherry-client".into()).stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(move || connection.serve(stream)) {
            log::warn!("control socket: no thread for a client: {error}");
        }
    }
}

/// Without a thread, so without waiting: the answer fits in the socket.
fn refuse(stream: UnixStream) {
    let busy = format!("{CONNECTIONS_MAX} clients are connected already: try again later");
    let sent = Frames::new(stream, Some(REQUEST_TIMEOUT), Duration::from_millis(10))
        .and_then(|mut frames| frames.send(&Response::Error(busy)));
    if let Err(error) = sent {
        log::debug!("control socket: {error}");
    }
}

/// Counts as long as it lives.
struct Connection(Arc<Shared>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    fn serve(&self, stream: UnixStream) {
        let result = Frames::new(stream, Some(REQUEST_TIMEOUT), RESPONSE_TIMEOUT)
            .and_then(|mut frames| self.exchange(&mut frames));
        if let Err(error) = result {
            log::debug!("control socket: {error}");
        }
    }

    fn exchange(&self, frames: &mut Frames) -> Result<(), StreamError> {
        match frames.receive(REQUEST_BYTES_MAX) {
            Ok(Request::Logs(query)) => self.logs(frames, &query),
            Ok(Request::Apply) => self.apply(frames),
            Ok(Request::Exec(exec)) => self.exec(frames, exec),
            Ok(request) => {
                let (answer, answered) = mpsc::sync_channel(1);
                let response = if (self.0.ask)(Ask::Request { request, answer }) {
                    let answer = answered.recv_timeout(ANSWER_TIMEOUT);
                    answer.unwrap_or_else(|_| Response::Error("no answer in time".into()))
                } else {
                    Response::Error("the node is ending".into())
                };
                frames.send(&response)
            }
            Err(StreamError::Wire(error)) => {
                let text = format!("{error}: command and node are of different versions");
                frames.send(&Response::Error(text))
            }
            Err(error) => Err(error),
        }
    }

    fn apply(&self, frames: &mut Frames) -> Result<(), StreamError> {
        let Shared { own, layers, ask, .. } = &*self.0;
        frames.set_timeouts(apply::STALL_TIMEOUT)?;
        let response = apply::apply(frames, own, layers, ask);
        frames.send(&response)
    }

    fn exec(&self, frames: &mut Frames, exec: Exec) -> Result<(), StreamError> {
        frames.send(&Response::Done)?;
        let streams = match packet::take_descriptors(frames.socket().as_fd()) {
            Ok(streams) => streams,
            Err(error) => {
                log::debug!("control socket: {error}");
                return Ok(());
            }
        };
        let (answer, answered) = mpsc::sync_channel(2);
        let ending = || Response::Error("the node is ending".into());
        if !(self.0.ask)(Ask::Exec { exec, streams, answer }) {
            return frames.send(&ending());
        }
        let mut number = None;
        let response = loop {
            match answered.recv_timeout(LOOK_AFTER_CLIENT) {
                Ok(Response::Executing { number: known }) => number = Some(known),
                Ok(response) => break response,
                Err(RecvTimeoutError::Disconnected) => break ending(),
                Err(RecvTimeoutError::Timeout) if is_closed(frames.socket()) => {
                    if let Some(number) = number {
                        (self.0.ask)(Ask::EndExec { number });
                    }
                    return Ok(());
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        frames.send(&response)
    }

    fn logs(&self, frames: &mut Frames, query: &LogQuery) -> Result<(), StreamError> {
        let Shared { folder, progress, .. } = &*self.0;
        let mut broken = None;
        let socket = frames.socket().try_clone().map_err(StreamError::Deadline)?;
        let result = logs::stream(
            folder,
            query,
            progress,
            |lines| match frames.send(&Response::LogLines(lines)) {
                Ok(()) => true,
                Err(error) => {
                    broken = Some(error);
                    false
                }
            },
            || !is_closed(&socket),
        );
        match (broken, result) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => frames.send(&Response::Done),
            (None, Err(error)) => frames.send(&Response::Error(error.to_string())),
        }
    }
}

/// Whether the other side has gone, while nothing is being sent to it
/// (`unix(7)`: a closed peer is a hang-up, which poll(2) always reports).
fn is_closed(socket: &UnixStream) -> bool {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Instant;

    use wherry_bundle::carrier::{self, Item, Start};
    use wherry_bundle::chunk::{Chunk, ChunkList};
    use wherry_bundle::message::LogStream;
    use wherry_bundle::model::Layer;
    use wherry_bundle::{Digest, Generation, Name};

    use super::*;
    use crate::clock::WallNanos;
    use crate::control::{Applied, Client, ClientError};
    use crate::logs::Collector;
    use crate::logs::cri::Encoder;

    fn start(dir: &Path, collector: &Collector) -> (Server, PathBuf) {
        let path = dir.join("wherry.sock");
        let server = Server::start(
            &path,
            collector.folder().clone(),
            collector.progress(),
            Name::new("gw-1").unwrap(),
            Layers::open(&dir.join("layers")).unwrap(),
            |ask| match ask {
                Ask::Request { request, answer } => answered(request, &answer),
                Ask::Offer { envelope, answer } => answer.send(offered(&envelope)).is_ok(),
                Ask::Apply { applied: None, .. }
                | Ask::Exec { .. }
                | Ask::EndExec { .. }
                | Ask::Push { .. } => true,
                Ask::Apply { applied: Some((_, imported)), answer } => {
                    let applied = Applied {
                        generation: Generation(3),
                        outcome: "is taken up".into(),
                        layers: imported.layers,
                        bytes_supplied: imported.bytes_supplied,
                        bytes_copied: imported.bytes_copied,
                    };
                    answer.send(Response::Applied(applied)).is_ok()
                }
            },
        );
        (server.unwrap(), path)
    }

    fn answered(request: Request, answer: &SyncSender<Response>) -> bool {
        match request {
            Request::Events { tail } => answer.send(Response::Ending { pid: tail }).is_ok(),
            Request::Stop { .. } => false,
            Request::Status
            | Request::Describe { .. }
            | Request::Logs(_)
            | Request::Apply
            | Request::Outbox { .. }
            | Request::Exec(_)
            | Request::Volumes
            | Request::RemoveVolume { .. }
            | Request::Hold { .. } => answer.send(Response::Error("why".into())).is_ok(),
        }
    }

    const LAYER: &[u8] = b"a layer of one chunk";

    fn list() -> Vec<u8> {
        let size_bytes = u32::try_from(LAYER.len()).unwrap();
        let chunk = Chunk { digest: Digest::of(LAYER), size_bytes };
        ChunkList::encode(&[chunk]).unwrap().remove(0)
    }

    fn layer() -> Layer {
        Layer { digest: Digest::of(LAYER), size_bytes: LAYER.len() as u64 }
    }

    fn offered(envelope: &[u8]) -> Result<Vec<WantedLayer>, String> {
        match envelope {
            b"good" => Ok(vec![WantedLayer { layer: layer(), lists: vec![Digest::of(&list())] }]),
            _ => Err("not signed".into()),
        }
    }

    fn update(node: &str, envelope: &[u8]) -> Vec<u8> {
        let node = Name::new(node).unwrap();
        let mut file = Vec::new();
        for item in [
            Item::Start(Start { version: "shop@1.0.0.1".into(), since: None }),
            Item::Envelope { node: Name::new("gw-9").unwrap(), bytes: b"other".to_vec() },
            Item::Envelope { node, bytes: envelope.to_vec() },
            Item::Layer(layer()),
            Item::List(list()),
            Item::Chunk(LAYER.to_vec()),
            Item::End,
        ] {
            carrier::write(&mut file, &item).unwrap();
        }
        file
    }

    #[test]
    fn a_carried_file_is_applied_or_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let collector = collector(dir.path());
        let (_server, path) = start(dir.path(), &collector);
        let apply = |file: &[u8]| {
            let mut client = Client::ask(&path, &Request::Apply)?;
            client.send_file(&mut &*file)?;
            client.answer()
        };
        let good = update("gw-1", b"good");
        let mut damaged = good.clone();
        let last = damaged.len() - 20;
        damaged[last] ^= 1;
        let mut long = update("gw-1", b"bad");
        long.resize(4 << 20, 0);
        for (file, why) in [
            (&b"no update at all"[..], "not a frame"),
            (&update("gw-2", b"good"), "no bundle for node `gw-1`, only for: gw-9, gw-2"),
            (&update("gw-1", b"bad"), "not signed"),
            // It answers before the end of the file.
            (&long, "not signed"),
            (&damaged, "checksum"),
            (&good[..good.len() - 5], "in the middle of a frame"),
            (&good[..good.len() - 12], "ends before its end"),
        ] {
            let error = apply(file).unwrap_err().to_string();
            assert!(error.contains(why), "{error}, not {why}");
        }
        let Response::Applied(applied) = apply(&good).unwrap() else { panic!() };
        // The damage was behind the layer's chunk, which was kept.
        assert_eq!((applied.generation, applied.layers), (Generation(3), 1));
        assert_eq!(
            fs::read(Layers::open(&dir.path().join("layers")).unwrap().path(&layer().digest))
                .unwrap(),
            LAYER
        );
    }

    fn collector(dir: &Path) -> Collector {
        Collector::start(LogFolder::new(dir.join("logs"), 1 << 20)).unwrap()
    }

    #[test]
    fn questions_are_answered_and_errors_told() {
        let dir = tempfile::tempdir().unwrap();
        let collector = collector(dir.path());
        let (server, path) = start(dir.path(), &collector);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let answer = |request| Client::ask(&path, &request).unwrap().answer();
        assert_eq!(answer(Request::Events { tail: 7 }).unwrap(), Response::Ending { pid: 7 });
        let error = answer(Request::Status).unwrap_err();
        assert!(matches!(&error, ClientError::Refused(why) if why == "why"), "{error}");
        let error = answer(Request::Stop { all: false }).unwrap_err();
        assert!(error.to_string().contains("ending"), "{error}");
        // Another supervisor takes the place of one that was killed.
        std::mem::forget(server);
        let (server, _) = start(dir.path(), &collector);
        assert_eq!(answer(Request::Events { tail: 8 }).unwrap(), Response::Ending { pid: 8 });
        drop(server);
        let error = Client::ask(&path, &Request::Status).unwrap_err();
        assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    }

    #[test]
    fn logs_are_followed_until_the_client_goes() {
        let dir = tempfile::tempdir().unwrap();
        let collector = collector(dir.path());
        let (_server, path) = start(dir.path(), &collector);
        let [pod, container] = ["web-1", "lion"].map(|text| Name::new(text).unwrap());
        let mut records = Vec::new();
        Encoder::default().feed(b"one\n", WallNanos(1), LogStream::Stdout, &mut records);
        collector.folder().append(&pod, &container, &records).unwrap();
        let query =
            LogQuery { pod, container: None, tail: None, since_seconds: None, follow: true };
        let mut client = Client::ask(&path, &Request::Logs(query.clone())).unwrap();
        let text = |client: &mut Client| match client.answer().unwrap() {
            Response::LogLines(lines) => lines.into_iter().map(|l| l.text).collect::<String>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(text(&mut client), "one");
        collector.folder().append(&query.pod, &container, &records).unwrap();
        assert_eq!(text(&mut client), "one");
        drop(client);
        let start = Instant::now();
        let once = LogQuery { follow: false, ..query };
        let mut client = Client::ask(&path, &Request::Logs(once)).unwrap();
        assert_eq!(text(&mut client), "oneone");
        assert_eq!(client.answer().unwrap(), Response::Done);
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn too_many_clients_and_noise_harm_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let collector = collector(dir.path());
        let (_server, path) = start(dir.path(), &collector);
        let mut noisy = UnixStream::connect(&path).unwrap();
        noisy.write_all(&[0xff; 100]).unwrap();
        let mut other = UnixStream::connect(&path).unwrap();
        wherry_bundle::frame::write(&mut Wire(&mut other), &[9, 0]).unwrap();
        let reply = wherry_bundle::frame::read(&mut Wire(&mut other), 1000).unwrap().unwrap();
        assert!(String::from_utf8_lossy(&reply).contains("different versions"));
        let silent: Vec<UnixStream> =
            (0..CONNECTIONS_MAX).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let refused = |client: Result<Client, ClientError>| match client
            .and_then(|mut client| client.answer())
        {
            Err(ClientError::Refused(reason)) if reason == "why" => false,
            Err(ClientError::Refused(reason)) => {
                assert!(reason.contains("clients are connected already"), "{reason}");
                true
            }
            other => panic!("{other:?}"),
        };
        let start = Instant::now();
        while !refused(Client::ask(&path, &Request::Status)) {
            assert!(start.elapsed() < REQUEST_TIMEOUT, "nobody was refused");
        }
        drop(silent);
        while refused(Client::ask(&path, &Request::Status)) {
            assert!(start.elapsed() < REQUEST_TIMEOUT, "nobody is served any more");
        }
    }

    struct Wire<'a>(&'a mut UnixStream);

    impl embedded_io::ErrorType for Wire<'_> {
        type Error = embedded_io::ErrorKind;
    }

    impl embedded_io::Read for Wire<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
            io::Read::read(self.0, buffer).map_err(|error| error.kind().into())
        }
    }

    impl embedded_io::Write for Wire<'_> {
        fn write(&mut self, buffer: &[u8]) -> Result<usize, Self::Error> {
            io::Write::write(self.0, buffer).map_err(|error| error.kind().into())
        }
        fn flush(&mut self) -> Result<(), Self::Error> {
            Ok(())
        }
    }
}
