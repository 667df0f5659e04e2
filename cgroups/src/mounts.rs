//! Which hierarchies there are: read from `/proc/self/mountinfo`.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::{Error, file};

/// How the machine's cgroups are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    V1,
    V2,
    /// Controllers in v1 hierarchies, and a v2 hierarchy beside them.
    Hybrid,
}

/// The controllers that Wherry uses; all others are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    Cpu,
    /// v1: processor time used. On v2 every cgroup counts it.
    Cpuacct,
    /// v1, only where it shares a hierarchy with another one: nobody can join
    /// such a cgroup before it has processors and memory nodes.
    Cpuset,
    /// v1: devices that may be opened.
    Devices,
    /// v1: freezing. On v2 every cgroup has it.
    Freezer,
    Memory,
    Pids,
    /// v1: systemd's own hierarchy (`name=systemd`), without a controller.
    /// Pods have a cgroup there so that systemd does not take them for
    /// processes of the service that Wherry runs as.
    Systemd,
}

/// Where the hierarchies are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    pub unified: Option<PathBuf>,
    /// v1, each with those of its controllers that Wherry knows, in order.
    pub v1: Vec<(PathBuf, Vec<Controller>)>,
}

impl Mounts {
    /// What this process sees.
    ///
    /// # Errors
    /// [`Error::NotMounted`] if there is none; [`Error::Io`].
    pub fn detect() -> Result<Self, Error> {
        let path = Path::new("/proc/self/mountinfo");
        let bytes = fs::read(path).map_err(|source| Error::Io {
            verb: "read",
            path: path.to_owned(),
            source,
        })?;
        let mut mounts = Self::parse(&String::from_utf8_lossy(&bytes));
        // A mount may be hidden by a later one on top of it.
        let visible = |path: &Path| path.join("cgroup.procs").exists();
        mounts.unified = mounts.unified.filter(|path| visible(path));
        mounts.v1.retain(|(path, _)| visible(path));
        if mounts.layout().is_none() { Err(Error::NotMounted) } else { Ok(mounts) }
    }

    #[must_use]
    pub fn layout(&self) -> Option<Layout> {
        let controls =
            |list: &Vec<Controller>| list.iter().any(|found| *found != Controller::Systemd);
        let v1 = self.v1.iter().any(|(_, list)| controls(list));
        match (v1, &self.unified) {
            (true, Some(_)) => Some(Layout::Hybrid),
            (true, None) => Some(Layout::V1),
            (false, Some(_)) => Some(Layout::V2),
            (false, None) => None,
        }
    }

    /// proc_pid_mountinfo(5): `ID PARENT MAJ:MIN ROOT MOUNTPOINT OPTIONS
    /// [TAG…] - TYPE SOURCE SUPEROPTIONS`; a v1 hierarchy names its
    /// controllers in the last field. The first mount of a hierarchy counts.
    fn parse(mountinfo: &str) -> Self {
        let mut mounts = Self::default();
        for line in mountinfo.lines() {
            let Some((place, kind)) = line.split_once(" - ") else { continue };
            let Some(point) = place.split(' ').nth(4) else { continue };
            let mut kind = kind.split(' ');
            match (kind.next(), kind.nth(1)) {
                (Some("cgroup2"), _) if mounts.unified.is_none() => {
                    mounts.unified = Some(unescape(point));
                }
                (Some("cgroup"), Some(options)) => mounts.add_v1(point, options),
                _ => {}
            }
        }
        mounts
    }

    fn add_v1(&mut self, point: &str, options: &str) {
        let mut controllers: Vec<Controller> =
            options.split(',').filter_map(controller_of).collect();
        controllers.sort_unstable();
        let known = |one: &Controller| self.v1.iter().any(|(_, list)| list.contains(one));
        // A cpuset hierarchy of its own is none of our business.
        if controllers.iter().all(|one| *one == Controller::Cpuset || known(one)) {
            return;
        }
        self.v1.push((unescape(point), controllers));
    }
}

/// The controllers that the v2 hierarchy at `root` offers.
pub(crate) fn unified_controllers(root: &Path) -> Result<Vec<Controller>, Error> {
    let text = file::read(&root.join("cgroup.controllers"))?;
    let limiting = [Controller::Cpu, Controller::Memory, Controller::Pids];
    Ok(limiting.into_iter().filter(|one| text.split_whitespace().any(|t| t == one.v2())).collect())
}

impl Controller {
    /// Its name in `cgroup.controllers`.
    pub(crate) fn v2(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Systemd => "systemd",
        }
    }
}

fn controller_of(option: &str) -> Option<Controller> {
    match option {
        "cpu" => Some(Controller::Cpu),
        "cpuacct" => Some(Controller::Cpuacct),
        "cpuset" => Some(Controller::Cpuset),
        "devices" => Some(Controller::Devices),
        "freezer" => Some(Controller::Freezer),
        "memory" => Some(Controller::Memory),
        "pids" => Some(Controller::Pids),
        "name=systemd" => Some(Controller::Systemd),
        _ => None,
    }
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescape(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                at += 4;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Controller::{Cpu, Cpuacct, Cpuset, Devices, Freezer, Memory, Pids, Systemd};

    #[track_caller]
    fn check(
        mountinfo: &str,
        layout: Option<Layout>,
        unified: Option<&str>,
        v1: &[(&str, &[Controller])],
    ) {
        let mounts = Mounts::parse(mountinfo);
        assert_eq!(mounts.layout(), layout);
        assert_eq!(mounts.unified.as_deref(), unified.map(Path::new));
        let v1: Vec<_> =
            v1.iter().map(|(path, list)| (PathBuf::from(path), list.to_vec())).collect();
        assert_eq!(mounts.v1, v1);
    }

    #[test]
    fn pure_v2() {
        check(
            "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
             35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
             36 24 0:30 /a /mnt/again rw - cgroup2 cgroup2 rw\n",
            Some(Layout::V2),
            Some("/sys/fs/cgroup"),
            &[],
        );
    }

    #[test]
    fn hybrid_as_systemd_mounts_it() {
        check(
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
             32 31 0:29 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n\
             33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             35 31 0:32 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
             36 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             37 31 0:34 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n",
            Some(Layout::Hybrid),
            Some("/sys/fs/cgroup/unified"),
            &[
                ("/sys/fs/cgroup/systemd", &[Systemd]),
                ("/sys/fs/cgroup/cpu,cpuacct", &[Cpu, Cpuacct]),
                ("/sys/fs/cgroup/memory", &[Memory]),
            ],
        );
    }

    #[test]
    fn v1_in_one_hierarchy_at_an_odd_place() {
        let all = &[Cpu, Cpuacct, Cpuset, Devices, Freezer, Memory, Pids];
        check(
            "30 1 0:20 / /dev/c\\040g\\134 rw - cgroup none rw,cpuset,cpu,cpuacct,memory,devices,freezer,pids\n\
             31 1 0:20 / /mnt rw - cgroup none rw,cpu,memory\n",
            Some(Layout::V1),
            None,
            &[("/dev/c g\\", all)],
        );
    }

    #[test]
    fn nothing_mounted() {
        check("22 1 8:1 / / rw - ext4 /dev/sda1 rw\nrubbish\n", None, None, &[]);
        check(
            "33 31 0:30 / /s rw - cgroup cgroup rw,name=systemd\n",
            None,
            None,
            &[("/s", &[Systemd])],
        );
    }
}
