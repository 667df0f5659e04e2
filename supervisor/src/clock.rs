//! The two clocks. Decisions use the boot clock; the wall clock is for
//! people's eyes and may say 1970.
//!
//! Never here: timers, or anything that waits.

use nix::time::{ClockId, clock_gettime};
use wherry_bundle::message::WallMillis;
use wherry_core::Millis;

const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";
const NANOS_A_SECOND: u64 = 1_000_000_000;
const SECONDS_A_DAY: u64 = 86_400;

/// Nanoseconds since 1970 by the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallNanos(pub u64);

/// `CLOCK_BOOTTIME`: goes on during suspend, never jumps.
#[must_use]
pub fn boot_now() -> Millis {
    Millis(read(ClockId::CLOCK_BOOTTIME) / 1_000_000)
}

/// Another one after each start of the kernel (`random(4)`), as text.
#[must_use]
pub fn boot_id_text() -> String {
    std::fs::read_to_string(BOOT_ID_PATH).unwrap_or_default().trim().to_owned()
}

/// [`boot_id_text`] in 16 bytes; zeros where the kernel tells none.
#[must_use]
pub fn boot_id() -> [u8; 16] {
    let digits: String = boot_id_text().chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or_default().to_be_bytes()
}

/// `CLOCK_REALTIME`; 1970 for a time before it.
#[must_use]
pub fn wall_now() -> WallNanos {
    WallNanos(read(ClockId::CLOCK_REALTIME))
}

fn read(clock: ClockId) -> u64 {
    // clock_gettime(2) fails only for a clock that does not exist.
    let Ok(time) = clock_gettime(clock) else { return 0 };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
    seconds.saturating_mul(NANOS_A_SECOND).saturating_add(nanos)
}

impl WallNanos {
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0 / NANOS_A_SECOND
    }

    #[must_use]
    pub fn millis(self) -> WallMillis {
        WallMillis(self.0 / 1_000_000)
    }

    /// RFC 3339 in UTC with nine decimals, as in CRI log files.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let seconds = self.0 / NANOS_A_SECOND;
        format!("{}.{:09}Z", date_time(seconds), self.0 % NANOS_A_SECOND)
    }

    /// Reads what [`Self::rfc3339`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
        let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.')];
        let bytes = text.as_bytes();
        if bytes.len() != 30 || bytes[29] != b'Z' || marks.iter().any(|&(at, m)| bytes[at] != m) {
            return None;
        }
        let (month, day) = (number(5, 7)?, number(8, 10)?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let days = days_of(number(0, 4)?, month, day)?;
        let seconds = number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
        let seconds = days.checked_mul(SECONDS_A_DAY)?.checked_add(seconds)?;
        Some(Self(seconds.checked_mul(NANOS_A_SECOND)?.checked_add(number(20, 29)?)?))
    }
}

/// RFC 3339 in UTC with three decimals, for people.
#[must_use]
pub fn millis_text(time: WallMillis) -> String {
    format!("{}.{:03}Z", date_time(time.0 / 1000), time.0 % 1000)
}

fn date_time(seconds: u64) -> String {
    let (year, month, day) = date_of(seconds / SECONDS_A_DAY);
    let second = seconds % SECONDS_A_DAY;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// Days since 1970 to a date of the Gregorian calendar, counted in years that
/// begin in March, so that the leap day comes last.
fn date_of(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The inverse of [`date_of`]; `None` before 1970.
fn days_of(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = year.checked_sub(u64::from(month <= 2))?;
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_795_410_000, "2026-11-23T05:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(date_time(seconds), text);
            let nanos = WallNanos(seconds * NANOS_A_SECOND + 123_456_789);
            assert_eq!(nanos.rfc3339(), format!("{text}.123456789Z"));
            assert_eq!(WallNanos::parse(&nanos.rfc3339()), Some(nanos));
        }
    }

    #[test]
    fn every_day_of_eight_centuries_reads_back() {
        for days in (0..292_194).step_by(7) {
            let (year, month, day) = date_of(days);
            assert_eq!(days_of(year, month, day), Some(days));
        }
    }

    #[test]
    fn other_text_is_no_time() {
        for text in ["", "2026-11-23T05:00:00Z", "2026-13-23T05:00:00.123456789Z", "x"] {
            assert_eq!(WallNanos::parse(text), None, "{text}");
        }
    }
}
