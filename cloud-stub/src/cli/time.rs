//! Times and durations as people write them.

use std::time::Duration;

const SECONDS_A_DAY: u64 = 86_400;

/// Milliseconds since 1970 as RFC 3339 in UTC: `2026-05-04T08:05:01.123Z`.
pub(super) fn text(millis: u64) -> String {
    let seconds = millis / 1000;
    let (days, second) = (seconds / SECONDS_A_DAY, seconds % SECONDS_A_DAY);
    // Days since 0000-03-01 in the Gregorian calendar, whose pattern repeats
    // every 146,097 days; years begin in March, so that leap days come last.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let millis = millis % 1000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// How long ago, in one unit: `3m`. Of the future, nothing.
pub(super) fn ago(now_millis: u64, then_millis: Option<u64>) -> String {
    let Some(then) = then_millis else { return "never".into() };
    short(Duration::from_millis(now_millis.saturating_sub(then))) + " ago"
}

/// A duration in one unit.
pub(super) fn short(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / SECONDS_A_DAY),
    }
}

/// Reads `90`, `90s`, `10m`, `2h`, `3d` as seconds.
pub(super) fn parse_seconds(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is no duration: write 30s, 10m, 2h or 3d");
    let (number, unit) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        Some((at, 'd')) => (&text[..at], SECONDS_A_DAY),
        Some(_) | None => (text, 1),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(unit).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_the_calendar_has_them() {
        // Compared with date(1).
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (1_798_761_599_000, "2026-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(text(millis), expected);
        }
    }

    #[test]
    fn durations() {
        for (text, seconds) in [("0", 0), ("90", 90), ("90s", 90), ("10m", 600), ("2d", 172_800)] {
            assert_eq!(parse_seconds(text), Ok(seconds));
        }
        for bad in ["", "m", "-1s", "1w", "1.5h", "99999999999999999999", "9999999999999999d"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
        assert_eq!(ago(60_000, Some(1_000)), "59s ago");
        assert_eq!(ago(10_000_000, Some(0)), "2h ago");
        assert_eq!(ago(5, Some(10)), "0s ago");
        assert_eq!(ago(5, None), "never");
    }
}
