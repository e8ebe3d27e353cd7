//! Parsers for response headers that contain times.

use std::time::Duration;

use jiff::{
    civil::{DateTime, datetime},
    fmt::strtime,
};

use super::MAX_PAUSE;

/// HTTP date formats. The last two are obsolete but must be accepted (RFC 9110, section 5.6.7).
const DATE_FORMATS: [&str; 3] = [
    "%a, %d %b %Y %H:%M:%S GMT",
    "%A, %d-%b-%y %H:%M:%S GMT",
    "%a %b %e %H:%M:%S %Y",
];

const EPOCH: DateTime = datetime(1970, 1, 1, 0, 0, 0, 0);

/// Returns the pause requested by a `Retry-After` header, at most [`MAX_PAUSE`]. A date is compared with `now_unix`,
/// which should be the Unix time in the response's own `Date` header. A past date means no pause. Returns `None` if the
/// header is missing or has any other value, such as a negative number.
pub fn retry_after(header: Option<&str>, now_unix: i64) -> Option<Duration> {
    let text = header?.trim();
    let seconds = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that overflows exceeds any allowed pause.
        text.parse().unwrap_or(u64::MAX)
    } else {
        let wait = http_date(text)?.saturating_sub(now_unix);
        u64::try_from(wait).unwrap_or(0)
    };
    Some(Duration::from_secs(seconds).min(MAX_PAUSE))
}

/// Returns the number of seconds by which the clock of the server that sent this `Date` header is ahead of `now_unix`;
/// negative if it is behind. The header has a resolution of one second and is delayed by the network, so a difference
/// of two seconds is not significant.
pub fn clock_skew(date_header: Option<&str>, now_unix: i64) -> Option<i64> {
    Some(http_date(date_header?.trim())?.saturating_sub(now_unix))
}

fn http_date(text: &str) -> Option<i64> {
    DATE_FORMATS.iter().find_map(|format| {
        let date = strtime::parse(format, text).ok()?.to_datetime().ok()?;
        Some(date.duration_since(EPOCH).as_secs())
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{clock_skew, retry_after};

    /// Sun, 06 Nov 1994 08:49:37 GMT, the example in RFC 9110.
    const EXAMPLE: i64 = 784_111_777;

    fn seconds(header: &str) -> Option<u64> {
        retry_after(Some(header), EXAMPLE - 42).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_are_parsed_and_clamped() {
        assert_eq!(seconds("0"), Some(0));
        assert_eq!(seconds(" 17 "), Some(17));
        assert_eq!(seconds("300"), Some(300));
        assert_eq!(seconds("301"), Some(300));
        assert_eq!(seconds("99999999999999999999999999"), Some(300));
    }

    #[test]
    fn dates_are_parsed_in_all_three_forms() {
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(42));
        assert_eq!(seconds("Sunday, 06-Nov-94 08:49:37 GMT"), Some(42));
        assert_eq!(seconds("Sun Nov  6 08:49:37 1994"), Some(42));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:48:00 GMT"), Some(0));
        assert_eq!(seconds("Fri, 31 Dec 9999 23:59:59 GMT"), Some(300));
    }

    #[test]
    fn other_values_cause_no_pause() {
        assert_eq!(retry_after(None, EXAMPLE), None);
        for header in [
            "",
            " ",
            "-1",
            "+5",
            "1.5",
            "1e3",
            "soon",
            "5 minutes",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
        ] {
            assert_eq!(seconds(header), None, "{header}");
        }
    }

    #[test]
    fn extreme_clocks_do_not_overflow() {
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(retry_after(date, i64::MIN), Some(Duration::from_secs(300)));
        assert_eq!(retry_after(date, i64::MAX), Some(Duration::ZERO));
        assert_eq!(clock_skew(date, i64::MIN), Some(i64::MAX));
    }

    #[test]
    fn skew_is_positive_if_the_server_is_ahead() {
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(clock_skew(date, EXAMPLE - 90), Some(90));
        assert_eq!(clock_skew(date, EXAMPLE + 90), Some(-90));
        assert_eq!(clock_skew(Some("yesterday"), EXAMPLE), None);
        assert_eq!(clock_skew(None, EXAMPLE), None);
    }
}
