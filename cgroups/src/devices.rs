//! Which devices may be opened, on v1.

use crate::tree::{Place, Version};
use crate::{Error, file};

/// `TYPE MAJOR:MINOR ACCESS`: r(ead), w(rite), m(ake the node). Making these
/// is allowed because that is how a container gets its own `/dev`; it has no
/// `CAP_MKNOD` itself. The wildcard of other runtimes, any node may be made,
/// is left out.
const CONTAINER: [&str; 8] = [
    "c 1:3 rwm",   // null
    "c 1:5 rwm",   // zero
    "c 1:7 rwm",   // full
    "c 1:8 rwm",   // random
    "c 1:9 rwm",   // urandom
    "c 5:0 rwm",   // tty
    "c 5:2 rwm",   // ptmx
    "c 136:* rwm", // pts
];

/// To read and write it; its node comes from elsewhere.
pub(crate) fn allow(place: &Place, major: u64, minor: u64) -> Result<(), Error> {
    match place.version {
        Version::V2 => Ok(()),
        Version::V1 => {
            file::write(&place.folder.join("devices.allow"), &format!("c {major}:{minor} rw"))
        }
    }
}

/// cgroup-v1/devices.rst: a new cgroup has its parent's list. `a` in
/// `devices.deny` empties it and makes it a list of what is allowed; that is
/// refused for a cgroup with children.
pub(crate) fn restrict(place: &Place) -> Result<(), Error> {
    match place.version {
        // v2 has no such files; see [`crate::Devices`].
        Version::V2 => return Ok(()),
        Version::V1 => {}
    }
    let list = file::read(&place.folder.join("devices.list"))?;
    // Not again for a cgroup in use: it would be without /dev/null for a
    // moment.
    if list.lines().any(|line| line.starts_with("a ")) {
        file::write(&place.folder.join("devices.deny"), "a")?;
    }
    for rule in CONTAINER {
        file::write(&place.folder.join("devices.allow"), rule)?;
    }
    Ok(())
}
