//! The launcher's own files: what the next launcher has to know of pods that
//! run on without it. Versioned postcard, written beside and renamed, in the
//! run folder's tmpfs (which a reboot clears, as it does the pods).
//!
//! A record that a newer launcher wrote is refused, never misread.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wherry_bundle::message::Exit;
use wherry_bundle::wire::{self, WireError};

use crate::proto::{ContainerSpec, PodSpec};

/// Larger than any record: the largest is a container's spec, which came in
/// one packet.
const RECORD_BYTES_MAX: usize = crate::proto::PACKET_BYTES_MAX;

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Contents { path: PathBuf, source: WireError },
}

/// A type that is the contents of one file.
pub trait Record: Serialize + DeserializeOwned {
    /// Changes whenever the postcard form of this type does.
    const SCHEMA: u8;
}

/// `pod.bin`; the last file of a pod to be written, so that a pod without it
/// was never whole.
impl Record for PodSpec {
    const SCHEMA: u8 = 3;
}

/// `spec.bin`.
impl Record for ContainerSpec {
    const SCHEMA: u8 = 3;
}

/// `state.bin`; missing for a container that was never started. Millis are
/// on the boot clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateRecord {
    Running {
        pid: u32,
        /// Field 22 of `/proc/PID/stat`: with the pid, names one process
        /// since boot.
        start_ticks: u64,
        since_millis: u64,
        /// The cgroup's count before the start.
        oom_kills: u64,
    },
    Exited {
        exit: Exit,
        started_millis: u64,
        at_millis: u64,
    },
}
impl Record for StateRecord {
    const SCHEMA: u8 = 1;
}

/// Writes a record; a reader sees the old one or the new one.
///
/// # Errors
/// The run folder is full or gone.
pub fn write<R: Record>(path: &Path, record: &R) -> Result<(), RecordError> {
    let io = |what| move |source| RecordError::Io { what, path: path.to_owned(), source };
    let bytes = wire::encode(R::SCHEMA, record)
        .map_err(|source| RecordError::Contents { path: path.to_owned(), source })?;
    let beside = path.with_extension("tmp");
    // No fsync: nothing in a tmpfs outlives a power cut.
    fs::write(&beside, bytes).map_err(io("writing"))?;
    fs::rename(&beside, path).map_err(io("renaming to"))
}

/// Reads a record; `None` if there is no such file.
///
/// # Errors
/// A file of another schema, damaged, or too large.
pub fn read<R: Record>(path: &Path) -> Result<Option<R>, RecordError> {
    let io = |source| RecordError::Io { what: "reading", path: path.to_owned(), source };
    let contents = |source| RecordError::Contents { path: path.to_owned(), source };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
        Ok(data) => {
            let bytes = usize::try_from(data.len()).unwrap_or(usize::MAX);
            if bytes > RECORD_BYTES_MAX {
                return Err(contents(WireError::TooLarge { bytes, max: RECORD_BYTES_MAX }));
            }
        }
    }
    let bytes = fs::read(path).map_err(io)?;
    wire::decode(R::SCHEMA, &bytes).map(Some).map_err(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A change here strands the pods of a running node at its next update:
    /// raise the schema, and read the old one too.
    #[test]
    fn golden_bytes() {
        let running =
            StateRecord::Running { pid: 300, start_ticks: 70_000, since_millis: 5, oom_kills: 1 };
        let exited = StateRecord::Exited { exit: Exit::Code(3), started_millis: 5, at_millis: 130 };
        let bytes = |record: &StateRecord| hex(&wire::encode(1, record).unwrap());
        assert_eq!(bytes(&running), "0100ac02f0a2040501");
        assert_eq!(bytes(&exited), "01010003058201");
        golden("pod.hex", &wire::encode(PodSpec::SCHEMA, &samples::pod()).unwrap());
        golden(
            "container.hex",
            &wire::encode(ContainerSpec::SCHEMA, &samples::container()).unwrap(),
        );
    }

    #[track_caller]
    fn golden(file: &str, bytes: &[u8]) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
        if std::env::var_os("WHERRY_BLESS").is_some() {
            fs::write(&path, hex(bytes) + "\n").unwrap();
        }
        assert_eq!(hex(bytes), fs::read_to_string(path).unwrap().trim());
    }

    #[test]
    fn records_read_back_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spec.bin");
        assert_eq!(read::<ContainerSpec>(&path).unwrap(), None);
        write(&path, &samples::container()).unwrap();
        assert_eq!(read(&path).unwrap(), Some(samples::container()));
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] += 1;
        fs::write(&path, &bytes).unwrap();
        let error = read::<ContainerSpec>(&path).unwrap_err().to_string();
        assert!(error.contains("schema 4 is not known here"), "{error}");
        bytes[0] -= 1;
        bytes.pop();
        fs::write(&path, &bytes).unwrap();
        assert!(read::<ContainerSpec>(&path).is_err());
    }
}
