//! The thread that drains all containers' FIFOs into their log files.
//!
//! Reads `RUN/pods/POD/c/CONTAINER/{stdout,stderr}`. The container holds each
//! open read-write, and so does this thread: no death on either side ends the
//! other's stream, and nothing that fits in the FIFO is lost in between.
//! A container that prints faster than [`STREAM_BYTES_MAX`] allows is slowed
//! down by its FIFO: nothing of it is dropped but by rotation, and the others
//! go on. Never here: waiting for a file system that can hang.

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

/// Records of all containers together in one [`WINDOW`]: 10 MiB/s keeps logging
/// below a few percent of a small processor. What is written counts, not what
/// was printed: lines of one character are what costs.
pub const WINDOW_BYTES_MAX: usize = 1024 * 1024;
/// Of them, records of one stream: both of one container leave half to the
/// others, who do not wait for it.
pub const STREAM_BYTES_MAX: usize = WINDOW_BYTES_MAX / 4;
const WINDOW: Duration = Duration::from_millis(100);
/// One read of one FIFO; each ready one gets a turn before the next read.
const READ_BYTES: usize = 16 * 1024;
/// At a container's end, as much as a FIFO can hold (`pipe(7)`: 64 KiB) is
/// read at once.
const DRAIN_READS_MAX: usize = 64 * 1024 / READ_BYTES;
/// FIFOs handled in one turn of the loop.
const READY_MAX: usize = 32;
/// After that, what waits for its newline is written as a part of a line: a
/// death of this process loses no more. Long enough for a line that a program
/// writes in pieces.
const PART_DELAY: Duration = Duration::from_millis(200);
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
        let worker = Worker::new(Arc::clone(&shared), folder.clone(), epoll);
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
                budget: Budget::new(STREAM_BYTES_MAX),
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
    budget: Budget,
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
    budget: Budget,
    /// Streams that have used up their share, and until when.
    resting: Vec<(u64, Instant)>,
    /// When to look for lines that wait for their end.
    parts_at: Option<Instant>,
}

/// What may be written in one [`WINDOW`].
#[derive(Debug)]
struct Budget {
    bytes_max: usize,
    window: Instant,
    bytes: usize,
}

impl Budget {
    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, window: Instant::now(), bytes: 0 }
    }

    /// How long to wait after `bytes`, if the window's share is used up.
    fn spend(&mut self, bytes: usize, now: Instant) -> Option<Duration> {
        let elapsed = now.saturating_duration_since(self.window);
        if elapsed >= WINDOW {
            (self.window, self.bytes) = (now, bytes);
        } else {
            self.bytes += bytes;
        }
        let left = WINDOW.saturating_sub(now.saturating_duration_since(self.window));
        (self.bytes >= self.bytes_max).then_some(left)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Order>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker {
    fn new(shared: Arc<Shared>, folder: LogFolder, epoll: Epoll) -> Self {
        Self {
            shared,
            folder,
            epoll,
            sources: BTreeMap::new(),
            next_id: WAKE_ID + 1,
            buffer: vec![0; READ_BYTES],
            out: Vec::new(),
            budget: Budget::new(WINDOW_BYTES_MAX),
            resting: Vec::new(),
            parts_at: None,
        }
    }

    fn run(mut self) {
        while let Some(pause) = self.turn() {
            thread::sleep(pause);
        }
    }

    /// Waits until there is something to do, and does it; how long all have to
    /// wait then. `None` at the end.
    fn turn(&mut self) -> Option<Duration> {
        let mut ready = [EpollEvent::empty(); READY_MAX];
        let count = match self.epoll.wait(&mut ready, self.timeout()) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => {
                log::error!("logs are no longer collected: epoll_wait: {error}");
                return None;
            }
        };
        let mut bytes = 0;
        for event in ready.iter().take(count) {
            if event.data() == WAKE_ID {
                if !self.obey() {
                    self.write_parts();
                    return None;
                }
            } else {
                bytes += self.read(event.data()).1;
            }
        }
        let now = Instant::now();
        self.end_rests(now);
        if self.parts_at.take_if(|at| *at <= now).is_some() {
            self.write_parts();
        }
        self.shared.progress.bump();
        Some(self.budget.spend(bytes, now).unwrap_or_default())
    }

    fn timeout(&self) -> EpollTimeout {
        let rests = self.resting.iter().map(|(_, until)| *until);
        let Some(at) = rests.chain(self.parts_at).min() else { return EpollTimeout::NONE };
        let left = at.saturating_duration_since(Instant::now());
        // Not a moment before it is due.
        let left = (left + Duration::from_millis(1)).min(WINDOW.max(PART_DELAY));
        EpollTimeout::try_from(left).unwrap_or(EpollTimeout::ZERO)
    }

    /// It is not looked at for a while; what it prints waits in its FIFO.
    fn rest(&mut self, id: u64, until: Instant) {
        self.listen(id, EpollFlags::empty());
        self.resting.push((id, until));
    }

    fn end_rests(&mut self, now: Instant) {
        let all = std::mem::take(&mut self.resting).into_iter();
        let (over, resting): (Vec<_>, Vec<_>) = all.partition(|(_, until)| *until <= now);
        self.resting = resting;
        over.into_iter().for_each(|(id, _)| self.listen(id, EpollFlags::EPOLLIN));
    }

    fn listen(&self, id: u64, flags: EpollFlags) {
        let Some(source) = self.sources.get(&id) else { return };
        if let Err(error) = self.epoll.modify(&source.file, &mut EpollEvent::new(flags, id)) {
            log::error!("logs of {}/{}: epoll: {error}", source.pod, source.container);
        }
    }

    /// Of those that rest, more comes soon.
    fn write_parts(&mut self) {
        for (id, source) in &mut self.sources {
            if source.encoder.has_pending() && !self.resting.iter().any(|(of, _)| of == id) {
                self.out.clear();
                source.encoder.part(clock::wall_now(), source.stream, &mut self.out);
                append(&self.folder, source, &self.out);
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

    fn watch(&mut self, mut source: Source) {
        let same = |known: &Source| {
            known.pod == source.pod
                && known.container == source.container
                && known.stream == source.stream
        };
        if self.sources.values().any(|known| same(known) && known.inode == source.inode) {
            return;
        }
        self.drop_sources(same);
        let Source { pod, container, stream, .. } = &source;
        let is_open = self.folder.ends_in_part(pod, container, *stream).unwrap_or_else(|error| {
            log::warn!("a line may be joined to the one before: {error}");
            false
        });
        source.encoder = Encoder::resumed(is_open);
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
                if self.read(id).0 == 0 {
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

    /// One read of one FIFO; how many bytes it gave, and how many it cost.
    fn read(&mut self, id: u64) -> (usize, usize) {
        let Some(source) = self.sources.get_mut(&id) else { return (0, 0) };
        let length = match source.file.read(&mut self.buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (0, 0),
            Err(error) => {
                log::error!("logs of {}/{}: {error}", source.pod, source.container);
                self.drop_sources_of(id);
                return (0, 0);
            }
        };
        self.out.clear();
        let bytes = self.buffer.get(..length).unwrap_or_default();
        source.encoder.feed(bytes, clock::wall_now(), source.stream, &mut self.out);
        append(&self.folder, source, &self.out);
        let (cost, now) = (length.max(self.out.len()), Instant::now());
        if source.encoder.has_pending() {
            self.parts_at.get_or_insert(now + PART_DELAY);
        }
        if let Some(pause) = source.budget.spend(cost, now) {
            self.rest(id, now + pause);
        }
        (length, cost)
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

    use super::super::cri::{Joiner, Record};
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

    /// The lines of a log, whatever parts they came in.
    fn lines(log: &str) -> Vec<String> {
        let mut joiner = Joiner::default();
        let records = log.lines().filter_map(|line| Record::parse(line.as_bytes()));
        let lines = records.filter_map(|record| joiner.push(&record));
        lines.map(|line| String::from_utf8(line).unwrap()).collect()
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
        text(&folder, |log| lines(log).contains(&"left".to_owned()));

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
    fn half_a_line_outlives_who_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LogFolder::new(dir.path().join("logs"), 100_000);
        let (pod, container) = (name("web-1"), name("nginx"));
        let [stdout, _] = fifos(dir.path());
        let holder = open_fifo(&stdout).unwrap();
        let begin = || {
            let collector = Collector::start(folder.clone()).unwrap();
            collector.watch(&pod, &container, dir.path()).unwrap();
            collector
        };
        let collector = begin();
        (&holder).write_all(b"one\nha").unwrap();
        // On disk before any death.
        text(&folder, |log| log.contains("stdout P ha\n"));
        drop(collector);
        let collector = begin();
        (&holder).write_all(b"lf\nlast").unwrap();
        text(&folder, |log| log.contains("stdout P last\n"));
        drop(collector);
        // It has ended while nobody was there.
        begin().ended(&pod, &container);
        let log = text(&folder, |log| lines(log).len() == 3);
        assert_eq!(lines(&log), ["one", "half", "last"]);
    }

    #[test]
    fn a_flood_is_slowed_down() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut budget = Budget { bytes_max: 1000, window: start, bytes: 0 };
        assert_eq!(budget.spend(500, at(10)), None);
        assert_eq!(budget.spend(500, at(30)), Some(Duration::from_millis(70)));
        assert_eq!(budget.spend(999, at(100)), None, "a new window");
        assert_eq!(budget.spend(1, at(199)), Some(Duration::from_millis(1)));
        assert_eq!(budget.spend(1000, at(250)), Some(WINDOW), "at once");
    }

    /// Its own thread's work, turn by turn.
    #[test]
    fn a_flood_costs_its_neighbours_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LogFolder::new(dir.path().join("logs"), 1 << 20);
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK).unwrap();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let orders = Mutex::new(Vec::new());
        let shared = Arc::new(Shared { orders, wake, progress: Arc::default() });
        let mut worker = Worker::new(shared, folder.clone(), epoll);
        let [flood, quiet] = ["flood", "nginx"].map(|container| {
            let own = dir.path().join(container);
            std::fs::create_dir(&own).unwrap();
            let [stdout, _] = fifos(&own);
            let file = open_fifo(&stdout).unwrap();
            worker.watch(Source {
                pod: name("web-1"),
                container: name(container),
                stream: LogStream::Stdout,
                inode: file.metadata().unwrap().ino(),
                file: open_fifo(&stdout).unwrap(),
                encoder: Encoder::default(),
                budget: Budget::new(STREAM_BYTES_MAX),
            });
            file
        });
        let noise = b"y\n".repeat(READ_BYTES);
        let mut written = 0;
        for number in 0..20 {
            while (&flood).write(&noise).is_ok() {}
            (&quiet).write_all(format!("{number}\n").as_bytes()).unwrap();
            written += 1;
            // Each is read in the next turn, and nobody waits for the flood.
            assert_eq!(worker.turn(), Some(Duration::ZERO));
            let log = text(&folder, |_| true);
            assert_eq!(lines(&log).len(), written, "{log}");
            assert!(number > 0 || worker.resting.len() == 1);
        }
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
        let log = text(&folder, |log| self::lines(log).len() >= lines);
        assert!(log.ends_with(&format!("{:01023}\n", lines - 1)));
    }
}
