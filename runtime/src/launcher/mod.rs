//! The launcher's loop.

mod config;

pub use config::{Ended, LauncherConfig, NetworkSettings, Supervisor};

use std::path::PathBuf;

/// Why the launcher could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    #[error("{path}: another launcher is running here (stop it, or use another run folder)")]
    Locked { path: PathBuf },
    #[error("the program is not sealed against its containers: call seal::ensure_sealed first")]
    NotSealed,
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: std::io::Error },
}

/// Runs until SIGTERM, SIGINT, [`crate::proto::Request::Stop`] or
/// [`crate::proto::Request::Purge`]. Needs root and a process of one thread.
///
/// # Errors
/// What the environment lacks; nothing was started then.
pub fn run(config: LauncherConfig) -> Result<Ended, LauncherError> {
    let path = crate::folders::Folders::new(config.run_dir).lock();
    Err(LauncherError::Locked { path })
}
