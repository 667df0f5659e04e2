//! Makes the mounts of a [`super::table()`] in a container's overlay.
//!
//! The image may be hostile: each name is looked up as a process inside the
//! container would (`openat2(2)`, `RESOLVE_IN_ROOT`), and what was found is
//! mounted on by descriptor, not by a name that leads elsewhere.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use libc::dev_t;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::unistd::{Gid, Uid};
use wherry_bundle::model::HostPathKind;

use super::stage::{TMP, VOLUMES};
use super::{Below, Mount, RootFsError, Source, Stage};
use crate::sys;

const OVERLAY: &str = "overlay";

/// Mounts all of `mounts` in the root file system on `stage`; `volumes` is the
/// folder that [`Source::Volume`] is relative to.
///
/// # Errors
/// The first mount that failed. [`RootFsError::Inside`]: the image has
/// something else where a mount was to be.
pub fn fill(stage: &Stage, volumes: &Path, mounts: &[Mount]) -> Result<(), RootFsError> {
    let root = open_folder(&stage.rootfs())?;
    for mount in mounts {
        match &mount.source {
            Source::Kernel { kind, options } => {
                let target = inside(mount, folder(root.as_fd(), &mount.target))?;
                let options = Some(*options).filter(|options| !options.is_empty());
                do_mount(mount, Some(kind), &target, mount.flags, options)?;
            }
            Source::Pod(path) => {
                let source = open(path, OFlag::O_PATH)
                    .map_err(|source| io_error("opening", path, source))?;
                bind(root.as_fd(), &source, mount)?;
            }
            Source::Volume(path) => {
                let folder = open_folder(volumes)?;
                let source = sys::open_beneath(folder.as_fd(), Path::new(path), OFlag::O_PATH)
                    .map_err(|source| RootFsError::Volume { path: path.clone(), source })?;
                bind(root.as_fd(), &source, mount)?;
            }
            Source::Below(below) => {
                let source = reach(below).map_err(|source| {
                    let path = below.folder.join(&below.path);
                    RootFsError::Below { path, source }
                })?;
                bind(root.as_fd(), &source, mount)?;
            }
            Source::Device(path) => {
                let (source, _) = device(path)?;
                bind(root.as_fd(), &source, mount)?;
            }
            Source::Tmp => {
                let source = open_folder(&stage.path().join(TMP))?;
                bind(root.as_fd(), &source, mount)?;
            }
            Source::Over(number) => over(root.as_fd(), stage, *number, mount)?,
        }
    }
    Ok(())
}

/// A character device of the host, by whatever name, such as those of
/// `/dev/serial/by-id`, and its number.
///
/// # Errors
/// [`RootFsError::Device`].
pub fn device(path: &Path) -> Result<(OwnedFd, dev_t), RootFsError> {
    let error = |source| RootFsError::Device { path: path.to_owned(), source };
    let device = open(path, OFlag::O_PATH).map_err(error)?;
    let found = fstat(device.as_raw_fd()).map_err(|errno| error(errno.into()))?;
    if found.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFCHR.bits() {
        return Err(error(io::Error::other("is no character device")));
    }
    Ok((device, found.st_rdev))
}

/// An overlay on what the image has in a folder: the container finds it there,
/// and may change it.
fn over(
    root: BorrowedFd<'_>,
    stage: &Stage,
    number: usize,
    mount: &Mount,
) -> Result<(), RootFsError> {
    let target = inside(mount, folder(root, &mount.target))?;
    let found = inside(mount, fstat(target.as_raw_fd()).map_err(io::Error::from))?;
    let place = stage.path().join(VOLUMES).join(number.to_string());
    let [upper, work] = ["upper", "work"].map(|name| place.join(name));
    for path in [&upper, &work] {
        fs::create_dir_all(path).map_err(|source| io_error("making folder", path, source))?;
    }
    // A merged folder has owner and mode of its upper one.
    let mode = Permissions::from_mode(found.st_mode & 0o7777);
    chown(&upper, Some(found.st_uid), Some(found.st_gid))
        .and_then(|()| fs::set_permissions(&upper, mode))
        .map_err(|source| io_error("giving away", &upper, source))?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        path_of(&target),
        upper.display(),
        work.display()
    );
    do_mount(mount, Some(OVERLAY), &target, mount.flags, Some(&options))
}

/// What is there, without any symlink having been followed. A folder that may
/// be made belongs to its owner; its parents to root.
fn reach(below: &Below) -> io::Result<OwnedFd> {
    let Below { folder, path, kind, owner } = below;
    let root = open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    if path.as_os_str().is_empty() {
        return Ok(root);
    }
    let flags = match kind {
        // A device is none of those.
        HostPathKind::Any | HostPathKind::CharDevice => OFlag::O_PATH,
        HostPathKind::Directory | HostPathKind::DirectoryOrCreate => {
            OFlag::O_PATH | OFlag::O_DIRECTORY
        }
    };
    match sys::open_beneath(root.as_fd(), path, flags) {
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                && *kind == HostPathKind::DirectoryOrCreate => {}
        opened => return opened,
    }
    let (mut parent, mut reached) = (root.try_clone()?, PathBuf::new());
    for part in path.iter() {
        reached.push(part);
        let open = |flags| sys::open_beneath(root.as_fd(), &reached, flags | OFlag::O_DIRECTORY);
        parent = match open(OFlag::O_PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                mkdirat(Some(parent.as_raw_fd()), part, Mode::from_bits_truncate(0o755))?;
                if reached == *path {
                    // fchown(2) takes no O_PATH.
                    let made = open(OFlag::O_RDONLY)?;
                    let (user, group) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
                    nix::unistd::fchown(made.as_raw_fd(), Some(user), Some(group))?;
                }
                open(OFlag::O_PATH)?
            }
            opened => opened?,
        };
    }
    Ok(parent)
}

/// Makes the folder `path` of the container, with its parents, if it is not
/// there. Symlinks lead where they lead inside the container.
///
/// # Errors
/// Something that is no folder is in the way.
pub fn ensure_folder(rootfs: &Path, path: &str) -> Result<(), RootFsError> {
    let root = open_folder(rootfs)?;
    folder(root.as_fd(), path)
        .map(drop)
        .map_err(|source| RootFsError::Inside { path: path.to_owned(), source })
}

/// Shows a file or folder, but nothing that is mounted below it.
fn bind(root: BorrowedFd<'_>, source: &OwnedFd, mount: &Mount) -> Result<(), RootFsError> {
    let kind = fstat(source.as_raw_fd()).map(|stat| stat.st_mode & SFlag::S_IFMT.bits());
    let is_folder = inside(mount, kind.map_err(io::Error::from))? == SFlag::S_IFDIR.bits();
    let find =
        |root| if is_folder { folder(root, &mount.target) } else { file(root, &mount.target) };
    let under = inside(mount, find(root))?;
    do_mount(mount, Some(path_of(source).as_str()), &under, MsFlags::MS_BIND, None)?;
    // Flags of a bind mount take a second call, on what is on top now.
    let on_top = inside(mount, find(root))?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | mount.flags;
    do_mount(mount, None, &on_top, flags, None)
}

fn do_mount(
    mount: &Mount,
    source: Option<&str>,
    target: &OwnedFd,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<(), RootFsError> {
    let kind = match mount.source {
        Source::Kernel { kind, .. } => Some(kind),
        Source::Over(_) => Some(OVERLAY),
        Source::Pod(_) | Source::Volume(_) | Source::Below(_) | Source::Device(_) | Source::Tmp => {
            None
        }
    };
    let result = nix::mount::mount(source, path_of(target).as_str(), kind, flags, options);
    inside(mount, result.map_err(io::Error::from))
}

/// Opens a folder of the container, making what is missing of it.
fn folder(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let open = |path: &Path| sys::open_in_root(root, path, flags);
    match open(Path::new(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let mut reached = PathBuf::from("/");
    let mut parent = open(&reached)?;
    for part in Path::new(path).iter().skip(1) {
        reached.push(part);
        parent = match open(&reached) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                mkdirat(Some(parent.as_raw_fd()), part, Mode::from_bits_truncate(0o755))?;
                open(&reached)?
            }
            opened => opened?,
        };
    }
    Ok(parent)
}

/// Opens a file of the container, making an empty one if there is none.
fn file(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    let open = || sys::open_in_root(root, Path::new(path), OFlag::O_PATH);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let name = Path::new(path).file_name().ok_or(Errno::EISDIR)?;
    let parent = Path::new(path).parent().and_then(Path::to_str).ok_or(Errno::EINVAL)?;
    let parent = folder(root, parent)?;
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(Some(parent.as_raw_fd()), name, flags, Mode::from_bits_truncate(0o644))?;
    nix::unistd::close(made)?;
    open()
}

/// A name of what a descriptor stands for. `proc_pid_fd(5)`.
fn path_of(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn open_folder(path: &Path) -> Result<OwnedFd, RootFsError> {
    open(path, OFlag::O_PATH | OFlag::O_DIRECTORY)
        .map_err(|source| io_error("opening", path, source))
}

fn open(path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt;
    let opened = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    Ok(opened.into())
}

fn inside<T>(mount: &Mount, result: io::Result<T>) -> Result<T, RootFsError> {
    result.map_err(|source| RootFsError::Inside { path: mount.target.clone(), source })
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> RootFsError {
    RootFsError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn folders_are_made_inside_the_container_only() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("data")).unwrap();
        symlink("/data", root.path().join("absolute")).unwrap();
        symlink(outside.path(), root.path().join("escape")).unwrap();
        symlink("../../..", root.path().join("up")).unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        for path in ["/", "/a/b", "/a/b", "/absolute/c", "/up/d"] {
            ensure_folder(root.path(), path).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        for made in ["a/b", "data/c", "d"] {
            assert!(root.path().join(made).is_dir(), "{made}");
        }
        // A symlink that leads nowhere, and a file in the way.
        assert!(ensure_folder(root.path(), "/escape/e").is_err());
        assert!(ensure_folder(root.path(), "/file/e").is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn no_symlink_leads_out_of_what_a_pod_may_have_of_the_host() {
        use std::os::unix::fs::MetadataExt;
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // The machine's own folder for such things may be behind a symlink.
        let [line, outside] = [&folder, &outside].map(|dir| fs::canonicalize(dir.path()).unwrap());
        symlink(&outside, line.join("out")).unwrap();
        symlink("here", line.join("near")).unwrap();
        fs::create_dir(line.join("here")).unwrap();
        fs::write(line.join("file"), "").unwrap();
        let all = [HostPathKind::Any, HostPathKind::Directory, HostPathKind::DirectoryOrCreate];
        let find = |path: &str, kind| {
            let path = line.join(path).strip_prefix("/").unwrap().to_owned();
            reach(&Below { folder: "/".into(), path, kind, owner: (1_000, 1_001) })
        };
        for kind in all {
            assert!(find("here", kind).is_ok(), "{kind:?}");
            for path in ["out", "out/new", "near", "near/new"] {
                assert!(find(path, kind).is_err(), "{path}: {kind:?}");
            }
            assert_eq!(find("file", kind).is_ok(), kind == HostPathKind::Any);
            assert_eq!(find("new/deep", kind).is_ok(), kind == HostPathKind::DirectoryOrCreate);
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        if nix::unistd::geteuid().is_root() {
            let owner = |path: &str| {
                let meta = fs::metadata(line.join(path)).unwrap();
                (meta.uid(), meta.gid())
            };
            assert_eq!((owner("new"), owner("new/deep")), ((0, 0), (1_000, 1_001)));
        }
    }

    #[test]
    fn files_are_made_inside_the_container_only() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/real"), "kept").unwrap();
        symlink("/etc/real", root.path().join("etc/link")).unwrap();
        symlink(outside.path().join("hosts"), root.path().join("etc/hosts")).unwrap();
        let folder = open_folder(root.path()).unwrap();
        let find = |path| file(folder.as_fd(), path);
        for path in ["/etc/link", "/etc/new", "/srv/new"] {
            find(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        assert_eq!(fs::read(root.path().join("etc/real")).unwrap(), b"kept");
        assert!(root.path().join("srv/new").is_file());
        assert!(find("/etc/hosts").is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
