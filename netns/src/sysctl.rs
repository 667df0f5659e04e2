//! Settings below `/proc/sys/net`, which are those of the calling thread's
//! network namespace (proc(5)). It must NOT be given a name from outside
//! unchecked: interface names are checked in [`crate::network`].

use std::path::PathBuf;
use std::{fs, io};

const ROOT: &str = "/proc/sys/net";

#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write `{value}` to {}: {source}", path.display())]
    Write { path: PathBuf, value: String, source: io::Error },
}

/// Writes only what differs, so that a read-only `/proc/sys` which somebody
/// else has set up is fine.
pub fn set(name: &str, value: &str) -> Result<(), SysctlError> {
    let path = PathBuf::from(ROOT).join(name);
    let found = fs::read_to_string(&path)
        .map_err(|source| SysctlError::Read { path: path.clone(), source })?;
    if found.split_whitespace().eq(value.split_whitespace()) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|source| SysctlError::Write {
        path,
        value: value.to_owned(),
        source,
    })
}

/// As [`set`], for what a kernel may be built without.
pub fn set_if_there(name: &str, value: &str) -> Result<(), SysctlError> {
    match set(name, value) {
        Err(SysctlError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
