//! Where an image comes from: a folder or an archive of named files.
//!
//! Never outside of it: a name that leaves the folder or the archive, by `..`
//! or by a link, is refused. What the files mean is read elsewhere.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::{ImportError, printable};
use super::limits::{ImportLimits, JSON_BYTES_MAX, LINKS_MAX, RATIO_FREE_BYTES};
use super::region::Region;
use super::tar_reader::{Kind, TarReader};
use super::tree::normal;

/// Named files, opened one by one.
#[derive(Debug)]
pub(super) enum Source {
    Folder { root: PathBuf },
    Archive { path: PathBuf, files: BTreeMap<Vec<u8>, Item> },
}

#[derive(Clone, Debug)]
pub(super) enum Item {
    File(Region),
    /// To another name of the archive: `docker save` links equal layers.
    Link(Vec<u8>),
}

impl Source {
    /// Opens `path` and, if it is an archive, reads its table of contents. A
    /// compressed archive is unpacked into `work` first.
    pub fn open(path: &Path, work: &Path, limits: &ImportLimits) -> Result<Self, ImportError> {
        let io = || ImportError::io(path);
        let root = path.canonicalize().map_err(io())?;
        if fs::metadata(&root).map_err(io())?.is_dir() {
            return Ok(Self::Folder { root });
        }
        let archive = open_regular(&root)?;
        let archive = if archive.is_compressed().map_err(io())? {
            unpack(&archive, path, work, limits)?
        } else {
            archive
        };
        Ok(Self::Archive { path: path.to_owned(), files: contents(&archive, path, limits)? })
    }

    /// The file called `name`; `None` if there is none.
    pub fn file(&self, name: &str) -> Result<Option<Region>, ImportError> {
        let plain = normal(name.as_bytes()).map_err(|what| ImportError::blob(name, what))?;
        match self {
            Self::Folder { root } => {
                let path = root.join(name);
                let found = match path.canonicalize() {
                    Ok(found) => found,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(ImportError::Io { path, source: error }),
                };
                if !found.starts_with(root) {
                    return Err(ImportError::blob(name, "is a link that leads out of the layout"));
                }
                open_regular(&found).map(Some)
            }
            Self::Archive { files, .. } => {
                let mut at = plain;
                for _ in 0..LINKS_MAX {
                    match files.get(&at) {
                        None => return Ok(None),
                        Some(Item::File(region)) => return Ok(Some(region.clone())),
                        Some(Item::Link(target)) => at.clone_from(target),
                    }
                }
                Err(ImportError::blob(name, "links form a circle"))
            }
        }
    }

    /// The whole of a small file; `None` if there is none.
    pub fn json(&self, name: &str) -> Result<Option<Vec<u8>>, ImportError> {
        self.file(name)?.map(|file| small(&file, name)).transpose()
    }

    pub fn path(&self) -> &Path {
        match self {
            Self::Folder { root } => root,
            Self::Archive { path, .. } => path,
        }
    }
}

/// The contents of a JSON file of an image, which is small.
pub(super) fn small(file: &Region, name: &str) -> Result<Vec<u8>, ImportError> {
    if file.len() > JSON_BYTES_MAX {
        let what = format!("{} ({} bytes)", printable(name.as_bytes()), file.len());
        return Err(ImportError::TooLarge { what, max: JSON_BYTES_MAX, unit: "bytes" });
    }
    let mut bytes = Vec::new();
    file.reader().read_to_end(&mut bytes).map_err(ImportError::io(name))?;
    Ok(bytes)
}

/// Copies `input` to `output`, and stops as soon as it is more than
/// `bytes_max` or grows more than a real image does from `compressed` bytes.
/// Gives the number of bytes.
pub(super) fn copy_bounded(
    input: &mut dyn Read,
    mut output: impl FnMut(&[u8]) -> io::Result<()>,
    what: &str,
    compressed: u64,
    bytes_max: u64,
    limits: &ImportLimits,
) -> Result<u64, ImportError> {
    const COPY_BYTES: usize = 64 * 1024;
    let mut buffer = vec![0; COPY_BYTES];
    let mut total = 0_u64;
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let text = format!("cannot be uncompressed, damaged or truncated: {error}");
                return Err(ImportError::blob(what, text));
            }
        };
        total += count as u64;
        if total > bytes_max {
            let what = format!("{what}, uncompressed,");
            return Err(ImportError::TooLarge { what, max: bytes_max, unit: "bytes" });
        }
        if total > RATIO_FREE_BYTES && total / limits.ratio_max > compressed {
            let what = format!("{what}: its compression ratio");
            return Err(ImportError::TooLarge { what, max: limits.ratio_max, unit: "to one" });
        }
        output(&buffer[..count]).map_err(ImportError::io(what))?;
    }
}

fn open_regular(path: &Path) -> Result<Region, ImportError> {
    // A FIFO must not make us wait.
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
    let file = file.map_err(ImportError::io(path))?;
    if !file.metadata().map_err(ImportError::io(path))?.is_file() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        return Err(ImportError::Io { path: path.to_owned(), source });
    }
    Region::whole(file).map_err(ImportError::io(path))
}

fn unpack(
    archive: &Region,
    path: &Path,
    work: &Path,
    limits: &ImportLimits,
) -> Result<Region, ImportError> {
    let what = path.display().to_string();
    let mut file = tempfile::tempfile_in(work).map_err(ImportError::io(work))?;
    let mut input = archive.decoded().map_err(ImportError::io(path))?;
    let write = |bytes: &[u8]| File::write_all(&mut file, bytes);
    copy_bounded(&mut input, write, &what, archive.len(), limits.total_bytes_max, limits)?;
    Region::whole(file).map_err(ImportError::io(work))
}

/// The table of contents. The later of two equal names counts: whichever it
/// is, its digest is checked.
fn contents(
    archive: &Region,
    path: &Path,
    limits: &ImportLimits,
) -> Result<BTreeMap<Vec<u8>, Item>, ImportError> {
    let mut files = BTreeMap::new();
    let mut reader = TarReader::new(archive.clone());
    let mut last = String::from("(the first)");
    let mut count = 0_usize;
    loop {
        let entry = match reader.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(files),
            // Not even one header: something else than an archive.
            Err(_) if count == 0 => return Err(ImportError::NotAnImage(path.to_owned())),
            Err(error) => {
                let what = format!("what follows it cannot be read: {error}");
                return Err(ImportError::Archive { entry: last, what });
            }
        };
        last = printable(&entry.path);
        let refuse = |what: String| ImportError::Archive { entry: last.clone(), what };
        count += 1;
        if count > limits.archive_entries_max {
            let max = limits.archive_entries_max as u64;
            let what = format!("{}", path.display());
            return Err(ImportError::TooLarge { what, max, unit: "entries" });
        }
        let name = normal(&entry.path).map_err(refuse)?;
        match entry.kind {
            Kind::File => {
                let part = archive.part(entry.offset, entry.size);
                let part = part.ok_or_else(|| refuse("the archive is truncated".into()))?;
                files.insert(name, Item::File(part));
            }
            Kind::HardLink => {
                let target = normal(&entry.link)
                    .map_err(|what| refuse(format!("is a link whose target {what}")))?;
                files.insert(name, Item::Link(target));
            }
            Kind::Symlink => {
                let target = link_target(&name, &entry.link);
                let target = target.ok_or_else(|| {
                    let link = printable(&entry.link);
                    refuse(format!("is a link to `{link}`, outside of the archive"))
                })?;
                files.insert(name, Item::Link(target));
            }
            Kind::Dir => {}
            Kind::Char | Kind::Block | Kind::Fifo => {
                return Err(refuse("is a device or a FIFO, which no image has here".into()));
            }
        }
    }
}

/// The name that a relative symbolic link `link` at `name` means.
fn link_target(name: &[u8], link: &[u8]) -> Option<Vec<u8>> {
    if link.is_empty() || link.starts_with(b"/") {
        return None;
    }
    let mut parts: Vec<&[u8]> = name.split(|&byte| byte == b'/').collect();
    parts.pop();
    for part in link.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_an_archive_stay_in_it() {
        let target = |name: &str, link: &str| {
            link_target(name.as_bytes(), link.as_bytes()).map(|t| String::from_utf8(t).unwrap())
        };
        assert_eq!(target("a/layer.tar", "../b/./layer.tar").as_deref(), Some("b/layer.tar"));
        assert_eq!(target("x", "y").as_deref(), Some("y"));
        assert_eq!(target("a/x", "../../y"), None);
        assert_eq!(target("a", "/etc/passwd"), None);
        assert_eq!(target("a", ""), None);
    }
}
