//! `[layers]` and `[preflight]`: how layer files are kept and checked, and
//! what a bundle may ask of the machine.

use serde::Deserialize;
use wherry_core::Millis;

use super::Wrong;
use crate::scrub::Pace;

/// A tenth of what slow flash reads, and little of its processor's time.
const CHECK_BYTES_PER_SECOND: u64 = 1024 * 1024;
/// Slower than that a large layer is not through before the next check.
const CHECK_BYTES_PER_SECOND_MIN: u64 = 4 * 1024;
const CHECK_DAYS: u64 = 7;
const CHECK_DAYS_MAX: u64 = 365;
const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// Room for the store, and for what else writes to the same flash.
const FREE_BYTES_MIN: u64 = 16 * 1024 * 1024;
const MEMORY_PERCENT_MAX: u32 = 100;
/// With compressed swap some allow more than there is.
const MEMORY_PERCENT_HIGHEST: u32 = 1000;

/// How layer files are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerKeeping {
    pub check: Pace,
    /// With less free, layers go that nothing needs.
    pub free_bytes_min: u64,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LayersTable {
    check_bytes_per_second: Option<u64>,
    check_days: Option<u64>,
    free_bytes_min: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PreflightTable {
    memory_percent_max: Option<u32>,
}

impl LayersTable {
    pub fn check(self) -> Result<LayerKeeping, Wrong> {
        let bytes_per_second = self.check_bytes_per_second.unwrap_or(CHECK_BYTES_PER_SECOND);
        if (1..CHECK_BYTES_PER_SECOND_MIN).contains(&bytes_per_second) {
            let what = format!("use {CHECK_BYTES_PER_SECOND_MIN} or more, or 0 for no checks");
            return Err(("layers.check_bytes_per_second", what));
        }
        let days = self.check_days.unwrap_or(CHECK_DAYS);
        if !(1..=CHECK_DAYS_MAX).contains(&days) {
            return Err(("layers.check_days", format!("use 1 to {CHECK_DAYS_MAX}")));
        }
        let check = Pace { bytes_per_second, interval: Millis(days * DAY_MILLIS) };
        let free_bytes_min = self.free_bytes_min.unwrap_or(FREE_BYTES_MIN);
        Ok(LayerKeeping { check, free_bytes_min })
    }
}

impl PreflightTable {
    /// The percentage of memory that pods may ask for together.
    pub fn check(self) -> Result<u32, Wrong> {
        let percent = self.memory_percent_max.unwrap_or(MEMORY_PERCENT_MAX);
        if (1..=MEMORY_PERCENT_HIGHEST).contains(&percent) {
            Ok(percent)
        } else {
            Err(("preflight.memory_percent_max", format!("use 1 to {MEMORY_PERCENT_HIGHEST}")))
        }
    }
}
