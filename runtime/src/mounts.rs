//! The mount table, and the few mounts that the launcher makes in the host's
//! namespace. `mount(2)`, `proc_pid_mountinfo(5)`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Why a mount could not be made or taken away.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("mounting {kind} at {path}: {source}")]
    Mount { kind: &'static str, path: PathBuf, source: Errno },
    #[error("unmounting {path}: {source}")]
    Unmount { path: PathBuf, source: Errno },
    #[error("reading /proc/self/mountinfo: {0}")]
    Table(#[source] io::Error),
}

/// Mount points in this namespace, in the order of mounting.
///
/// # Errors
/// `/proc` is not mounted.
pub fn table() -> Result<Vec<PathBuf>, MountError> {
    let text = fs::read_to_string("/proc/self/mountinfo").map_err(MountError::Table)?;
    Ok(points(&text))
}

/// A new tmpfs of its own at `path`.
///
/// # Errors
/// What `mount(2)` says.
pub fn tmpfs(path: &Path, bytes_max: u64, mode: u32, flags: MsFlags) -> Result<(), MountError> {
    let options = format!("size={bytes_max},mode={mode:o}");
    let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(|source| MountError::Mount { kind: "tmpfs", path: path.to_owned(), source })
}

/// Keeps what is mounted at and below `path` from being seen in other
/// namespaces, where it would hold on to what is unmounted here.
///
/// # Errors
/// What `mount(2)` says: `path` is no mount point.
pub fn make_private(path: &Path) -> Result<(), MountError> {
    mount(None::<&str>, path, None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>)
        .map_err(|source| MountError::Mount { kind: "private", path: path.to_owned(), source })
}

/// Shows the file `source` at the file `path` too.
///
/// # Errors
/// What `mount(2)` says.
pub fn bind_file(source: &Path, path: &Path) -> Result<(), MountError> {
    mount(Some(source), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|source| MountError::Mount { kind: "bind", path: path.to_owned(), source })
}

/// Takes the mount at `path` away, at once for us and, as soon as nobody
/// uses it, for the kernel. Nothing mounted there is fine.
///
/// # Errors
/// What `umount2(2)` says.
pub fn unmount(path: &Path) -> Result<(), MountError> {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(source) => Err(MountError::Unmount { path: path.to_owned(), source }),
    }
}

/// Fields of a line are separated by blanks; the fifth is the mount point,
/// with blank, tab, newline and backslash as `\ooo`.
fn points(text: &str) -> Vec<PathBuf> {
    text.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect()
}

fn unescape(field: &str) -> PathBuf {
    let mut plain = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(char::from(code.unwrap_or(b'?')));
        rest = after.get(3..).unwrap_or("");
    }
    plain.push_str(rest);
    PathBuf::from(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_blanks() {
        let text = "22 1 8:1 / / rw - ext4 /dev/sda rw\n\
            23 22 0:5 / /run/a\\040b\\134c rw,nosuid shared:3 - tmpfs tmpfs rw\n";
        assert_eq!(points(text), [PathBuf::from("/"), PathBuf::from("/run/a b\\c")]);
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(table().unwrap().contains(&PathBuf::from("/")));
    }
}
