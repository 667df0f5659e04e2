//! A folder of unpacked files with the digest of each beside it, so that what
//! is used is what was unpacked. It neither fetches nor unpacks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Beside `root/`: a line `DIGEST  PATH` a regular file.
const DIGESTS: &str = "files.sha256";
const ROOT: &str = "root";

/// Why a tree, or a file of it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file system error.
    #[error("{}", path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that the packages did not bring.
    #[error("{} is not in {}", path, root.display())]
    Missing {
        /// Relative to the root.
        path: String,
        /// The root.
        root: PathBuf,
    },
    /// A file is not what was unpacked.
    #[error("{} changed since it was unpacked: remove {}, to fetch it again",
        path.display(), tree.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What to remove.
        tree: PathBuf,
    },
    /// The list of digests is no such list.
    #[error("{} cannot be read: remove its folder, to fetch it again", path.display())]
    Digests {
        /// The list.
        path: PathBuf,
    },
}

/// An unpacked folder; see the module.
#[derive(Debug)]
pub struct Tree {
    folder: PathBuf,
    digests: BTreeMap<String, String>,
}

impl Tree {
    /// Writes the digests of everything below `folder/root`.
    pub(crate) fn seal(folder: &Path) -> Result<Self, Error> {
        let root = folder.join(ROOT);
        let mut digests = BTreeMap::new();
        for path in regular_files(&root)? {
            let full = root.join(&path);
            let content = fs::read(&full).map_err(|source| Error::Io { path: full, source })?;
            digests.insert(path, digest(&content));
        }
        let mut list = String::new();
        for (path, digest) in &digests {
            // Writing to a string does not fail.
            let _ = writeln!(list, "{digest}  {path}");
        }
        let path = folder.join(DIGESTS);
        fs::write(&path, list).map_err(|source| Error::Io { path, source })?;
        Ok(Self { folder: folder.to_owned(), digests })
    }

    /// One that [`Self::seal`] finished.
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(DIGESTS);
        let list =
            fs::read_to_string(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
        let pairs = list.lines().map(|line| line.split_once("  "));
        let digests = pairs
            .map(|pair| pair.map(|(digest, path)| (path.to_owned(), digest.to_owned())))
            .collect::<Option<_>>()
            .ok_or(Error::Digests { path })?;
        Ok(Self { folder: folder.to_owned(), digests })
    }

    /// Where the files are.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.folder.join(ROOT)
    }

    /// The regular files, relative to the root, in order.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.digests.keys().map(String::as_str)
    }

    /// The content of one file, verified.
    ///
    /// # Errors
    /// It is not there, or is not what was unpacked.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        let root = self.root();
        let expected = self
            .digests
            .get(path)
            .ok_or_else(|| Error::Missing { path: path.to_owned(), root: root.clone() })?;
        let full = root.join(path);
        let content = fs::read(&full).map_err(|source| Error::Io { path: full.clone(), source })?;
        if digest(&content) != *expected {
            return Err(Error::Changed { path: full, tree: self.folder.clone() });
        }
        Ok(content)
    }

    /// Reads every file; also refuses files that were added.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn verify(&self) -> Result<(), Error> {
        for path in regular_files(&self.root())? {
            if !self.digests.contains_key(&path) {
                let path = self.root().join(path);
                return Err(Error::Changed { path, tree: self.folder.clone() });
            }
        }
        self.files().try_for_each(|path| self.read(path).map(drop))
    }
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Below `root`, relative to it; symbolic links are neither followed nor told.
fn regular_files(root: &Path) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |source| Error::Io { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                let relative = path.strip_prefix(root).unwrap_or(&path);
                found.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::write(root.join("bin/a"), "one").unwrap();
        fs::write(root.join("b"), "two").unwrap();
        Tree::seal(folder.path()).unwrap();

        let tree = Tree::open(folder.path()).unwrap();
        assert_eq!(tree.files().collect::<Vec<_>>(), ["b", "bin/a"]);
        assert_eq!(tree.read("bin/a").unwrap(), b"one");
        tree.verify().unwrap();
        assert!(matches!(tree.read("c"), Err(Error::Missing { .. })));

        fs::write(root.join("bin/a"), "One").unwrap();
        assert!(matches!(tree.read("bin/a"), Err(Error::Changed { .. })));
        assert!(matches!(tree.verify(), Err(Error::Changed { .. })));
        assert_eq!(tree.read("b").unwrap(), b"two");

        fs::write(root.join("bin/a"), "one").unwrap();
        fs::write(root.join("bin/more"), "").unwrap();
        assert!(matches!(tree.verify(), Err(Error::Changed { .. })));
    }

    #[test]
    fn a_digest_is_the_well_known_one() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(b"abc"), known);
    }
}
