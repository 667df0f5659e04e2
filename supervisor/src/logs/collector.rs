//! The thread that drains all containers' FIFOs into their log files.
//!
//! Reads `RUN/pods/POD/c/CONTAINER/{stdout,stderr}`. The container holds each
//! open read-write, and so does this thread: no death on either side ends the
//! other's stream, and nothing that fits in the FIFO is lost in between.
//! Never here: waiting for a file system that can hang; a container that
//! prints faster than [`WINDOW_BYTES_MAX`] allows is slowed down by its FIFO.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use wherry_bundle::Name;
use wherry_bundle::message::LogStream;

use super::LogError;
use super::cri::Encoder;
use super::file::LogFolder;
use crate::clock;

/// All containers together may print so much in one [`WINDOW`]: 10 MiB/s
/// keeps logging below a few percent of a small processor.
pub const WINDOW_BYTES_MAX: usize = 1024 * 1024;
const WINDOW: Duration = Duration::from_millis(100);
/// One read of one FIFO; each ready one gets a turn before the next read.
const READ_BYTES: usize = 16 * 1024;
/// At a container's end, as much as a FIFO can hold (`pipe(7)`: 64 KiB) is
/// read at once.
const DRAIN_READS_MAX: usize = 64 * 1024 / READ_BYTES;
/// FIFOs handled in one turn of the loop.
const READY_MAX: usize = 32;
/// The read buffer and little else.
const STACK_BYTES: usize = 128 * 1024;
const WAKE_ID: u64 = 0;

/// Gives FIFOs to the thread. It ends with the process.
#[derive(Debug)]
pub struct Collector {
    shared: Arc<Shared>,
    folder: LogFolder,
    thread: Option<JoinHandle<()>>,
}

/// Tells followers that something was written, anywhere.
#[derive(Debug, Default)]
pub struct Progress {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Collector {
    /// Starts the thread.
    ///
    /// # Errors
    /// No descriptors or threads are left.
    pub fn start(folder: LogFolder) -> io::Result<Self> {
        let wake =
            EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE_ID))?;
        let orders = Mutex::new(Vec::new());
        let shared = Arc::new(Shared { orders, wake, progress: Arc::default() });
        let worker = Worker {
            shared: Arc::clone(&shared),
            folder: folder.clone(),
            epoll,
            sources: BTreeMap::new(),
            next_id: WAKE_ID + 1,
            buffer: vec![0; READ_BYTES],
            out: Vec::new(),
        };
        let thread = thread::Builder::new()
            .name("wherry-logs".into())
            .stack_size(STACK_BYTES)
            .spawn(move || worker.run())?;
        Ok(Self { shared, folder, thread: Some(thread) })
    }

    #[must_use]
    pub fn folder(&self) -> &LogFolder {
        &self.folder
    }

    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.shared.progress)
    }

    /// Opens the FIFOs in `container_folder` and drains them from now on.
    /// They are open on return, so that a container which starts after this
    /// and ends at once leaves its words. Idempotent; FIFOs that were made
    /// anew are opened anew.
    ///
    /// # Errors
    /// The FIFOs cannot be opened, or the log file not be made.
    pub fn watch(
        &self,
        pod: &Name,
        container: &Name,
        container_folder: &Path,
    ) -> Result<(), LogError> {
        self.folder.create(pod, container)?;
        for (stream, name) in [(LogStream::Stdout, "stdout"), (LogStream::Stderr, "stderr")] {
            let path = container_folder.join(name);
            let file = open_fifo(&path).map_err(LogError::io("open", &path))?;
            let inode = file.metadata().map_err(LogError::io("examine", &path))?.ino();
            let source = Source {
                pod: pod.clone(),
                container: container.clone(),
                stream,
                file,
                inode,
                encoder: Encoder::default(),
            };
            self.order(Order::Watch(Box::new(source)));
        }
        Ok(())
    }

    /// The container has ended: takes what its FIFOs still hold, and ends an
    /// open line.
    pub fn ended(&self, pod: &Name, container: &Name) {
        self.order(Order::Ended { pod: pod.clone(), container: container.clone() });
    }

    /// The pod is gone: closes its FIFOs and removes its logs.
    pub fn forget(&self, pod: &Name) {
        self.order(Order::Forget { pod: pod.clone() });
    }

    fn order(&self, order: Order) {
        self.shared.lock().push(order);
        self.wake();
    }

    fn wake(&self) {
        // It fails only when the counter is full: then it wakes anyhow.
        let _ = self.shared.wake.write(1);
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.order(Order::End);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the log collector's thread had panicked");
        }
    }
}

impl Progress {
    /// The number of writes so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there was a write after `seen`, or for `timeout`.
    pub fn wait(&self, seen: u64, timeout: Duration) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(count, timeout, |count| *count == seen);
        drop(waited);
    }

    fn bump(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }
}

#[derive(Debug)]
struct Shared {
    /// Bounded by what the node's pods can have: each order is about one.
    orders: Mutex<Vec<Order>>,
    wake: EventFd,
    progress: Arc<Progress>,
}

#[derive(Debug)]
enum Order {
    Watch(Box<Source>),
    Ended { pod: Name, container: Name },
    Forget { pod: Name },
    End,
}

#[derive(Debug)]
struct Source {
    pod: Name,
    container: Name,
    stream: LogStream,
    file: File,
    inode: u64,
    encoder: Encoder,
}

#[derive(Debug)]
struct Worker {
    shared: Arc<Shared>,
    folder: LogFolder,
    epoll: Epoll,
    sources: BTreeMap<u64, Source>,
    next_id: u64,
    buffer: Vec<u8>,
    out: Vec<u8>,
}

/// What may be read in one [`WINDOW`].
#[derive(Debug)]
struct Budget {
    window: Instant,
    bytes: usize,
}

impl Budget {
    /// How long to wait after reading `bytes`, if the window's share is used
    /// up.
    fn spend(&mut self, bytes: usize, now: Instant) -> Option<Duration> {
        let elapsed = now.saturating_duration_since(self.window);
        if elapsed >= WINDOW {
            *self = Self { window: now, bytes };
            return None;
        }
        self.bytes += bytes;
        (self.bytes >= WINDOW_BYTES_MAX).then(|| WINDOW.saturating_sub(elapsed))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Order>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker {
    fn run(mut self) {
        let mut ready = [EpollEvent::empty(); READY_MAX];
        let mut budget = Budget { window: Instant::now(), bytes: 0 };
        loop {
            let mut bytes = 0;
            let count = match self.epoll.wait(&mut ready, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => {
                    log::error!("logs are no longer collected: epoll_wait: {error}");
                    return;
                }
            };
            for event in ready.iter().take(count) {
                if event.data() == WAKE_ID {
                    if !self.obey() {
                        return;
                    }
                } else {
                    bytes += self.read(event.data());
                }
            }
            self.shared.progress.bump();
            if let Some(pause) = budget.spend(bytes, Instant::now()) {
                thread::sleep(pause);
            }
        }
    }

    /// Does what was ordered; false at the end.
    fn obey(&mut self) -> bool {
        let _ = self.shared.wake.read();
        let orders = std::mem::take(&mut *self.shared.lock());
        for order in orders {
            match order {
                Order::Watch(source) => self.watch(*source),
                Order::Ended { pod, container } => self.ended(&pod, &container),
                Order::Forget { pod } => {
                    self.drop_sources(|source| source.pod == pod);
                    if let Err(error) = self.folder.remove(&pod) {
                        log::warn!("logs of {pod}: {error}");
                    }
                }
                Order::End => return false,
            }
        }
        true
    }

    fn watch(&mut self, source: Source) {
        let same = |known: &Source| {
            known.pod == source.pod
                && known.container == source.container
                && known.stream == source.stream
        };
        if self.sources.values().any(|known| same(known) && known.inode == source.inode) {
            return;
        }
        self.drop_sources(same);
        let id = self.next_id;
        self.next_id += 1;
        match self.epoll.add(&source.file, EpollEvent::new(EpollFlags::EPOLLIN, id)) {
            Ok(()) => drop(self.sources.insert(id, source)),
            Err(error) => {
                log::error!("logs of {}/{}: epoll: {error}", source.pod, source.container);
            }
        }
    }

    fn ended(&mut self, pod: &Name, container: &Name) {
        let ids: Vec<u64> = self
            .sources
            .iter()
            .filter(|(_, source)| source.pod == *pod && source.container == *container)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            for _ in 0..DRAIN_READS_MAX {
                if self.read(id) == 0 {
                    break;
                }
            }
            if let Some(source) = self.sources.get_mut(&id) {
                self.out.clear();
                source.encoder.finish(clock::wall_now(), source.stream, &mut self.out);
                append(&self.folder, source, &self.out);
            }
        }
    }

    /// One read of one FIFO; how many bytes it gave.
    fn read(&mut self, id: u64) -> usize {
        let Some(source) = self.sources.get_mut(&id) else { return 0 };
        let length = match source.file.read(&mut self.buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return 0,
            Err(error) => {
                log::error!("logs of {}/{}: {error}", source.pod, source.container);
                self.drop_sources_of(id);
                return 0;
            }
        };
        self.out.clear();
        let bytes = self.buffer.get(..length).unwrap_or_default();
        source.encoder.feed(bytes, clock::wall_now(), source.stream, &mut self.out);
        append(&self.folder, source, &self.out);
        length
    }

    fn drop_sources(&mut self, gone: impl Fn(&Source) -> bool) {
        let ids: Vec<u64> =
            self.sources.iter().filter(|(_, source)| gone(source)).map(|(id, _)| *id).collect();
        for id in ids {
            self.drop_sources_of(id);
        }
    }

    fn drop_sources_of(&mut self, id: u64) {
        if let Some(source) = self.sources.remove(&id) {
            // Closing the file would take it out of the set too.
            let _ = self.epoll.delete(&source.file);
        }
    }
}

fn append(folder: &LogFolder, source: &Source, records: &[u8]) {
    if records.is_empty() {
        return;
    }
    if let Err(error) = folder.append(&source.pod, &source.container, records) {
        // The container goes on; its words are lost, and that is said once a
        // batch, where an operator looks.
        log::warn!("a log is incomplete: {error}");
    }
}

/// Read-write, so that it neither waits for a writer nor ever sees an end
/// (`fifo(7)`).
fn open_fifo(path: &Path) -> io::Result<File> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC | nix::libc::O_NOFOLLOW;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::PathBuf;

    use nix::sys::stat::Mode;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn fifos(dir: &Path) -> [PathBuf; 2] {
        ["stdout", "stderr"].map(|name| {
            let path = dir.join(name);
            let _ = std::fs::remove_file(&path);
            nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
            path
        })
    }

    fn text(folder: &LogFolder, wanted: impl Fn(&str) -> bool) -> String {
        let path = folder.current(&name("web-1"), &name("nginx"));
        let start = Instant::now();
        loop {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if wanted(&text) {
                return text;
            }
            assert!(start.elapsed() < Duration::from_secs(5), "{text}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn streams_are_drained_reopened_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LogFolder::new(dir.path().join("logs"), 100_000);
        let collector = Collector::start(folder.clone()).unwrap();
        let (pod, container) = (name("web-1"), name("nginx"));
        let [stdout, stderr] = fifos(dir.path());
        collector.watch(&pod, &container, dir.path()).unwrap();
        // A writer that comes, writes and is gone at once.
        std::fs::write(&stdout, "one\nleft").unwrap();
        std::fs::write(&stderr, "two\n").unwrap();
        let log = text(&folder, |log| log.contains("one") && log.contains("two"));
        assert!(log.contains("stdout F one\n") && log.contains("stderr F two\n"), "{log}");
        collector.watch(&pod, &container, dir.path()).unwrap();
        collector.ended(&pod, &container);
        text(&folder, |log| log.contains("stdout F left\n"));

        // A supervisor that comes back finds what was printed meanwhile.
        let holder = open_fifo(&stdout).unwrap();
        drop(collector);
        (&holder).write_all(b"meanwhile\n").unwrap();
        let collector = Collector::start(folder.clone()).unwrap();
        collector.watch(&pod, &container, dir.path()).unwrap();
        text(&folder, |log| log.contains("stdout F meanwhile\n"));

        let [stdout, _] = fifos(dir.path());
        collector.watch(&pod, &container, dir.path()).unwrap();
        std::fs::write(&stdout, "anew\n").unwrap();
        text(&folder, |log| log.contains("stdout F anew\n"));
        collector.forget(&pod);
        drop(collector);
        assert_eq!(folder.pods().unwrap(), []);
    }

    #[test]
    fn a_flood_is_slowed_down() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut budget = Budget { window: start, bytes: 0 };
        assert_eq!(budget.spend(WINDOW_BYTES_MAX / 2, at(10)), None);
        let pause = Duration::from_millis(70);
        assert_eq!(budget.spend(WINDOW_BYTES_MAX / 2, at(30)), Some(pause));
        assert_eq!(budget.spend(WINDOW_BYTES_MAX - 1, at(100)), None, "a new window");
        assert_eq!(budget.spend(1, at(199)), Some(Duration::from_millis(1)));
    }

    #[test]
    fn of_a_flood_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LogFolder::new(dir.path().join("logs"), 64 << 20);
        let collector = Collector::start(folder.clone()).unwrap();
        let [stdout, _] = fifos(dir.path());
        collector.watch(&name("web-1"), &name("nginx"), dir.path()).unwrap();
        let lines = 2 * WINDOW_BYTES_MAX / 1024;
        let mut file = OpenOptions::new().write(true).open(stdout).unwrap();
        for number in 0..lines {
            writeln!(file, "{number:01023}").unwrap();
        }
        let log = text(&folder, |log| log.lines().count() >= lines);
        assert!(log.ends_with(&format!("{:01023}\n", lines - 1)));
    }
}
