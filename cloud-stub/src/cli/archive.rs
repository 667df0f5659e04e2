//! An OCI layout folder as one archive, for the way to the server.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::client::CliError;

/// The file that makes a folder an OCI layout.
const MARKER: &str = "oci-layout";

/// Opens `path` for upload; a folder is first packed into a temporary file.
///
/// # Errors
/// It cannot be read, or it is a folder but no OCI layout.
pub(super) fn open(path: &Path) -> Result<File, CliError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CliError::File { path, source }
    };
    if !fs::metadata(path).map_err(failed(path))?.is_dir() {
        return File::open(path).map_err(failed(path));
    }
    if !path.join(MARKER).is_file() {
        let what =
            format!("{} is a folder, but no OCI layout: it has no file `{MARKER}`", path.display());
        return Err(CliError::input(what));
    }
    let file = tempfile::tempfile().map_err(failed(&std::env::temp_dir()))?;
    let mut archive = tar::Builder::new(file);
    for (name, full) in files(path).map_err(failed(path))? {
        let mut file = File::open(&full).map_err(failed(&full))?;
        archive.append_file(&name, &mut file).map_err(failed(&full))?;
    }
    let mut file = archive.into_inner().map_err(failed(path))?;
    io::Seek::rewind(&mut file).map_err(failed(path))?;
    Ok(file)
}

/// All plain files below `root`, in order, by their names there. A link is
/// followed nowhere: the server would not know what it led to.
fn files(root: &Path) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let name = folder.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(name);
            } else if kind.is_file() {
                found.push((name, entry.path()));
            } else {
                let what = format!("{} is neither file nor folder", entry.path().display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_layout_folder_is_packed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert!(open(root).unwrap_err().to_string().contains("no OCI layout"));
        fs::create_dir_all(root.join("blobs/sha256")).unwrap();
        for name in ["oci-layout", "index.json", "blobs/sha256/abc"] {
            fs::write(root.join(name), name).unwrap();
        }
        let mut archive = tar::Archive::new(open(root).unwrap());
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert_eq!(entry.path().unwrap().to_str(), Some(text.as_str()));
            found.push(text);
        }
        assert_eq!(found, ["blobs/sha256/abc", "index.json", "oci-layout"]);
        std::os::unix::fs::symlink("/etc/passwd", root.join("blobs/link")).unwrap();
        assert!(open(root).unwrap_err().to_string().contains("neither file nor folder"));
    }
}
