//! What the launcher checks of each request, whatever the supervisor checked
//! before: it may be wrong, or no longer itself. Pure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use wherry_bundle::limits::{CONTAINERS_MAX, EMPTY_DIR_BYTES_MAX};
use wherry_bundle::model::{Seccomp, is_container_path, is_mount_path, is_relative_path};

use crate::oci::CAPABILITIES_KNOWN;
use crate::proto::{ContainerSpec, MountSource, PodSpec, ProbeCheck, Words, split_words};

/// A request that no well-behaved supervisor makes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused by the launcher: {at}: {what}")]
pub struct Refused {
    at: String,
    what: &'static str,
}

/// # Errors
/// The first thing wrong.
pub fn pod(spec: &PodSpec) -> Result<(), Refused> {
    let at = || format!("pod {}", spec.name);
    let names: BTreeSet<_> = spec.containers.iter().map(|(name, _)| name).collect();
    require(!names.is_empty(), at, "has no container")?;
    require(spec.containers.len() <= CONTAINERS_MAX, at, "has too many containers")?;
    require(names.len() == spec.containers.len(), at, "has two containers of one name")?;
    let volumes: BTreeSet<_> = spec.empty_dirs.iter().map(|dir| &dir.volume).collect();
    require(volumes.len() == spec.empty_dirs.len(), at, "has two volumes of one name")?;
    let sizes = spec.empty_dirs.iter().map(|dir| dir.bytes_max);
    let fits = sizes.into_iter().all(|bytes| (1..=EMPTY_DIR_BYTES_MAX).contains(&bytes));
    require(fits, at, "has a volume of no size, or of too much")
}

/// `host_paths`: what may be mounted of the host, with all that is below.
/// `unconfined`: whether a container may be without a filter of system calls.
///
/// # Errors
/// The first thing wrong.
pub fn container(
    spec: &ContainerSpec,
    host_paths: &[PathBuf],
    unconfined: bool,
) -> Result<(), Refused> {
    let at = || format!("container {}", spec.name);
    command(&spec.args, at)?;
    let env = words(&spec.env).ok_or_else(|| refused(at(), "its environment is not words"))?;
    for word in env {
        let named = word.split_once('=').is_some_and(|(name, _)| !name.is_empty());
        require(named, at, "a variable has no name")?;
    }
    let cwd = is_container_path(&spec.working_dir);
    require(cwd, at, "its working folder is not a plain absolute path outside /proc")?;
    let known = spec.capabilities & !CAPABILITIES_KNOWN == 0;
    require(known, at, "asks for an unknown capability")?;
    let filtered = spec.seccomp == Seccomp::RuntimeDefault || unconfined;
    require(filtered, at, "is unconfined, without `[security] seccomp_unconfined`")?;
    require((1..=64).contains(&spec.stop_signal), at, "its stop signal does not exist")?;
    require(!spec.layers.is_empty(), at, "its image has no layer")?;
    let layers: BTreeSet<_> = spec.layers.iter().collect();
    // overlayfs refuses the same folder twice (ELOOP).
    require(layers.len() == spec.layers.len(), at, "its image has a layer twice")?;
    for mount in &spec.mounts {
        let at = || format!("container {}, mount at `{}`", spec.name, mount.destination);
        match &mount.source {
            MountSource::Files(path) => {
                require(is_relative_path(path), at, "its source is not a plain relative path")?;
            }
            MountSource::Host { path, .. } => {
                let plain = is_mount_path(path);
                require(plain, at, "its source is not a plain absolute path outside /proc")?;
                let path = Path::new(path.as_str());
                let allowed = host_paths.iter().any(|prefix| path.starts_with(prefix));
                require(allowed, at, "its source is not below one of `[volumes] host_paths`")?;
            }
            MountSource::Empty { volume: _, sub_path } => {
                let plain = sub_path.as_ref().is_none_or(|path| is_relative_path(path));
                require(plain, at, "its source is not a plain relative path")?;
            }
        }
        require(is_mount_path(&mount.destination), at, "not a plain absolute path outside /proc")?;
    }
    Ok(())
}

/// # Errors
/// The first thing wrong.
pub fn probe(check: &ProbeCheck) -> Result<(), Refused> {
    let at = || "probe".to_owned();
    match check {
        ProbeCheck::Exec { args } => command(args, at),
        ProbeCheck::HttpGet { port, path, headers } => {
            let headers = words(headers).ok_or_else(|| refused(at(), "no words as headers"))?;
            let plain = |text: &str| !text.chars().any(char::is_control);
            require(*port > 0, at, "has no port")?;
            require(path.starts_with('/'), at, "its path is not absolute")?;
            require(plain(path) && !path.contains(' '), at, "its path is not one word")?;
            require(headers.into_iter().all(plain), at, "a header is not one line")
        }
        ProbeCheck::TcpConnect { port } => require(*port > 0, at, "has no port"),
    }
}

/// `at`: whose arguments they are.
///
/// # Errors
/// They are not words, or the first is empty.
pub fn command(args: &Words, at: impl Fn() -> String) -> Result<(), Refused> {
    let args = words(args).ok_or_else(|| refused(at(), "its arguments are not words"))?;
    require(args.first().is_some_and(|word| !word.is_empty()), at, "has no command")
}

/// The words, if they are what [`crate::proto::join_words`] makes.
fn words(joined: &Words) -> Option<Vec<&str>> {
    (joined.is_empty() || joined.ends_with('\0')).then(|| split_words(joined).collect())
}

fn require(ok: bool, at: impl Fn() -> String, what: &'static str) -> Result<(), Refused> {
    if ok { Ok(()) } else { Err(refused(at(), what)) }
}

fn refused(at: String, what: &'static str) -> Refused {
    Refused { at, what }
}

#[cfg(test)]
mod tests {
    use wherry_bundle::model::HostPathKind;

    use super::*;
    use crate::proto::{MountSpec, join_words};
    use crate::samples;

    #[track_caller]
    fn check(change: impl Fn(&mut ContainerSpec), expected: Option<&str>) {
        let mut spec = samples::container();
        change(&mut spec);
        let allowed = ["/run/line".into()];
        let found = container(&spec, &allowed, false).err().map(|refused| refused.what);
        assert_eq!(found, expected);
    }

    #[test]
    fn what_no_supervisor_sends_is_refused() {
        check(|_| {}, None);
        check(|spec| spec.args = join_words([]).unwrap(), Some("has no command"));
        check(|spec| spec.args = join_words(["", "x"]).unwrap(), Some("has no command"));
        check(
            |spec| spec.args = Words::try_from("no-end").unwrap(),
            Some("its arguments are not words"),
        );
        check(|spec| spec.env = join_words(["=x"]).unwrap(), Some("a variable has no name"));
        check(|spec| spec.env = join_words(["x"]).unwrap(), Some("a variable has no name"));
        let cwd = "its working folder is not a plain absolute path outside /proc";
        for path in ["", "app", "/a/../b", "/proc", "/proc/self/fd/7", "//x"] {
            check(|spec| spec.working_dir = path.try_into().unwrap(), Some(cwd));
        }
        check(|spec| spec.capabilities = 1 << 41, Some("asks for an unknown capability"));
        check(|spec| spec.stop_signal = 0, Some("its stop signal does not exist"));
        check(|spec| spec.layers.clear(), Some("its image has no layer"));
        check(
            |spec| {
                let again = spec.layers[0];
                spec.layers.push(again).unwrap();
            },
            Some("its image has a layer twice"),
        );
    }

    #[test]
    fn hostile_mounts_are_refused() {
        let mount = |source: &str, destination: &str| MountSpec {
            source: MountSource::Files(source.try_into().unwrap()),
            destination: destination.try_into().unwrap(),
            read_only: true,
        };
        let source = "its source is not a plain relative path";
        for path in ["", "/etc", "../etc", "a/../../etc", "a//b"] {
            check(|spec| spec.mounts.push(mount(path, "/data")).unwrap(), Some(source));
        }
        let destination = "not a plain absolute path outside /proc";
        for path in ["/", "data", "/proc/sys", "/a/..", "/a/./b"] {
            check(|spec| spec.mounts.push(mount("v", path)).unwrap(), Some(destination));
        }
    }

    #[test]
    fn of_the_host_only_what_is_allowed_is_mounted() {
        let host = |path: &str, destination: &str| MountSpec {
            source: MountSource::Host {
                path: path.try_into().unwrap(),
                kind: HostPathKind::DirectoryOrCreate,
            },
            destination: destination.try_into().unwrap(),
            read_only: false,
        };
        for path in ["/run/line", "/run/line/a/b"] {
            check(|spec| spec.mounts.push(host(path, "/line")).unwrap(), None);
        }
        let plain = "its source is not a plain absolute path outside /proc";
        for path in ["", "/", "run/line", "/run/line/../x", "/run//line", "/proc/1"] {
            check(|spec| spec.mounts.push(host(path, "/line")).unwrap(), Some(plain));
        }
        let below = "its source is not below one of `[volumes] host_paths`";
        for path in ["/run", "/run/lines", "/etc", "/run/wherry"] {
            check(|spec| spec.mounts.push(host(path, "/line")).unwrap(), Some(below));
        }
        let destination = "not a plain absolute path outside /proc";
        for path in ["/", "line", "/proc/sys", "/a/.."] {
            check(|spec| spec.mounts.push(host("/run/line", path)).unwrap(), Some(destination));
        }
    }

    #[test]
    fn what_is_in_memory_is_named_plainly_and_has_a_size() {
        let empty = |sub_path: &str| MountSpec {
            source: MountSource::Empty {
                volume: samples::name("run"),
                sub_path: Some(sub_path.try_into().unwrap()),
            },
            destination: "/data".try_into().unwrap(),
            read_only: false,
        };
        check(|spec| spec.mounts.push(empty("a/b")).unwrap(), None);
        for path in ["", "/a", "../a", "a/.."] {
            let why = Some("its source is not a plain relative path");
            check(|spec| spec.mounts.push(empty(path)).unwrap(), why);
        }
        for bytes in [0, EMPTY_DIR_BYTES_MAX + 1] {
            let mut spec = samples::pod();
            spec.empty_dirs[0].bytes_max = bytes;
            assert_eq!(pod(&spec).unwrap_err().what, "has a volume of no size, or of too much");
        }
        let mut spec = samples::pod();
        let again = spec.empty_dirs[0].clone();
        spec.empty_dirs.push(again).unwrap();
        assert_eq!(pod(&spec).unwrap_err().what, "has two volumes of one name");
    }

    #[test]
    fn without_a_filter_only_where_that_is_allowed() {
        let unconfined = |spec: &mut ContainerSpec| spec.seccomp = Seccomp::Unconfined;
        check(unconfined, Some("is unconfined, without `[security] seccomp_unconfined`"));
        let mut spec = samples::container();
        unconfined(&mut spec);
        assert_eq!(container(&spec, &["/run/line".into()], true), Ok(()));
    }

    #[test]
    fn a_pod_has_containers_of_different_names() {
        let good = samples::pod();
        assert_eq!(pod(&good), Ok(()));
        let mut spec = good.clone();
        spec.containers.clear();
        assert_eq!(pod(&spec).unwrap_err().what, "has no container");
        let mut spec = good;
        let again = spec.containers[0].clone();
        spec.containers.push(again).unwrap();
        assert_eq!(pod(&spec).unwrap_err().what, "has two containers of one name");
    }
}
