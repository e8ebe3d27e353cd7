//! Parses durations.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

use super::super::{Parsed, parse_present};

/// Parses a duration: `17m39s`, `0 S`, `1d 2h 3m 4s`, `2 days 3 hours`, `500ms`, `00:17:39`, `26:00:00`, `1.02:03:04`
/// (days and a time, in the format of .NET) or `PT17M39S` (ISO 8601). A day has 24 hours.
///
/// # Errors
///
/// Returns an error for anything else, such as a negative duration, a number without a unit, or units that are repeated
/// or out of order. Ambiguous text is also rejected: months and years, whose length varies; a comma, which may separate
/// decimals or thousands; and `17:39`, which may begin with hours or minutes.
pub fn duration(text: &str) -> Parsed<Duration> {
    parse_present(text, |text| {
        if text.contains(',') {
            return None;
        }
        let span: Span = days_and_clock(&text.to_ascii_lowercase()).parse().ok()?;
        let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
        Duration::try_from(length).ok()
    })
}

/// Rewrites `1.02:03:04` as `1d 02:03:04`, because jiff does not parse the former.
fn days_and_clock(text: &str) -> String {
    match text.split_once('.') {
        Some((days, clock)) if clock.matches(':').count() == 2 && is_hour_of_day(clock) => format!("{days}d {clock}"),
        _ => text.to_owned(),
    }
}

/// Returns whether a time such as `02:03:04` starts with an hour below 24.
fn is_hour_of_day(clock: &str) -> bool {
    let hour = clock.split(':').next().unwrap_or_default();
    hour.parse::<u8>().is_ok_and(|hour| hour < 24)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::InvalidValue;
    use super::*;

    #[test]
    fn durations_are_parsed() {
        for (text, seconds) in [
            ("17m39s", 1059),
            ("38s", 38),
            ("0 S", 0),
            ("1h13m30s", 4410),
            ("4h12m5s", 15_125),
            ("1.5h", 5400),
            ("1d 02:03:04", 93_784),
            ("1w", 604_800),
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
    fn durations_below_a_second_are_parsed() {
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
    fn invalid_durations_are_rejected() {
        for text in [
            "17",
            "0",
            "1059.0",
            "-17m",
            "-00:17:39",
            "17m17m",
            "39s17m",
            "1s1s",
            "m",
            "17 39",
            "17m39",
            "17x",
            "1,5s",
            "1,234s",
            "1d, 2h",
            "1 month",
            "2 years",
            "17m ago",
            "17:39",
            "1.24:00:00",
            "1.2.03:04:05",
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
            "17m39s!",
            "1e3s",
            "99999999999999999999s",
            "9999999999999999999d",
            "9999999999999999999:00:00",
            "00:٠٠:00",
        ] {
            assert_eq!(duration(text), Err(InvalidValue), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn parser_does_not_panic(text in any::<String>(), likely in "[PT0-9dhmsw :.,+-]{0,24}") {
            let _ = duration(&text);
            let _ = duration(&likely);
        }

        #[test]
        fn duration_is_formatted_and_parsed(total in 0_u64..10_000_000) {
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
        fn duration_is_the_sum_of_its_parts(text in "([0-9]{1,5} ?(d|h|m|s|ms) ?){1,5}") {
            if let Ok(Some(read)) = duration(&text) {
                // Calculates the sum independently of the parser: each letter ends the number before it.
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
