//! What claims' folders hold: a thread looks, slowly, and removes those that an
//! operator wants gone.
//!
//! Where the file system limits a folder it tells what that holds, too
//! (statfs(2) on a folder that is a project of its own). Elsewhere every file in
//! it is looked at: at the node's start, and then now and then as long as a pod
//! runs that may write there.
//! Never here: limits, pods, and whether a folder is still wanted.

mod walk;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;
use wherry_bundle::Name;

use crate::control::Response;
use walk::{Step, Walk};

/// Between two pauses: 5000 files a second, which are some 20 reads of flash.
const PIECE_ENTRIES: usize = 500;
const PAUSE: Duration = Duration::from_millis(100);
/// Listing folders; removing one goes as deep as it is.
const STACK_BYTES: usize = 256 * 1024;
/// Of a folder that is being removed, before its name: no claim's begins so.
const REMOVED: &str = ".removed-";

/// What a folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimUse {
    /// On the disk.
    pub bytes: u64,
    /// The file system does not let it grow above its limit.
    pub is_limited: bool,
    /// There is more in it than is looked at.
    pub is_partial: bool,
}

/// News of a folder; `None`: there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    pub claim: Name,
    pub held: Option<ClaimUse>,
}

#[derive(Debug)]
enum Order {
    /// Those that may change from now on.
    Watch(BTreeSet<Name>),
    /// Answered once the folder is gone from its place.
    Remove(Name, SyncSender<Response>),
}

type Sink = Box<dyn Fn(Measured) + Send>;

/// Gives work to the thread, which ends with this, and is there from the first
/// claim on: most nodes have none, and a thread costs memory.
pub struct Surveyor {
    /// Until it is woken.
    asleep: Option<Worker>,
    /// `None` also if its thread cannot be made: then a node goes on as it is.
    orders: Option<Sender<Order>>,
}

impl Surveyor {
    /// Of the folders in `root`; `sink` is called on the thread.
    pub fn new(root: PathBuf, period: Duration, sink: impl Fn(Measured) + Send + 'static) -> Self {
        let has_some = !names(&root).is_empty();
        let (watched, todo, sink) = (BTreeSet::new(), VecDeque::new(), Box::new(sink));
        let worker = Worker { root, period, sink, watched, todo, under_way: None };
        let mut surveyor = Self { asleep: Some(worker), orders: None };
        if has_some {
            surveyor.wake();
        }
        surveyor
    }

    /// Which claims pods may write to; replaces the list before.
    pub fn watch(&mut self, claims: BTreeSet<Name>) {
        if self.asleep.is_some() && claims.is_empty() {
            return;
        }
        if let Some(orders) = self.wake() {
            let _ = orders.send(Order::Watch(claims));
        }
    }

    /// Removes a folder with all that is in it.
    pub fn remove(&mut self, claim: Name, answer: SyncSender<Response>) {
        match self.wake() {
            Some(orders) => {
                let _ = orders.send(Order::Remove(claim, answer));
            }
            None => {
                let _ = answer.try_send(Response::Error("no thread is there to do it".into()));
            }
        }
    }

    fn wake(&mut self) -> Option<&Sender<Order>> {
        if let Some(worker) = self.asleep.take() {
            let (orders, inbox) = mpsc::channel();
            let thread = thread::Builder::new().name("wherry-claims".into());
            match thread.stack_size(STACK_BYTES).spawn(move || worker.run(&inbox)) {
                Ok(_) => self.orders = Some(orders),
                Err(error) => log::error!("no volume is looked at: {error}"),
            }
        }
        self.orders.as_ref()
    }
}

impl fmt::Debug for Surveyor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surveyor").finish_non_exhaustive()
    }
}

struct Worker {
    root: PathBuf,
    period: Duration,
    sink: Sink,
    watched: BTreeSet<Name>,
    todo: VecDeque<Name>,
    under_way: Option<(Name, Walk)>,
}

impl Worker {
    fn run(mut self, inbox: &mpsc::Receiver<Order>) {
        for name in names(&self.root) {
            match Name::new(&name) {
                Ok(claim) => self.todo.push_back(claim),
                // An earlier supervisor ended while it was at it.
                Err(_) if name.starts_with(REMOVED) => sweep(&self.root.join(name)),
                Err(_) => {}
            }
        }
        let mut pause_end = Instant::now();
        loop {
            let is_idle = self.under_way.is_none() && self.todo.is_empty();
            let order = if is_idle && self.watched.is_empty() {
                inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                inbox.recv_timeout(pause_end.saturating_duration_since(Instant::now()))
            };
            match order {
                Ok(Order::Watch(claims)) => {
                    self.todo.extend(claims.difference(&self.watched).cloned());
                    self.watched = claims;
                    pause_end = Instant::now();
                }
                Ok(Order::Remove(claim, answer)) => self.remove(&claim, &answer),
                Err(RecvTimeoutError::Timeout) => pause_end = Instant::now() + self.advance(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Looks at one piece; how long to pause after it.
    fn advance(&mut self) -> Duration {
        if let Some((claim, mut walk)) = self.under_way.take() {
            match walk.step(PIECE_ENTRIES) {
                Step::More => self.under_way = Some((claim, walk)),
                Step::Done(held) => self.tell(claim, Some(held)),
            }
            return PAUSE;
        }
        let Some(claim) = self.todo.pop_front() else {
            self.todo.extend(self.watched.iter().cloned());
            return self.period;
        };
        let path = self.root.join(claim.as_str());
        if let Some(held) = limited(&self.root, &path) {
            self.tell(claim, Some(held));
            return Duration::ZERO;
        }
        match Walk::begin(&path) {
            Ok(walk) => self.under_way = Some((claim, walk)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.tell(claim, None),
            Err(error) => log::warn!("volume {claim}: {error}"),
        }
        Duration::ZERO
    }

    fn remove(&mut self, claim: &Name, answer: &SyncSender<Response>) {
        let (path, gone) =
            (self.root.join(claim.as_str()), self.root.join(format!("{REMOVED}{claim}")));
        // Perhaps the one before it is not gone yet.
        sweep(&gone);
        let renamed = fs::rename(&path, &gone);
        let response = match &renamed {
            Ok(()) => Response::Done,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = format!("there is no volume `{claim}` (`wherry volume ls` lists them)");
                Response::Error(text)
            }
            Err(error) => Response::Error(format!("cannot remove {}: {error}", path.display())),
        };
        // Whoever asked may be gone.
        let _ = answer.try_send(response);
        if renamed.is_ok() {
            self.under_way.take_if(|(under_way, _)| under_way == claim);
            self.tell(claim.clone(), None);
            sweep(&gone);
        }
    }

    fn tell(&self, claim: Name, held: Option<ClaimUse>) {
        (self.sink)(Measured { claim, held });
    }
}

fn names(root: &Path) -> Vec<String> {
    // Most nodes have no claim, and no such folder.
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.take(wherry_runtime::claims::FOLDERS_MAX).collect()
}

fn sweep(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::warn!("{}: cannot be removed: {error}", path.display());
        }
        Ok(()) | Err(_) => {}
    }
}

/// What the file system says of a folder that it limits: such a one is smaller
/// than what it lies on.
fn limited(root: &Path, path: &Path) -> Option<ClaimUse> {
    let (whole, own) = (statvfs(root).ok()?, statvfs(path).ok()?);
    // Their width is the target's.
    #[allow(clippy::useless_conversion)]
    let bytes = |blocks, unit| u64::from(blocks).saturating_mul(u64::from(unit));
    let used = bytes(own.blocks().saturating_sub(own.blocks_free()), own.fragment_size());
    let is_limited = own.filesystem_id() == whole.filesystem_id() && own.blocks() < whole.blocks();
    is_limited.then_some(ClaimUse { bytes: used, is_limited, is_partial: false })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn start(root: &Path, period: Duration) -> (Surveyor, Receiver<Measured>) {
        let (sender, news) = mpsc::channel();
        let sink = move |measured| drop(sender.send(measured));
        (Surveyor::new(root.to_owned(), period, sink), news)
    }

    fn write(path: &Path, bytes: usize) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![1; bytes]).unwrap();
    }

    #[test]
    fn folders_are_measured_once_and_then_while_they_may_change() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("data/deep/file"), 1 << 20);
        fs::create_dir(dir.path().join("idle")).unwrap();
        fs::create_dir(dir.path().join(".new")).unwrap();
        write(&dir.path().join(".removed-old/file"), 1);
        let (mut surveyor, news) = start(dir.path(), Duration::from_millis(20));
        let mut first: Vec<Measured> = (0..2).map(|_| news.recv_timeout(LONG).unwrap()).collect();
        first.sort_by(|one, other| one.claim.cmp(&other.claim));
        assert_eq!([&first[0].claim, &first[1].claim], [&name("data"), &name("idle")]);
        let held = first[0].held.unwrap();
        assert!((1 << 20..2 << 20).contains(&held.bytes) && !held.is_partial, "{held:?}");
        assert!(!dir.path().join(".removed-old").exists());
        news.recv_timeout(Duration::from_millis(300)).unwrap_err();

        surveyor.watch([name("data"), name("none")].into());
        let next = || news.recv_timeout(LONG).unwrap();
        let (one, two) = (next(), next());
        assert_eq!((one.claim, two), (name("data"), Measured { claim: name("none"), held: None }));
        write(&dir.path().join("data/more"), 2 << 20);
        while next().held.is_none_or(|held| held.bytes < 3 << 20) {}
        surveyor.watch(BTreeSet::new());
        while news.recv_timeout(Duration::from_millis(500)).is_ok() {}
    }

    #[test]
    fn without_a_claim_there_is_no_thread() {
        let dir = tempfile::tempdir().unwrap();
        let (mut surveyor, news) = start(dir.path(), Duration::from_millis(20));
        surveyor.watch(BTreeSet::new());
        assert!(surveyor.asleep.is_some() && surveyor.orders.is_none());
        surveyor.watch([name("none")].into());
        assert!(surveyor.asleep.is_none() && surveyor.orders.is_some());
        assert_eq!(news.recv_timeout(LONG).unwrap().claim, name("none"));
    }

    #[test]
    fn a_folder_is_removed_with_all_that_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("data/deep/file"), 1);
        let (mut surveyor, news) = start(dir.path(), LONG);
        assert_eq!(news.recv_timeout(LONG).unwrap().claim, name("data"));
        let mut remove = |claim: &str| {
            let (answer, answered) = mpsc::sync_channel(1);
            surveyor.remove(name(claim), answer);
            answered.recv_timeout(LONG).unwrap()
        };
        assert_eq!(remove("data"), Response::Done);
        assert!(!dir.path().join("data").exists());
        let gone = Measured { claim: name("data"), held: None };
        assert_eq!(news.recv_timeout(LONG).unwrap(), gone);
        let Response::Error(error) = remove("data") else { panic!("removed twice") };
        assert!(error.contains("there is no volume `data`"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
