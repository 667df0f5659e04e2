//! One container's log files: append, rotate, remove.
//!
//! A file is opened for each batch of records and closed again: on a tmpfs
//! that costs microseconds, while a descriptor a container would be kept for
//! days. Never here: fsync; logs may die with the power.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use wherry_bundle::Name;
use wherry_bundle::message::LogStream;

use super::LogError;
use super::cri::{PART_BYTES_MAX, Record};

/// The end of a file: holds the last records, both streams' in most cases.
const TAIL_BYTES: u64 = 4 * PART_BYTES_MAX as u64;

/// The folder `RUN/logs`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogFolder {
    root: PathBuf,
    file_bytes_max: u64,
}

impl LogFolder {
    #[must_use]
    pub fn new(root: PathBuf, file_bytes_max: u64) -> Self {
        Self { root, file_bytes_max }
    }

    #[must_use]
    pub fn current(&self, pod: &Name, container: &Name) -> PathBuf {
        self.root.join(pod.as_str()).join(format!("{container}.log"))
    }

    #[must_use]
    pub fn rotated(&self, pod: &Name, container: &Name) -> PathBuf {
        self.root.join(pod.as_str()).join(format!("{container}.log.1"))
    }

    /// Makes the file of a container, so that a silent one has logs too:
    /// none.
    ///
    /// # Errors
    /// The run folder.
    pub fn create(&self, pod: &Name, container: &Name) -> Result<(), LogError> {
        self.open(&self.current(pod, container)).map(drop)
    }

    /// Appends whole records, rotating before a file would grow above its
    /// limit.
    ///
    /// # Errors
    /// The run folder is full, or cannot be written.
    pub fn append(&self, pod: &Name, container: &Name, records: &[u8]) -> Result<(), LogError> {
        let path = self.current(pod, container);
        let mut rest = records;
        while !rest.is_empty() {
            let mut file = self.open(&path)?;
            let length = file.metadata().map_err(LogError::io("examine", &path))?.len();
            let room = self.file_bytes_max.saturating_sub(length);
            let fits = whole_records(rest, usize::try_from(room).unwrap_or(usize::MAX));
            if fits == 0 && length > 0 {
                let rotated = self.rotated(pod, container);
                fs::rename(&path, &rotated).map_err(LogError::io("rotate", &path))?;
                continue;
            }
            // An empty file takes at least one record, whatever its limit.
            let fits = if fits == 0 { first_record(rest) } else { fits };
            let (now, later) = rest.split_at(fits);
            file.write_all(now).map_err(LogError::io("write", &path))?;
            rest = later;
        }
        Ok(())
    }

    /// Whether the last record of `stream` is a part of a line: its end was not
    /// there yet when whoever wrote it died.
    ///
    /// # Errors
    /// The run folder.
    pub fn ends_in_part(
        &self,
        pod: &Name,
        container: &Name,
        stream: LogStream,
    ) -> Result<bool, LogError> {
        let path = self.current(pod, container);
        let tail = (|| {
            let mut file = File::open(&path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut tail = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut tail)?;
            Ok(tail)
        })();
        let tail = match tail {
            Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => return Ok(false),
            result => result.map_err(LogError::io("read", &path))?,
        };
        let records = tail.split(|&b| b == b'\n').rev().filter_map(Record::parse);
        let last = records.into_iter().find(|record| record.stream == stream);
        Ok(last.is_some_and(|record| !record.full))
    }

    /// Removes all logs of a pod; one that has none is fine.
    ///
    /// # Errors
    /// The run folder.
    pub fn remove(&self, pod: &Name) -> Result<(), LogError> {
        let folder = self.root.join(pod.as_str());
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(LogError::io("remove", &folder)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// All pods that have logs, ordered.
    ///
    /// # Errors
    /// The run folder.
    pub fn pods(&self) -> Result<Vec<Name>, LogError> {
        list(&self.root, |name| Name::new(name).ok())
    }

    /// The containers of `pod` that have logs, ordered.
    ///
    /// # Errors
    /// The run folder.
    pub fn containers(&self, pod: &Name) -> Result<Vec<Name>, LogError> {
        list(&self.root.join(pod.as_str()), |name| Name::new(name.strip_suffix(".log")?).ok())
    }

    fn open(&self, path: &Path) -> Result<File, LogError> {
        let open = || OpenOptions::new().append(true).create(true).open(path);
        match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = path.parent().unwrap_or(&self.root);
                fs::create_dir_all(folder).map_err(LogError::io("create", folder))?;
                open().map_err(LogError::io("open", path))
            }
            result => result.map_err(LogError::io("open", path)),
        }
    }
}

fn list(folder: &Path, name: impl Fn(&str) -> Option<Name>) -> Result<Vec<Name>, LogError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(LogError::io("list", folder))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(LogError::io("list", folder))?;
        names.extend(entry.file_name().to_str().and_then(&name));
    }
    names.sort();
    Ok(names)
}

/// The length of as many whole records as fit into `room` bytes.
fn whole_records(records: &[u8], room: usize) -> usize {
    if records.len() <= room {
        return records.len();
    }
    records[..room].iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1)
}

fn first_record(records: &[u8]) -> usize {
    records.iter().position(|&b| b == b'\n').map_or(records.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn line(number: usize) -> String {
        format!("2026-11-23T05:00:00.000000000Z stdout F {number:04}\n")
    }

    #[test]
    fn files_rotate_and_stay_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LogFolder::new(dir.path().join("logs"), 1000);
        let (pod, container) = (name("web-1"), name("nginx"));
        let mut number = 0;
        for batch in [1, 50, 3, 200, 7] {
            let records: String = (number..number + batch).map(line).collect();
            number += batch;
            folder.append(&pod, &container, records.as_bytes()).unwrap();
            let sizes = [folder.current(&pod, &container), folder.rotated(&pod, &container)]
                .map(|path| fs::metadata(path).map_or(0, |meta| meta.len()));
            assert!(sizes[0] > 0 && sizes.iter().all(|&size| size <= 1000), "{sizes:?}");
        }
        // The newest records are there, whole and in order.
        let text = [folder.rotated(&pod, &container), folder.current(&pod, &container)]
            .map(|path| fs::read_to_string(path).unwrap())
            .concat();
        let count = text.lines().count();
        assert!(count > 20);
        assert_eq!(text, (number - count..number).map(line).collect::<String>());
    }

    #[test]
    fn a_record_above_the_limit_is_written_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LogFolder::new(dir.path().to_owned(), 10);
        let (pod, container) = (name("web-1"), name("nginx"));
        folder.append(&pod, &container, (line(1) + &line(2)).as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(folder.rotated(&pod, &container)).unwrap(), line(1));
        assert_eq!(fs::read_to_string(folder.current(&pod, &container)).unwrap(), line(2));
    }

    #[test]
    fn an_open_line_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LogFolder::new(dir.path().to_owned(), 1 << 20);
        let (pod, container) = (name("web-1"), name("nginx"));
        let open = || {
            let of = |stream| folder.ends_in_part(&pod, &container, stream).unwrap();
            (of(LogStream::Stdout), of(LogStream::Stderr))
        };
        assert_eq!(open(), (false, false), "there is no file");
        let many: String = (0..2000).map(line).collect();
        folder.append(&pod, &container, many.as_bytes()).unwrap();
        for (record, wanted) in [
            ("stdout P half", (true, false)),
            ("stderr P ha", (true, true)),
            ("stdout F lf", (false, true)),
        ] {
            let record = format!("2026-11-23T05:00:00.000000000Z {record}\n");
            folder.append(&pod, &container, record.as_bytes()).unwrap();
            assert_eq!(open(), wanted, "{record}");
        }
    }

    #[test]
    fn listing_and_removing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LogFolder::new(dir.path().join("logs"), 1000);
        assert_eq!(folder.pods().unwrap(), []);
        for (pod, container) in [("b-1", "x"), ("a-1", "z"), ("a-1", "y")] {
            folder.create(&name(pod), &name(container)).unwrap();
        }
        assert_eq!(folder.pods().unwrap(), [name("a-1"), name("b-1")]);
        assert_eq!(folder.containers(&name("a-1")).unwrap(), [name("y"), name("z")]);
        folder.remove(&name("a-1")).unwrap();
        folder.remove(&name("a-1")).unwrap();
        assert_eq!(folder.pods().unwrap(), [name("b-1")]);
        assert_eq!(folder.containers(&name("a-1")).unwrap(), []);
    }
}
