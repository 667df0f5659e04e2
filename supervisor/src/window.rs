//! Update windows: times of the week, in the site's own time zone, at which
//! newer generations may be taken up.
//!
//! Time zones are POSIX `TZ` texts (`tzset(3)`), as in
//! `CET-1CEST,M3.5.0,M10.5.0/3`: a gateway carries no zone files. Pure; never
//! here: clocks.

use std::str::FromStr;

const SECONDS_A_DAY: i64 = 86_400;
const MINUTES_A_DAY: u16 = 24 * 60;
/// A wall clock before this (2025-01-01) was never set.
pub const CLOCK_SET_SECONDS_MIN: u64 = 1_735_689_600;
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Some minutes of some days of the week; one that ends before it begins
/// passes midnight, and belongs to the day on which it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Sunday first.
    days: [bool; 7],
    from_minute: u16,
    to_minute: u16,
}

/// Seconds east of UTC, with summer time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    standard: i64,
    summer: Option<Summer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Summer {
    offset: i64,
    begins: Change,
    ends: Change,
}

/// `Mm.w.d/time`: day `d` (0: Sunday) of week `w` (5: the last) of month `m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    month: i64,
    week: i64,
    day: i64,
    seconds: i64,
}

impl Window {
    /// `local_seconds`: since 1970, by the site's own clock.
    #[must_use]
    pub fn is_open(&self, local_seconds: i64) -> bool {
        let minute = local_seconds.rem_euclid(SECONDS_A_DAY) / 60;
        let day = local_seconds.div_euclid(SECONDS_A_DAY);
        // 1 January 1970 was a Thursday.
        let on = |day: i64| {
            let index = usize::try_from((day + 4).rem_euclid(7)).unwrap_or_default();
            self.days.get(index).copied().unwrap_or_default()
        };
        let (from, to) = (i64::from(self.from_minute), i64::from(self.to_minute));
        if from < to {
            on(day) && (from..to).contains(&minute)
        } else {
            (on(day) && minute >= from) || (on(day - 1) && minute < to)
        }
    }
}

impl FromStr for Window {
    type Err = String;

    /// `daily 02:00-04:00` or `sat,sun 22:00-04:00`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no window: write `sat,sun 22:00-04:00` or `daily …`");
        let (names, times) = text.trim().split_once(' ').ok_or_else(wrong)?;
        let mut days = [names == "daily"; 7];
        if names != "daily" {
            for name in names.split(',') {
                let known = DAYS.iter().position(|day| *day == name).ok_or_else(wrong)?;
                if let Some(day) = days.get_mut(known) {
                    *day = true;
                }
            }
        }
        let (from, to) = times.trim().split_once('-').ok_or_else(wrong)?;
        let minute = |text: &str| {
            let (hours, minutes) = text.split_once(':')?;
            let (hours, minutes) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
            let total = hours.checked_mul(60)?.checked_add(minutes)?;
            (minutes < 60 && total <= MINUTES_A_DAY).then_some(total)
        };
        let from_minute = minute(from).ok_or_else(wrong)?;
        let to_minute = minute(to).ok_or_else(wrong)?;
        if from_minute == to_minute || from_minute == MINUTES_A_DAY {
            return Err(wrong());
        }
        Ok(Self { days, from_minute, to_minute })
    }
}

impl Zone {
    /// The site's own clock at `utc_seconds` since 1970.
    #[must_use]
    pub fn local_seconds(&self, utc_seconds: i64) -> i64 {
        utc_seconds.saturating_add(self.offset_at(utc_seconds))
    }

    fn offset_at(&self, utc: i64) -> i64 {
        let Some(summer) = &self.summer else { return self.standard };
        let year = year_of(utc.saturating_add(self.standard));
        let begins = summer.begins.in_year(year).saturating_sub(self.standard);
        let ends = summer.ends.in_year(year).saturating_sub(summer.offset);
        let is_summer = if begins < ends {
            (begins..ends).contains(&utc)
        } else {
            // South of the equator.
            !(ends..begins).contains(&utc)
        };
        if is_summer { summer.offset } else { self.standard }
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no POSIX time zone: write it as CET-1CEST,M3.5.0,M10.5.0/3");
        let mut parts = text.split(',');
        let rest = name(parts.next().unwrap_or_default()).ok_or_else(wrong)?;
        let (standard, rest) = offset(rest).ok_or_else(wrong)?;
        let summer = if rest.is_empty() {
            None
        } else {
            let rest = name(rest).ok_or_else(wrong)?;
            let own = if rest.is_empty() { None } else { Some(offset(rest).ok_or_else(wrong)?) };
            let (ahead, left) = own.unwrap_or((standard + 3_600, ""));
            if !left.is_empty() {
                return Err(wrong());
            }
            let begins = change(parts.next().unwrap_or_default()).ok_or_else(wrong)?;
            let ends = change(parts.next().unwrap_or_default()).ok_or_else(wrong)?;
            Some(Summer { offset: ahead, begins, ends })
        };
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self { standard, summer }) }
    }
}

impl Change {
    /// Seconds since 1970 by the clock before the change.
    fn in_year(&self, year: i64) -> i64 {
        let first = days_before(year, self.month);
        let weekday = (first + 4).rem_euclid(7);
        let mut day = first + (self.day - weekday).rem_euclid(7) + (self.week - 1) * 7;
        let next = if self.month == 12 {
            days_before(year + 1, 1)
        } else {
            days_before(year, self.month + 1)
        };
        if day >= next {
            day -= 7;
        }
        day * SECONDS_A_DAY + self.seconds
    }
}

/// What follows the name of a zone.
fn name(text: &str) -> Option<&str> {
    if let Some(quoted) = text.strip_prefix('<') {
        return quoted.split_once('>').map(|(_, rest)| rest);
    }
    let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
    (end >= 3).then(|| text.get(end..)).flatten()
}

/// Seconds east, and what follows: `-1` is an hour east.
fn offset(text: &str) -> Option<(i64, &str)> {
    let end = text
        .char_indices()
        .find(|(at, c)| !(c.is_ascii_digit() || *c == ':' || (*at == 0 && "+-".contains(*c))))
        .map_or(text.len(), |(at, _)| at);
    let (time, rest) = text.split_at_checked(end)?;
    Some((-seconds(time)?, rest))
}

/// `[+-]h[h][:mm[:ss]]`.
fn seconds(text: &str) -> Option<i64> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut total = 0;
    let mut unit = 3_600;
    for part in text.split(':') {
        let number: i64 = part.parse::<u8>().ok()?.into();
        if unit == 0 || (unit < 3_600 && number >= 60) || number > 167 {
            return None;
        }
        total += number * unit;
        unit /= 60;
    }
    Some(sign * total)
}

fn change(text: &str) -> Option<Change> {
    let (date, time) = text.split_once('/').unwrap_or((text, "2"));
    let mut numbers = date.strip_prefix('M')?.split('.').map(|part| part.parse::<u8>().ok());
    let mut next = |low: u8, high: u8| {
        numbers.next()?.filter(|number| (low..=high).contains(number)).map(i64::from)
    };
    let (month, week, day) = (next(1, 12)?, next(1, 5)?, next(0, 6)?);
    if numbers.next().is_some() {
        return None;
    }
    Some(Change { month, week, day, seconds: seconds(time)? })
}

fn year_of(local: i64) -> i64 {
    let day = local.div_euclid(SECONDS_A_DAY);
    // A year has 365.2425 days; the estimate is off by one at most.
    let guess = 1970 + day * 10_000 / 3_652_425;
    match guess {
        year if day < days_before(year, 1) => year - 1,
        year if day >= days_before(year + 1, 1) => year + 1,
        year => year,
    }
}

/// Days from 1970 to the first of a month, in the Gregorian calendar.
fn days_before(year: i64, month: i64) -> i64 {
    // Years that begin in March have their leap day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (153 * month + 2) / 5 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-29T01:00:00Z, when summer begins in Europe.
    const SUMMER: i64 = 1_774_746_000;
    /// 2026-10-25T01:00:00Z.
    const WINTER: i64 = 1_792_890_000;

    fn zone(text: &str) -> Zone {
        text.parse().unwrap()
    }

    #[test]
    fn summer_time_begins_and_ends_on_the_second() {
        let berlin = zone("CET-1CEST,M3.5.0,M10.5.0/3");
        let hours = |utc| (berlin.local_seconds(utc) - utc) / 3_600;
        assert_eq!((hours(SUMMER - 1), hours(SUMMER)), (1, 2));
        assert_eq!((hours(WINTER - 1), hours(WINTER)), (2, 1));
        // 2038-07-01 and 1971-01-01.
        assert_eq!((hours(2_161_555_200), hours(31_536_000)), (2, 1));
        let sydney = zone("AEST-10AEDT,M10.1.0,M4.1.0/3");
        let hours = |utc| (sydney.local_seconds(utc) - utc) / 3_600;
        assert_eq!((hours(SUMMER), hours(1_783_000_000), hours(WINTER)), (11, 10, 11));
        assert_eq!(zone("<+0530>-5:30").local_seconds(0), 19_800);
        assert_eq!(zone("EST5").local_seconds(0), -18_000);
    }

    #[test]
    fn what_is_no_zone_is_refused() {
        for text in [
            "",
            "UT",
            "Europe/Berlin",
            "CET",
            "CET-1CEST",
            "CET-1CEST,M3.5,M10.5.0",
            "CET-1CEST,M13.5.0,M10.5.0",
            "CET-x",
            "CET-1CEST,M3.5.0,M10.5.0,x",
            "CET-1:99",
        ] {
            assert!(text.parse::<Zone>().is_err(), "{text}");
        }
    }

    #[test]
    fn windows_may_pass_midnight() {
        let window: Window = "sat,sun 22:00-04:00".parse().unwrap();
        // 1970-01-03 was a Saturday.
        let at = |day: i64, hour: i64| window.is_open((day - 1) * SECONDS_A_DAY + hour * 3_600);
        let open: Vec<(i64, i64)> = (1..=7)
            .flat_map(|day| [(day, 3), (day, 4), (day, 21), (day, 22)])
            .filter(|&(day, hour)| at(day, hour))
            .collect();
        assert_eq!(open, [(3, 22), (4, 3), (4, 22), (5, 3)]);
        let daily: Window = "daily 02:00-24:00".parse().unwrap();
        assert!(daily.is_open(2 * 3_600) && !daily.is_open(0) && daily.is_open(86_399));
        for text in [
            "",
            "daily",
            "daily 02:00",
            "weekly 1:00-2:00",
            "daily 2-3",
            "daily 02:00-02:00",
            "daily 25:00-26:00",
            "sat, sun 1:00-2:00",
        ] {
            assert!(text.parse::<Window>().is_err(), "{text}");
        }
    }
}
