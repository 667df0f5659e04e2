//! Namespaces and file systems of containers.

use wherry_runtime::probe::filesystems::Filesystems;
use wherry_runtime::probe::namespaces::Namespaces;
use wherry_runtime::probe::{Obstacle, Trial};

use super::{Case, Context, Weight, part};
use crate::check::Row;

/// Trials with their names.
type Named = Vec<(String, Trial<()>)>;

pub fn namespaces(context: &Context, tried: &Trial<Namespaces>) -> Vec<Row> {
    let names =
        |list: &Named| list.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ");
    let found = |pick: fn(&Namespaces) -> &Named| {
        tried.as_ref().map(|tried| names(pick(tried))).unwrap_or_default()
    };
    vec![
        context.row(Case {
            name: "namespaces",
            weight: Weight::Needed,
            trial: &part(tried, |tried| all(&tried.kinds).and_then(|()| tried.pin.clone())),
            found: found(|tried| &tried.kinds),
            meaning: "pods and containers are made of these: enable NAMESPACES, UTS_NS, IPC_NS, \
                PID_NS, NET_NS and CGROUPS",
            modules: &[],
        }),
        context.row(Case {
            name: "container-mounts",
            weight: Weight::Needed,
            trial: &part(tried, |tried| all(&tried.mounts)),
            found: found(|tried| &tried.mounts),
            meaning: "every container has these mounted: enable TMPFS, UNIX98_PTYS, \
                POSIX_MQUEUE and SYSFS",
            modules: &[],
        }),
    ]
}

/// The first of them that failed.
fn all(trials: &Named) -> Trial<()> {
    trials.iter().try_for_each(|(_, trial)| trial.clone())
}

/// Loop devices, squashfs, overlayfs.
#[must_use]
pub fn filesystems(context: &Context, tried: &Trial<Filesystems>) -> Vec<Row> {
    let mut rows = vec![
        context.row(Case {
            name: "overlay",
            weight: Weight::Needed,
            trial: &part(tried, |tried| tried.overlay.clone()),
            found: "read, written".into(),
            meaning: "no container can be made without: enable OVERLAY_FS",
            modules: &["overlay"],
        }),
        context.row(Case {
            name: "overlay-attributes",
            weight: Weight::Wanted,
            trial: &part(tried, |tried| tried.opaque.clone()),
            found: "folders of an image can be replaced".into(),
            meaning: "programs that replace folders of their image fail: enable TMPFS_XATTR",
            modules: &[],
        }),
        context.row(Case {
            name: "loop",
            weight: Weight::Needed,
            trial: &part(tried, |tried| tried.loop_device.clone()),
            found: "one was set up".into(),
            meaning: "no image can be mounted without: enable BLK_DEV_LOOP and DEVTMPFS (Linux \
                5.8)",
            modules: &["loop"],
        }),
    ];
    rows.extend(squashfs(context, tried));
    rows
}

/// Two rows: squashfs itself, which any compressor shows to be there, and the
/// compressor that layers have.
fn squashfs(context: &Context, tried: &Trial<Filesystems>) -> [Row; 2] {
    let itself = part(tried, |tried| match &tried.zstd {
        Err(Obstacle::Refused { .. } | Obstacle::Wrong(_)) if !tried.others.is_empty() => Ok(()),
        zstd => zstd.clone(),
    });
    let zstd = part(tried, |tried| match &tried.zstd {
        Err(Obstacle::Refused { errno, .. }) if *errno == libc::ENODEV => {
            Err(Obstacle::NotTried("squashfs".into()))
        }
        zstd => zstd.clone(),
    });
    let found = tried.as_ref().map(|tried| {
        let zstd = tried.zstd.as_ref().ok().map(|()| "zstd");
        let all: Vec<_> = zstd.into_iter().chain(tried.others.iter().map(String::as_str)).collect();
        format!("compressors: {}", all.join(" "))
    });
    [
        context.row(Case {
            name: "squashfs",
            weight: Weight::Needed,
            trial: &itself,
            found: found.unwrap_or_default(),
            meaning: "no image can be mounted without: enable SQUASHFS and SQUASHFS_ZSTD",
            modules: &["squashfs"],
        }),
        context.row(Case {
            name: "squashfs-zstd",
            weight: Weight::Needed,
            trial: &zstd,
            found: "an image was read".into(),
            meaning: "every layer is compressed by zstd: enable SQUASHFS_ZSTD",
            modules: &["zstd_decompress", "xxhash_generic"],
        }),
    ]
}
