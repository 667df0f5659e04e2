//! The file systems that every machine has, made at boot and taken down at
//! the end. `mount(2)`, `umount2(2)`, `pivot_root(2)`.
//!
//! Never here: the data partition's own affairs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chroot};

use crate::mounts;

/// One that has to be there.
#[derive(Debug)]
struct Wanted {
    kind: &'static str,
    point: &'static str,
    flags: MsFlags,
    /// Tried in this order: kernels differ in what they know.
    options: &'static [&'static str],
}

const NO_PROGRAMS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);
const NO_DEVICES: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// In the order of mounting. `favordynmods` (Linux 6.0) spares starts of
/// containers an RCU grace period each.
const WANTED: [Wanted; 8] = [
    Wanted { kind: "proc", point: "/proc", flags: NO_PROGRAMS, options: &[""] },
    Wanted { kind: "sysfs", point: "/sys", flags: NO_PROGRAMS, options: &[""] },
    Wanted { kind: "devtmpfs", point: "/dev", flags: MsFlags::MS_NOSUID, options: &["mode=755"] },
    Wanted {
        kind: "devpts",
        point: "/dev/pts",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        options: &["gid=5,mode=620,ptmxmode=666", ""],
    },
    Wanted { kind: "tmpfs", point: "/dev/shm", flags: NO_DEVICES, options: &["mode=1777"] },
    Wanted { kind: "tmpfs", point: "/run", flags: NO_DEVICES, options: &["mode=755"] },
    Wanted { kind: "tmpfs", point: "/tmp", flags: NO_DEVICES, options: &["mode=1777"] },
    Wanted {
        kind: "cgroup2",
        point: "/sys/fs/cgroup",
        flags: NO_PROGRAMS,
        options: &["nsdelegate,favordynmods", "nsdelegate", ""],
    },
];

/// Stays mounted to the end: what ends the machine needs it.
const KEPT: [&str; 4] = ["/", "/proc", "/sys", "/dev"];
/// Mounts may lie over and in each other: more turns than that would not
/// help.
const UNMOUNT_TURNS_MAX: u32 = 4;

/// Mounts what is missing of [`WANTED`]; what could not be is told.
pub fn mount_all() -> Vec<String> {
    let mut problems = Vec::new();
    for wanted in &WANTED {
        if let Err(error) = wanted.ensure() {
            problems.push(format!("mounting {} at {}: {error}", wanted.kind, wanted.point));
        }
    }
    problems
}

impl Wanted {
    fn ensure(&self) -> io::Result<()> {
        let point = Path::new(self.point);
        // An image may have its own: then it is right as it is.
        if mounts::table().is_ok_and(|points| points.iter().any(|known| known == point)) {
            return Ok(());
        }
        // On a read-only root the folder is there, or nothing helps.
        if !point.is_dir() {
            fs::create_dir_all(point)?;
        }
        let mut outcome = Err(Errno::EINVAL);
        for options in self.options {
            let options = (!options.is_empty()).then_some(*options);
            outcome = mount(Some(self.kind), point, Some(self.kind), self.flags, options);
            match outcome {
                Err(Errno::EINVAL) => {}
                // The kernel may have mounted it by itself.
                Err(Errno::EBUSY) => return Ok(()),
                Ok(()) | Err(_) => break,
            }
        }
        Ok(outcome?)
    }
}

/// Makes the root one that containers can leave: the kernel's first root (an
/// initramfs) has no mount above it, so that `pivot_root(2)` refuses it; a
/// second mount of the same files, moved over it, has one. To be called before
/// anything else is mounted.
///
/// # Errors
/// What the kernel says; the root is as it was.
pub fn settle_root() -> io::Result<()> {
    if !is_first_root()? {
        return Ok(());
    }
    let point = Path::new("/run");
    fs::create_dir_all(point)?;
    let none = None::<&str>;
    mount(Some("/"), point, none, MsFlags::MS_BIND, none)?;
    chdir(point)?;
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none)?;
    chroot(".")?;
    Ok(chdir("/")?)
}

/// Needs `/proc` for a moment, which nobody may have mounted yet.
fn is_first_root() -> io::Result<bool> {
    let proc = Path::new("/proc");
    let mounted = mounts::table().is_ok();
    if !mounted {
        fs::create_dir_all(proc)?;
        mount(Some("proc"), proc, Some("proc"), NO_PROGRAMS, None::<&str>)?;
    }
    let text = fs::read_to_string("/proc/self/mountinfo");
    if !mounted {
        umount2(proc, MntFlags::empty())?;
    }
    Ok(root_is_first(&text?))
}

/// `ID PARENT MAJ:MIN ROOT POINT … - TYPE …` (`proc_pid_mountinfo(5)`). What
/// is mounted over the first root comes later and counts.
fn root_is_first(mountinfo: &str) -> bool {
    let mut roots = mountinfo.lines().filter(|line| line.split(' ').nth(4) == Some("/"));
    let last = roots.next_back().and_then(|line| line.split_once(" - "));
    last.is_some_and(|(_, kind)| kind.starts_with("rootfs "))
}

/// Writes everything back and unmounts all that can be; what cannot be
/// becomes read-only, the root too. May hang with a dead disk: call it in a
/// process of its own.
pub fn unmount_all() {
    nix::unistd::sync();
    for _ in 0..UNMOUNT_TURNS_MAX {
        let left = left();
        let gone = left.iter().rev().filter(|point| umount2(*point, MntFlags::empty()).is_ok());
        if gone.count() == left.len() {
            break;
        }
    }
    let stuck = left();
    for point in stuck.iter().map(PathBuf::as_path).rev().chain([Path::new("/")]) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        match mount(None::<&str>, point, None::<&str>, flags, None::<&str>) {
            Ok(()) => log::info!("{} is read-only now", point.display()),
            Err(error) => log::warn!("{} stays mounted: {error}", point.display()),
        }
    }
    nix::unistd::sync();
}

fn left() -> Vec<PathBuf> {
    let kept = |point: &PathBuf| KEPT.iter().any(|kept| point == Path::new(kept));
    let mut points = mounts::table().unwrap_or_default();
    points.retain(|point| !kept(point));
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_root_is_told_from_one_over_it() {
        let first =
            "1 1 0:2 / / rw - rootfs rootfs rw,size=9k\n5 1 0:4 / /proc rw - proc proc rw\n";
        assert!(root_is_first(first));
        assert!(!root_is_first(&format!("{first}20 1 0:2 / / rw - ext4 /dev/vda rw\n")));
        assert!(!root_is_first("22 1 8:1 / / rw shared:1 - ext4 /dev/sda rw\n"));
        assert!(!root_is_first(""));
    }
}
