//! Points in time, durations and times of day.

mod duration;
mod scanner;

use std::ops::{Range, RangeInclusive};
use std::time::{Duration, SystemTime};

use jiff::civil;
use jiff::tz::Offset;
use serde::{Deserialize, Serialize};

pub use self::duration::duration;
use self::scanner::Scanner;
use super::{Parsed, understand};

/// Nanoseconds in a tick, the resolution of the API's seven decimals.
const NANOSECONDS_PER_TICK: u32 = 100;

const TICKS_PER_SECOND: i64 = 10_000_000;

/// Years that a time can be in. The vendor's product is younger than the first, and its systems write the years
/// 1, 1900 and 9999 for "never".
const YEARS: Range<i16> = 1980..2200;

/// A point in time to 100 ns, the resolution of the API; saved as ticks since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The point so many seconds after the Unix epoch.
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(TICKS_PER_SECOND))
    }

    /// Seconds since the Unix epoch.
    pub fn as_unix_seconds(self) -> f64 {
        // Ticks as such exceed what an f64 holds exactly, so whole seconds and the rest are converted apart.
        let seconds = (self.0 / TICKS_PER_SECOND) as f64;
        let ticks = (self.0 % TICKS_PER_SECOND) as f64;
        seconds + ticks / TICKS_PER_SECOND as f64
    }

    /// Whole seconds since the Unix epoch.
    pub const fn as_whole_unix_seconds(self) -> i64 {
        self.0.div_euclid(TICKS_PER_SECOND)
    }

    /// How much later it is than `earlier`; nothing where it is not.
    pub fn since(self, earlier: Self) -> Duration {
        let ticks = u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or_default();
        Duration::from_micros(ticks / 10)
    }

    /// The point this much later, or the last there is.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(ticks(duration)))
    }

    /// The point this much earlier, or the first there is.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(ticks(duration)))
    }
}

impl From<SystemTime> for Timestamp {
    /// The point of the system's clock; one before 1970 is the epoch.
    fn from(time: SystemTime) -> Self {
        Self::from_unix_seconds(0).plus(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }
}

/// Whether and when a scan profile is scanned every day.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DailyScan {
    /// There is no daily scan.
    Off,
    /// Seconds after midnight.
    At(u32),
}

/// Reads a time or a date, in UTC unless it names its offset; a date is its first moment.
///
/// Forms: `2025-09-11T03:21:16Z` with up to nine decimals, of which seven count, and `+00:00`, `-0530` or nothing for
/// the `Z`; a space for the `T`; `2025-02-01`; `2025/09/30`; `12/29/2026` and `8/1/2024 6:29:55 AM`, month first.
/// A year before 1980 or from 2200 stands for "never" and is absent.
///
/// # Errors
///
/// Any other text, and a date or time that does not exist, as February 30, 24:00 or a leap second.
pub fn timestamp(text: &str) -> Parsed<Timestamp> {
    let moment = understand(text, Moment::parse)?;
    Ok(moment
        .filter(|moment| YEARS.contains(&moment.date.year()))
        .and_then(Moment::timestamp))
}

/// Reads the start of a daily scan: `01:59`, or `No` where there is none.
///
/// # Errors
///
/// Anything else, as `24:00`, and `Yes`, which leaves the time open.
pub fn daily_time(text: &str) -> Parsed<DailyScan> {
    understand(text, |text| {
        if ["no", "false"].iter().any(|off| text.eq_ignore_ascii_case(off)) {
            return Some(DailyScan::Off);
        }
        let mut scanner = Scanner::new(text);
        let time = TimeOfDay::scan(&mut scanner).filter(|time| time.nanoseconds == 0)?;
        scanner.at_end().then_some(DailyScan::At(time.seconds))
    })
}

/// Ticks of a duration, whose resolution is finer and whose range is greater.
fn ticks(duration: Duration) -> i64 {
    let ticks = duration.as_nanos() / u128::from(NANOSECONDS_PER_TICK);
    i64::try_from(ticks).unwrap_or(i64::MAX)
}

/// A date, a time of day and an offset, as they are written.
struct Moment {
    date: civil::Date,
    time: TimeOfDay,
    offset_seconds: i32,
}

impl Moment {
    fn parse(text: &str) -> Option<Self> {
        let mut scanner = Scanner::new(text);
        let date = scan_date(&mut scanner)?;
        if scanner.at_end() {
            return Some(Self {
                date,
                time: TimeOfDay::MIDNIGHT,
                offset_seconds: 0,
            });
        }
        if !(scanner.eat_any(&['T', 't']) || scanner.spaces()) {
            return None;
        }
        let time = TimeOfDay::scan(&mut scanner)?;
        scanner.spaces();
        let offset_seconds = scan_offset(&mut scanner)?;
        scanner.at_end().then_some(Self {
            date,
            time,
            offset_seconds,
        })
    }

    /// `None` is out of reach for a date that exists: jiff's range is far wider than the years that count.
    fn timestamp(self) -> Option<Timestamp> {
        let midnight = Offset::UTC
            .to_timestamp(self.date.to_datetime(civil::Time::midnight()))
            .ok()?
            .as_second();
        let seconds = midnight + i64::from(self.time.seconds) - i64::from(self.offset_seconds);
        let ticks = i64::from(self.time.nanoseconds / NANOSECONDS_PER_TICK);
        Some(Timestamp(seconds * TICKS_PER_SECOND + ticks))
    }
}

struct TimeOfDay {
    seconds: u32,
    nanoseconds: u32,
}

impl TimeOfDay {
    const MIDNIGHT: Self = Self {
        seconds: 0,
        nanoseconds: 0,
    };

    /// `hh:mm[:ss[.fraction]][ AM|PM]`
    fn scan(scanner: &mut Scanner<'_>) -> Option<Self> {
        let hour = scanner.number::<u32>(1..=2)?;
        let minute = scanner.eat(':').then(|| scanner.sixtieth()).flatten()?;
        let (second, nanoseconds) = if scanner.eat(':') {
            (scanner.sixtieth()?, scanner.fraction()?)
        } else {
            (0, 0)
        };
        let hour = scan_meridiem(scanner, hour).filter(|hour| *hour < 24)?;
        Some(Self {
            seconds: hour * 3600 + minute * 60 + second,
            nanoseconds,
        })
    }
}

/// The hour of 24 that an hour and the AM or PM behind it make.
fn scan_meridiem(scanner: &mut Scanner<'_>, hour: u32) -> Option<u32> {
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

/// `yyyy-mm-dd`, `yyyy/m/d` or `m/d/yyyy`
fn scan_date(scanner: &mut Scanner<'_>) -> Option<civil::Date> {
    let first = scanner.digits(1..=4)?;
    let (year, month, day) = match first.len() {
        4 if scanner.eat('-') => {
            let month = scanner.digits(2..=2)?;
            (first, month, scan_after(scanner, '-', 2..=2)?)
        }
        4 => {
            let month = scan_after(scanner, '/', 1..=2)?;
            (first, month, scan_after(scanner, '/', 1..=2)?)
        }
        1 | 2 => {
            let day = scan_after(scanner, '/', 1..=2)?;
            (scan_after(scanner, '/', 4..=4)?, first, day)
        }
        _ => return None,
    };
    civil::Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()
}

fn scan_after<'a>(scanner: &mut Scanner<'a>, separator: char, lengths: RangeInclusive<usize>) -> Option<&'a str> {
    scanner.eat(separator).then(|| scanner.digits(lengths))?
}

/// Seconds east of UTC: nothing, `Z`, `+hh:mm`, `+hhmm` or `+hh`.
fn scan_offset(scanner: &mut Scanner<'_>) -> Option<i32> {
    if scanner.at_end() || scanner.eat_any(&['Z', 'z']) {
        return Some(0);
    }
    let sign = if scanner.eat('+') {
        1
    } else if scanner.eat_any(&['-', '\u{2212}']) {
        -1
    } else {
        return None;
    };
    let (hours, minutes) = scanner.digits(2..=4)?.split_at_checked(2)?;
    let minutes = match minutes.len() {
        0 if scanner.eat(':') => scanner.digits(2..=2)?,
        0 => "00",
        2 => minutes,
        _ => return None,
    };
    let hours = hours.parse::<i32>().ok().filter(|hours| *hours < 24)?;
    let minutes = minutes.parse::<i32>().ok().filter(|m| *m < 60)?;
    Some(sign * (hours * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

    use proptest::prelude::*;

    use super::super::NotUnderstood;
    use super::*;

    /// Texts of the form, of which some name no moment.
    const NEARLY_RFC_3339: &str = "20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]\
        (\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-6][0-9])";

    /// What jiff makes of a full RFC 3339 timestamp: the witness.
    fn at(rfc3339: &str) -> Parsed<Timestamp> {
        let moment: jiff::Timestamp = rfc3339.parse().unwrap();
        Ok(Some(Timestamp(i64::try_from(moment.as_nanosecond() / 100).unwrap())))
    }

    #[test]
    fn times_of_the_reference() {
        for (text, expected) in [
            ("2025-09-11T03:21:16Z", "2025-09-11T03:21:16Z"),
            ("2026-09-14T16:17:38.6017245Z", "2026-09-14T16:17:38.6017245Z"),
            ("2024-09-26T05:58:40.4092427+00:00", "2024-09-26T05:58:40.4092427Z"),
            ("08/01/2024 06:29:55", "2024-08-01T06:29:55Z"),
            ("2025-02-01", "2025-02-01T00:00:00Z"),
            ("2025-09-26T00:00:00Z", "2025-09-26T00:00:00Z"),
            ("2025/09/30", "2025-09-30T00:00:00Z"),
            ("12/29/2026", "2026-12-29T00:00:00Z"),
        ] {
            assert_eq!(timestamp(text), at(expected), "{text:?}");
        }
    }

    #[test]
    fn other_forms_of_a_time() {
        for (text, expected) in [
            ("2025-09-11t03:21:16z", "2025-09-11T03:21:16Z"),
            ("2025-09-11 03:21:16", "2025-09-11T03:21:16Z"),
            (" 2025-09-11T03:21:16 ", "2025-09-11T03:21:16Z"),
            ("2025-09-11T03:21", "2025-09-11T03:21:00Z"),
            ("2025-09-11T03:21:16.5Z", "2025-09-11T03:21:16.5Z"),
            ("2025-09-11T03:21:16.123456789Z", "2025-09-11T03:21:16.1234567Z"),
            ("2025-09-11T03:21:16.999999999Z", "2025-09-11T03:21:16.9999999Z"),
            ("2025-09-11T03:21:16-05:30", "2025-09-11T08:51:16Z"),
            ("2025-09-11T03:21:16\u{2212}05:30", "2025-09-11T08:51:16Z"),
            ("2025-09-11T03:21:16+0530", "2025-09-10T21:51:16Z"),
            ("2025-09-11T03:21:16+0000", "2025-09-11T03:21:16Z"),
            ("2025-09-11T03:21:16+02", "2025-09-11T01:21:16Z"),
            ("2025-09-11 03:21:16 +02:00", "2025-09-11T01:21:16Z"),
            ("8/1/2024 6:29:55 AM", "2024-08-01T06:29:55Z"),
            ("8/1/2024 6:29:55pm", "2024-08-01T18:29:55Z"),
            ("8/1/2024 12:00:00 AM", "2024-08-01T00:00:00Z"),
            ("8/1/2024 12:00:00 PM", "2024-08-01T12:00:00Z"),
            ("08/01/2024 06:29:55 +00:00", "2024-08-01T06:29:55Z"),
            ("2025/9/3", "2025-09-03T00:00:00Z"),
            ("2024-02-29", "2024-02-29T00:00:00Z"),
            ("1980-01-01T00:00:00Z", "1980-01-01T00:00:00Z"),
            ("2199-12-31T23:59:59Z", "2199-12-31T23:59:59Z"),
        ] {
            assert_eq!(timestamp(text), at(expected), "{text:?}");
        }
    }

    #[test]
    fn a_year_that_means_never_is_absent() {
        for text in [
            "0001-01-01T00:00:00Z",
            "0001-01-01T00:00:00+08:00",
            "01/01/0001 00:00:00",
            "1/1/1900",
            "1900-01-01",
            "1970-01-01T00:00:00Z",
            "1979-12-31T23:59:59Z",
            "2200-01-01",
            "9999-12-31T23:59:59.9999999Z",
            "9999-12-31T23:59:59-12:00",
        ] {
            assert_eq!(timestamp(text), Ok(None), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_time() {
        for text in [
            "2025-02-30",
            "2025-02-29",
            "2025-13-01",
            "2025-00-01",
            "2025-01-00",
            "0001-02-30",
            "29/12/2026",
            "2025-9-1",
            "12/29/26",
            "12-29-2026",
            "202-01-01",
            "20250901",
            "2025-09-01/",
            "2025-09/01",
            "2025-09-26T",
            "2025-09-26Z",
            "2025-09-26T24:00:00Z",
            "2025-09-26T24:00:01Z",
            "2025-09-26T23:60:00Z",
            "2025-09-26T23:59:60Z",
            "2025-09-26T05",
            "2025-09-26T05:58:40.Z",
            "2025-09-26T05:58:40.1234567890Z",
            "2025-09-26T05:58:40,5Z",
            "2025-09-26T05:58:40X",
            "2025-09-26T05:58:40ZZ",
            "2025-09-26T05:58:40+",
            "2025-09-26T05:58:40+2",
            "2025-09-26T05:58:40+020",
            "2025-09-26T05:58:40+24:00",
            "2025-09-26T05:58:40+02:60",
            "2025-09-26T05:58:40+02:",
            "2025-09-26T05:58:40+02000",
            "8/1/2024 13:00:00 PM",
            "8/1/2024 0:30:00 AM",
            "8/1/2024 6:29:55 XM",
            "-2025-09-26",
            "+2025-09-26",
            "1758844800",
            "yesterday",
            "2025-09-26T05:58:40Z today",
            "٢٠٢٥-09-26",
        ] {
            assert_eq!(timestamp(text), Err(NotUnderstood), "{text:?}");
        }
    }

    #[test]
    fn seconds_are_exact_and_fractions_the_nearest() {
        let whole = Timestamp::from_unix_seconds(1_757_560_876);
        assert_eq!(timestamp("2025-09-11T03:21:16Z"), Ok(Some(whole)));
        assert_eq!(whole.as_unix_seconds(), 1_757_560_876.0);
        let fraction = timestamp("2026-09-14T16:17:38.6017245Z").unwrap().unwrap();
        assert_eq!(fraction.as_unix_seconds(), 1_789_402_658.601_724_5);
        assert_eq!(Timestamp(-1).as_unix_seconds(), -1e-7);
    }

    #[test]
    fn arithmetic_saturates() {
        let second = Timestamp::from_unix_seconds(1);
        assert_eq!(second.plus(Duration::from_secs(2)), Timestamp::from_unix_seconds(3));
        assert_eq!(second.minus(Duration::from_secs(2)), Timestamp::from_unix_seconds(-1));
        assert_eq!(second.plus(Duration::from_nanos(199)), Timestamp(10_000_001));
        assert_eq!(second.plus(Duration::MAX), Timestamp(i64::MAX));
        assert_eq!(Timestamp(i64::MIN).minus(Duration::MAX), Timestamp(i64::MIN));
        assert_eq!(Timestamp::from_unix_seconds(i64::MAX), Timestamp(i64::MAX));
    }

    #[test]
    fn a_timestamp_is_saved_as_its_ticks() {
        let json = serde_json::to_string(&Timestamp::from_unix_seconds(2)).unwrap();
        assert_eq!(json, "20000000");
        assert_eq!(
            serde_json::from_str::<Timestamp>(&json).unwrap(),
            Timestamp::from_unix_seconds(2)
        );
    }

    #[test]
    fn daily_times() {
        for text in ["No", "no", " NO ", "False", "false"] {
            assert_eq!(daily_time(text), Ok(Some(DailyScan::Off)), "{text:?}");
        }
        for (text, seconds) in [
            ("01:59", 7140),
            ("1:59", 7140),
            ("00:00", 0),
            ("23:59", 86_340),
            ("01:59:30", 7170),
            ("01:59 PM", 50_340),
        ] {
            assert_eq!(daily_time(text), Ok(Some(DailyScan::At(seconds))), "{text:?}");
        }
        for text in [
            "24:00",
            "23:60",
            "Yes",
            "True",
            "0",
            "01",
            "0159",
            "01:59:60",
            "01:59Z",
            "1:5",
            "-01:59",
            "01:59:30.5",
        ] {
            assert_eq!(daily_time(text), Err(NotUnderstood), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), likely in "[0-9TZtzAPM/:+. -]{0,32}") {
            let _ = timestamp(&text);
            let _ = timestamp(&likely);
            let _ = daily_time(&text);
            let _ = daily_time(&likely);
        }

        /// From 1980-01-01 to 2200-01-01, in every form that can say so much.
        #[test]
        fn a_timestamp_survives_formatting(seconds in 315_532_800_i64..7_258_118_400, ticks in 0_i64..10_000_000) {
            let expected = Ok(Some(Timestamp(seconds * 10_000_000 + ticks)));
            let moment = jiff::Timestamp::new(seconds, i32::try_from(ticks * 100).unwrap()).unwrap();
            for format in [
                "%Y-%m-%dT%H:%M:%S%.fZ",
                "%Y-%m-%d %H:%M:%S%.f",
                "%m/%d/%Y %H:%M:%S%.f",
                "%Y/%m/%d %H:%M:%S%.9f+0000",
                "%-m/%-d/%Y %-I:%M:%S%.7f %p",
            ] {
                let text = moment.strftime(format).to_string();
                prop_assert_eq!(timestamp(&text), expected, "{}", text);
            }
        }

        #[test]
        fn an_offset_names_the_same_moment(
            seconds in 400_000_000_i64..7_000_000_000,
            offset in (-1439_i32..1440).prop_map(|minutes| minutes * 60),
        ) {
            let moment = jiff::Timestamp::from_second(seconds).unwrap();
            let text = moment.display_with_offset(Offset::from_seconds(offset).unwrap()).to_string();
            prop_assert_eq!(timestamp(&text), Ok(Some(Timestamp::from_unix_seconds(seconds))), "{}", text);
        }

        #[test]
        fn a_time_of_day_survives_formatting(seconds in 0_u32..86_400) {
            let text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
            prop_assert_eq!(daily_time(&text), Ok(Some(DailyScan::At(seconds))));
        }

        #[test]
        fn a_time_is_read_as_jiff_reads_it(text in NEARLY_RFC_3339) {
            // Jiff takes a leap second for the second before it; here it is not understood.
            if !text.contains(":60") {
                match text.parse::<jiff::Timestamp>() {
                    Ok(_) => prop_assert_eq!(timestamp(&text), at(&text)),
                    Err(_) => prop_assert_eq!(timestamp(&text), Err(NotUnderstood)),
                }
            }
        }
    }
}
