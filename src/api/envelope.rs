//! The object around the rows of a list, in both generations: its names in either case, its rows as they came.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Error;
use super::rows::Page;
use crate::domain;

/// What is read of the object around a list.
#[derive(Debug, Default)]
pub(super) struct Envelope<'a> {
    /// The rows; `None` where there is no list, which is not the same as an empty one.
    pub(super) rows: Option<Page<'a>>,
    /// The link to the next page.
    pub(super) link: Option<String>,
    /// How many rows all pages have together, where that is said and can be read.
    pub(super) total: Option<usize>,
    /// How many rows a page has, where that is said.
    pub(super) page_size: Option<usize>,
    /// Whether anything is said about pages at all.
    pub(super) is_paged: bool,
}

impl<'a> Envelope<'a> {
    /// Reads an object whose rows stand under `list`.
    ///
    /// # Errors
    /// Where it is no such object.
    pub(super) fn read(body: &'a [u8], list: &'static str) -> Result<Self, Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let read = Names { list }.deserialize(&mut deserializer);
        let whole = read.and_then(|envelope| deserializer.end().map(|()| envelope));
        whole.map_err(|_| Error::Decode("a JSON object around a list"))
    }
}

/// The names by which an envelope is read. A struct that derives this would not take them in another case, and a next
/// page that is not found is a list that looks complete and is not.
#[derive(Clone, Copy)]
struct Names {
    list: &'static str,
}

impl<'de> DeserializeSeed<'de> for Names {
    type Value = Envelope<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Names {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object around a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut envelope = Envelope::default();
        while let Some(Name(name)) = map.next_key()? {
            let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
            if is(self.list) {
                if envelope.rows.is_some() {
                    return Err(A::Error::custom("two lists"));
                }
                envelope.rows = map.next_value()?;
            } else if is("@odata.nextLink") || is("nextLink") {
                let link: Option<String> = map.next_value()?;
                envelope.link = envelope.link.or(link.filter(|link| !link.is_empty()));
            } else if is("metadata") {
                let metadata: Option<&RawValue> = map.next_value()?;
                let metadata = metadata.map_or(Ok(Metadata::default()), |json| serde_json::from_str(json.get()));
                let Metadata(fields) = metadata.map_err(A::Error::custom)?;
                envelope.is_paged |= !fields.is_empty();
                let said = |name| number(&fields, name).map_err(A::Error::custom);
                envelope.total = envelope.total.or(said("totalCount")?);
                // What a page has is only a help, so nothing depends on being able to read it.
                envelope.page_size = envelope.page_size.or(said("pageSize").unwrap_or_default());
            } else if is("totalCount") {
                let fields = HashMap::from([(name.into_owned(), map.next_value()?)]);
                envelope.total = envelope
                    .total
                    .or(number(&fields, "totalCount").map_err(A::Error::custom)?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(envelope)
    }
}

/// The fields beside a list.
#[derive(Default, Deserialize)]
struct Metadata<'a>(#[serde(borrow)] HashMap<String, &'a RawValue>);

/// A count among the fields, as a number or as text; absent where it is not said. One that is there and cannot be read
/// is an error: without its total a list would look complete after its first page.
fn number(fields: &HashMap<String, &RawValue>, wanted: &str) -> Result<Option<usize>, &'static str> {
    let mut named = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let text = named.next().map_or("null", |(_, number)| number.get());
    let text = text.trim_matches('"').trim();
    if text.is_empty() || text == "null" || text.eq_ignore_ascii_case("n/a") {
        return Ok(None);
    }
    let count = domain::count(text).ok().flatten();
    let count = count.and_then(|count| usize::try_from(count).ok());
    count
        .or_else(|| whole(text))
        .map(Some)
        .ok_or("a number that is no count")
}

/// A whole number that is written as some serializers write one, such as `150.0`.
fn whole(text: &str) -> Option<usize> {
    let number: f64 = text.parse().ok()?;
    let is_count = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is whole and in range"
    )]
    is_count.then_some(number as usize)
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_are_read_in_either_case() {
        let body = br#"{"@odata.context":{"x":[1]},"Value":[{},1],"@odata.nextlink":"next"}"#;
        let envelope = Envelope::read(body, "value").unwrap();
        assert_eq!(envelope.rows.unwrap().rows().unwrap().len(), 2);
        assert_eq!(envelope.link.as_deref(), Some("next"));
        let body = br#"{"Data":[],"MetaData":{"pageIndex":1,"TotalCount":"7"}}"#;
        let envelope = Envelope::read(body, "data").unwrap();
        assert!(envelope.rows.unwrap().rows().unwrap().is_empty());
        assert_eq!(envelope.total, Some(7));
    }

    #[test]
    fn a_total_that_cannot_be_read_is_not_taken_for_none() {
        let total = |total: &str| {
            let body = format!(r#"{{"data":[],"metadata":{{"totalCount":{total}}}}}"#);
            Envelope::read(body.as_bytes(), "data")
                .ok()
                .map(|envelope| envelope.total)
        };
        assert_eq!(total("150"), Some(Some(150)));
        assert_eq!(total("\"1,150\""), Some(Some(1150)));
        assert_eq!(total("null"), Some(None));
        assert_eq!(total("150.0"), Some(Some(150)));
        assert_eq!(total("1.5e2"), Some(Some(150)));
        let beside = Envelope::read(br#"{"data":[],"totalCount":7}"#, "data");
        assert_eq!(beside.unwrap().total, Some(7));
        let twice = Envelope::read(
            br#"{"data":[],"metadata":{"totalCount":7,"pageSize":20},"metadata":null}"#,
            "data",
        );
        let twice = twice.unwrap();
        assert_eq!((twice.total, twice.page_size), (Some(7), Some(20)));
        assert!(Envelope::read(br#"{"data":[],"metadata":[]}"#, "data").is_err());
        for bad in ["-1", "1e300", "\"1,50\"", "[]", "1.5"] {
            assert_eq!(total(bad), None, "{bad}");
        }
    }

    #[test]
    fn no_list_is_no_empty_list() {
        for body in [
            r#"{"value":null}"#,
            "{}",
            r#"{"data":[]}"#,
            r#"{"value":[],"x":"#,
            r#"{"value":"a"}"#,
        ] {
            let rows = Envelope::read(body.as_bytes(), "value")
                .ok()
                .and_then(|envelope| envelope.rows);
            assert!(rows.is_none(), "{body}");
        }
        assert!(Envelope::read(br#"{"value":[],"Value":[1]}"#, "value").is_err());
        assert!(Envelope::read(br#"{"value":[]} x"#, "value").is_err());
    }
}
