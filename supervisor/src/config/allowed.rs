//! `[volumes]`, `[devices]` and `[security]`: what pods may have of the host.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use wherry_runtime::check::Allowed;

use super::{Wrong, folder};

/// Places that pods share with programs of the site, or devices: a page of
/// them nobody understands.
const PATHS_MAX: usize = 16;
const DEV: &str = "/dev";
/// Between looks at what claims hold.
const MEASURE_SECONDS: u64 = 300;
const MEASURE_SECONDS_MAX: u64 = 86_400;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VolumesTable {
    #[serde(default)]
    host_paths: Vec<PathBuf>,
    measure_seconds: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DevicesTable {
    #[serde(default)]
    paths: Vec<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecurityTable {
    #[serde(default)]
    seccomp_unconfined: bool,
}

impl VolumesTable {
    /// Between looks at what claims hold.
    pub fn claims_period(&self) -> Result<Duration, Wrong> {
        let seconds = self.measure_seconds.unwrap_or(MEASURE_SECONDS);
        if !(1..=MEASURE_SECONDS_MAX).contains(&seconds) {
            return Err(("volumes.measure_seconds", format!("use 1 to {MEASURE_SECONDS_MAX}")));
        }
        Ok(Duration::from_secs(seconds))
    }
}

/// `data` and `run` are the node's own.
pub(super) fn of(
    volumes: VolumesTable,
    devices: DevicesTable,
    security: SecurityTable,
    data: &Path,
    run: &Path,
) -> Result<Allowed, Wrong> {
    let own = [data, run, Path::new("/proc"), Path::new("/sys"), Path::new(DEV)];
    let host_paths = plain("volumes.host_paths", volumes.host_paths, |path| {
        match own.iter().find(|own| path.starts_with(own) || own.starts_with(path)) {
            Some(own) => Err(format!("`{}` is not for pods", own.display())),
            None => Ok(()),
        }
    })?;
    let devices = plain("devices.paths", devices.paths, |path| {
        if path.starts_with(DEV) && path != Path::new(DEV) {
            return Ok(());
        }
        Err(format!("`{}` is neither a device in {DEV} nor a folder below it", path.display()))
    })?;
    Ok(Allowed { host_paths, devices, seccomp_unconfined: security.seccomp_unconfined })
}

fn plain(
    key: &'static str,
    paths: Vec<PathBuf>,
    check: impl Fn(&Path) -> Result<(), String>,
) -> Result<Vec<PathBuf>, Wrong> {
    if paths.len() > PATHS_MAX {
        return Err((key, format!("at most {PATHS_MAX} are of use")));
    }
    let one = |path| {
        let path = folder(key, Some(path), "")?;
        check(&path).map_err(|what| (key, what))?;
        Ok(path)
    };
    paths.into_iter().map(one).collect()
}
