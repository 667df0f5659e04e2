//! Reads containers' log files back, through rotations, while they grow.
//!
//! Never here: waiting. At the end of what is there, a reader says so and can
//! be asked again later.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use wherry_bundle::Name;
use wherry_bundle::message::{LogLine, LogQuery, WallMillis};

use super::LogError;
use super::cri::{Joiner, Record};
use super::file::LogFolder;
use crate::clock;

/// A batch of lines: one message on the uplink, one frame to a client.
pub const BATCH_BYTES_MAX: usize = 32 * 1024;
pub const BATCH_LINES_MAX: usize = 256;
/// A line of a file longer than any record that is written.
const RAW_BYTES_MAX: usize = 2 * super::cri::PART_BYTES_MAX;

/// The lines of all containers that a query names, by time.
#[derive(Debug)]
pub struct Merged {
    folder: LogFolder,
    query: LogQuery,
    since: WallMillis,
    sources: Vec<Source>,
}

#[derive(Debug)]
struct Source {
    log: ContainerLog,
    ahead: Option<LogLine>,
}

/// The lines of one container, from the oldest one kept.
#[derive(Debug)]
struct ContainerLog {
    folder: LogFolder,
    pod: Name,
    container: Name,
    file: Option<OpenFile>,
    joiner: Joiner,
}

#[derive(Debug)]
struct OpenFile {
    reader: BufReader<File>,
    inode: u64,
    /// The beginning of a line whose end is not written yet.
    raw: Vec<u8>,
}

impl Merged {
    /// Finds what `query` names.
    ///
    /// # Errors
    /// No such pod, deployment or container; or the run folder.
    pub fn open(folder: &LogFolder, query: &LogQuery) -> Result<Self, LogError> {
        let since = query.since_seconds.map_or(WallMillis(0), |seconds| {
            let now = clock::wall_now().millis();
            WallMillis(now.0.saturating_sub(seconds.saturating_mul(1000)))
        });
        let mut merged =
            Self { folder: folder.clone(), query: query.clone(), since, sources: Vec::new() };
        for (pod, container) in find(folder, query)? {
            let mut log = ContainerLog::new(folder, &pod, &container);
            if let Some(tail) = query.tail {
                let lines = ContainerLog::new(folder, &pod, &container).count(since)?;
                log.skip(lines.saturating_sub(u64::from(tail)), since)?;
            }
            merged.sources.push(Source { log, ahead: None });
        }
        Ok(merged)
    }

    /// The next lines, oldest first; empty when all that is there was read.
    ///
    /// # Errors
    /// The run folder.
    pub fn batch(&mut self) -> Result<Vec<LogLine>, LogError> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < BATCH_LINES_MAX && bytes < BATCH_BYTES_MAX {
            let Some(line) = self.next()? else { break };
            bytes += line.text.len();
            lines.push(line);
        }
        Ok(lines)
    }

    /// Adds containers that came since, as a rolling deployment's do.
    ///
    /// # Errors
    /// The run folder.
    pub fn refresh(&mut self) -> Result<(), LogError> {
        let found = match find(&self.folder, &self.query) {
            // All its pods are gone: another may come.
            Err(LogError::NoPod { .. } | LogError::NoContainer { .. }) => return Ok(()),
            result => result?,
        };
        for (pod, container) in found {
            let known =
                |source: &Source| source.log.pod == pod && source.log.container == container;
            if !self.sources.iter().any(known) {
                let log = ContainerLog::new(&self.folder, &pod, &container);
                self.sources.push(Source { log, ahead: None });
            }
        }
        let folder = &self.folder;
        self.sources.retain(|Source { log, ahead }| {
            ahead.is_some() || folder.current(&log.pod, &log.container).exists()
        });
        Ok(())
    }

    fn next(&mut self) -> Result<Option<LogLine>, LogError> {
        for source in &mut self.sources {
            if source.ahead.is_none() {
                source.ahead = source.log.next(self.since)?;
            }
        }
        let waiting = self.sources.iter_mut().filter(|source| source.ahead.is_some());
        let oldest = waiting.min_by_key(|source| source.ahead.as_ref().map(|line| line.wall_time));
        Ok(oldest.and_then(|source| source.ahead.take()))
    }
}

/// Containers with logs, of the pod that `query` names, or of all pods of the
/// deployment of that name.
fn find(folder: &LogFolder, query: &LogQuery) -> Result<Vec<(Name, Name)>, LogError> {
    let mut pods = folder.pods()?;
    let known: Vec<String> = pods.iter().map(ToString::to_string).collect();
    if pods.contains(&query.pod) {
        pods = vec![query.pod.clone()];
    } else {
        pods.retain(|pod| is_pod_of(pod, &query.pod));
    }
    if pods.is_empty() {
        return Err(LogError::NoPod { asked: query.pod.to_string(), known });
    }
    let (mut found, mut known) = (Vec::new(), Vec::new());
    for pod in pods {
        for container in folder.containers(&pod)? {
            if query.container.as_ref().is_none_or(|asked| *asked == container) {
                found.push((pod.clone(), container));
            } else if !known.iter().any(|name: &String| name == container.as_str()) {
                known.push(container.to_string());
            }
        }
    }
    match &query.container {
        Some(asked) if found.is_empty() => {
            Err(LogError::NoContainer { asked: asked.to_string(), known })
        }
        Some(_) | None => Ok(found),
    }
}

/// A pod's name is its deployment's, `-` and a serial.
fn is_pod_of(pod: &Name, deployment: &Name) -> bool {
    pod.pod_serial().and_then(|serial| deployment.pod(serial).ok()).as_ref() == Some(pod)
}

impl ContainerLog {
    fn new(folder: &LogFolder, pod: &Name, container: &Name) -> Self {
        Self {
            folder: folder.clone(),
            pod: pod.clone(),
            container: container.clone(),
            file: None,
            joiner: Joiner::default(),
        }
    }

    fn count(mut self, since: WallMillis) -> Result<u64, LogError> {
        let mut lines = 0;
        while self.next(since)?.is_some() {
            lines += 1;
        }
        Ok(lines)
    }

    fn skip(&mut self, lines: u64, since: WallMillis) -> Result<(), LogError> {
        for _ in 0..lines {
            if self.next(since)?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// `None` when all that is there was read.
    fn next(&mut self, since: WallMillis) -> Result<Option<LogLine>, LogError> {
        loop {
            let current = self.folder.current(&self.pod, &self.container);
            let Some(file) = &mut self.file else {
                if !self.open_next(None)? {
                    return Ok(None);
                }
                continue;
            };
            if file.read_line().map_err(LogError::io("read", &current))? {
                let line = Record::parse(&file.raw).and_then(|record| {
                    self.joiner
                        .push(&record)
                        .map(|text| (record.time.millis(), record.stream, text))
                });
                file.raw.clear();
                if let Some((wall_time, stream, text)) = line
                    && wall_time >= since
                {
                    let text = String::from_utf8_lossy(&text).into_owned();
                    let (pod, container) = (self.pod.clone(), self.container.clone());
                    return Ok(Some(LogLine { pod, container, wall_time, stream, text }));
                }
            } else {
                let inode = file.inode;
                if !self.open_next(Some(inode))? {
                    return Ok(None);
                }
            }
        }
    }

    /// Opens the file after the one that was read to its end; false if that
    /// is the newest one, or there is none.
    fn open_next(&mut self, read: Option<u64>) -> Result<bool, LogError> {
        let current = self.folder.current(&self.pod, &self.container);
        let rotated = self.folder.rotated(&self.pod, &self.container);
        if read.is_some() && (inode(&current) == read || inode(&current).is_none()) {
            return Ok(false);
        }
        let was_rotated = read.is_some() && inode(&rotated) == read;
        let order =
            if was_rotated { [None, Some(&current)] } else { [Some(&rotated), Some(&current)] };
        for path in order.into_iter().flatten() {
            if let Some(open) = OpenFile::open(path).map_err(LogError::io("open", path))? {
                self.file = Some(open);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl OpenFile {
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result?,
        };
        let inode = file.metadata()?.ino();
        Ok(Some(Self { reader: BufReader::new(file), inode, raw: Vec::new() }))
    }

    /// Reads up to the end of a line into `raw`, without the newline; false
    /// if that is not there yet.
    fn read_line(&mut self) -> io::Result<bool> {
        loop {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                return Ok(false);
            }
            let end = buffer.iter().position(|&b| b == b'\n');
            let piece = &buffer[..end.unwrap_or(buffer.len())];
            // Whatever lies in the file: memory stays bounded.
            let room = RAW_BYTES_MAX - self.raw.len();
            self.raw.extend_from_slice(&piece[..room.min(piece.len())]);
            let used = piece.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                return Ok(true);
            }
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|meta| meta.ino())
}

#[cfg(test)]
mod tests {
    use wherry_bundle::message::LogStream;

    use super::*;
    use crate::clock::WallNanos;
    use crate::logs::cri::Encoder;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn query(pod: &str) -> LogQuery {
        LogQuery { pod: name(pod), container: None, tail: None, since_seconds: None, follow: false }
    }

    fn write(folder: &LogFolder, pod: &str, container: &str, millis: u64, text: &str) {
        let (mut encoder, mut records) = (Encoder::default(), Vec::new());
        let time = WallNanos(millis * 1_000_000);
        encoder.feed(format!("{text}\n").as_bytes(), time, LogStream::Stdout, &mut records);
        folder.append(&name(pod), &name(container), &records).unwrap();
    }

    fn texts(merged: &mut Merged) -> Vec<String> {
        let mut texts = Vec::new();
        loop {
            let batch = merged.batch().unwrap();
            if batch.is_empty() {
                return texts;
            }
            texts.extend(batch.into_iter().map(|line| line.text));
        }
    }

    fn read(folder: &LogFolder, query: &LogQuery) -> Vec<String> {
        texts(&mut Merged::open(folder, query).unwrap())
    }

    #[test]
    fn lines_of_several_containers_come_by_time() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LogFolder::new(dir.path().to_owned(), 10_000);
        write(&folder, "web-1", "nginx", 1, "a");
        write(&folder, "web-1", "nginx", 5, "e");
        write(&folder, "web-1", "lion", 2, "b");
        write(&folder, "web-7", "lion", 3, "c");
        write(&folder, "web-2-1", "lion", 9, "other");
        assert_eq!(read(&folder, &query("web")), ["a", "b", "c", "e"]);
        assert_eq!(read(&folder, &query("web-1")), ["a", "b", "e"]);
        assert_eq!(read(&folder, &query("web-2")), ["other"]);
        let lion = LogQuery { container: Some(name("lion")), ..query("web") };
        assert_eq!(read(&folder, &lion), ["b", "c"]);
        let tail = LogQuery { tail: Some(1), ..query("web") };
        assert_eq!(read(&folder, &tail), ["b", "c", "e"]);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LogFolder::new(dir.path().to_owned(), 10_000);
        write(&folder, "web-1", "nginx", 1, "a");
        let error = Merged::open(&folder, &query("db")).unwrap_err().to_string();
        assert!(error.contains("`db`") && error.contains("web-1"), "{error}");
        let asked = LogQuery { container: Some(name("lion")), ..query("web") };
        let error = Merged::open(&folder, &asked).unwrap_err().to_string();
        assert!(error.contains("`lion`") && error.contains("nginx"), "{error}");
    }

    #[test]
    fn since_cuts_by_the_wall_clock() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LogFolder::new(dir.path().to_owned(), 10_000);
        let now = clock::wall_now().millis().0;
        write(&folder, "web-1", "nginx", now - 60_000, "old");
        write(&folder, "web-1", "nginx", now - 1000, "new");
        let since = |seconds| LogQuery { since_seconds: Some(seconds), ..query("web-1") };
        assert_eq!(read(&folder, &since(30)), ["new"]);
        assert_eq!(read(&folder, &since(90)), ["old", "new"]);
        assert_eq!(read(&folder, &since(u64::MAX)), ["old", "new"]);
        assert_eq!(read(&folder, &LogQuery { tail: Some(9), ..since(30) }), ["new"]);
    }

    #[test]
    fn a_reader_goes_on_through_rotations() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LogFolder::new(dir.path().to_owned(), 200);
        let mut merged = None;
        let mut seen = Vec::new();
        for number in 0..100 {
            write(&folder, "web-1", "nginx", number, &format!("line {number}"));
            let merged =
                merged.get_or_insert_with(|| Merged::open(&folder, &query("web-1")).unwrap());
            // Two of three writes pass before it looks again.
            if number % 3 == 0 {
                merged.refresh().unwrap();
                seen.extend(texts(merged));
            }
        }
        let wanted: Vec<String> = (0..100).map(|number| format!("line {number}")).collect();
        assert_eq!(seen, wanted);
        // A late one gets what is kept, up to the newest.
        let late = read(&folder, &query("web-1"));
        assert!(late.len() >= 3 && wanted.ends_with(&late), "{late:?}");
        let tail = LogQuery { tail: Some(2), ..query("web-1") };
        assert_eq!(read(&folder, &tail), wanted[98..]);
    }

    #[test]
    fn a_damaged_file_is_read_as_far_as_it_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LogFolder::new(dir.path().to_owned(), 1 << 20);
        write(&folder, "web-1", "nginx", 1, "a");
        let noise = [vec![b'x'; 100_000], b"\n\0\n".to_vec()].concat();
        folder.append(&name("web-1"), &name("nginx"), &noise).unwrap();
        write(&folder, "web-1", "nginx", 2, "b");
        assert_eq!(read(&folder, &query("web-1")), ["a", "b"]);
    }
}
