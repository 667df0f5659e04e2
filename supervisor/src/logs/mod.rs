//! What containers print: drained from FIFOs into bounded files, and read
//! back.
//!
//! `RUN/logs/POD/CONTAINER.log` and one rotated `.log.1` beside it, in the
//! CRI format ([`cri`]), on the run folder's tmpfs: logs wear out no flash
//! and end with a reboot.
//! Never here: deciding which pods exist, the network.

pub mod collector;
pub mod cri;
pub mod file;
pub mod read;
pub mod stream;

use std::io;
use std::path::{Path, PathBuf};

pub use collector::{Collector, Progress};
pub use file::LogFolder;
pub use stream::stream;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("there is no pod or deployment `{asked}` with logs here{}", others(known))]
    NoPod { asked: String, known: Vec<String> },
    #[error("no pod that was asked for has a container `{asked}`{}", others(known))]
    NoContainer { asked: String, known: Vec<String> },
}

impl LogError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

fn others(known: &[String]) -> String {
    if known.is_empty() { String::new() } else { format!("; there are: {}", known.join(", ")) }
}
