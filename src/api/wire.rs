//! The one lenient reader of rows: names in any of their spellings and either case, values as text, number or boolean.
//!
//! A row keeps each field as the piece of JSON that came and reads it when it is asked for. So a field of another type
//! costs that field and not the row, a number past any float does not cost the document, and what nobody asks for is
//! never decoded. What stood there and could not be understood is told to the [`Observer`].

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::rows::Page;
use super::{Endpoint, Observer};
use crate::domain::{self, Capacity, DailyScan, Gigabyte, JobStatusWord, Named, Parsed, Timestamp};

/// The names of a field, the current one first. It is also the value of the label `field`.
pub type Names = &'static [&'static str];

/// The most fields of an object. The longest row of the reference has about thirty; a megabyte of them would cost ten
/// times that.
const MAX_FIELDS: usize = 1_000;

/// How many characters of a value that could not be understood are shown, masked.
const MAX_SHAPE_CHARS: usize = 40;

/// An object of an answer whose fields are read by name.
#[derive(Debug)]
pub struct Row<'a> {
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
    endpoint: Endpoint,
    observer: &'a dyn Observer,
}

impl<'a> Row<'a> {
    /// The row, or `None` where the piece of JSON is no object.
    pub fn read(json: &'a RawValue, endpoint: Endpoint, observer: &'a dyn Observer) -> Option<Self> {
        let fields = serde_json::from_str::<Object<'a>>(json.get()).ok()?.0;
        Some(Self {
            fields,
            endpoint,
            observer,
        })
    }

    /// The objects of a list field; `None` where there is no such list, or one that is too long, which is counted.
    pub fn list(&self, names: Names) -> Option<Vec<&'a RawValue>> {
        let page = self
            .candidates(names)
            .find_map(|json| serde_json::from_str::<Page<'a>>(json.get()).ok())?;
        let rows = page.rows();
        if rows.is_err() {
            self.not_understood(names, "a list without end");
        }
        rows.ok()
    }

    /// Whether it has any of these fields. An object without the fields of its kind, such as one that tells of an error,
    /// is none of its kind, however leniently it is read.
    pub fn has_any(&self, names: Names) -> bool {
        self.candidates(names).next().is_some()
    }

    /// Another object of the same answer.
    pub fn nested(&self, json: &'a RawValue) -> Option<Self> {
        Self::read(json, self.endpoint, self.observer)
    }

    /// The object in a field.
    pub fn object(&self, names: Names) -> Option<Self> {
        self.candidates(names).find_map(|json| self.nested(json))
    }

    /// Text that says something; `None` for `"N/A"`, `null`, `""` and a missing field.
    pub fn text(&self, names: Names) -> Option<Cow<'a, str>> {
        self.scalar(names).filter(|text| !is_absent(text))
    }

    /// Text for people to read, cut where it is longer than any honest one.
    pub fn name(&self, names: Names) -> Option<String> {
        self.text(names).map(|text| domain::cut(&text).into_owned())
    }

    /// An id that can be asked for by itself.
    pub fn id(&self, names: Names) -> Option<String> {
        domain::id(&self.text(names)?).map(ToOwned::to_owned)
    }

    /// Text with `"N/A"` left as it stands, for fields where that is a word of the vendor's.
    pub fn word(&self, names: Names) -> Option<Cow<'a, str>> {
        self.scalar(names)
    }

    /// A count.
    pub fn count(&self, names: Names) -> Option<u64> {
        self.parse(names, domain::count)
    }

    /// A count where the same name is a list in another answer: a list is then no count and no error.
    pub fn count_unless_list(&self, names: Names) -> Option<u64> {
        let json = self.candidates(names).find(|json| !json.get().starts_with('['))?;
        let text = self.plain(json, names)?;
        self.understood(names, &text, domain::count(&text))
    }

    /// A number with a sign.
    pub fn signed(&self, names: Names) -> Option<i64> {
        self.parse(names, domain::signed)
    }

    /// A size in bytes.
    pub fn size(&self, names: Names, gigabyte: Gigabyte) -> Option<f64> {
        self.parse(names, |text| domain::size(text, gigabyte))
    }

    /// A capacity, used and purchased, in bytes.
    pub fn capacity(&self, names: Names, gigabyte: Gigabyte) -> Option<Capacity> {
        self.parse(names, |text| domain::capacity(text, gigabyte))
    }

    /// A point in time.
    pub fn timestamp(&self, names: Names) -> Option<Timestamp> {
        self.parse(names, domain::timestamp)
    }

    /// A length of time.
    pub fn duration(&self, names: Names) -> Option<Duration> {
        self.parse(names, domain::duration)
    }

    /// The time of a daily scan, or that there is none.
    pub fn daily_scan(&self, names: Names) -> Option<DailyScan> {
        self.parse(names, domain::daily_time)
    }

    /// A yes or no.
    pub fn flag(&self, names: Names) -> Option<bool> {
        self.parse(names, domain::flag)
    }

    /// The status of a job or scan. One that is not in the reference is counted.
    pub fn job_status(&self, names: Names) -> Option<JobStatusWord> {
        let text = self.text(names)?;
        let status = domain::job_status(&text)?;
        if status == JobStatusWord::Unknown {
            self.unknown(names, &text);
        }
        Some(status)
    }

    /// A name from one of the reference's lists, by number or word. One that is not on the list is counted.
    pub fn named(&self, names: Names, read: fn(&str) -> Option<Named>) -> Option<Cow<'static, str>> {
        let text = self.text(names)?;
        let named = read(&domain::cut(&text))?;
        if !named.known {
            self.unknown(names, &text);
        }
        Some(named.name)
    }

    /// Counts a value that is not in the reference.
    pub fn unknown(&self, names: Names, value: &str) {
        self.observer
            .unknown_value(self.endpoint, label(names), &domain::cut(value));
    }

    /// Counts a value that could not be understood.
    pub fn not_understood(&self, names: Names, value: &str) {
        self.observer.decode_error(self.endpoint, label(names), &masked(value));
    }

    /// Counts a value that was read and cannot be true.
    fn parse<T>(&self, names: Names, read: impl FnOnce(&str) -> Parsed<T>) -> Option<T> {
        let text = self.scalar(names)?;
        self.understood(names, &text, read(&text))
    }

    fn understood<T>(&self, names: Names, text: &str, parsed: Parsed<T>) -> Option<T> {
        parsed.unwrap_or_else(|_| {
            self.not_understood(names, text);
            None
        })
    }

    /// The text of the first of `names` that says something, else that of the first that is there.
    fn scalar(&self, names: Names) -> Option<Cow<'a, str>> {
        let mut said = None;
        for json in self.candidates(names) {
            let text = self.plain(json, names);
            match text {
                Some(text) if !is_absent(&text) => return Some(text),
                other => said = said.or(other),
            }
        }
        said
    }

    /// The text of a string, number or boolean. A list, an object or a broken string is counted.
    fn plain(&self, json: &'a RawValue, names: Names) -> Option<Cow<'a, str>> {
        let text = json.get();
        match text.as_bytes().first() {
            Some(b'"') => match serde_json::from_str::<Text<'a>>(text) {
                Ok(Text(text)) => Some(text),
                Err(_) => {
                    self.not_understood(names, "a broken string");
                    None
                }
            },
            Some(b'[' | b'{') | None => {
                self.not_understood(names, "a list or object");
                None
            }
            Some(_) => Some(Cow::Borrowed(text)),
        }
    }

    /// What stands under any of `names`, in their order, `null` left out.
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

/// What stands in a field of a row, whatever the case of its name; `None` where there is no such field, or the row is no
/// object.
pub(super) fn field<'a>(row: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    let fields = serde_json::from_str::<Object<'a>>(row.get()).ok()?.0;
    let found = fields.into_iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
    found.map(|(_, json)| json)
}

/// What stands for "nothing here".
fn is_absent(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || text.eq_ignore_ascii_case("n/a")
}

fn label(names: Names) -> &'static str {
    names.first().copied().unwrap_or_default()
}

/// The value with letters and digits masked and its length bounded, so that a log can show its form and nothing of it.
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
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The fields of an object in order, each still as JSON. Unlike a derived struct it takes the same name twice, and
/// unlike a map it does not decode what nobody asks for.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some((Text(name), json)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    if fields.len() >= MAX_FIELDS {
                        return Err(serde::de::Error::custom("more fields than any honest object has"));
                    }
                    fields.push((name, json));
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}
