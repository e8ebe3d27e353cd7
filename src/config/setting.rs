//! One value as it stood in the file or the environment, and the readers that turn it into a type.
//!
//! A reader either gives the type or an error that names the origin, the key, what stood there and what would be right.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ::config::ValueKind;
use url::{Host, Url};

use super::error::{Error, Origin};
use super::layers;
use crate::domain::{self, Timestamp};
use crate::secret::Secret;

/// How much of a value an error shows, in characters: enough to recognise it, short enough for one line.
const SHOWN_CHARACTERS: usize = 80;

/// What stands in for a value that must not be shown.
const HIDDEN: &str = "(hidden)";

/// The shortest duration of any key. Nothing here is told apart in less than a second, and a zero would poll without pause.
pub(super) const SHORTEST: Duration = Duration::from_secs(1);

/// The longest duration of any key, 100 years of 365.25 days. Ages are subtracted from clock readings, and far beyond this they
/// would overflow.
pub(super) const LONGEST: Duration = Duration::from_secs(100 * 31_557_600);

/// A value, not yet read.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    path: String,
    origin: Origin,
    value: ValueKind,
    secret: bool,
}

impl Setting {
    pub(super) fn new(path: &str, origin: Origin, value: ValueKind, secret: bool) -> Self {
        Self {
            path: path.to_owned(),
            origin,
            value,
            secret,
        }
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Text without the space around it; never empty.
    pub(super) fn text(&self) -> Result<&str, Error> {
        let ValueKind::String(text) = &self.value else {
            return Err(self.invalid("is not text; put it in quotes"));
        };
        match text.trim() {
            "" => Err(self.invalid("is empty; expected some text, or leave the key out")),
            text => Ok(text),
        }
    }

    /// A name or a number, as text: what people write for services and modules.
    pub(super) fn word(&self) -> Result<String, Error> {
        match &self.value {
            ValueKind::I64(number) => Ok(number.to_string()),
            _ => self.text().map(str::to_owned),
        }
    }

    /// A secret as it stands, but for the line end that editors and `kubectl` leave behind.
    pub(super) fn secret(&self) -> Result<Secret, Error> {
        self.text()?;
        let ValueKind::String(text) = &self.value else {
            return Err(self.invalid("is not text; put it in quotes"));
        };
        Ok(Secret::from(text.trim_end_matches(['\r', '\n'])))
    }

    pub(super) fn path(&self) -> Result<PathBuf, Error> {
        self.text().map(PathBuf::from)
    }

    pub(super) fn boolean(&self) -> Result<bool, Error> {
        match &self.value {
            ValueKind::Boolean(value) => Some(*value),
            ValueKind::String(text) => text.trim().to_lowercase().parse().ok(),
            _ => None,
        }
        .ok_or_else(|| self.invalid("is not a truth value; expected true or false"))
    }

    /// A number in `(0, most]`.
    pub(super) fn positive_number(&self, most: f64) -> Result<f64, Error> {
        let number = match &self.value {
            ValueKind::Float(number) => Some(*number),
            other => integer(other)
                .and_then(|number| u32::try_from(number).ok())
                .map(f64::from)
                .or_else(|| numeral(other)),
        };
        let Some(number) = number else {
            return Err(self.invalid(format!("is not a number; expected one above 0, at most {most}")));
        };
        if number > 0.0 && number <= most {
            Ok(number)
        } else {
            Err(self.invalid(format!("is out of range; expected a number above 0, at most {most}")))
        }
    }

    pub(super) fn whole_number(&self, range: RangeInclusive<usize>) -> Result<usize, Error> {
        let expected = match (range.start(), range.end()) {
            (least, &usize::MAX) => format!("a whole number of at least {least}"),
            (least, most) => format!("a whole number from {least} to {most}"),
        };
        let Some(number) = integer(&self.value) else {
            return Err(self.invalid(format!("is not a whole number; expected {expected}")));
        };
        usize::try_from(number)
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.invalid(format!("is out of range; expected {expected}")))
    }

    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Result<Duration, Error> {
        let duration = match &self.value {
            ValueKind::String(text) => humantime::parse_duration(text.trim()).ok(),
            _ => None,
        }
        .ok_or_else(|| self.invalid("is not a duration; expected something like 30s or 5m"))?;
        if range.contains(&duration) {
            return Ok(duration);
        }
        Err(self.invalid(format!(
            "is out of range; expected a duration from {} to {}",
            humantime::format_duration(*range.start()),
            humantime::format_duration(*range.end())
        )))
    }

    /// A day at its start in UTC, or a timestamp, in any form that Elements shows, in seconds since the Unix epoch.
    pub(super) fn date(&self) -> Result<i64, Error> {
        let expected = "is not a date; expected something like 2027-01-31 or 2027-01-31T12:00:00Z";
        let text = self.text().map_err(|_| self.invalid(expected))?;
        let timestamp = text.parse::<jiff::Timestamp>().or_else(|_| {
            jiff::civil::Date::strptime("%Y-%m-%d", text)?
                .to_zoned(jiff::tz::TimeZone::UTC)
                .map(|start| start.timestamp())
        });
        timestamp
            .map(jiff::Timestamp::as_second)
            .ok()
            .or_else(|| {
                domain::timestamp(text)
                    .ok()
                    .flatten()
                    .map(Timestamp::as_whole_unix_seconds)
            })
            .ok_or_else(|| self.invalid(expected))
    }

    /// One of a few words, in any case.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, Error> {
        let written = match &self.value {
            ValueKind::String(text) => text.trim(),
            _ => "",
        };
        choices
            .iter()
            .find(|(word, _)| word.eq_ignore_ascii_case(written))
            .map(|(_, choice)| *choice)
            .ok_or_else(|| {
                let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
                self.invalid(format!("is not one of the choices; expected {}", words.join(", ")))
            })
    }

    /// An address that secrets may be sent to: `https`, or `http` that does not leave this machine.
    pub(super) fn endpoint(&self) -> Result<Url, Error> {
        let url = self.url("expected something like https://graph.example.com")?;
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            "http" => {
                return Err(
                    self.invalid_url("would send secrets in the clear; expected https, or http to a loopback address")
                );
            }
            _ => {
                return Err(self.invalid_url("is not an https URL; expected something like https://graph.example.com"));
            }
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(self.invalid_url("holds credentials; they belong in the section auth"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(self.invalid_url("holds a query or a fragment; expected none"));
        }
        Ok(url)
    }

    /// The address of a proxy, which may hold credentials.
    pub(super) fn proxy(&self) -> Result<Url, Error> {
        let expected = "is not the URL of a proxy; expected something like http://proxy.example.com:3128";
        let url = self.url("expected something like http://proxy.example.com:3128")?;
        if matches!(url.scheme(), "http" | "https") && url.host().is_some() {
            Ok(url)
        } else {
            Err(self.invalid_url(expected))
        }
    }

    fn url(&self, expected: &str) -> Result<Url, Error> {
        Url::parse(self.text()?).map_err(|problem| self.invalid_url(format!("is not a URL ({problem}); {expected}")))
    }

    /// The items of a list. In the environment it is separated by commas, or written in brackets as in YAML or JSON.
    pub(super) fn list(&self) -> Result<Vec<Self>, Error> {
        let values = match &self.value {
            ValueKind::Array(items) => items.iter().map(|item| item.kind.clone()).collect(),
            ValueKind::String(text) if matches!(self.origin, Origin::Variable(_)) => self.list_in(text.trim())?,
            // One item needs no brackets. Whether a comma separates two or belongs to a name, a file has to say.
            ValueKind::String(text) if !text.contains(',') => vec![self.value.clone()],
            ValueKind::I64(_) => vec![self.value.clone()],
            _ => return Err(self.invalid("is not a list; expected [one, other]")),
        };
        Ok(values
            .into_iter()
            .enumerate()
            .map(|(index, value)| self.below(format!("{}[{index}]", self.path), value))
            .collect())
    }

    fn list_in(&self, text: &str) -> Result<Vec<ValueKind>, Error> {
        if text.starts_with('[') {
            return layers::inline_list(text).map_err(|problem| {
                self.invalid(format!("is not a list ({problem}); expected [one, other] or one,other"))
            });
        }
        Ok(text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(ValueKind::from)
            .collect())
    }

    /// The values of a mapping by key, without those that are null.
    pub(super) fn entries(&self, expected: &str) -> Result<BTreeMap<String, Self>, Error> {
        let ValueKind::Table(table) = &self.value else {
            return Err(self.invalid(format!("is not a mapping; expected {expected}")));
        };
        Ok(table
            .iter()
            .filter(|(_, value)| value.kind != ValueKind::Nil)
            .map(|(key, value)| {
                let path = format!("{}.{key}", self.path);
                (key.clone(), self.below(path, value.kind.clone()))
            })
            .collect())
    }

    fn below(&self, path: String, value: ValueKind) -> Self {
        Self {
            path,
            origin: self.origin.clone(),
            value,
            secret: self.secret,
        }
    }

    /// The error of a key inside this value that does not exist.
    pub(super) fn unknown(&self, key: &str, suggestion: Option<&str>) -> Error {
        Error::UnknownKey {
            origin: self.origin.clone(),
            key: format!("{}.{key}", self.path),
            suggestion: suggestion.map(|path| format!("\"{path}\"")),
        }
    }

    /// The error of this value. The problem follows what stood there, as in `is not a duration; expected something like 30s`.
    pub(super) fn invalid(&self, problem: impl Into<String>) -> Error {
        self.refuse(self.shown(), problem.into())
    }

    /// The same for a URL, whose credentials, query or fragment may be secret.
    fn invalid_url(&self, problem: impl Into<String>) -> Error {
        let shown = self.shown();
        let found = if shown.contains(['@', '?', '#']) {
            HIDDEN.to_owned()
        } else {
            shown
        };
        self.refuse(found, problem.into())
    }

    fn refuse(&self, found: String, problem: String) -> Error {
        Error::Invalid {
            origin: self.origin.clone(),
            key: self.path.clone(),
            found,
            problem,
        }
    }

    fn shown(&self) -> String {
        match &self.value {
            _ if self.secret => HIDDEN.to_owned(),
            ValueKind::String(text) => shorten(text),
            ValueKind::Nil => "null".to_owned(),
            value @ (ValueKind::Table(_) | ValueKind::Array(_)) => kind(value).to_owned(),
            scalar => scalar.to_string(),
        }
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

/// The kind of a value, for errors about the shape of a file.
pub(super) fn kind(value: &ValueKind) -> &'static str {
    match value {
        ValueKind::Nil => "null",
        ValueKind::Boolean(_) => "a truth value",
        ValueKind::String(_) => "text",
        ValueKind::Table(_) => "a mapping",
        ValueKind::Array(_) => "a list",
        _ => "a number",
    }
}

fn integer(value: &ValueKind) -> Option<i128> {
    match value {
        ValueKind::I64(number) => Some((*number).into()),
        ValueKind::U64(number) => Some((*number).into()),
        ValueKind::I128(number) => Some(*number),
        ValueKind::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn numeral(value: &ValueKind) -> Option<f64> {
    match value {
        ValueKind::String(text) => text.trim().parse().ok(),
        other => integer(other).and_then(|number| number.to_string().parse().ok()),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn in_file(value: impl Into<ValueKind>) -> Setting {
        Setting::new("a.key", Origin::File("elements.yml".into()), value.into(), false)
    }

    fn in_environment(value: &str) -> Setting {
        let origin = Origin::Variable("ELEMENTS_A__KEY".to_owned());
        Setting::new("a.key", origin, value.into(), false)
    }

    fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn numbers() {
        assert_eq!(in_file(5_i64).positive_number(1000.0).unwrap(), 5.0);
        assert_eq!(in_file(0.25).positive_number(1000.0).unwrap(), 0.25);
        assert_eq!(in_file("0.25").positive_number(1000.0).unwrap(), 0.25);
        for value in [
            ValueKind::from(0_i64),
            (-1_i64).into(),
            1000.5.into(),
            i64::MAX.into(),
            f64::NAN.into(),
            "inf".into(),
        ] {
            let text = message(in_file(value).positive_number(1000.0));
            assert!(
                text.ends_with("is out of range; expected a number above 0, at most 1000"),
                "{text}"
            );
        }
        assert_eq!(
            message(in_file("quick").positive_number(1000.0)),
            "elements.yml: a.key: \"quick\" is not a number; expected one above 0, at most 1000"
        );
        assert_eq!(in_file(8_i64).whole_number(1..=256).unwrap(), 8);
        assert_eq!(in_environment(" 8 ").whole_number(1..=256).unwrap(), 8);
        assert_eq!(
            message(in_file(257_i64).whole_number(1..=256)),
            "elements.yml: a.key: 257 is out of range; expected a whole number from 1 to 256"
        );
        assert_eq!(
            message(in_file(1.5).whole_number(1..=usize::MAX)),
            "elements.yml: a.key: 1.5 is not a whole number; expected a whole number of at least 1"
        );
    }

    #[test]
    fn durations() {
        let range = SHORTEST..=Duration::from_secs(600);
        let read = |setting: Setting| setting.duration(range.clone());
        assert_eq!(read(in_file("1m 30s")).unwrap(), Duration::from_secs(90));
        assert_eq!(
            message(read(in_file("soon"))),
            "elements.yml: a.key: \"soon\" is not a duration; expected something like 30s or 5m"
        );
        assert_eq!(
            message(read(in_file(300_i64))),
            "elements.yml: a.key: 300 is not a duration; expected something like 30s or 5m"
        );
        for text in ["0s", "999ms", "601s"] {
            assert_eq!(
                message(read(in_environment(text))),
                format!("ELEMENTS_A__KEY: a.key: \"{text}\" is out of range; expected a duration from 1s to 10m")
            );
        }
    }

    #[test]
    fn dates() {
        assert_eq!(in_file("1970-01-02").date().unwrap(), 86_400);
        assert_eq!(in_file("1970-01-01T00:00:09Z").date().unwrap(), 9);
        assert_eq!(in_file("12/29/2026").date().unwrap(), 1_798_502_400);
        assert_eq!(in_file("1970-01-01T02:00:00+02:00").date().unwrap(), 0);
        for text in ["2027-02-30", "31/01/2027", "N/A", "soon", ""] {
            assert_eq!(
                message(in_file(text).date()),
                format!(
                    "elements.yml: a.key: \"{text}\" is not a date; expected something like 2027-01-31 or 2027-01-31T12:00:00Z"
                )
            );
        }
    }

    #[test]
    fn texts() {
        assert_eq!(in_file(" demo ").text().unwrap(), "demo");
        assert_eq!(
            message(in_file(7_i64).text().map(str::to_owned)),
            "elements.yml: a.key: 7 is not text; put it in quotes"
        );
        assert_eq!(
            message(in_file(" ").text().map(str::to_owned)),
            "elements.yml: a.key: \" \" is empty; expected some text, or leave the key out"
        );
        assert_eq!(in_file(303_i64).word().unwrap(), "303");
        assert!(in_file(true).boolean().unwrap());
        assert!(!in_environment("False").boolean().unwrap());
        assert_eq!(
            message(in_file("yes").boolean()),
            "elements.yml: a.key: \"yes\" is not a truth value; expected true or false"
        );
        assert_eq!(in_file("B").choice(&[("a", 1), ("b", 2)]).unwrap(), 2);
        assert_eq!(
            message(in_file("c").choice(&[("a", 1), ("b", 2)])),
            "elements.yml: a.key: \"c\" is not one of the choices; expected a, b"
        );
        let long = "x".repeat(SHOWN_CHARACTERS + 1);
        let shown = message(in_file(long.as_str()).boolean());
        assert!(shown.contains(&format!("\"{}\"…", "x".repeat(SHOWN_CHARACTERS))));
    }

    #[test]
    fn secrets_keep_their_space_and_are_never_shown() {
        let hidden = |value: ValueKind| {
            let origin = Origin::File("elements.yml".into());
            Setting::new("auth.client_secret", origin, value, true)
        };
        let secret = hidden(" pass word \r\n".into()).secret().unwrap();
        assert_eq!(secret.expose(), " pass word ");
        assert_eq!(
            message(hidden(1234_i64.into()).secret()),
            "elements.yml: auth.client_secret: (hidden) is not text; put it in quotes"
        );
        assert_eq!(
            message(hidden("\n".into()).secret()),
            "elements.yml: auth.client_secret: (hidden) is empty; expected some text, or leave the key out"
        );
    }

    #[test]
    fn endpoints_are_https_or_stay_on_this_machine() {
        for text in [
            "https://graph.example.com",
            "https://graph.example.com:8443/elements",
            "http://127.0.0.1:10028",
            "http://127.9.9.9",
            "http://[::1]:10028",
            "http://localhost:10028",
        ] {
            assert!(in_file(text).endpoint().is_ok(), "{text}");
        }
        for (text, problem) in [
            (
                "graph",
                "\"graph\" is not a URL (relative URL without a base); expected something like https://graph.example.com",
            ),
            (
                "ftp://graph.example.com",
                "\"ftp://graph.example.com\" is not an https URL; expected something like https://graph.example.com",
            ),
            (
                "http://graph.example.com",
                "\"http://graph.example.com\" would send secrets in the clear; expected https, or http to a loopback address",
            ),
            (
                "http://localhost.example.com",
                "\"http://localhost.example.com\" would send secrets in the clear; expected https, or http to a loopback address",
            ),
            (
                "https://me:hunter2@graph.example.com",
                "(hidden) holds credentials; they belong in the section auth",
            ),
            (
                "https://graph.example.com?key=hunter2",
                "(hidden) holds a query or a fragment; expected none",
            ),
            (
                "https://graph.example.com#top",
                "(hidden) holds a query or a fragment; expected none",
            ),
        ] {
            assert_eq!(
                message(in_file(text).endpoint()),
                format!("elements.yml: a.key: {problem}")
            );
        }
    }

    #[test]
    fn proxies_may_hold_credentials_that_are_never_shown() {
        assert!(in_file("http://me:hunter2@proxy.example.com:3128").proxy().is_ok());
        assert!(in_file("https://proxy.example.com").proxy().is_ok());
        assert_eq!(
            message(in_file("proxy.example.com:3128").proxy()),
            "elements.yml: a.key: \"proxy.example.com:3128\" is not the URL of a proxy; expected something like http://proxy.example.com:3128"
        );
        for text in ["socks5://me:hunter2@proxy", "http://me:hunter2@proxy:port"] {
            let shown = message(in_file(text).proxy());
            assert!(shown.contains("(hidden)") && !shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn lists() {
        let words = |setting: Setting| -> Vec<String> {
            let items = setting.list().unwrap();
            items.iter().map(|item| item.word().unwrap()).collect()
        };
        assert_eq!(words(in_environment("one, other,,303")), ["one", "other", "303"]);
        assert_eq!(words(in_environment("[]")), [""; 0]);
        assert_eq!(
            words(in_environment("[\"Contoso, Ltd\",\n303, it's # comment\n]")),
            ["Contoso, Ltd", "303", "it's"]
        );
        assert_eq!(words(in_file(vec!["one", "other"])), ["one", "other"]);
        assert_eq!(words(in_file("Contoso Ltd")), ["Contoso Ltd"]);
        assert_eq!(words(in_file(303_i64)), ["303"]);
        assert_eq!(
            message(in_file("one,other").list()),
            "elements.yml: a.key: \"one,other\" is not a list; expected [one, other]"
        );
        let shown = message(in_environment("[one, other").list());
        assert!(
            shown.starts_with("ELEMENTS_A__KEY: a.key: \"[one, other\" is not a list ("),
            "{shown}"
        );
        assert!(shown.ends_with("); expected [one, other] or one,other"), "{shown}");
        assert!(in_environment("[one], other: [two]").list().is_err());
        assert_eq!(
            message(
                in_file(vec![1_i64])
                    .list()
                    .unwrap()
                    .pop()
                    .unwrap()
                    .text()
                    .map(str::to_owned)
            ),
            "elements.yml: a.key[0]: 1 is not text; put it in quotes"
        );
    }
}
