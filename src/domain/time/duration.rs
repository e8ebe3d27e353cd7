//! How long something took.

use std::time::Duration;

use super::super::{Parsed, understand};
use super::scanner::Scanner;

/// Most digits of a number in a duration; as many as a `u64` always holds.
const MAX_DIGITS: usize = 19;

const SECONDS_PER_HOUR: u64 = 3600;
const SECONDS_PER_DAY: u64 = 24 * SECONDS_PER_HOUR;

/// The names of a unit and its milliseconds.
type Unit = (&'static [&'static str], u64);

const DAYS: Unit = (&["d", "day", "days"], SECONDS_PER_DAY * 1000);
const HOURS: Unit = (&["h", "hr", "hrs", "hour", "hours"], SECONDS_PER_HOUR * 1000);
const MINUTES: Unit = (&["m", "min", "mins", "minute", "minutes"], 60_000);
const SECONDS: Unit = (&["s", "sec", "secs", "second", "seconds"], 1000);
const MILLISECONDS: Unit = (&["ms"], 1);

/// Reads a duration: `17m39s`, `1d 2h 3m 4s`, `2 days 3 hours`, `500ms`, `00:17:39`, `26:00:00`, `1.02:03:04` (days and a clock, as
/// .NET writes it) and `PT17M39S` (ISO 8601). Seconds may have up to nine decimals.
///
/// # Errors
///
/// Anything else, as a negative duration, a number without a unit, a unit that comes twice or out of order, and
/// `17:39`, which may be hours or minutes.
pub fn duration(text: &str) -> Parsed<Duration> {
    understand(text, |text| clock(text).or_else(|| iso(text)).or_else(|| plain(text)))
}

/// `[days.]hours:mm:ss[.fraction]`; without days the hours may exceed 23.
fn clock(text: &str) -> Option<Duration> {
    let mut scanner = Scanner::new(text);
    let first = scanner.number::<u64>(1..=MAX_DIGITS)?;
    let (days, hours) = if scanner.eat('.') {
        (first, scanner.number::<u64>(1..=2).filter(|h| *h < 24)?)
    } else {
        (0, first)
    };
    let minutes = scanner.eat(':').then(|| scanner.sixtieth()).flatten()?;
    let seconds = scanner.eat(':').then(|| scanner.sixtieth()).flatten()?;
    let nanoseconds = scanner.fraction()?;
    let seconds = days
        .checked_mul(SECONDS_PER_DAY)?
        .checked_add(hours.checked_mul(SECONDS_PER_HOUR)?)?
        .checked_add(u64::from(minutes * 60 + seconds))?;
    scanner.at_end().then(|| Duration::new(seconds, nanoseconds))
}

/// `P[nD][T[nH][nM][nS]]`; months and years have no fixed length.
fn iso(text: &str) -> Option<Duration> {
    let period = text.strip_prefix(['P', 'p'])?;
    match period.split_once(['T', 't']) {
        Some(("", time)) => units(time, &[HOURS, MINUTES, SECONDS]),
        Some((days, time)) => units(days, &[DAYS])?.checked_add(units(time, &[HOURS, MINUTES, SECONDS])?),
        None => units(period, &[DAYS]),
    }
}

fn plain(text: &str) -> Option<Duration> {
    units(text, &[DAYS, HOURS, MINUTES, SECONDS, MILLISECONDS])
}

/// One number or more, each with one of the `allowed` units, which come at most once and in that order.
fn units(text: &str, allowed: &[Unit]) -> Option<Duration> {
    let mut scanner = Scanner::new(text);
    let mut allowed = allowed.iter();
    let mut total = Duration::ZERO;
    loop {
        let number = scanner.number::<u64>(1..=MAX_DIGITS)?;
        let fraction = scanner.fraction()?;
        scanner.spaces();
        let name = scanner.letters();
        let unit = allowed.find(|(names, _)| names.iter().any(|unit| unit.eq_ignore_ascii_case(name)))?;
        if fraction > 0 && *unit != SECONDS {
            return None;
        }
        total = total
            .checked_add(Duration::from_millis(number.checked_mul(unit.1)?))?
            .checked_add(Duration::from_nanos(u64::from(fraction)))?;
        scanner.spaces();
        if scanner.at_end() {
            return Some(total);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

    use proptest::prelude::*;

    use super::super::super::NotUnderstood;
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("17m39s", 1059),
            ("17m 39s", 1059),
            ("17M39S", 1059),
            (" 17 m 39 s ", 1059),
            ("1d 2h 3m 4s", 93_784),
            ("1d2h3m4s", 93_784),
            ("2h", 7200),
            ("45s", 45),
            ("1h05m", 3900),
            ("90m", 5400),
            ("1d 4s", 86_404),
            ("0s", 0),
            ("0m0s", 0),
            ("17.0m", 1020),
            ("00:17:39", 1059),
            ("0:17:39", 1059),
            ("26:00:00", 93_600),
            ("1.02:03:04", 93_784),
            ("00:00:00.0000000", 0),
            ("PT17M39S", 1059),
            ("pt17m39s", 1059),
            ("P1DT2H3M4S", 93_784),
            ("P1D", 86_400),
            ("2 days 3 hours", 183_600),
            ("1 min 5 secs", 65),
        ] {
            assert_eq!(duration(text), Ok(Some(Duration::from_secs(seconds))), "{text:?}");
        }
    }

    #[test]
    fn parts_of_a_second() {
        for (text, nanoseconds) in [
            ("500ms", 500_000_000),
            ("1s500ms", 1_500_000_000),
            ("1.5s", 1_500_000_000),
            ("PT1.5S", 1_500_000_000),
            ("00:00:01.5000000", 1_500_000_000),
            ("00:00:00.000000001", 1),
        ] {
            assert_eq!(duration(text), Ok(Some(Duration::from_nanos(nanoseconds))), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_duration() {
        for text in [
            "17",
            "0",
            "1059.0",
            "-17m",
            "-00:17:39",
            "+17m",
            "17m17m",
            "39s17m",
            "1s1s",
            "m",
            "17 39",
            "17m39",
            "17x",
            "1.5h",
            "1,5s",
            "17:39",
            "00:60:00",
            "00:00:60",
            "1.24:00:00",
            "1.2.03:04:05",
            "0:7:39",
            "00:17:39 ago",
            "00:17:39.",
            "00:17:39.0000000001",
            "P",
            "PT",
            "P1DT",
            "P1M",
            "P1Y",
            "PT1D",
            "PT500MS",
            "P1H",
            "1w",
            "17m39s!",
            "1e3s",
            "99999999999999999999s",
            "9999999999999999999d",
            "9999999999999999999:00:00",
            "00:٠٠:00",
        ] {
            assert_eq!(duration(text), Err(NotUnderstood), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), likely in "[PT0-9dhms :.]{0,24}") {
            let _ = duration(&text);
            let _ = duration(&likely);
        }

        #[test]
        fn a_duration_survives_formatting(total in 0_u64..10_000_000) {
            let (d, h, m, s) = (total / 86_400, total / 3600 % 24, total / 60 % 60, total % 60);
            let expected = Ok(Some(Duration::from_secs(total)));
            for text in [
                format!("{total}s"),
                format!("{d}d{h}h{m}m{s}s"),
                format!("{d}D {h}H {m:02}M {s:02}S"),
                format!("{}m{s}s", total / 60),
                format!("{}:{m:02}:{s:02}", total / 3600),
                format!("{d}.{h:02}:{m:02}:{s:02}.000"),
                format!("P{d}DT{h}H{m}M{s}S"),
            ] {
                prop_assert_eq!(duration(&text), expected, "{}", text);
            }
        }

        #[test]
        fn a_duration_says_no_more_than_its_numbers(text in "([0-9]{1,5} ?(d|h|m|s|ms) ?){1,5}") {
            if let Ok(Some(read)) = duration(&text) {
                // Independently: every letter ends the number before it.
                let mut sum = 0_u128;
                let compact = text.replace(' ', "").replace("ms", "x");
                let mut rest = compact.as_str();
                while let Some(end) = rest.find(|c: char| c.is_alphabetic()) {
                    let (number, tail) = rest.split_at(end);
                    let (unit, tail) = tail.split_at(1);
                    sum += number.parse::<u128>().unwrap() * match unit {
                        "d" => 86_400_000,
                        "h" => 3_600_000,
                        "m" => 60_000,
                        "s" => 1000,
                        _ => 1,
                    };
                    rest = tail;
                }
                prop_assert_eq!(read.as_millis(), sum);
            }
        }
    }
}
