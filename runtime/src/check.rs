//! What the launcher checks of each request, whatever the supervisor checked
//! before: it may be wrong, or no longer itself. Pure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use wherry_bundle::limits::{
    CLAIM_BYTES_MAX, CONTAINER_PIDS_MAX, CONTAINERS_MAX, EMPTY_DIR_BYTES_MAX,
};
use wherry_bundle::model::{
    HostPathKind, NO_MOUNT_POINT, Seccomp, is_below, is_container_path, is_host_name,
    is_mount_path, is_mount_point, is_relative_path, is_resolver_option,
};

use crate::oci::CAPABILITIES_KNOWN;
use crate::proto::{
    ClaimSpec, ContainerSpec, MountSource, Names, PodSpec, ProbeCheck, Words, split_words,
};

/// A request that no well-behaved supervisor makes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused by the launcher: {at}: {what}")]
pub struct Refused {
    at: String,
    what: &'static str,
}

/// What the node's configuration lets pods have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// What may be mounted of the host, with all that is below.
    pub host_paths: Vec<PathBuf>,
    /// Devices, and folders of devices.
    pub devices: Vec<PathBuf>,
    /// A container may be without a filter of system calls.
    pub seccomp_unconfined: bool,
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
    require(fits, at, "has a volume of no size, or of too much")?;
    // A line more in these files would be the pod's own word.
    let mut aliases = spec.host_aliases.iter();
    let plain = aliases.all(|(_, names)| !names.is_empty() && all(names, is_host_name));
    require(plain, at, "an alias of a host has no name, or one that is none")?;
    let dns = &spec.dns;
    let plain = all(&dns.searches, is_host_name) && all(&dns.options, is_resolver_option);
    require(plain, at, "its resolver has a domain or an option that is none")
}

/// # Errors
/// The first thing wrong.
pub fn container(spec: &ContainerSpec, allowed: &Allowed) -> Result<(), Refused> {
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
    let filtered = spec.seccomp == Seccomp::RuntimeDefault || allowed.seccomp_unconfined;
    require(filtered, at, "is unconfined, without `[security] seccomp_unconfined`")?;
    require((1..=64).contains(&spec.stop_signal), at, "its stop signal does not exist")?;
    require(!spec.layers.is_empty(), at, "its image has no layer")?;
    let layers: BTreeSet<_> = spec.layers.iter().collect();
    // overlayfs refuses the same folder twice (ELOOP).
    require(layers.len() == spec.layers.len(), at, "its image has a layer twice")?;
    let pids = spec.pids.is_none_or(|pids| (1..=CONTAINER_PIDS_MAX).contains(&pids));
    require(pids, at, "may have no process, or too many")?;
    let storage = spec.storage_bytes.is_none_or(|bytes| (1..=EMPTY_DIR_BYTES_MAX).contains(&bytes));
    require(storage, at, "may write nothing, or too much")?;
    image_volumes(spec, at)?;
    for mount in &spec.mounts {
        let at = || format!("container {}, mount at `{}`", spec.name, mount.destination);
        match &mount.source {
            MountSource::Files(path) => {
                require(is_relative_path(path), at, "its source is not a plain relative path")?;
            }
            MountSource::Host { path, kind } => {
                let plain = is_mount_path(path);
                require(plain, at, "its source is not a plain absolute path outside /proc")?;
                let below = |prefixes: &[PathBuf]| {
                    prefixes.iter().any(|prefix| Path::new(path.as_str()).starts_with(prefix))
                };
                if *kind == HostPathKind::CharDevice {
                    let allowed = below(&allowed.devices);
                    require(allowed, at, "its source is not among `[devices] paths`")?;
                } else {
                    let allowed = below(&allowed.host_paths);
                    require(allowed, at, "its source is not below one of `[volumes] host_paths`")?;
                }
            }
            MountSource::Empty { volume: _, sub_path }
            | MountSource::Claim { claim: _, sub_path } => {
                let plain = sub_path.as_ref().is_none_or(|path| is_relative_path(path));
                require(plain, at, "its source is not a plain relative path")?;
            }
        }
        require(is_mount_point(&mount.destination), at, NO_MOUNT_POINT)?;
    }
    Ok(())
}

/// Its name is one, whoever sent it.
///
/// # Errors
/// The first thing wrong.
pub fn claim(spec: &ClaimSpec) -> Result<(), Refused> {
    let fits = (1..=CLAIM_BYTES_MAX).contains(&spec.bytes_max);
    require(fits, || format!("volume {}", spec.name), "has no size, or too much")
}

/// Overlays on overlays may not be more than two high (`FILESYSTEM_MAX_STACK_DEPTH`
/// of the kernel).
fn image_volumes(spec: &ContainerSpec, at: impl Fn() -> String) -> Result<(), Refused> {
    for (number, path) in spec.image_volumes.iter().enumerate() {
        let plain = is_mount_point(path);
        require(
            plain,
            &at,
            "a volume of its image is not a plain absolute path outside /proc and what each container has in /dev",
        )?;
        let mut others =
            spec.image_volumes.iter().enumerate().filter(|(other, _)| *other != number);
        let alone = !others.any(|(_, other)| is_below(path, other));
        require(alone, &at, "a volume of its image lies in another")?;
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

/// Each of the names, between which there are single spaces.
fn all(names: &Names, is_good: impl Fn(&str) -> bool) -> bool {
    names.is_empty() || names.split(' ').all(is_good)
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
    use wherry_bundle::wire;

    use super::*;
    use crate::proto::{MountSpec, Packet, Request, join_words};
    use crate::{packet, samples};

    #[track_caller]
    fn check(change: impl Fn(&mut ContainerSpec), expected: Option<&str>) {
        let mut spec = samples::container();
        change(&mut spec);
        let found = container(&spec, &allowed()).err().map(|refused| refused.what);
        assert_eq!(found, expected);
    }

    fn allowed() -> Allowed {
        Allowed {
            host_paths: vec!["/run/line".into()],
            devices: vec!["/dev/ttyS0".into(), "/dev/serial/by-id".into()],
            seccomp_unconfined: false,
        }
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
        let destination =
            "not a plain absolute path outside /proc and what each container has in /dev";
        for path in ["/", "data", "/proc/sys", "/a/..", "/a/./b", "/dev", "/dev/null", "/dev/pts/0"]
        {
            check(|spec| spec.mounts.push(mount("v", path)).unwrap(), Some(destination));
        }
        check(|spec| spec.mounts.push(mount("v", "/dev/shm")).unwrap(), None);
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
        let destination =
            "not a plain absolute path outside /proc and what each container has in /dev";
        for path in ["/", "line", "/proc/sys", "/a/.."] {
            check(|spec| spec.mounts.push(host("/run/line", path)).unwrap(), Some(destination));
        }
    }

    #[test]
    fn of_its_devices_only_what_is_allowed_is_there() {
        let device = |path: &str, kind| MountSpec {
            source: MountSource::Host { path: path.try_into().unwrap(), kind },
            destination: "/dev/other".try_into().unwrap(),
            read_only: false,
        };
        let kind = HostPathKind::CharDevice;
        for path in ["/dev/ttyS0", "/dev/serial/by-id/usb-1"] {
            check(|spec| spec.mounts.push(device(path, kind)).unwrap(), None);
        }
        let among = "its source is not among `[devices] paths`";
        for path in ["/dev/ttyS1", "/dev/mem", "/dev", "/run/line/x"] {
            check(|spec| spec.mounts.push(device(path, kind)).unwrap(), Some(among));
        }
        // Not by another name for it.
        let below = "its source is not below one of `[volumes] host_paths`";
        let other = device("/dev/ttyS0", HostPathKind::Any);
        check(|spec| spec.mounts.push(other.clone()).unwrap(), Some(below));
    }

    #[test]
    fn no_line_is_smuggled_into_a_pods_files() {
        let what = |change: &dyn Fn(&mut PodSpec)| {
            let mut spec = samples::pod();
            change(&mut spec);
            pod(&spec).err().map(|refused| refused.what)
        };
        let alias = Some("an alias of a host has no name, or one that is none");
        for names in ["", "a  b", "a\n127.0.0.1", "a\tb", "-a", "a#"] {
            assert_eq!(
                what(&|s| s.host_aliases[0].1 = names.try_into().unwrap()),
                alias,
                "{names}"
            );
        }
        let resolver = Some("its resolver has a domain or an option that is none");
        for text in ["a\nnameserver", "a  b", "-"] {
            assert_eq!(what(&|s| s.dns.searches = text.try_into().unwrap()), resolver, "{text}");
        }
        for text in ["a\nb", "a  b", ""] {
            let found = what(&|s| s.dns.options = text.try_into().unwrap());
            assert_eq!(found, resolver.filter(|_| !text.is_empty()), "{text}");
        }
    }

    #[test]
    fn volumes_of_an_image_are_plain_and_beside_each_other() {
        let push = |path: &str| {
            let path = path.to_owned();
            move |spec: &mut ContainerSpec| {
                spec.image_volumes.push(path.as_str().try_into().unwrap()).unwrap();
            }
        };
        check(push("/var/lib/lions"), None);
        let plain = Some(
            "a volume of its image is not a plain absolute path outside /proc and what each container has in /dev",
        );
        check(push("/"), plain);
        check(push("/a/../b"), plain);
        let another = Some("a volume of its image lies in another");
        check(push("/var/lib/lion/deep"), another);
        check(push("/var"), another);
        check(push("/var/lib/lion"), another);
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
    fn a_claim_is_named_plainly_and_has_a_size() {
        let claim = |bytes_max| ClaimSpec {
            name: samples::name("data"),
            bytes_max,
            owner: (0, 0),
            gid: None,
        };
        let mount = |sub_path: &str| MountSpec {
            source: MountSource::Claim {
                claim: samples::name("data"),
                sub_path: Some(sub_path.try_into().unwrap()),
            },
            destination: "/data".try_into().unwrap(),
            read_only: false,
        };
        check(|spec| spec.mounts.push(mount("a/b")).unwrap(), None);
        for path in ["", "/a", "../a", "a/..", "a//b"] {
            let why = Some("its source is not a plain relative path");
            check(|spec| spec.mounts.push(mount(path)).unwrap(), why);
        }
        assert_eq!(super::claim(&claim(1)), Ok(()));
        for bytes in [0, CLAIM_BYTES_MAX + 1] {
            assert_eq!(super::claim(&claim(bytes)).unwrap_err().what, "has no size, or too much");
        }
        // A name that leads elsewhere is none: the packet is not even one.
        let packet = Packet { seq: 1, request: Request::ProvideClaim(claim(1)) };
        let good = packet::encode(&packet).unwrap();
        assert_eq!(wire::decode::<Packet>(good[0], &good).unwrap(), packet);
        for name in ["../x", "a/bc", ".new", "....", "data\0"] {
            let mut bytes = good.clone();
            let at = bytes.windows(4).position(|four| four == b"data").unwrap();
            bytes.splice(
                at - 1..at + 4,
                [&[u8::try_from(name.len()).unwrap()], name.as_bytes()].concat(),
            );
            assert!(wire::decode::<Packet>(good[0], &bytes).is_err(), "{name}");
        }
    }

    #[test]
    fn without_a_filter_only_where_that_is_allowed() {
        let unconfined = |spec: &mut ContainerSpec| spec.seccomp = Seccomp::Unconfined;
        check(unconfined, Some("is unconfined, without `[security] seccomp_unconfined`"));
        let mut spec = samples::container();
        unconfined(&mut spec);
        let allowed = Allowed { seccomp_unconfined: true, ..allowed() };
        assert_eq!(container(&spec, &allowed), Ok(()));
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
