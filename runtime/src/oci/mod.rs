//! Container spec → OCI runtime spec (`config.json`), a pure function with
//! golden tests. What the creator does itself is missing: it mounts all but
//! `/proc`, and joins the pod's namespaces ([`crate::rootfs`],
//! [`crate::sandbox`]).
//!
//! Secure by default: a container gets the capabilities that were asked for
//! and no other, cannot gain any, and sees masked and read-only kernel files.
//! The filter of system calls is no part of the spec: libcontainer would want
//! a C library for it. [`crate::executor`] installs it, last before the program.
//! Never here: touching the system.

mod capability;

use std::path::PathBuf;

use libcontainer::oci_spec::OciSpecError;
use libcontainer::oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder,
    PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, RootBuilder, Spec,
    SpecBuilder, UserBuilder,
};

use crate::proto::{ContainerSpec, split_words};
use crate::rootfs::ROOTFS;

pub use capability::CAPABILITIES_KNOWN;

/// What a program finds when its image and template say nothing.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Open files of a process: what `select(2)` can take; a program that wants
/// more raises it itself, up to the hard limit.
pub const OPEN_FILES_SOFT: u64 = 1024;
/// The highest it can raise it to, where the launcher itself has that many.
const OPEN_FILES_HARD_MAX: u64 = 65_536;
const UMASK: u32 = 0o022;

/// Kernel files that tell about the host or its hardware.
const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Kernel files by which the host could be changed.
const READ_ONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The spec of one container, which was checked by [`crate::check`].
/// `open_files_max` is the launcher's own hard limit.
///
/// # Errors
/// [`OciSpecError`] only for a bug here.
pub fn spec(container: &ContainerSpec, open_files_max: u64) -> Result<Spec, OciSpecError> {
    let root = RootBuilder::default().path(ROOTFS).readonly(container.read_only_root).build()?;
    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .root(root)
        .process(process(container, open_files_max)?)
        .mounts(vec![proc()?])
        .linux(linux()?)
        .build()?;
    // The builder gives it one of its own.
    spec.set_hostname(None);
    Ok(spec)
}

fn process(container: &ContainerSpec, open_files_max: u64) -> Result<Process, OciSpecError> {
    let user = UserBuilder::default()
        .uid(container.uid)
        .gid(container.gid)
        .umask(UMASK)
        .additional_gids(container.additional_gids.to_vec())
        .build()?;
    let mut env: Vec<String> = split_words(&container.env).map(str::to_owned).collect();
    if !env.iter().any(|word| word.starts_with("PATH=")) {
        env.insert(0, DEFAULT_PATH.into());
    }
    let args: Vec<String> = split_words(&container.args).map(str::to_owned).collect();
    ProcessBuilder::default()
        .terminal(false)
        .user(user)
        .args(args)
        .env(env)
        .cwd(PathBuf::from(container.working_dir.as_str()))
        .capabilities(capability::sets(container.capabilities)?)
        .rlimits(vec![open_files(open_files_max)?])
        .no_new_privileges(true)
        .build()
}

fn open_files(host_max: u64) -> Result<PosixRlimit, OciSpecError> {
    let hard = host_max.min(OPEN_FILES_HARD_MAX);
    PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .soft(hard.min(OPEN_FILES_SOFT))
        .hard(hard)
        .build()
}

/// It shows the pid namespace of who mounts it.
fn proc() -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination("/proc")
        .typ("proc")
        .source("proc")
        .options(owned(&["nosuid", "noexec", "nodev"]))
        .build()
}

fn linux() -> Result<Linux, OciSpecError> {
    let own = |typ| LinuxNamespaceBuilder::default().typ(typ).build();
    let mut linux = LinuxBuilder::default()
        .namespaces(vec![
            own(LinuxNamespaceType::Pid)?,
            own(LinuxNamespaceType::Mount)?,
            own(LinuxNamespaceType::Cgroup)?,
        ])
        .masked_paths(owned(&MASKED_PATHS))
        .readonly_paths(owned(&READ_ONLY_PATHS))
        .build()?;
    // Limits are set by `wherry-cgroups`, before libcontainer is called.
    linux.set_resources(None).set_devices(None);
    Ok(linux)
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[cfg(test)]
mod tests;
