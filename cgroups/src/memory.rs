//! Memory: its limit, what is used, and kills for want of it.

use crate::tree::{Place, Version};
use crate::{Error, file};

pub(crate) const LIMIT_V1: &str = "memory.limit_in_bytes";
pub(crate) const LIMIT_V2: &str = "memory.max";

/// v2, `memory.max` (bytes or `max`); `memory.swap.max` is on top of it, so
/// it becomes 0; `memory.oom.group` of a container: it dies as a whole.
///
/// v1, `memory.limit_in_bytes` (bytes or -1) and `memory.memsw.limit_in_bytes`
/// (memory and swap together, never below the former; absent without
/// `swapaccount`). v1 kills single processes; there is no group.
pub(crate) fn limit(place: &Place, bytes: Option<u64>, container: bool) -> Result<(), Error> {
    let at = |name: &str| place.folder.join(name);
    match place.version {
        Version::V2 => {
            let text = |bytes: Option<u64>| bytes.map_or("max".into(), |bytes| bytes.to_string());
            file::write(&at(LIMIT_V2), &text(bytes))?;
            file::optional(file::write(&at("memory.swap.max"), &text(bytes.map(|_| 0))))?;
            if container {
                file::optional(file::write(&at("memory.oom.group"), "1"))?;
            }
            Ok(())
        }
        Version::V1 => {
            let text = bytes.map_or("-1".into(), |bytes| bytes.to_string());
            let swap = at("memory.memsw.limit_in_bytes");
            // Lifted first, so that the other one may go either way.
            file::optional(file::write(&swap, "-1"))?;
            file::write(&at(LIMIT_V1), &text)?;
            if bytes.is_some() {
                file::optional(file::write(&swap, &text))?;
            }
            Ok(())
        }
    }
}

/// Now and at most so far, page cache included.
pub(crate) fn used_bytes(place: &Place) -> Result<(u64, u64), Error> {
    let (used, peak) = match place.version {
        Version::V2 => ("memory.current", "memory.peak"),
        Version::V1 => ("memory.usage_in_bytes", "memory.max_usage_in_bytes"),
    };
    let used = file::number(&place.folder.join(used))?;
    let peak = file::optional(file::number(&place.folder.join(peak)))?;
    Ok((used, peak.unwrap_or(used).max(used)))
}

/// v2, `memory.events`: `oom_kill`, children included. v1,
/// `memory.oom_control`: `oom_kill` (since 4.13), each cgroup its own.
pub(crate) fn oom_kills(place: &Place) -> Result<u64, Error> {
    match place.version {
        Version::V2 => {
            let kills = file::keyed(&place.folder.join("memory.events"), "oom_kill")?;
            Ok(kills.unwrap_or_default())
        }
        Version::V1 => {
            let own = file::keyed(&place.folder.join("memory.oom_control"), "oom_kill")?;
            let mut kills = own.unwrap_or_default();
            for child in file::folders(&place.folder)? {
                let child = Place { version: Version::V1, folder: child };
                kills += file::optional(oom_kills(&child))?.unwrap_or_default();
            }
            Ok(kills)
        }
    }
}
