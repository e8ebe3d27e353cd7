//! Points in time, durations and times of day.

mod duration;
mod scanner;
#[cfg(test)]
mod tests;

use std::ops::{Range, RangeInclusive};
use std::time::{Duration, SystemTime};

use jiff::civil;
use jiff::tz::Offset;
use serde::{Deserialize, Serialize};

pub use self::duration::duration;
use self::scanner::Scanner;
use super::{Parsed, parse_present};

/// Nanoseconds per tick. A tick is the resolution of times in the API, whose seconds have seven decimal places.
const NANOSECONDS_PER_TICK: u32 = 100;

const TICKS_PER_SECOND: i64 = 10_000_000;

/// Valid years. The range begins before the product existed. The API uses the years 1, 1900 and 9999 for "never".
const YEARS: Range<i16> = 1980..2200;

/// The same range in seconds since the Unix epoch.
const SECONDS: Range<i64> = 315_532_800..7_258_118_400;

/// 1970-01-01 in ticks since 0001-01-01, the .NET epoch.
const DOTNET_UNIX_EPOCH: i64 = 621_355_968_000_000_000;

/// Separators between the numbers of a date.
const DATE_SEPARATORS: &[char] = &['-', '/', '.'];

/// A time with a resolution of 100 ns, as in the API. It is saved as ticks since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The latest possible time.
    pub const MAX: Self = Self(i64::MAX);

    /// Returns the time this many seconds after the Unix epoch.
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(TICKS_PER_SECOND))
    }

    /// Returns the seconds since the Unix epoch.
    pub fn as_unix_seconds(self) -> f64 {
        // An f64 cannot represent the ticks exactly, so whole seconds and the remainder are converted separately.
        let seconds = (self.0 / TICKS_PER_SECOND) as f64;
        let ticks = (self.0 % TICKS_PER_SECOND) as f64;
        seconds + ticks / TICKS_PER_SECOND as f64
    }

    /// Returns the whole seconds since the Unix epoch.
    pub const fn as_whole_unix_seconds(self) -> i64 {
        self.0.div_euclid(TICKS_PER_SECOND)
    }

    /// Returns the time as a calendar time in whole seconds; `None` if it is outside the calendar's range.
    pub fn to_calendar(self) -> Option<jiff::Timestamp> {
        jiff::Timestamp::from_second(self.as_whole_unix_seconds()).ok()
    }

    /// Returns the duration since `earlier` in whole microseconds, or zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        let ticks = u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or_default();
        Duration::from_micros(ticks / 10)
    }

    /// Adds a duration, saturating at [`Timestamp::MAX`].
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(ticks(duration)))
    }

    /// Subtracts a duration, saturating at the earliest possible time.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(ticks(duration)))
    }
}

impl From<SystemTime> for Timestamp {
    /// Converts a system time; times before 1970 become the epoch.
    fn from(time: SystemTime) -> Self {
        Self::from_unix_seconds(0).plus(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }
}

/// The daily scan of a scan profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DailyScan {
    /// No daily scan.
    Off,
    /// Daily scan at this many seconds after midnight.
    At(u32),
}

/// Parses a time or a date, in UTC unless it has an offset. A date without a time means the start of the day.
///
/// A date has the form `2025-02-01` or, month first, `12-31-2026`. The separator is `-`, `/` or `.`, and the month and
/// the day have one or two digits. The day comes first only if the first number is above 12. A time may follow after
/// `T`, spaces, or a comma and spaces: `3:21`, `03:21:16` or `06:29:55 AM`. The seconds may have up to nine decimal
/// places, of which seven are used. The offset, if any, is written as `Z`, `UTC`, `GMT`, `+00:00`, `-0530` or `+2`. A
/// year before 1980 or after 2199 means "never"; the value is then absent.
///
/// A number means seconds or milliseconds since 1970, or .NET ticks. The three ranges do not overlap. 0 means that the
/// value is absent.
///
/// The API returns times such as `12-31-2026T12:00:00Z` as the end of a subscription, probably because it formats
/// midnight with a 12-hour clock. They are still parsed as noon, which is on the same day in nearly every time zone and
/// is off by at most half a day.
///
/// # Errors
///
/// Returns an error for any other text, for a date or time that does not exist, such as February 30 or 24:00, and for a
/// leap second.
pub fn timestamp(text: &str) -> Parsed<Timestamp> {
    let timestamp = parse_present(text, |text| from_number(text).or_else(|| from_date(text)))?;
    Ok(timestamp.flatten())
}

/// Parses a date, with or without a time; `Some(None)` if the year means "never".
fn from_date(text: &str) -> Option<Option<Timestamp>> {
    let (date_time, offset) = scan_date_time(text)?;
    if !YEARS.contains(&date_time.year()) {
        return Some(None);
    }
    let nanoseconds = offset.to_timestamp(date_time).ok()?.as_nanosecond();
    let ticks = nanoseconds.div_euclid(i128::from(NANOSECONDS_PER_TICK));
    Some(i64::try_from(ticks).ok().map(Timestamp))
}

/// Parses a number; `Some(None)` for 0.
fn from_number(text: &str) -> Option<Option<Timestamp>> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let number: i64 = is_number.then(|| text.parse().ok())??;
    if number == 0 {
        return Some(None);
    }
    let as_ticks = [
        number.checked_mul(TICKS_PER_SECOND),
        number.checked_mul(TICKS_PER_SECOND / 1000),
        Some(number - DOTNET_UNIX_EPOCH),
    ];
    let is_real = |ticks: &i64| SECONDS.contains(&ticks.div_euclid(TICKS_PER_SECOND));
    as_ticks
        .into_iter()
        .flatten()
        .find(is_real)
        .map(|ticks| Some(Timestamp(ticks)))
}

/// Parses the start of a daily scan: `01:59`, or `No` if there is no daily scan.
///
/// # Errors
///
/// Returns an error for anything else, such as `24:00` or `Yes`.
pub fn daily_time(text: &str) -> Parsed<DailyScan> {
    parse_present(text, |text| {
        if ["no", "false"].iter().any(|off| text.eq_ignore_ascii_case(off)) {
            return Some(DailyScan::Off);
        }
        let mut scanner = Scanner::new(text);
        let time = scan_time(&mut scanner, 2..=2).filter(|time| time.subsec_nanosecond() == 0)?;
        let since_midnight = time.duration_since(civil::Time::midnight()).as_secs();
        let seconds = u32::try_from(since_midnight).ok()?;
        scanner.at_end().then_some(DailyScan::At(seconds))
    })
}

/// Converts a duration to ticks, rounding down and saturating.
fn ticks(duration: Duration) -> i64 {
    let ticks = duration.as_nanos() / u128::from(NANOSECONDS_PER_TICK);
    i64::try_from(ticks).unwrap_or(i64::MAX)
}

/// Parses a date, an optional time of day, and an optional offset.
fn scan_date_time(text: &str) -> Option<(civil::DateTime, Offset)> {
    let mut scanner = Scanner::new(text);
    let date = scan_date(&mut scanner)?;
    let has_zone_alone = scanner.eat_any(&['Z', 'z']);
    if scanner.at_end() {
        return Some((date.to_datetime(civil::Time::midnight()), Offset::UTC));
    }
    scanner.eat(',');
    if has_zone_alone || !(scanner.eat_any(&['T', 't']) || scanner.spaces()) {
        return None;
    }
    let time = scan_time(&mut scanner, 1..=2)?;
    scanner.spaces();
    let offset = scan_offset(&mut scanner)?;
    scanner.at_end().then(|| (date.to_datetime(time), offset))
}

/// Parses `hh:mm[:ss[.fraction]][ AM|PM]`; `digits` limits the number of digits of minutes and seconds.
fn scan_time(scanner: &mut Scanner<'_>, digits: RangeInclusive<usize>) -> Option<civil::Time> {
    let hour = scanner.number::<i8>(1..=2)?;
    let minute = scanner.eat(':').then(|| scanner.number(digits.clone())).flatten()?;
    let (second, nanosecond) = match scanner.eat(':') {
        true => (scanner.number(digits)?, scanner.fraction()?),
        false => (0, 0),
    };
    let hour = scan_meridiem(scanner, hour)?;
    civil::Time::new(hour, minute, second, nanosecond).ok()
}

/// Converts an hour to the 24-hour clock, if it is followed by AM or PM.
fn scan_meridiem(scanner: &mut Scanner<'_>, hour: i8) -> Option<i8> {
    scanner.spaces();
    let noon = if scanner.eat_word("am") {
        0
    } else if scanner.eat_word("pm") {
        12
    } else {
        return Some(hour);
    };
    (1..=12).contains(&hour).then_some(hour % 12 + noon)
}

/// Parses `yyyy-m-d`, `m-d-yyyy`, or `d-m-yyyy` if the first number exceeds 12. Both separators must be the same.
fn scan_date(scanner: &mut Scanner<'_>) -> Option<civil::Date> {
    let first = scanner.digits(1..=4)?;
    let separator = *DATE_SEPARATORS.iter().find(|separator| scanner.eat(**separator))?;
    let second = scanner.digits(1..=2)?;
    let third = scanner.eat(separator).then(|| scanner.digits(1..=4))??;
    let (year, month, day) = match (first.len(), third.len()) {
        (4, 1 | 2) => (first, second, third),
        (1 | 2, 4) if is_past_twelve(first) => (third, second, first),
        (1 | 2, 4) => (third, first, second),
        _ => return None,
    };
    civil::Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()
}

fn is_past_twelve(digits: &str) -> bool {
    digits.parse::<u8>().is_ok_and(|number| number > 12)
}

/// Parses an optional offset from UTC: `Z`, `UTC`, `GMT`, `+hh:mm`, `+hhmm` or `+hh`. The sign may also be a minus.
fn scan_offset(scanner: &mut Scanner<'_>) -> Option<Offset> {
    if scanner.at_end() || scanner.eat_any(&['Z', 'z']) || scanner.eat_word("utc") || scanner.eat_word("gmt") {
        return Some(Offset::UTC);
    }
    let sign = if scanner.eat('+') {
        1
    } else if scanner.eat_any(&['-', '\u{2212}']) {
        -1
    } else {
        return None;
    };
    let digits = scanner.digits(1..=4)?;
    let (hours, minutes) = digits.split_at_checked(digits.len().min(2))?;
    let minutes = match minutes.len() {
        0 if scanner.eat(':') => scanner.digits(2..=2)?,
        0 => "00",
        2 => minutes,
        _ => return None,
    };
    let hours = hours.parse::<i32>().ok().filter(|hours| *hours < 24)?;
    let minutes = minutes.parse::<i32>().ok().filter(|m| *m < 60)?;
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}
