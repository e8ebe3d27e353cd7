//! A value with its key and location, and the functions that parse it into a type.
//!
//! The functions return the parsed value, or an error with the location, the key, the invalid value and the expected
//! value. Errors do not contain secret values. The configuration and the web configuration share these parsers.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ::config::{Value, ValueKind};

use super::Error;
use crate::domain::{self, InvalidPattern, NumberedPattern, Pattern, Timestamp};
use crate::secret::Secret;

/// Maximum length of a value in an error, in characters: long enough to recognize the value, and short enough for one
/// line.
const MAX_SHOWN_CHARS: usize = 80;

/// Minimum duration for any key. An interval of zero would cause polls without a pause.
pub(crate) const MIN_DURATION: Duration = Duration::from_secs(1);

/// Maximum duration for any key: 100 years of 365.25 days. Subtracting a much longer duration from a time
/// would overflow.
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(100 * 31_557_600);

/// A value that has not been parsed yet.
#[derive(Clone)]
pub(crate) struct Field<'a> {
    key: String,
    value: &'a Value,
    secret: bool,
}

impl<'a> Field<'a> {
    /// Returns the outermost value of a document or of merged layers.
    pub(crate) fn root(value: &'a Value) -> Self {
        Self::new("", value)
    }

    /// Creates a field from a value and the key that errors contain.
    pub(crate) fn new(key: &str, value: &'a Value) -> Self {
        Self {
            key: key.to_owned(),
            value,
            secret: false,
        }
    }

    /// Marks the value as secret, so that errors do not contain it.
    #[must_use]
    pub(crate) fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Returns the dotted path of the value, with an index for a list item.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Returns the file and line, or the environment variable.
    pub(crate) fn location(&self) -> &'a str {
        self.value.origin().unwrap_or_default()
    }

    pub(super) fn kind(&self) -> &'a ValueKind {
        &self.value.kind
    }

    /// Returns the value at a dotted path below this value; `None` if it is missing or null.
    pub(crate) fn at(&self, path: &str) -> Option<Self> {
        let mut value = self.value;
        for name in path.split('.') {
            let ValueKind::Table(entries) = &value.kind else {
                return None;
            };
            value = entries.get(name)?;
        }
        (value.kind != ValueKind::Nil).then(|| self.below(path, value))
    }

    /// Returns the value of a key in this mapping, even if it is null; `None` if the key is missing.
    pub(crate) fn entry(&self, name: &str) -> Option<Self> {
        match self.kind() {
            ValueKind::Table(entries) => entries.get(name).map(|value| self.below(name, value)),
            _ => None,
        }
    }

    /// Returns whether the value is null or an empty mapping.
    pub(crate) fn is_empty(&self) -> bool {
        match self.kind() {
            ValueKind::Table(entries) => entries.is_empty(),
            kind => *kind == ValueKind::Nil,
        }
    }

    /// Returns an error for a key that is missing from this mapping.
    pub(crate) fn missing_key_error(&self, name: &str, problem: &str) -> Error {
        self.below(name, self.value).error(problem)
    }

    /// Parses the value at a dotted path below this value, if there is one.
    pub(crate) fn read<T>(
        &self,
        path: &str,
        read: impl FnOnce(&Field<'a>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        self.at(path).as_ref().map(read).transpose()
    }

    /// Returns the entries of a mapping, sorted by name.
    pub(crate) fn entries(&self) -> Result<Vec<(&'a str, Self)>, Error> {
        let ValueKind::Table(entries) = self.kind() else {
            return Err(self.invalid("is not a mapping; expected keys under it"));
        };
        let entry = |(name, value): (&'a String, &'a Value)| (name.as_str(), self.below(name, value));
        let mut entries: Vec<_> = entries.iter().map(entry).collect();
        entries.sort_unstable_by_key(|(name, _)| *name);
        Ok(entries)
    }

    /// Returns the items of a list. A single item without a comma needs no brackets.
    pub(crate) fn items(&self) -> Result<Vec<Self>, Error> {
        let items = match self.kind() {
            ValueKind::Array(items) => items.as_slice(),
            ValueKind::String(text) if !text.contains(',') => std::slice::from_ref(self.value),
            _ => return Err(self.invalid("is not a list; expected a list such as [a, b]")),
        };
        let item = |(index, value): (usize, &'a Value)| Self {
            key: format!("{}[{index}]", self.key),
            value,
            secret: self.secret,
        };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// Returns a copy of the value for a configuration layer, or an error if the value is a mapping.
    pub(crate) fn value_of(&self, expected: &str) -> Result<Value, Error> {
        match self.kind() {
            ValueKind::Table(_) => Err(self.invalid(format!("is not allowed here; expected {expected}"))),
            _ => Ok(self.value.clone()),
        }
    }

    fn below(&self, path: &str, value: &'a Value) -> Self {
        let key = match self.key.as_str() {
            "" => path.to_owned(),
            outer => format!("{outer}.{path}"),
        };
        let secret = self.secret;
        Self { key, value, secret }
    }

    /// Returns the text without trimming it, even if it is empty.
    pub(crate) fn raw_text(&self) -> Result<&'a str, Error> {
        match self.kind() {
            ValueKind::String(text) => Ok(text),
            _ => Err(self.error(format!("must be text, not {}; expected one value", self.kind_name()))),
        }
    }

    /// Returns the trimmed text, or an error if it is empty.
    pub(crate) fn text(&self) -> Result<&'a str, Error> {
        match self.raw_text()?.trim() {
            "" => Err(self.invalid("is empty; set a value, or remove the key")),
            text => Ok(text),
        }
    }

    /// Returns a secret without trailing line breaks. For example, a Kubernetes secret that was created from a file
    /// often ends with a line break.
    pub(crate) fn secret_text(&self) -> Result<Secret, Error> {
        self.text()?;
        Ok(Secret::from(self.raw_text()?.trim_end_matches(['\r', '\n'])))
    }

    pub(crate) fn path(&self) -> Result<PathBuf, Error> {
        self.text().map(PathBuf::from)
    }

    pub(crate) fn boolean(&self) -> Result<bool, Error> {
        let text = self.plain_text().to_lowercase();
        text.parse()
            .map_err(|_| self.invalid("is not a boolean; expected true or false"))
    }

    /// Parses a number in `(0, max]`.
    pub(crate) fn positive_number(&self, max: f64) -> Result<f64, Error> {
        match self.plain_text().parse::<f64>() {
            Ok(number) if number > 0.0 && number <= max => Ok(number),
            Ok(_) => Err(self.invalid(format!("is out of range; expected a number above 0 and at most {max}"))),
            Err(_) => Err(self.invalid(format!("is not a number; expected a number above 0 and at most {max}"))),
        }
    }

    pub(crate) fn whole_number(&self, range: RangeInclusive<usize>) -> Result<usize, Error> {
        let expected = match (range.start(), range.end()) {
            (min, &usize::MAX) => format!("a whole number of at least {min}"),
            (min, max) => format!("a whole number from {min} to {max}"),
        };
        let Ok(number) = self.plain_text().parse::<i128>() else {
            return Err(self.invalid(format!("is not a whole number; expected {expected}")));
        };
        usize::try_from(number)
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.invalid(format!("is out of range; expected {expected}")))
    }

    pub(crate) fn duration(&self, range: RangeInclusive<Duration>) -> Result<Duration, Error> {
        let duration = humantime::parse_duration(self.plain_text())
            .map_err(|_| self.invalid("is not a duration; expected something like 30s or 5m"))?;
        if range.contains(&duration) {
            return Ok(duration);
        }
        Err(self.invalid(format!(
            "is out of range; expected a duration from {} to {}",
            humantime::format_duration(*range.start()),
            humantime::format_duration(*range.end())
        )))
    }

    /// Parses a date or a time, including the formats that Elements shows. Returns seconds since the Unix epoch. A date
    /// means the start of the day in UTC.
    pub(crate) fn date(&self) -> Result<i64, Error> {
        let text = self.plain_text();
        let timestamp = text.parse::<jiff::Timestamp>().or_else(|_| {
            jiff::civil::Date::strptime("%Y-%m-%d", text)?
                .to_zoned(jiff::tz::TimeZone::UTC)
                .map(|start| start.timestamp())
        });
        let elements_format = || domain::timestamp(text).ok().flatten();
        timestamp
            .map(jiff::Timestamp::as_second)
            .ok()
            .or_else(|| elements_format().map(Timestamp::as_whole_unix_seconds))
            .ok_or_else(|| self.invalid("is not a date; expected something like 2027-01-31 or 2027-01-31T12:00:00Z"))
    }

    /// Parses a date or a time. Returns seconds since the Unix epoch. A date means the end of the day in UTC.
    pub(crate) fn end_date(&self) -> Result<i64, Error> {
        let text = self.plain_text();
        let end_of_day = || {
            let day = jiff::civil::Date::strptime("%Y-%m-%d", text)?;
            Ok(day.tomorrow()?.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp())
        };
        let end = text.parse().or_else(|_: jiff::Error| end_of_day());
        end.map(jiff::Timestamp::as_second).map_err(|_: jiff::Error| {
            self.invalid(
                "is not a date; expected the last day, such as 2027-01-31, or a time, such as 2027-01-31T12:00:00Z",
            )
        })
    }

    /// Parses one of several words, ignoring case, and returns its value.
    pub(crate) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, Error> {
        let text = self.plain_text();
        let found = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            self.invalid(format!("is not allowed; expected one of {}", words.join(", ")))
        })
    }

    /// Parses a name or a glob.
    pub(crate) fn pattern(&self) -> Result<Pattern, Error> {
        self.glob(Pattern::parse)
    }

    /// Parses a list of names or globs.
    pub(crate) fn patterns(&self) -> Result<Vec<Pattern>, Error> {
        self.items()?.iter().map(Self::pattern).collect()
    }

    /// Parses the name or number of a service, or a glob.
    pub(crate) fn service_pattern(&self) -> Result<NumberedPattern, Error> {
        self.glob(NumberedPattern::service)
    }

    /// Parses the name or number of a module, or a glob.
    pub(crate) fn module_pattern(&self) -> Result<NumberedPattern, Error> {
        self.glob(NumberedPattern::module)
    }

    fn glob<T>(&self, parse: fn(&str) -> Result<T, InvalidPattern>) -> Result<T, Error> {
        parse(self.text()?).map_err(|problem| {
            self.invalid(format!(
                "is not a glob ({problem}); expected a name or a glob, in which * matches any text"
            ))
        })
    }

    /// Returns the trimmed text; empty if the value is a list or a mapping.
    fn plain_text(&self) -> &'a str {
        self.raw_text().unwrap_or_default().trim()
    }

    /// Returns an error whose problem begins with the invalid value, or with `(hidden)` if the value is secret. An
    /// example is `"x" is not a duration; expected something like 30s`.
    pub(crate) fn invalid(&self, problem: impl AsRef<str>) -> Error {
        self.error(format!("{} {}", self.shown_value(), problem.as_ref()))
    }

    /// Returns the error for two mutually exclusive keys.
    pub(crate) fn conflict(&self, other: &str) -> Error {
        self.error(format!("conflicts with {other}; set only one of them"))
    }

    /// Returns an error that does not contain the value.
    pub(crate) fn error(&self, problem: impl Into<String>) -> Error {
        let (location, problem) = (self.location().to_owned(), problem.into());
        match self.key.as_str() {
            "" => Error::Document { location, problem },
            key => Error::Value {
                location,
                key: key.to_owned(),
                problem,
            },
        }
    }

    fn shown_value(&self) -> String {
        match self.kind() {
            ValueKind::String(_) if self.secret => "(hidden)".to_owned(),
            ValueKind::String(text) => shorten(text),
            _ => self.kind_name().to_owned(),
        }
    }

    pub(super) fn kind_name(&self) -> &'static str {
        match self.kind() {
            ValueKind::Nil => "null",
            ValueKind::Table(_) => "a mapping",
            ValueKind::Array(_) => "a list",
            _ => "text",
        }
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests;
