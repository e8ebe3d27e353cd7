use proptest::prelude::*;

use super::super::InvalidValue;
use super::*;

/// Regular expression for strings in the format of RFC 3339, some of which are not valid times.
const NEARLY_RFC_3339: &str = "20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]\
        (\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-6][0-9])";

/// Parses a full RFC 3339 timestamp with jiff, for comparison.
fn at(rfc3339: &str) -> Parsed<Timestamp> {
    let date_time: jiff::Timestamp = rfc3339.parse().unwrap();
    Ok(Some(Timestamp(i64::try_from(date_time.as_nanosecond() / 100).unwrap())))
}

#[test]
fn times_in_the_reference_are_parsed() {
    for (text, expected) in [
        ("2025-09-11T03:21:16Z", "2025-09-11T03:21:16Z"),
        ("2026-09-14T16:17:38.6017245Z", "2026-09-14T16:17:38.6017245Z"),
        ("2024-09-26T05:58:40.4092427+00:00", "2024-09-26T05:58:40.4092427Z"),
        ("08/01/2024 06:29:55", "2024-08-01T06:29:55Z"),
        ("2025-02-01", "2025-02-01T00:00:00Z"),
        ("2025-09-26T00:00:00Z", "2025-09-26T00:00:00Z"),
        ("2025/09/30", "2025-09-30T00:00:00Z"),
        ("12/29/2026", "2026-12-29T00:00:00Z"),
        ("12-31-2026T12:00:00Z", "2026-12-31T12:00:00Z"),
        ("12-31-2026Z", "2026-12-31T00:00:00Z"),
        ("9-5-2027 3:4:5", "2027-09-05T03:04:05Z"),
        ("9/20/2027, 1:00:00 PM", "2027-09-20T13:00:00Z"),
        ("2027-09-20 13:00:00 UTC", "2027-09-20T13:00:00Z"),
        ("2027-09-20T13:00:00+2", "2027-09-20T11:00:00Z"),
        ("09/20/2026T13:00:00Z", "2026-09-20T13:00:00Z"),
    ] {
        assert_eq!(timestamp(text), at(expected), "{text:?}");
    }
}

#[test]
fn times_in_other_formats_are_parsed() {
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
        ("2025-9-1", "2025-09-01T00:00:00Z"),
        ("2025.09.01 6:05", "2025-09-01T06:05:00Z"),
        ("12-29-2026", "2026-12-29T00:00:00Z"),
        ("2-1-2025t3:04z", "2025-02-01T03:04:00Z"),
        ("12/31/2026T11:59:59.5 PM", "2026-12-31T23:59:59.5Z"),
        ("12.31.2026 23:59:59+01:00", "2026-12-31T22:59:59Z"),
        ("02/01/2025", "2025-02-01T00:00:00Z"),
        ("13/01/2025", "2025-01-13T00:00:00Z"),
        ("29-12-2026T12:00:00Z", "2026-12-29T12:00:00Z"),
        ("31.1.2025 6:29:55 AM", "2025-01-31T06:29:55Z"),
        ("2024-02-29", "2024-02-29T00:00:00Z"),
        ("1980-01-01T00:00:00Z", "1980-01-01T00:00:00Z"),
        ("2199-12-31T23:59:59Z", "2199-12-31T23:59:59Z"),
    ] {
        assert_eq!(timestamp(text), at(expected), "{text:?}");
    }
}

#[test]
fn number_is_seconds_milliseconds_or_ticks() {
    for (text, expected) in [
        ("1758844800", "2025-09-26T00:00:00Z"),
        ("315532800", "1980-01-01T00:00:00Z"),
        ("1758844800123", "2025-09-26T00:00:00.123Z"),
        ("638944416001234567", "2025-09-26T00:00:00.1234567Z"),
    ] {
        assert_eq!(timestamp(text), at(expected), "{text:?}");
    }
    assert_eq!(timestamp("0"), Ok(None));
}

#[test]
fn placeholder_year_is_absent() {
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
fn invalid_times_are_rejected() {
    for text in [
        "2025-02-30",
        "2025-02-29",
        "2025-13-01",
        "2025-00-01",
        "2025-01-00",
        "0001-02-30",
        "12/29/26",
        "26-12-29",
        "32/12/2026",
        "13/13/2026",
        "0/12/2026",
        "02/30/2025",
        "31/04/2025",
        "12/29/02026",
        "12-29/2026",
        "12-31-2026T",
        "12-31-2026T25:00:00Z",
        "12 31 2026",
        "202-01-01",
        "20250901",
        "2025-09-01/",
        "2025-09/01",
        "2025-09-26T",
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
        "20250901",
        "20250901032116",
        "99999999999999999999",
        "-1758844800",
        "1758844800.5",
        "yesterday",
        "2025-09-26T05:58:40Z today",
        "٢٠٢٥-09-26",
    ] {
        assert_eq!(timestamp(text), Err(InvalidValue), "{text:?}");
    }
}

#[test]
fn seconds_are_exact_and_fractions_rounded() {
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
fn timestamp_is_saved_as_its_ticks() {
    let json = serde_json::to_string(&Timestamp::from_unix_seconds(2)).unwrap();
    assert_eq!(json, "20000000");
    assert_eq!(
        serde_json::from_str::<Timestamp>(&json).unwrap(),
        Timestamp::from_unix_seconds(2)
    );
}

#[test]
fn daily_times_are_parsed() {
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
        assert_eq!(daily_time(text), Err(InvalidValue), "{text:?}");
    }
}

/// The number that comes first in a date.
#[derive(Clone, Copy, Debug)]
enum Order {
    Year,
    Month,
    Day,
}

/// A format for times.
#[derive(Clone, Debug)]
struct Spelling {
    order: Order,
    separator: &'static str,
    padded: bool,
    joint: &'static str,
    seconds: bool,
    decimals: usize,
    meridiem: Option<&'static str>,
    zone: &'static str,
}

impl Spelling {
    fn write(&self, date_time: civil::DateTime) -> String {
        let number = |number: i8| match self.padded {
            true => format!("{number:02}"),
            false => number.to_string(),
        };
        let (year, month, day) = (
            date_time.year().to_string(),
            number(date_time.month()),
            number(date_time.day()),
        );
        let date = match self.order {
            Order::Year => [year, month, day],
            Order::Month => [month, day, year],
            Order::Day => [day, month, year],
        };
        let hour = match self.meridiem {
            None => date_time.hour(),
            Some(_) => (date_time.hour() + 11) % 12 + 1,
        };
        let mut text = format!(
            "{}{}{}:{:02}",
            date.join(self.separator),
            self.joint,
            number(hour),
            date_time.minute()
        );
        if self.seconds {
            text += &format!(":{:02}", date_time.second());
            let fraction = format!("{:09}", date_time.subsec_nanosecond());
            if self.decimals > 0 {
                text += &format!(".{}", &fraction[..self.decimals]);
            }
        }
        if let Some(space) = self.meridiem {
            text += space;
            text += if date_time.hour() < 12 { "AM" } else { "PM" };
        }
        text + self.zone
    }

    /// Returns the time without the parts that the format omits.
    fn truncate(&self, date_time: civil::DateTime) -> civil::DateTime {
        let (second, decimals) = match self.seconds {
            true => (date_time.second(), self.decimals.min(7)),
            false => (0, 0),
        };
        let unit = 10_i32.pow(u32::try_from(9 - decimals).unwrap());
        let with = date_time.with().second(second);
        with.subsec_nanosecond(date_time.subsec_nanosecond() / unit * unit)
            .build()
            .unwrap()
    }
}

fn spellings() -> impl Strategy<Value = Spelling> {
    let order = prop::sample::select(vec![Order::Year, Order::Month, Order::Day]);
    let date = (order, prop::sample::select(vec!["-", "/", "."]), any::<bool>());
    let joint = prop::sample::select(vec!["T", "t", " ", "  "]);
    let meridiem = prop::sample::select(vec![None, None, Some(""), Some(" ")]);
    let zone = prop::sample::select(vec!["", "Z", "z", " Z", "+00:00", "+0530", "-02"]);
    let time = (any::<bool>(), 0_usize..=9, meridiem);
    (date, joint, time, zone).prop_map(|(date, joint, time, zone)| Spelling {
        order: date.0,
        separator: date.1,
        padded: date.2,
        joint,
        seconds: time.0,
        decimals: time.1,
        meridiem: time.2,
        zone,
    })
}

proptest! {
    /// Compares the parser with jiff's calendar.
    #[test]
    fn times_parse_in_every_format(
        spelling in spellings(),
        seconds in 315_532_800_i64..7_258_000_000,
        nanoseconds in 0_i32..1_000_000_000,
    ) {
        let date_time = Offset::UTC.to_datetime(jiff::Timestamp::new(seconds, nanoseconds).unwrap());
        // A day that comes first is recognized only if it is above 12.
        prop_assume!(!matches!(spelling.order, Order::Day) || date_time.day() > 12);
        let east = match spelling.zone {
            "+0530" => 5 * 3600 + 30 * 60,
            "-02" => -2 * 3600,
            _ => 0,
        };
        let expected = Offset::UTC.to_timestamp(spelling.truncate(date_time)).unwrap();
        let ticks = i64::try_from(expected.as_nanosecond() / 100).unwrap() - east * TICKS_PER_SECOND;
        let text = spelling.write(date_time);
        prop_assert_eq!(timestamp(&text), Ok(Some(Timestamp(ticks))), "{}", text);
    }

    #[test]
    fn parser_does_not_panic(text in any::<String>(), likely in "[0-9TZtzAPM/:+. -]{0,32}") {
        let _ = timestamp(&text);
        let _ = timestamp(&likely);
        let _ = daily_time(&text);
        let _ = daily_time(&likely);
    }

    #[test]
    fn time_of_day_is_formatted_and_parsed(seconds in 0_u32..86_400) {
        let text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        prop_assert_eq!(daily_time(&text), Ok(Some(DailyScan::At(seconds))));
    }

    #[test]
    fn times_are_parsed_like_jiff(text in NEARLY_RFC_3339) {
        // Jiff parses a leap second as the previous second; this parser rejects leap seconds.
        if !text.contains(":60") {
            match text.parse::<jiff::Timestamp>() {
                Ok(_) => prop_assert_eq!(timestamp(&text), at(&text)),
                Err(_) => prop_assert_eq!(timestamp(&text), Err(InvalidValue)),
            }
        }
    }
}
