//! Processor time: its limit and what was used.

use crate::tree::{Place, Version};
use crate::{Error, file};

pub(crate) const LIMIT_V1: &str = "cpu.cfs_quota_us";
pub(crate) const LIMIT_V2: &str = "cpu.max";

/// Over which a limit is kept: the kernel's default. Longer means longer
/// stalls once the quota is used up.
const PERIOD_MICROS: u64 = 100_000;
/// The longest that the kernel takes, for limits too small for the default.
const PERIOD_MICROS_MAX: u64 = 1_000_000;
/// The kernel refuses a smaller quota.
const QUOTA_MICROS_MIN: u64 = 1_000;

/// v2, `cpu.max`: `QUOTA PERIOD` or `max PERIOD`, in microseconds.
/// v1, `cpu.cfs_quota_us` (-1: none) and `cpu.cfs_period_us`; a quota must
/// not be a larger share than the parent's (cgroup-v1, scheduler/sched-bwc).
pub(crate) fn limit(place: &Place, millis: Option<u32>) -> Result<(), Error> {
    let limit = millis.map(quota);
    match place.version {
        Version::V2 => {
            let text = match limit {
                Some((quota, period)) => format!("{quota} {period}"),
                None => format!("max {PERIOD_MICROS}"),
            };
            file::write(&place.folder.join(LIMIT_V2), &text)
        }
        Version::V1 => {
            // With the old quota in place, a new period could for a moment
            // be a larger share than the parent's, and be refused.
            file::write(&place.folder.join(LIMIT_V1), "-1")?;
            let Some((quota, period)) = limit else { return Ok(()) };
            file::write(&place.folder.join("cpu.cfs_period_us"), &period.to_string())?;
            file::write(&place.folder.join(LIMIT_V1), &quota.to_string())
        }
    }
}

/// v2, `cpu.stat`: `usage_usec`. v1, `cpuacct.usage`: nanoseconds.
pub(crate) fn used_micros(place: &Place) -> Result<u64, Error> {
    match place.version {
        Version::V2 => {
            let used = file::keyed(&place.folder.join("cpu.stat"), "usage_usec")?;
            Ok(used.unwrap_or_default())
        }
        Version::V1 => Ok(file::number(&place.folder.join("cpuacct.usage"))? / 1000),
    }
}

/// Quota and period, both in microseconds.
fn quota(millis: u32) -> (u64, u64) {
    let quota = |period: u64| u64::from(millis) * (period / 1000);
    if quota(PERIOD_MICROS) >= QUOTA_MICROS_MIN {
        (quota(PERIOD_MICROS), PERIOD_MICROS)
    } else {
        (quota(PERIOD_MICROS_MAX).max(QUOTA_MICROS_MIN), PERIOD_MICROS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_never_too_small_for_the_kernel() {
        for (millis, expected) in [
            (1500, (150_000, 100_000)),
            (10, (1_000, 100_000)),
            (9, (9_000, 1_000_000)),
            (1, (1_000, 1_000_000)),
            (0, (1_000, 1_000_000)),
            (u32::MAX, (429_496_729_500, 100_000)),
        ] {
            assert_eq!(quota(millis), expected, "{millis}");
        }
    }
}
