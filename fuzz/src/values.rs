//! Value parsers. Every parsed value must equal the result of an independent implementation.

use elements_exporter::domain::{
    self, CustomerId, DailyScan, Gigabyte, JobStatus, JobStatusWord, Named, capacity, count, customer_status,
    daily_time, duration, flag, job_status, management_mode, mask_comment, scan_mode, signed, size, timestamp,
};

/// Checks an input: one string, or two strings separated by NUL.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for part in text.split('\0').take(2) {
        check_numbers(part);
        check_times(part);
        check_words(part);
        check_texts(part);
    }
    if let Some((used, purchased)) = text.split_once('\0') {
        check_capacity(used, purchased);
    }
}

fn check_numbers(text: &str) {
    let trimmed = text.trim();
    if let Ok(Some(parsed)) = count(text) {
        assert_eq!(Some(i128::from(parsed)), integer(trimmed), "{text:?}");
    } else if (1..=15).contains(&trimmed.len()) && trimmed.bytes().all(|byte| byte.is_ascii_digit()) {
        panic!("{text:?} was not parsed as a count");
    }
    if let Ok(Some(parsed)) = signed(text) {
        let (sign, magnitude) = match trimmed.strip_prefix(['-', '\u{2212}']) {
            Some(magnitude) => (-1, magnitude),
            None => (1, trimmed.strip_prefix('+').unwrap_or(trimmed)),
        };
        assert_eq!(
            Some(i128::from(parsed)),
            integer(magnitude).map(|number| sign * number),
            "{text:?}"
        );
    }
    for gigabyte in [Gigabyte::Binary, Gigabyte::Decimal] {
        if let Ok(Some(parsed)) = size(text) {
            let parsed = parsed.bytes(gigabyte);
            assert!(
                parsed >= 0.0 && parsed.fract() == 0.0 && parsed < 2f64.powi(63),
                "{text:?}: {parsed}"
            );
            let expected = expected_bytes(trimmed, gigabyte)
                .unwrap_or_else(|| panic!("{text:?} is not a size, but was parsed as {parsed}"));
            assert!(
                (parsed - expected).abs() <= 0.51 + expected * 1e-14,
                "{text:?}: {parsed}, not {expected}"
            );
        }
        if let Ok(Some(parsed)) = capacity(text) {
            assert!(parsed.used.is_none() || trimmed.contains('/'), "{text:?}: {parsed:?}");
            for half in [parsed.used, parsed.purchased].into_iter().flatten() {
                let half = half.bytes(gigabyte);
                assert!(
                    half >= 0.0 && half.fract() == 0.0 && half < 2f64.powi(63),
                    "{text:?}: {parsed:?}"
                );
            }
            if !trimmed.contains('/') {
                assert_eq!(Ok(parsed.purchased), size(text), "{text:?}");
            }
        }
    }
}

/// Checks that parsing two sizes separated by a slash gives the same values as parsing each size on its own.
fn check_capacity(used: &str, purchased: &str) {
    let of = |text: &str| size(text).ok().flatten();
    let plain = |text: &str| !text.contains('/');
    if let (true, true, Some(left), Some(right)) = (plain(used), plain(purchased), of(used), of(purchased)) {
        // Zero needs no unit. In a pair, it has the unit of the other size and remains zero.
        let parsed = capacity(&format!("{used}/{purchased}"));
        let parsed = parsed
            .ok()
            .flatten()
            .unwrap_or_else(|| panic!("{used:?}/{purchased:?} was not parsed"));
        assert_eq!(
            (parsed.used, parsed.purchased),
            (Some(left), Some(right)),
            "{used:?} of {purchased:?}"
        );
    }
}

/// Parses a non-negative integer. It may contain commas, and zeros after a decimal point.
fn integer(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let zeros = !fraction.is_empty() && fraction.bytes().all(|byte| byte == b'0');
    let digits: String = whole.chars().filter(|c| *c != ',').collect();
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (zeros && plain).then(|| digits.parse().ok()).flatten()
}

fn expected_bytes(text: &str, gigabyte: Gigabyte) -> Option<f64> {
    let letters = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(letters);
    let number: f64 = number.trim().replace(',', "").parse().ok()?;
    let unit = unit.to_lowercase();
    let kilo: f64 = match (gigabyte, unit.ends_with("ib")) {
        (Gigabyte::Decimal, false) => 1000.0,
        _ => 1024.0,
    };
    let power = match unit.as_str() {
        "b" | "byte" | "bytes" => 0,
        "kb" | "kib" => 1,
        "mb" | "mib" => 2,
        "gb" | "gib" => 3,
        "tb" | "tib" => 4,
        "pb" | "pib" => 5,
        "eb" | "eib" => 6,
        "" if number == 0.0 => 0,
        _ => return None,
    };
    Some(number * kilo.powi(power))
}

fn check_times(text: &str) {
    let trimmed = text.trim();
    if let Ok(Some(parsed)) = timestamp(text) {
        let parsed = parsed.as_unix_seconds();
        let expected =
            expected_timestamp(trimmed).unwrap_or_else(|| panic!("{text:?} is not a time, but was parsed as {parsed}"));
        assert!((parsed - expected).abs() < 1e-5, "{text:?}: {parsed}, not {expected}");
        assert!((0.0..8e9).contains(&parsed), "{text:?}: {parsed}");
    }
    if let Ok(Some(parsed)) = duration(text) {
        let parsed = parsed.as_secs_f64();
        let expected = expected_duration(trimmed)
            .unwrap_or_else(|| panic!("{text:?} is not a duration, but was parsed as {parsed}"));
        assert!(
            (parsed - expected).abs() <= 1e-6 + expected * 1e-12,
            "{text:?}: {parsed}, not {expected}"
        );
    }
    match daily_time(text) {
        Ok(Some(DailyScan::At(parsed))) => {
            assert_eq!(seconds_of_day(trimmed), Some(f64::from(parsed)), "{text:?}");
            assert!(parsed < 86_400, "{text:?}");
        }
        Ok(Some(DailyScan::Off)) => assert!(["no", "false"].contains(&trimmed.to_lowercase().as_str()), "{text:?}"),
        Ok(None) | Err(_) => {}
    }
}

fn expected_timestamp(text: &str) -> Option<f64> {
    if let Ok(number) = text.parse::<f64>() {
        return Some(match text.len() {
            0..12 => number,
            12..15 => number / 1e3,
            // A number of .NET ticks is too large for a double to represent exactly.
            _ => (text.parse::<i128>().ok()? - 621_355_968_000_000_000) as f64 / 1e7,
        });
    }
    let separator = text.chars().find(|c| !c.is_ascii_digit())?;
    let mut parts = text.splitn(3, separator);
    let (first, second, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (third, rest) = rest.split_at(end);
    let (year, month, day) = match first.len() {
        4 => (first, second, third),
        _ if first.parse::<u8>().ok()? > 12 => (third, second, first),
        _ => (third, first, second),
    };
    assert_eq!(year.len(), 4, "{text:?} has a year without a century");
    let (year, month, day): (i64, i64, i64) = (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    assert!(
        (1..=12).contains(&month) && (1..=31).contains(&day),
        "{text:?} is not a date"
    );
    let midnight = days(year, month, day) as f64 * 86_400.0;
    let rest = rest.trim_start_matches(['T', 't', ',']).trim();
    let is_utc = ["utc", "gmt"].iter().any(|zone| rest.to_lowercase().ends_with(zone));
    let rest = if is_utc { rest[..rest.len() - 3].trim() } else { rest };
    let rest = if rest.eq_ignore_ascii_case("z") { "" } else { rest };
    if rest.is_empty() {
        return Some(midnight);
    }
    let end = rest.find(['+', '-', '\u{2212}', 'Z', 'z']).unwrap_or(rest.len());
    let (time, offset) = rest.split_at(end);
    let digits: String = offset.chars().filter(char::is_ascii_digit).collect();
    let (hours, minutes) = digits
        .split_at_checked(2)
        .unwrap_or((if digits.is_empty() { "0" } else { &digits }, ""));
    let minutes = if minutes.is_empty() { "0" } else { minutes };
    let east = hours.parse::<f64>().ok()? * 3600.0 + minutes.parse::<f64>().ok()? * 60.0;
    let east = if offset.starts_with('+') { east } else { -east };
    Some(midnight + seconds_of_day(time.trim())? - east)
}

/// Parses a time of day. Returns the seconds since midnight.
fn seconds_of_day(text: &str) -> Option<f64> {
    let lower = text.to_lowercase();
    let numbers = lower.trim_end_matches(|c: char| !c.is_ascii_digit());
    let mut parts = numbers.split(':');
    let hour: f64 = parts.next()?.parse().ok()?;
    let minute: f64 = parts.next()?.parse().ok()?;
    let second: f64 = parts.next().map_or(Ok(0.0), str::parse).ok()?;
    let hour = match (lower.contains("pm"), lower.contains("am")) {
        (true, _) => hour % 12.0 + 12.0,
        (_, true) => hour % 12.0,
        _ => hour,
    };
    Some(hour * 3600.0 + minute * 60.0 + second)
}

/// Returns the number of days since 1970-01-01, counting leap days.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [
        31,
        if leap(year) { 29 } else { 28 },
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let years: i64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let months: i64 = lengths.iter().zip(1..month).map(|(length, _)| length).sum();
    years + months + day - 1
}

fn expected_duration(text: &str) -> Option<f64> {
    let lower = text.to_lowercase();
    // A negative duration is invalid, except for minus zero.
    let is_negative = lower.starts_with('-') || lower.ends_with("ago");
    let text = lower.trim_start_matches(['+', '-']).trim_end_matches("ago").trim();
    let length = if text.contains(':') {
        days_and_time(text)
    } else {
        units(text)
    };
    length.filter(|length| !is_negative || *length == 0.0)
}

fn days_and_time(text: &str) -> Option<f64> {
    let number = |text: &str| text.parse::<f64>().ok();
    let start = text.rfind(|c: char| !(c.is_ascii_digit() || matches!(c, ':' | '.')));
    let (days, seconds_of_day) = text.split_at(start.map_or(0, |start| start + 1));
    let mut parts = seconds_of_day.splitn(3, ':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let (more_days, hours) = hours.split_once('.').unwrap_or(("0", hours));
    let days = units(days.trim())? + number(more_days)? * 86_400.0;
    Some(days + number(hours)? * 3600.0 + number(minutes)? * 60.0 + number(seconds)?)
}

/// Parses an ISO 8601 duration, or numbers with units. Returns seconds.
fn units(text: &str) -> Option<f64> {
    let iso = text.starts_with('p');
    let mut total = 0.0;
    let mut rest = text.trim_start_matches(['p', 't']);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(end);
        let tail = tail.trim_start();
        let end = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let starts = |names: &[&str]| !iso && names.iter().any(|name| unit.starts_with(name));
        let seconds = match unit.chars().next()? {
            _ if starts(&["ns", "nano"]) => 1e-9,
            _ if starts(&["us", "micro", "\u{b5}", "\u{3bc}"]) => 1e-6,
            _ if starts(&["ms", "milli"]) => 0.001,
            'w' => 604_800.0,
            'd' => 86_400.0,
            'h' => 3600.0,
            'm' => 60.0,
            's' => 1.0,
            // Years have no fixed length, so only zero years are valid.
            'y' if number.parse() == Ok(0.0) => 0.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = tail.trim_start();
    }
    Some(total)
}

fn check_words(text: &str) {
    let trimmed = text.trim();
    let squeezed: String = trimmed
        .to_ascii_lowercase()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .collect();
    let number = trimmed.replace(',', "").parse::<f64>().ok();
    if let Some(JobStatusWord::Known(status)) = job_status(text) {
        let name = status.label().replace('_', "");
        let other = match squeezed.as_str() {
            "inprogress" => status == JobStatus::Running,
            "successful" => status == JobStatus::Finished,
            "cancelled" => status == JobStatus::Canceled,
            "finishedwithexceptions" => status == JobStatus::FinishedWithException,
            _ => false,
        };
        let coded = number == Some(f64::from(status.code()));
        assert!(coded || other || name == squeezed, "{text:?}: {status:?}");
        assert_ne!(status, JobStatus::Unknown);
    }
    if let Some(status) = customer_status(text)
        && let Some(number) = number
    {
        assert!(
            status.code() == -1 || f64::from(status.code()) == number,
            "{text:?}: {status:?}"
        );
    }
    if let Some(mode) = scan_mode(text) {
        let label = mode.label();
        assert!(
            label == "unknown" || number.is_some() || squeezed.starts_with(&label[..7]),
            "{text:?}: {label}"
        );
    }
    if let Some(mode) = management_mode(text) {
        let label = mode.label().replace('_', "");
        assert!(
            label == "unknown" || number.is_some() || squeezed == label,
            "{text:?}: {label}"
        );
    }
    match flag(text) {
        Ok(Some(true)) => assert!(["true", "yes", "1", "enabled"].contains(&squeezed.as_str()), "{text:?}"),
        Ok(Some(false)) => assert!(
            ["false", "no", "0", "disabled"].contains(&squeezed.as_str()),
            "{text:?}"
        ),
        Ok(None) | Err(_) => {}
    }
    check_name(text, domain::service, Some(domain::service_number));
    check_name(text, domain::module, Some(domain::module_number));
    check_name(text, domain::object_type, None);
}

/// Checks that a parsed name has a limited length and, if it is known, parses to itself and has a number.
fn check_name(text: &str, parse: fn(&str) -> Option<Named>, number: Option<fn(&str) -> Option<u16>>) {
    let Some(name) = parse(text) else { return };
    assert!(name.name.chars().count() <= 140, "{text:?}");
    assert!(!name.name.is_empty(), "{text:?}");
    if name.known {
        assert_eq!(parse(&name.name), Some(name.clone()), "{text:?}");
    }
    if let (true, Some(number)) = (name.known, number) {
        assert!(number(text).is_some(), "{text:?}");
        assert_eq!(number(&name.name), number(text), "{text:?}");
    }
    let digits = text.trim();
    if digits.bytes().all(|byte| byte.is_ascii_digit()) && !name.known {
        assert!(name.name.starts_with("unknown_"), "{text:?}: {name:?}");
    }
}

fn check_texts(text: &str) {
    if let Some(id) = CustomerId::parse(text) {
        assert_eq!(id.as_str(), text.trim());
        assert!(!id.as_str().is_empty() && id.as_str().len() <= 256);
        assert_eq!(domain::parse_id(text), Some(id.as_str()));
    }
    let truncated = domain::truncate(text);
    assert!(truncated.chars().count() <= 257);
    let replaced: String = text
        .chars()
        .map(|c| {
            if c != '\n' && domain::is_misleading(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    assert!(*truncated == *replaced || truncated.ends_with('…'));
    assert!(replaced.starts_with(truncated.trim_end_matches('…')));
    let masked = mask_comment(text);
    assert!(masked.chars().count() <= domain::MAX_COMMENT_CHARS, "{masked}");
    assert!(
        !masked.contains('@') && !masked.chars().any(char::is_numeric),
        "{masked}"
    );
    let safe = domain::log_safe(text);
    assert!(safe.chars().count() <= 60 && !safe.contains('@') && !safe.contains(domain::is_misleading));
}
