//! What is mounted into a container's overlay, parents before children, and
//! what is the container's own after what others can write to. Pure.
//!
//! `/proc` is missing: only a process of the container's own pid namespace
//! can mount it, so it is left to libcontainer, as is all that goes over it.

use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use wherry_bundle::model::{HostPathKind, is_below};

use crate::folders::PodFolder;
use crate::proto::{ContainerSpec, MountSource, MountSpec, PathText};

/// Size of a container's `/dev`: device nodes, no data.
const DEV: &str = "mode=755,size=64k";
const DEV_PTS: &str = "newinstance,ptmxmode=0666,mode=0620,gid=5";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// In the container; absolute. Made if it is not there.
    pub target: String,
    pub source: Source,
    pub flags: MsFlags,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A new file system of this type, with these options.
    Kernel { kind: &'static str, options: &'static str },
    /// One of the pod's files or folders.
    Pod(PathBuf),
    /// Relative to the volumes' folder, which the supervisor writes to.
    Volume(String),
    /// Below a folder, reached without any symlink.
    Below(Below),
    /// A device of the host's, by whatever name: what is below `/dev` is
    /// root's.
    Device(PathBuf),
    /// The stage's own.
    Tmp,
    /// What the image has there, with what the container writes over it in a
    /// folder of this number.
    Over(usize),
}

/// What pods can write to: its names must not lead elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Below {
    pub folder: PathBuf,
    /// Relative; empty for the folder itself.
    pub path: PathBuf,
    pub kind: HostPathKind,
    /// User and group of what is made there.
    pub owner: (u32, u32),
}

/// All mounts of a container that was checked by [`crate::check`]; `claims` is
/// where the folders of claims are.
#[must_use]
pub fn table(pod: &PodFolder, claims: &Path, container: &ContainerSpec) -> Vec<Mount> {
    let (nosuid, noexec, nodev) = (MsFlags::MS_NOSUID, MsFlags::MS_NOEXEC, MsFlags::MS_NODEV);
    let quiet = nosuid | noexec | nodev;
    let read_only = quiet | MsFlags::MS_RDONLY;
    let kernel = |target: &str, kind, options, flags| Mount {
        target: target.to_owned(),
        source: Source::Kernel { kind, options },
        flags,
    };
    let bind = |target: &str, source, flags| Mount {
        target: target.to_owned(),
        source: Source::Pod(source),
        flags,
    };
    let mut all = vec![
        bind("/etc/hosts", pod.hosts(), read_only),
        bind("/etc/resolv.conf", pod.resolv_conf(), read_only),
        bind("/etc/hostname", pod.hostname(), read_only),
    ];
    let mut volumes: Vec<Mount> =
        container.mounts.iter().map(|mount| volume(pod, claims, container, mount)).collect();
    let has_tmp = volumes.iter().any(|mount| mount.target == "/tmp");
    let own =
        |target: &str, source| Mount { target: target.to_owned(), source, flags: nosuid | nodev };
    if container.read_only_root {
        if !has_tmp {
            volumes.push(own("/tmp", Source::Tmp));
        }
        let over = container.image_volumes.iter().enumerate();
        volumes.extend(over.map(|(number, path)| own(path, Source::Over(number))));
    }
    volumes.sort_by_key(|mount| mount.target.matches('/').count());
    // An image may have a symlink to `/dev`: a volume that is mounted there
    // does not come over the devices, but below them.
    let (late, early) = volumes.into_iter().partition::<Vec<_>, _>(|mount| {
        ["/dev", "/sys"].iter().any(|own| is_below(&mount.target, own))
    });
    all.extend(early);
    all.extend([
        kernel("/dev", "tmpfs", DEV, nosuid | noexec | MsFlags::MS_STRICTATIME),
        kernel("/dev/pts", "devpts", DEV_PTS, nosuid | noexec),
        kernel("/dev/mqueue", "mqueue", "", quiet),
        kernel("/sys", "sysfs", "", read_only),
        bind("/dev/shm", pod.shm(), quiet),
    ]);
    all.extend(late);
    all
}

fn volume(pod: &PodFolder, claims: &Path, container: &ContainerSpec, mount: &MountSpec) -> Mount {
    let owner = (container.uid, container.gid);
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    if mount.read_only {
        flags |= MsFlags::MS_RDONLY;
    }
    let source = match &mount.source {
        MountSource::Files(path) => Source::Volume(path.to_string()),
        MountSource::Host { path, kind: HostPathKind::CharDevice } => {
            flags |= MsFlags::MS_NOEXEC;
            flags -= MsFlags::MS_NODEV;
            Source::Device(path.as_str().into())
        }
        MountSource::Host { path, kind } => {
            // What the host has there is data: programs come with images.
            flags |= MsFlags::MS_NOEXEC;
            let path = path.trim_start_matches('/').into();
            Source::Below(Below { folder: "/".into(), path, kind: *kind, owner })
        }
        MountSource::Empty { volume, sub_path } => {
            made_below(pod.empty_dir(volume), sub_path.as_ref(), owner)
        }
        MountSource::Claim { claim, sub_path } => {
            made_below(claims.join(claim.as_str()), sub_path.as_ref(), owner)
        }
    };
    Mount { target: mount.destination.to_string(), source, flags }
}

/// A folder that is there, or one in it, which is made.
fn made_below(folder: PathBuf, path: Option<&PathText>, owner: (u32, u32)) -> Source {
    let path = path.map(|path| path.as_str().into()).unwrap_or_default();
    Source::Below(Below { folder, path, kind: HostPathKind::DirectoryOrCreate, owner })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folders::Folders;
    use crate::samples;

    #[test]
    fn everything_is_as_closed_as_it_can_be() {
        let folders = Folders::new("/run/wherry".into());
        let mut container = samples::container();
        container.mounts[1].read_only = false;
        let lines: Vec<String> =
            table(&folders.pod(&samples::name("web-3")), Path::new("/data/volumes"), &container)
                .into_iter()
                .map(|mount| {
                    let source = match mount.source {
                        Source::Kernel { kind, options } => format!("{kind}({options})"),
                        Source::Pod(path) => path.display().to_string(),
                        Source::Volume(path) => format!("volume {path}"),
                        Source::Device(path) => format!("device {}", path.display()),
                        Source::Tmp => "tmp".to_owned(),
                        Source::Over(number) => format!("over {number}"),
                        Source::Below(Below { folder, path, .. }) => {
                            format!("{} in {}", path.display(), folder.display())
                        }
                    };
                    let names: Vec<String> =
                        mount.flags.iter_names().map(|(name, _)| name.to_lowercase()).collect();
                    format!("{} = {source}: {}", mount.target, names.join(" "))
                })
                .collect();
        let read_only = "ms_rdonly ms_nosuid ms_nodev ms_noexec";
        let pod = "/run/wherry/pods/web-3";
        assert_eq!(
            lines,
            [
                format!("/etc/hosts = {pod}/hosts: {read_only}"),
                format!("/etc/resolv.conf = {pod}/resolv.conf: {read_only}"),
                format!("/etc/hostname = {pod}/hostname: {read_only}"),
                "/line = run/line in /: ms_nosuid ms_nodev ms_noexec".to_owned(),
                "/tmp = tmp: ms_nosuid ms_nodev".to_owned(),
                "/etc/lion = volume abcd/lion: ms_nosuid ms_nodev".to_owned(),
                format!("/run/lion =  in {pod}/empty/run: ms_nosuid ms_nodev"),
                "/srv/data = db in /data/volumes/data: ms_nosuid ms_nodev".to_owned(),
                "/etc/lion/deep = volume abcd/deep: ms_rdonly ms_nosuid ms_nodev".to_owned(),
                "/var/lib/lion = over 0: ms_nosuid ms_nodev".to_owned(),
                "/dev = tmpfs(mode=755,size=64k): ms_nosuid ms_noexec ms_strictatime".to_owned(),
                "/dev/pts = devpts(newinstance,ptmxmode=0666,mode=0620,gid=5): \
                 ms_nosuid ms_noexec"
                    .to_owned(),
                "/dev/mqueue = mqueue(): ms_nosuid ms_nodev ms_noexec".to_owned(),
                format!("/sys = sysfs(): {read_only}"),
                format!("/dev/shm = {pod}/shm: ms_nosuid ms_nodev ms_noexec"),
                "/dev/modem = device /dev/ttyS0: ms_nosuid ms_noexec".to_owned(),
            ]
        );
    }
}
