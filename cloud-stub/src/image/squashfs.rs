//! Makes one squashfs file of one layer, with `tar2sqfs` of squashfs-tools-ng.
//!
//! The tool gets a tar of ours, sorted and normalised, on its standard input,
//! so its output depends on nothing but the layer and the tool's version: not
//! on time, machine, environment, number of processors, or the order of the
//! layer's tar. Compared on Debian 12: `sqfstar` 4.5.1 refuses a tar with an
//! entry for the root or with an empty attribute; the crate `backhand` writes
//! no extended attributes.
//!
//! Whiteouts become what overlayfs takes (kernel:
//! Documentation/filesystems/overlayfs.rst, "whiteouts and opaque
//! directories"): a character device 0:0, and `trusted.overlay.opaque=y`.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tar::{Builder, EntryType, Header};

use super::error::{ImportError, printable};
use super::region::Region;
use super::tree::{Attrs, Body, Inode, LayerTree};

const TOOL: &str = "tar2sqfs";
const PACKAGE: &str = "squashfs-tools-ng";
/// Bytes that are compressed together: what a gateway reads, and unpacks in
/// RAM, to get at one page. squashfs's default; larger blocks save few per
/// cent of flash and cost memory and latency at every page fault.
const BLOCK_BYTES: &str = "131072";
/// zstd's level: read speed does not depend on it, and above it the import
/// becomes much slower for one per cent. Part of what makes a layer's digest.
const COMPRESSION: &str = "level=15";
/// A layer at its size limit takes some minutes; after this it hangs.
const TOOL_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// As much of the tool's complaints as a message shows.
const STDERR_BYTES_MAX: u64 = 2048;
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// Writes `tree`, whose contents are in `tar`, to the file `output`, which is
/// there already. `jobs` processors are used.
pub(super) fn make(
    tree: &LayerTree,
    tar: &Region,
    output: &Path,
    jobs: usize,
) -> Result<(), ImportError> {
    make_with(TOOL, TOOL_TIMEOUT, tree, tar, output, jobs)
}

fn make_with(
    tool: &str,
    timeout: Duration,
    tree: &LayerTree,
    tar: &Region,
    output: &Path,
    jobs: usize,
) -> Result<(), ImportError> {
    let mut stderr = tempfile::tempfile().map_err(ImportError::io(std::env::temp_dir()))?;
    let stderr_child = stderr.try_clone().map_err(ImportError::io(tool))?;
    let mut child = Command::new(tool)
        .args(["--quiet", "--force", "--no-skip", "--compressor", "zstd"])
        .args(["--comp-extra", COMPRESSION, "--block-size", BLOCK_BYTES])
        .arg(format!("--num-jobs={jobs}"))
        .arg("--")
        .arg(output)
        // SOURCE_DATE_EPOCH would end up in the file.
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(stderr_child)
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ImportError::ToolMissing { tool: TOOL, package: PACKAGE },
            _ => ImportError::Io { path: tool.into(), source: error },
        })?;
    let input = child.stdin.take();
    let (written, status) = with_deadline(child, timeout, || match input {
        Some(input) => write_tar(tree, tar, io::BufWriter::new(input)),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    })?;
    if !status.success() {
        let mut text = Vec::new();
        let read = stderr
            .seek(SeekFrom::Start(0))
            .and_then(|_| stderr.take(STDERR_BYTES_MAX).read_to_end(&mut text));
        let stderr = match read {
            Ok(_) => printable_lines(&text),
            Err(error) => error.to_string(),
        };
        return Err(ImportError::Tool { tool: TOOL, status: status.to_string(), stderr });
    }
    written.map_err(ImportError::io(tool))
}

/// Runs `feed`, which ends the child's input, and waits for the child. After
/// `timeout` the child is killed, which also ends a blocked write.
fn with_deadline<T>(
    child: Child,
    timeout: Duration,
    feed: impl FnOnce() -> T,
) -> Result<(T, ExitStatus), ImportError> {
    /// How often the child is asked whether it has ended.
    const POLL: Duration = Duration::from_millis(5);
    let child = Arc::new(Mutex::new(child));
    let (done, is_done) = mpsc::channel::<()>();
    let watched = Arc::clone(&child);
    let watchdog = thread::spawn(move || {
        if is_done.recv_timeout(timeout) == Err(RecvTimeoutError::Timeout) {
            log::error!("{TOOL} was killed: not done after {timeout:?}");
            // Fails only when the child is gone already.
            let _ = watched.lock().unwrap_or_else(PoisonError::into_inner).kill();
        }
    });
    let result = feed();
    let status = loop {
        let ended = child.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
        match ended.map_err(ImportError::io(TOOL))? {
            Some(status) => break status,
            None => thread::sleep(POLL),
        }
    };
    drop(done);
    // It cannot panic; its end is all that matters.
    let _ = watchdog.join();
    Ok((result, status))
}

/// The layer as a tar: sorted by path, every field in a PAX record.
fn write_tar(tree: &LayerTree, tar: &Region, output: impl Write) -> io::Result<()> {
    let mut builder = Builder::new(output);
    let mut first_path: BTreeMap<usize, &[u8]> = BTreeMap::new();
    for (path, &index) in &tree.paths {
        let inode = &tree.inodes[index];
        if let Some(first) = first_path.get(&index) {
            let header = header(EntryType::Link, &inode.attrs, 0);
            append(&mut builder, path, first, header, &inode.attrs, io::empty())?;
            continue;
        }
        first_path.insert(index, path);
        write_inode(&mut builder, path, inode, tar)?;
    }
    for path in &tree.whiteouts {
        let attrs = Attrs { mode: 0, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() };
        let header = device(EntryType::Char, &attrs, 0, 0)?;
        append(&mut builder, path, b"", header, &attrs, io::empty())?;
    }
    builder.into_inner()?.flush()
}

fn write_inode(
    builder: &mut Builder<impl Write>,
    path: &[u8],
    inode: &Inode,
    tar: &Region,
) -> io::Result<()> {
    let attrs = &inode.attrs;
    match &inode.body {
        &Body::File { offset, size } => {
            let contents = tar.part(offset, size).ok_or(io::ErrorKind::UnexpectedEof)?;
            let header = header(EntryType::Regular, attrs, size);
            append(builder, path, b"", header, attrs, contents.reader())
        }
        Body::Dir { opaque } => {
            let mut attrs = attrs.clone();
            if *opaque {
                attrs.xattrs.insert(OPAQUE_XATTR.to_owned(), b"y".to_vec());
            }
            let header = header(EntryType::Directory, &attrs, 0);
            append(builder, path, b"", header, &attrs, io::empty())
        }
        Body::Symlink(target) => {
            let header = header(EntryType::Symlink, attrs, 0);
            append(builder, path, target, header, attrs, io::empty())
        }
        &Body::Char { major, minor } => {
            let header = device(EntryType::Char, attrs, major, minor)?;
            append(builder, path, b"", header, attrs, io::empty())
        }
        &Body::Block { major, minor } => {
            let header = device(EntryType::Block, attrs, major, minor)?;
            append(builder, path, b"", header, attrs, io::empty())
        }
        Body::Fifo => {
            let header = header(EntryType::Fifo, attrs, 0);
            append(builder, path, b"", header, attrs, io::empty())
        }
    }
}

fn append(
    builder: &mut Builder<impl Write>,
    path: &[u8],
    link: &[u8],
    mut header: Header,
    attrs: &Attrs,
    contents: impl Read,
) -> io::Result<()> {
    let path = if path.is_empty() { b"./" } else { path };
    let (uid, gid) = (attrs.uid.to_string(), attrs.gid.to_string());
    let mtime = attrs.mtime.to_string();
    let mut records: Vec<(String, &[u8])> = vec![
        ("path".into(), path),
        ("uid".into(), uid.as_bytes()),
        ("gid".into(), gid.as_bytes()),
        ("mtime".into(), mtime.as_bytes()),
    ];
    if !link.is_empty() {
        records.push(("linkpath".into(), link));
    }
    // A hard link has no attributes but its target's.
    if header.entry_type() != EntryType::Link {
        let xattrs = attrs.xattrs.iter();
        records.extend(xattrs.map(|(name, value)| (format!("SCHILY.xattr.{name}"), &value[..])));
    }
    builder.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), *value)))?;
    header.set_cksum();
    builder.append(&header, contents).map_err(|error| {
        let path = printable(path);
        io::Error::new(error.kind(), format!("entry `{path}`: {error}"))
    })
}

fn header(kind: EntryType, attrs: &Attrs, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(attrs.mode);
    header.set_size(size);
    // Owner, time and names are in the PAX records, where they always fit.
    header
}

fn device(kind: EntryType, attrs: &Attrs, major: u32, minor: u32) -> io::Result<Header> {
    let mut header = header(kind, attrs, 0);
    header.set_device_major(major)?;
    header.set_device_minor(minor)?;
    Ok(header)
}

/// What a tool wrote, on one line.
fn printable_lines(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ImportLimits;
    use crate::image::merged::Merged;

    /// A layer of ten blocks and more, each different.
    fn layer() -> (LayerTree, Region) {
        let mut builder = Builder::new(tempfile::tempfile().unwrap());
        let data: Vec<u8> = (0..400_000_u32).flat_map(u32::to_le_bytes).collect();
        for name in ["usr/big", "usr/small"] {
            let length = if name == "usr/big" { data.len() } else { 100 };
            let mut header = Header::new_gnu();
            header.set_size(length as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, &data[..length]).unwrap();
        }
        let tar = Region::whole(builder.into_inner().unwrap()).unwrap();
        let limits = ImportLimits::default();
        let mut tree = LayerTree::read(&tar, &limits, 100).unwrap();
        tree.complete(&Merged::default(), &limits, 100).unwrap();
        (tree, tar)
    }

    #[test]
    fn the_number_of_processors_does_not_matter() {
        let (tree, tar) = layer();
        let mut made = Vec::new();
        for jobs in [1, 2, 7] {
            let file = tempfile::NamedTempFile::new().unwrap();
            make(&tree, &tar, file.path(), jobs).unwrap();
            made.push(std::fs::read(file.path()).unwrap());
        }
        assert!(made[0].len() > 4096 && made[0].starts_with(b"hsqs"));
        assert!(made.iter().all(|bytes| *bytes == made[0]));
    }

    fn fail_with(tool: &str, timeout: Duration) -> String {
        let (tree, tar) = layer();
        let file = tempfile::NamedTempFile::new().unwrap();
        make_with(tool, timeout, &tree, &tar, file.path(), 1).unwrap_err().to_string()
    }

    #[test]
    fn a_tool_that_is_missing_or_fails_is_explained() {
        let error = fail_with("wherry-test-no-such-tool", TOOL_TIMEOUT);
        assert!(error.contains("install the Debian package `squashfs-tools-ng`"), "{error}");
        // Ends at once, with the pipe full, and complains.
        let error = fail_with("cat", TOOL_TIMEOUT);
        assert!(error.contains("exit status: 1") && error.contains("--quiet"), "{error}");
    }

    #[test]
    fn a_tool_that_hangs_is_killed() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("hang");
        std::fs::write(&script, "#!/bin/sh\nexec sleep 60\n").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let error = fail_with(script.to_str().unwrap(), Duration::from_millis(300));
        assert!(error.contains("signal: 9"), "{error}");
    }
}
