//! The mounts of a container, parents before children.

use std::path::PathBuf;

use libcontainer::oci_spec::OciSpecError;
use libcontainer::oci_spec::runtime::{Mount, MountBuilder};

use super::Place;
use crate::proto::{ContainerSpec, MountSpec};

/// Size of a container's `/dev`: device nodes, no data.
const DEV_SIZE: &str = "size=64k";

pub fn mounts(container: &ContainerSpec, place: &Place<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let pod = place.pod;
    let mut all = vec![
        kernel("/proc", "proc", &["nosuid", "noexec", "nodev"])?,
        kernel("/dev", "tmpfs", &["nosuid", "noexec", "strictatime", "mode=755", DEV_SIZE])?,
        kernel(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        kernel("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?,
        kernel("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"])?,
        bind(pod.shm(), "/dev/shm", Access::ReadWrite)?,
        bind(pod.hosts(), "/etc/hosts", Access::ReadOnly)?,
        bind(pod.resolv_conf(), "/etc/resolv.conf", Access::ReadOnly)?,
        bind(pod.hostname(), "/etc/hostname", Access::ReadOnly)?,
    ];
    let mut volumes: Vec<&MountSpec> = container.mounts.iter().collect();
    volumes.sort_by_key(|mount| mount.destination.matches('/').count());
    for mount in volumes {
        let source = place.folders.volumes().join(mount.source.as_str());
        let access = if mount.read_only { Access::ReadOnly } else { Access::ReadWrite };
        all.push(bind(source, &mount.destination, access)?);
    }
    Ok(all)
}

#[derive(Clone, Copy)]
enum Access {
    ReadOnly,
    ReadWrite,
}

fn kernel(destination: &str, kind: &str, options: &[&str]) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(kind)
        .options(words(options))
        .build()
}

fn bind(source: PathBuf, destination: &str, access: Access) -> Result<Mount, OciSpecError> {
    let access = match access {
        Access::ReadOnly => "ro",
        Access::ReadWrite => "rw",
    };
    MountBuilder::default()
        .destination(destination)
        .typ("bind")
        .source(source)
        .options(words(&["rbind", access, "nosuid", "nodev", "noexec"]))
        .build()
}

fn words(options: &[&str]) -> Vec<String> {
    options.iter().map(|&option| option.to_owned()).collect()
}
