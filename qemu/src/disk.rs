//! Makes data disks: raw images with an ext4 file system, sparse.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why a disk cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image.
    #[error("{}", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program is not there.
    #[error("cannot start mke2fs: install e2fsprogs")]
    Start(#[source] io::Error),
    /// It refused.
    #[error("mke2fs cannot make {}: {output}", path.display())]
    Failed {
        /// The image.
        path: PathBuf,
        /// What it wrote.
        output: String,
    },
}

/// Makes the image anew, with the files of `from` in it.
///
/// # Errors
/// No room, no mke2fs, files that do not fit.
pub fn make(path: &Path, size_mib: u64, from: Option<&Path>) -> Result<(), Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let file = File::create(path).map_err(io)?;
    file.set_len(size_mib * 1024 * 1024).map_err(io)?;
    drop(file);
    let mut command = Command::new("mke2fs");
    // Where people's PATH has no place for it.
    let paths = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{paths}:/usr/sbin:/sbin"));
    command.args(["-q", "-F", "-t", "ext4", "-m", "0"]);
    // Nothing is left to be written in the background, where it would be
    // counted as somebody's writes.
    command.args(["-E", "lazy_itable_init=0,lazy_journal_init=0"]);
    if let Some(from) = from {
        command.arg("-d").arg(from);
    }
    let output = command.arg(path).output().map_err(Error::Start)?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::Failed { path: path.to_owned(), output });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn an_image_is_sparse_and_ext4() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        make(&path, 64, None).unwrap();
        let data = std::fs::metadata(&path).unwrap();
        assert_eq!(data.len(), 64 << 20);
        assert!(data.blocks() * 512 < 16 << 20, "{} blocks", data.blocks());
        // The superblock's magic, at 1024 + 0x38.
        let image = std::fs::read(&path).unwrap();
        assert_eq!(image[1080..1082], [0x53, 0xef]);
        assert!(matches!(
            make(&path, 64, Some(&folder.path().join("none"))),
            Err(Error::Failed { .. })
        ));
    }
}
