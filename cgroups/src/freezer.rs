//! Stopping all processes of a cgroup at once, and letting them go on.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::tree::{Place, Version};
use crate::{Error, file};

/// How often, and how long apart, to look whether all are frozen: half a
/// second in all. Longer than any system call but one that hangs.
const LOOKS_MAX: u32 = 100;
const LOOK_MILLIS: u64 = 5;

/// v2, `cgroup.freeze`: 1, done when `cgroup.events` says `frozen 1`.
/// v1, `freezer.state`: `FROZEN`, reads `FREEZING` until done
/// (cgroup-v1/freezer-subsystem.rst); writing it again tries again.
pub(crate) fn freeze(place: &Place) -> Result<(), Error> {
    for _ in 0..LOOKS_MAX {
        let frozen = match place.version {
            Version::V2 => {
                file::write(&place.folder.join("cgroup.freeze"), "1")?;
                file::keyed(&place.folder.join("cgroup.events"), "frozen")? == Some(1)
            }
            Version::V1 => {
                let state = place.folder.join("freezer.state");
                file::write(&state, "FROZEN")?;
                file::read(&state)?.trim() == "FROZEN"
            }
        };
        if frozen {
            return Ok(());
        }
        sleep(Duration::from_millis(LOOK_MILLIS));
    }
    Err(not_frozen(&place.folder))
}

pub(crate) fn thaw(place: &Place) -> Result<(), Error> {
    match place.version {
        Version::V2 => file::write(&place.folder.join("cgroup.freeze"), "0"),
        Version::V1 => file::write(&place.folder.join("freezer.state"), "THAWED"),
    }
}

fn not_frozen(folder: &Path) -> Error {
    let millis = u64::from(LOOKS_MAX) * LOOK_MILLIS;
    Error::NotFrozen { path: folder.to_owned(), millis }
}
