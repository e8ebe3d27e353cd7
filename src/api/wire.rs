//! Lenient parser for rows. It accepts field names in all known spellings and any case, and values as text, numbers or
//! booleans.
//!
//! A row stores each field as raw JSON and parses the field on access. A field of the wrong type therefore invalidates
//! only itself, an out-of-range number does not invalidate the document, and unused fields are never decoded.
//! Unparseable values are reported to the [`Observer`].

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::rows::Page;
use super::{Endpoint, Observer};
use crate::domain::{self, Capacity, DailyScan, JobStatusWord, Named, Parsed, Size, Timestamp};

/// Names of a field, the current one first. The current name is also the value of the label `field`.
pub type Names = &'static [&'static str];

/// Maximum number of fields in an object. The largest row in the vendor's reference has about thirty. In memory, fields
/// use about ten times their size in JSON.
const MAX_FIELDS: usize = 1_000;

/// Maximum length of a masked value in a log line, in characters.
const MAX_SHAPE_CHARS: usize = 40;

/// An object in a response. Its fields are read by name.
#[derive(Debug)]
pub struct Row<'a> {
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
    endpoint: Endpoint,
    observer: &'a dyn Observer,
}

impl<'a> Row<'a> {
    /// Parses a row. Returns `None` if the JSON is not an object.
    pub fn read(json: &'a RawValue, endpoint: Endpoint, observer: &'a dyn Observer) -> Option<Self> {
        let fields = serde_json::from_str::<Object<'a>>(json.get()).ok()?.0;
        Some(Self {
            fields,
            endpoint,
            observer,
        })
    }

    /// Returns the items of a list field, or `None` if there is no such list. A list that is too long is counted as
    /// invalid.
    pub fn list(&self, names: Names) -> Option<Vec<&'a RawValue>> {
        let page = self
            .candidates(names)
            .find_map(|json| serde_json::from_str::<Page<'a>>(json.get()).ok())?;
        let rows = page.rows();
        if rows.is_err() {
            self.invalid(names, "too many items");
        }
        rows.ok()
    }

    /// Returns whether any of these fields is present and not `null`. An object without them, such as an error, is not
    /// a row of the expected kind.
    pub fn has_any(&self, names: Names) -> bool {
        self.candidates(names).next().is_some()
    }

    /// Returns whether any of these fields is a list or an object, neither of which is a valid scalar.
    pub fn is_structured(&self, names: Names) -> bool {
        self.candidates(names).any(|json| json.get().starts_with(['[', '{']))
    }

    /// Parses another object in the same response.
    pub fn nested(&self, json: &'a RawValue) -> Option<Self> {
        Self::read(json, self.endpoint, self.observer)
    }

    /// Returns the object in a field.
    pub fn object(&self, names: Names) -> Option<Self> {
        self.candidates(names).find_map(|json| self.nested(json))
    }

    /// Parses text. Returns `None` for `"N/A"`, `null`, `""` and a missing field.
    pub fn text(&self, names: Names) -> Option<Cow<'a, str>> {
        self.scalar(names).filter(|text| !domain::is_absent(text))
    }

    /// Parses a name for display, truncated to the maximum length. Numbers and booleans are invalid.
    pub fn name(&self, names: Names) -> Option<String> {
        let text = self.text(names)?;
        let is_text = |json: &RawValue| json.get().starts_with('"');
        if !self.candidates(names).any(is_text) {
            self.unparseable(names, &text);
            return None;
        }
        Some(domain::truncate(&text).into_owned())
    }

    /// Parses an id that can be used in requests.
    pub fn id(&self, names: Names) -> Option<String> {
        domain::parse_id(&self.text(names)?).map(ToOwned::to_owned)
    }

    /// Parses a word. Unlike [`Row::text`], returns `"N/A"` and `""` unchanged.
    pub fn word(&self, names: Names) -> Option<Cow<'a, str>> {
        self.scalar(names)
    }

    /// Parses a count.
    pub fn count(&self, names: Names) -> Option<u64> {
        self.parse(names, domain::count)
    }

    /// Parses a count in a field that contains a list in other responses. A list is ignored, and does not count as
    /// invalid.
    pub fn count_unless_list(&self, names: Names) -> Option<u64> {
        let json = self.candidates(names).find(|json| !json.get().starts_with('['))?;
        let text = self.plain(json, names)?;
        self.valid_or_count(names, &text, domain::count(&text))
    }

    /// Parses a signed number.
    pub fn signed(&self, names: Names) -> Option<i64> {
        self.parse(names, domain::signed)
    }

    /// Parses a size in bytes.
    pub fn size(&self, names: Names) -> Option<Size> {
        self.parse(names, domain::size)
    }

    /// Parses the used and purchased capacity, in bytes.
    pub fn capacity(&self, names: Names) -> Option<Capacity> {
        self.parse(names, domain::capacity)
    }

    /// Parses a time.
    pub fn timestamp(&self, names: Names) -> Option<Timestamp> {
        self.parse(names, domain::timestamp)
    }

    /// Parses a duration.
    pub fn duration(&self, names: Names) -> Option<Duration> {
        self.parse(names, domain::duration)
    }

    /// Parses the time of the daily scan, or a value that means that there is no daily scan.
    pub fn daily_scan(&self, names: Names) -> Option<DailyScan> {
        self.parse(names, domain::daily_time)
    }

    /// Parses a boolean.
    pub fn flag(&self, names: Names) -> Option<bool> {
        self.parse(names, domain::flag)
    }

    /// Parses the status of a job run or scan. Unknown values are counted.
    pub fn job_status(&self, names: Names) -> Option<JobStatusWord> {
        let text = self.text(names)?;
        let status = domain::job_status(&text)?;
        if status == JobStatusWord::Unknown {
            self.unknown(names, &text);
        }
        Some(status)
    }

    /// Parses a number or word, and returns its name. Values that are missing from the vendor's reference are counted
    /// as unknown.
    pub fn named(&self, names: Names, read: fn(&str) -> Option<Named>) -> Option<Cow<'static, str>> {
        let text = self.text(names)?;
        let named = read(&domain::truncate(&text))?;
        if !named.known {
            self.unknown(names, &text);
        }
        Some(named.name)
    }

    /// Parses a word with `read`, and counts the word as an unknown value if `is_unknown` returns true for the result.
    pub fn known_word<T: Copy>(
        &self,
        names: Names,
        word: Option<Cow<'a, str>>,
        read: fn(&str) -> Option<T>,
        is_unknown: fn(T) -> bool,
    ) -> Option<T> {
        let word = word?;
        let value = read(&word)?;
        if is_unknown(value) {
            self.unknown(names, &word);
        }
        Some(value)
    }

    /// Counts an unknown value.
    pub fn unknown(&self, names: Names, value: &str) {
        self.observer
            .unknown_value(self.endpoint, label(names), &domain::truncate(value));
    }

    /// Counts a value that is invalid for a known reason.
    pub fn invalid(&self, names: Names, problem: &'static str) {
        self.observer.decode_error(self.endpoint, label(names), problem);
    }

    /// Counts an unparseable value. Only its shape is reported, because the value can contain anything.
    fn unparseable(&self, names: Names, text: &str) {
        self.observer.decode_error(self.endpoint, label(names), &masked(text));
    }

    /// Parses the value of a field. An invalid value is counted.
    fn parse<T>(&self, names: Names, read: impl FnOnce(&str) -> Parsed<T>) -> Option<T> {
        let text = self.scalar(names)?;
        self.valid_or_count(names, &text, read(&text))
    }

    fn valid_or_count<T>(&self, names: Names, text: &str, parsed: Parsed<T>) -> Option<T> {
        parsed.unwrap_or_else(|_| {
            self.unparseable(names, text);
            None
        })
    }

    /// Returns the text of the first field of `names` that has a value, or else of the first field that is present.
    fn scalar(&self, names: Names) -> Option<Cow<'a, str>> {
        let mut first = None;
        for json in self.candidates(names) {
            let text = self.plain(json, names);
            match text {
                Some(text) if !domain::is_absent(&text) => return Some(text),
                absent => first = first.or(absent),
            }
        }
        first
    }

    /// Returns the text of a string, number or boolean. A list, an object or a broken string is counted as invalid.
    fn plain(&self, json: &'a RawValue, names: Names) -> Option<Cow<'a, str>> {
        let text = json.get();
        match text.as_bytes().first() {
            Some(b'"') => match serde_json::from_str::<Text<'a>>(text) {
                Ok(Text(text)) => Some(text),
                Err(_) => {
                    self.invalid(names, "an invalid string");
                    None
                }
            },
            Some(b'[' | b'{') | None => {
                self.invalid(names, "a list or object");
                None
            }
            Some(_) => Some(Cow::Borrowed(text)),
        }
    }

    /// Returns the values of the fields `names` in the order of the names, and skips `null`.
    fn candidates(&self, names: Names) -> impl Iterator<Item = &'a RawValue> {
        names.iter().flat_map(|name| {
            self.fields
                .iter()
                .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
                .map(|(_, json)| *json)
                .filter(|json| json.get() != "null")
        })
    }
}

/// Returns the value of a field, regardless of the case of its name. Returns `None` if there is no such field or the
/// row is not an object.
pub(super) fn field<'a>(row: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    let fields = serde_json::from_str::<Object<'a>>(row.get()).ok()?.0;
    let field = fields.into_iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
    field.map(|(_, json)| json)
}

fn label(names: Names) -> &'static str {
    names.first().copied().unwrap_or_default()
}

/// Masks letters and digits and limits the length, so that logs show the format of a value but not its content.
fn masked(value: &str) -> String {
    value
        .chars()
        .take(MAX_SHAPE_CHARS)
        .map(|character| match character {
            character if character.is_numeric() => '9',
            character if character.is_alphabetic() => 'a',
            character if character.is_control() => '?',
            character => character,
        })
        .collect()
}

#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// The fields of an object in order, as raw JSON. Unlike a derived struct, this type accepts duplicate names. Unlike a
/// map of parsed values, it does not decode unused fields.
pub(super) struct Object<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some((Text(name), json)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    if fields.len() >= MAX_FIELDS {
                        return Err(serde::de::Error::custom("too many fields"));
                    }
                    fields.push((name, json));
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}
