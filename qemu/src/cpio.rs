//! Writes cpio archives in the `newc` form, which is what the kernel unpacks
//! as its first root. Reproducible: times, owners and inode numbers never come
//! from this machine. No I/O but on the given writer.
//!
//! Source: the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::collections::BTreeSet;
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// An archive under way; folders above an entry come by themselves.
#[derive(Debug)]
pub struct Archive<W: Write> {
    out: W,
    inode: u32,
    folders: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        Self { out, inode: 0, folders: BTreeSet::new() }
    }

    /// A regular file; `path` absolute or relative to the root.
    ///
    /// # Errors
    /// The writer's; a file of 4 GiB or more, which the form cannot hold.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, REGULAR | (mode & 0o7777), (0, 0), content)
    }

    /// A folder, readable by all, once however often it is asked for.
    ///
    /// # Errors
    /// The writer's.
    pub fn folder(&mut self, path: &str) -> io::Result<()> {
        self.parents(path)?;
        let path = relative(path);
        if !path.is_empty() && self.folders.insert(path.to_owned()) {
            self.entry(path, DIRECTORY | 0o755, (0, 0), b"")?;
        }
        Ok(())
    }

    /// A symbolic link at `path` that leads to `target`.
    ///
    /// # Errors
    /// The writer's.
    pub fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, SYMLINK | 0o777, (0, 0), target.as_bytes())
    }

    /// A character device.
    ///
    /// # Errors
    /// The writer's.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, CHARACTER | 0o600, (major, minor), b"")
    }

    /// Writes the trailer; the writer, not flushed.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.header("TRAILER!!!", 0, (0, 0), 0, 1)?;
        Ok(self.out)
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        let path = relative(path);
        for (at, _) in path.match_indices('/') {
            let parent = &path[..at];
            if self.folders.insert(parent.to_owned()) {
                self.entry(parent, DIRECTORY | 0o755, (0, 0), b"")?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: &str,
        mode: u32,
        device: (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::other(format!("{path}: too large for an initramfs")))?;
        self.inode += 1;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        self.header(relative(path), mode, device, size, links)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    fn header(
        &mut self,
        name: &str,
        mode: u32,
        (major, minor): (u32, u32),
        size: u32,
        links: u32,
    ) -> io::Result<()> {
        let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        // magic, inode, mode, uid, gid, links, time, size, the file system's
        // device, the entry's own device, the name's size, no checksum
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0];
        self.out.write_all(b"070701")?;
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(6 + 8 * fields.len() + name.len() + 1)
    }

    /// Fills up to a multiple of four.
    fn pad(&mut self, length: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..length.next_multiple_of(4) - length])
    }
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/').trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_the_bytes_of_the_form() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b", 0o640, b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        let text = String::from_utf8(bytes).unwrap().replace('\0', ".");
        assert_eq!(
            text,
            concat!(
                "070701000000010000",
                "41ed0000000000000000000000020000000000000000",
                "000000000000000000000000000000000000000200000000",
                "a.",
                "07070100000002000081a00000000000000000000000010000000000000005",
                "000000000000000000000000000000000000000400000000",
                "a/b...",
                "hello...",
                "07070100000000000000000000000000000000000000010000000000000000",
                "000000000000000000000000000000000000000b00000000",
                "TRAILER!!!....",
            )
        );
    }

    #[test]
    fn a_folder_comes_once_and_before_what_is_in_it() {
        let mut archive = Archive::new(Vec::new());
        archive.folder("dev").unwrap();
        archive.device("/dev/console", 5, 1).unwrap();
        archive.symlink("dev/stdin", "/proc/self/fd/0").unwrap();
        archive.folder("/dev/").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(String::from_utf8(bytes).unwrap().matches("070701").count(), 4);
    }

    #[test]
    fn the_systems_cpio_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("archive");
        let mut archive = Archive::new(std::fs::File::create(&file).unwrap());
        archive.file("/bin/tool", 0o755, b"#!/bin/sh\n").unwrap();
        archive.symlink("/bin/sh", "tool").unwrap();
        archive.finish().unwrap();
        let busybox = std::process::Command::new("busybox")
            .args(["cpio", "-itv"])
            .stdin(std::fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        let list = String::from_utf8(busybox.stdout).unwrap();
        assert!(list.contains("drwxr-xr-x"), "{list}");
        assert!(list.contains("-rwxr-xr-x"), "{list}");
        assert!(list.contains("bin/sh -> tool"), "{list}");
    }
}
