//! Reading and writing the kernel's small files, with the path in each error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::error::is_gone;

/// Bytes of a file that are read: 30,000 processes in a `cgroup.procs`; no
/// other file comes near.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Writes in one `write(2)`: the kernel takes each as a whole command. Never
/// makes a file.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Error> {
    write_io(path, text).map_err(|source| Error::Io {
        verb: "write",
        path: path.to_owned(),
        source: with_value(source, text),
    })
}

/// [`write()`], for callers that go on without.
pub(crate) fn write_io(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let written = file.write(text.as_bytes())?;
    if written == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

pub(crate) fn read(path: &Path) -> Result<String, Error> {
    let read = || {
        let mut text = String::new();
        File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|source| Error::Io { verb: "read", path: path.to_owned(), source })
}

/// A file that holds one number, or `max` (as `u64::MAX`).
pub(crate) fn number(path: &Path) -> Result<u64, Error> {
    let text = read(path)?;
    match text.trim() {
        "max" => Ok(u64::MAX),
        other => other.parse().map_err(|_| malformed(path, other)),
    }
}

/// The number after `key` in a file of `KEY NUMBER` lines; `None` if this
/// kernel does not write that key.
pub(crate) fn keyed(path: &Path, key: &str) -> Result<Option<u64>, Error> {
    let text = read(path)?;
    for line in text.lines() {
        if let Some((found, value)) = line.split_once(' ')
            && found == key
        {
            return value.trim().parse().map(Some).map_err(|_| malformed(path, line));
        }
    }
    Ok(None)
}

/// Process ids, one a line. 0 is a process outside our pid namespace: nothing
/// can be done to it from here.
pub(crate) fn pids(path: &Path) -> Result<Vec<i32>, Error> {
    let text = read(path)?;
    // The last line may be cut at `FILE_BYTES_MAX`: half an id is another's.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line: &str| line.trim().parse().map_err(|_| malformed(path, line));
    let pids: Vec<i32> = whole.lines().map(parse).collect::<Result<_, _>>()?;
    Ok(pids.into_iter().filter(|&pid| pid > 0).collect())
}

/// The folders right below `path`; none if it does not exist.
pub(crate) fn folders(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let error = |source| Error::Io { verb: "list", path: path.to_owned(), source };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(source) if is_gone(&source) => return Ok(Vec::new()),
        Err(source) => return Err(error(source)),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(error)?;
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => folders.push(entry.path()),
            Ok(_) => {}
            Err(source) if is_gone(&source) => {}
            Err(source) => return Err(error(source)),
        }
    }
    folders.sort();
    Ok(folders)
}

/// `None` for what does not exist, so that a caller can go on.
pub(crate) fn optional<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn malformed(path: &Path, text: &str) -> Error {
    Error::Malformed { path: path.to_owned(), text: text.chars().take(80).collect() }
}

/// What was written says more than "invalid argument"; the error number is
/// kept where callers look at it.
fn with_value(source: io::Error, text: &str) -> io::Error {
    if is_gone(&source) {
        return source;
    }
    io::Error::new(source.kind(), format!("{source} (writing `{}`)", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn numbers_are_read_as_the_kernel_writes_them() {
        assert_eq!(number(file("42\n").path()).unwrap(), 42);
        assert_eq!(number(file("max\n").path()).unwrap(), u64::MAX);
        assert!(matches!(number(file("-1\n").path()), Err(Error::Malformed { .. })));
        let events = file("low 0\noom 3\noom_kill 2\noom_group_kill 1\n");
        assert_eq!(keyed(events.path(), "oom_kill").unwrap(), Some(2));
        assert_eq!(keyed(events.path(), "high").unwrap(), None);
        assert!(keyed(file("oom_kill x\n").path(), "oom_kill").is_err());
    }

    #[test]
    fn pids_leave_out_strangers_and_halves() {
        assert_eq!(pids(file("12\n0\n7\n").path()).unwrap(), [12, 7]);
        assert_eq!(pids(file("").path()).unwrap(), [0; 0]);
        assert_eq!(pids(file("12\n345").path()).unwrap(), [12]);
        assert!(pids(file("12\nx\n").path()).is_err());
    }

    #[test]
    fn a_missing_file_is_never_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory.max");
        assert!(write(&path, "1").unwrap_err().is_missing());
        assert!(!path.exists());
        assert!(number(&path).unwrap_err().is_missing());
        assert!(folders(&path).unwrap().is_empty());
    }
}
