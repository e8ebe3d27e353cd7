//! Parses the JSON object that contains the rows of a list, for both API versions. The parser ignores the case of
//! member names, and leaves rows as raw JSON.
//!
//! The parser also detects failures in responses with status 200: see [`reports_failure`].

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Error;
use super::rows::Page;
use super::wire::{Object, Text};
use crate::domain;

/// Parsed members of the object that contains a list.
#[derive(Debug, Default)]
pub(super) struct Envelope<'a> {
    /// The rows. `None` means that there is no list, which differs from an empty list.
    pub(super) rows: Option<Page<'a>>,
    /// The link to the next page.
    pub(super) link: Option<String>,
    /// Total number of rows on all pages, from `totalCount`. The names of other counts are ambiguous.
    pub(super) total: Option<usize>,
    /// Lower bound for the total: the largest count, because some counts may include only the rows of one page.
    pub(super) min_total: Option<usize>,
    /// Token of the next page.
    pub(super) skip_token: Option<String>,
    /// Rows per page, if present.
    pub(super) page_size: Option<usize>,
    /// Whether `metadata` has any members.
    pub(super) is_paged: bool,
    /// Whether a member reports a failure.
    has_failed: bool,
}

/// Error for a response that reports a failure.
const FAILED: Error = Error::Decode("successful: one of its members reports a failure");

/// Names of the member that links to the next page.
const LINKS: [&str; 3] = ["@odata.nextLink", "odata.nextLink", "nextLink"];

/// Name of the total row count in the API v3 reference.
const TOTAL: &str = "totalCount";

/// Name of the token for the next page, in chained lists.
const SKIP_TOKEN: &str = "skipToken";

/// Maximum length of a page token. Longer tokens do not fit in a URL.
const MAX_TOKEN_BYTES: usize = 4 << 10;

/// Names of other counts. Depending on the server, they count all rows or the rows of one page.
const COUNTS: [&str; 3] = ["@odata.count", "odata.count", "count"];

impl<'a> Envelope<'a> {
    /// Parses an object. `list` is the name of the member that contains the rows.
    ///
    /// # Errors
    /// Returns an error if the body is not an object, contains invalid paging details, or reports a failure. Also
    /// returns an error if the member with the rows is repeated or is not a list. A missing or `null` list is not an
    /// error.
    pub(super) fn read(body: &'a [u8], list: &'static str) -> Result<Self, Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let read = EnvelopeVisitor { list }.deserialize(&mut deserializer);
        let envelope = read.and_then(|envelope| deserializer.end().map(|()| envelope));
        match envelope {
            Ok(envelope) if envelope.has_failed => Err(FAILED),
            Ok(envelope) => Ok(envelope),
            Err(_) => Err(Error::Decode(
                "a JSON object that contains a list and valid paging details",
            )),
        }
    }

    /// Parses a member next to the list or in `metadata`.
    fn read_member(&mut self, name: &str, json: &RawValue) -> Result<(), &'static str> {
        if is_any(name, &LINKS) {
            let link: Option<String> = serde_json::from_str(json.get()).map_err(|_| "a link that is not text")?;
            self.link = self.link.take().or(link.filter(|link| !link.is_empty()));
        } else if name.eq_ignore_ascii_case(TOTAL) {
            let total = number(json)?;
            self.total = self.total.or(total);
            self.min_total = self.min_total.max(total);
        } else if is_any(name, &COUNTS) {
            self.min_total = self.min_total.max(number(json)?);
        } else {
            self.has_failed |= reports_failure(name, json);
        }
        Ok(())
    }

    fn read_metadata(&mut self, json: &RawValue) -> Result<(), &'static str> {
        let metadata: Option<Object<'_>> =
            serde_json::from_str(json.get()).map_err(|_| "metadata that is not an object")?;
        let Some(Object(fields)) = metadata else { return Ok(()) };
        self.is_paged |= !fields.is_empty();
        for (name, json) in fields {
            if name.eq_ignore_ascii_case("pageSize") {
                // The page size is only a hint, so an unparseable value is ignored.
                self.page_size = self.page_size.or(number(json).unwrap_or_default());
            }
            if name.eq_ignore_ascii_case(SKIP_TOKEN) {
                let token: Option<String> = serde_json::from_str(json.get()).map_err(|_| "a token that is not text")?;
                if token.as_ref().is_some_and(|token| token.len() > MAX_TOKEN_BYTES) {
                    return Err("a token that is too long");
                }
                self.skip_token = self.skip_token.take().or(token.filter(|token| !token.is_empty()));
            }
            self.read_member(&name, json)?;
        }
        Ok(())
    }
}

fn is_any(name: &str, names: &[&str]) -> bool {
    names.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Parses the members and ignores the case of their names. A derived struct would miss a link to the next page if its
/// name differed in case, and the list would then appear to be complete.
#[derive(Clone, Copy)]
struct EnvelopeVisitor {
    list: &'static str,
}

impl<'de> DeserializeSeed<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object that contains a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut envelope = Envelope::default();
        while let Some(Text(name)) = map.next_key()? {
            if name.eq_ignore_ascii_case(self.list) {
                if envelope.rows.is_some() {
                    return Err(A::Error::custom("two lists"));
                }
                envelope.rows = map.next_value()?;
            } else if name.eq_ignore_ascii_case(METADATA) {
                envelope.read_metadata(map.next_value()?).map_err(A::Error::custom)?;
            } else if is_member(&name) {
                envelope
                    .read_member(&name, map.next_value()?)
                    .map_err(A::Error::custom)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(envelope)
    }
}

/// Name of the object that is next to a list and describes the list.
const METADATA: &str = "metadata";

/// Returns whether a member is parsed. Other members are skipped without being stored.
fn is_member(name: &str) -> bool {
    name.eq_ignore_ascii_case(TOTAL)
        || [LINKS.as_slice(), &COUNTS, &ERRORS, &ERROR_LISTS, &SUCCESSES]
            .iter()
            .any(|names| is_any(name, names))
}

/// Names of a member that describes one error.
const ERRORS: [&str; 3] = ["error", "@odata.error", "odata.error"];

/// Names of a member that lists errors, or maps fields to errors.
const ERROR_LISTS: [&str; 1] = ["errors"];

/// Names of a member that states whether the call succeeded.
const SUCCESSES: [&str; 2] = ["isSuccess", "success"];

/// Returns whether a member reports a failure in a response with status 200.
///
/// An error member reports a failure unless its value is an empty list, is absent (such as `null`, `"N/A"` or
/// `"none"`), or is false in any spelling (such as `false`, `"no"` or 0). An empty object is not a failure in `errors`,
/// which maps fields to errors, but is a failure in `error`, because a JavaScript `Error` serializes to `{}`. A success
/// member reports a failure if it is false in any spelling.
fn reports_failure(name: &str, json: &RawValue) -> bool {
    if is_any(name, &SUCCESSES) {
        return is_false(json);
    }
    let is_empty = match json.get().as_bytes().first() {
        Some(b'[') => is_empty_container(json),
        Some(b'{') => is_any(name, &ERROR_LISTS) && is_empty_container(json),
        _ => is_false(json) || is_absent_text(json),
    };
    (is_any(name, &ERRORS) || is_any(name, &ERROR_LISTS)) && !is_empty
}

/// Returns an error if an object, or the `metadata` in it, reports a failure.
pub(super) fn reject_failure(json: &RawValue) -> Result<(), Error> {
    let fields = |json: &RawValue| -> bool {
        let Ok(Object(fields)) = serde_json::from_str(json.get()) else {
            return false;
        };
        fields.iter().any(|(name, json)| reports_failure(name, json))
    };
    let metadata = super::wire::field(json, METADATA);
    if fields(json) || metadata.is_some_and(fields) {
        return Err(FAILED);
    }
    Ok(())
}

fn is_empty_container(json: &RawValue) -> bool {
    let inner = json.get().get(1..json.get().len().saturating_sub(1));
    inner.is_some_and(|inner| inner.trim().is_empty())
}

/// Returns the text of a scalar, without the quotes of a string.
fn scalar(json: &RawValue) -> Cow<'_, str> {
    match serde_json::from_str::<Text<'_>>(json.get()) {
        Ok(Text(text)) => text,
        Err(_) => Cow::Borrowed(json.get()),
    }
}

fn is_false(json: &RawValue) -> bool {
    let text = scalar(json);
    let text = text.trim();
    ["false", "no"].iter().any(|word| text.eq_ignore_ascii_case(word)) || text.parse() == Ok(0.0)
}

fn is_absent_text(json: &RawValue) -> bool {
    let text = scalar(json);
    let text = text.trim();
    domain::is_absent(text) || ["null", "none"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Parses a count from a number or text. Returns `None` if it is absent. An unparseable count is an error, because a
/// list without a total could appear to be complete after its first page.
fn number(json: &RawValue) -> Result<Option<usize>, &'static str> {
    let text = scalar(json);
    let text = text.trim();
    if domain::is_absent(text) || text == "null" {
        return Ok(None);
    }
    let count = domain::count(text).ok().flatten();
    let count = count.and_then(|count| usize::try_from(count).ok());
    count
        .or_else(|| integer(text))
        .map(Some)
        .ok_or("a number that is not a count")
}

/// Parses a non-negative integer, including forms such as `150.0` that some serializers write.
fn integer(text: &str) -> Option<usize> {
    let number: f64 = text.parse().ok()?;
    let is_count = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the number is an integer in range"
    )]
    is_count.then_some(number as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_names_match_in_any_case() {
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
    fn unparseable_total_is_an_error() {
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
    fn missing_list_is_not_an_empty_list() {
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

    #[test]
    fn counts_are_found_next_to_the_list_and_in_metadata() {
        for name in ["@odata.count", "odata.count", "count", "totalCount", "TotalCount"] {
            for body in [
                format!(r#"{{"value":[],"{name}":"7"}}"#),
                format!(r#"{{"value":[],"metadata":{{"{name}":7}}}}"#),
            ] {
                let envelope = Envelope::read(body.as_bytes(), "value").unwrap();
                assert_eq!(envelope.min_total, Some(7), "{body}");
                assert_eq!(envelope.total.is_some(), name.eq_ignore_ascii_case(TOTAL), "{body}");
            }
        }
        for name in ["@odata.nextLink", "odata.nextLink", "NEXTLINK"] {
            let body = format!(r#"{{"value":[],"{name}":"next"}}"#);
            let envelope = Envelope::read(body.as_bytes(), "value").unwrap();
            assert_eq!(envelope.link.as_deref(), Some("next"), "{body}");
        }
    }

    /// Returns whether a member reports a failure. Asserts that the result is the same at every position in lists and
    /// single entities.
    fn is_failure(member: &str) -> bool {
        let list = |body: &str| Envelope::read(body.as_bytes(), "value").is_err();
        let entity = |body: &str| reject_failure(serde_json::from_str(body).unwrap()).is_err();
        let verdicts = [
            list(&format!(r#"{{"value":[1],{member}}}"#)),
            list(&format!(r#"{{{member},"value":[]}}"#)),
            list(&format!(r#"{{"metadata":{{{member}}},"value":[]}}"#)),
            entity(&format!(r#"{{"id":"x",{member}}}"#)),
            entity(&format!(r#"{{"metadata":{{{member}}}}}"#)),
        ];
        assert!(
            verdicts.iter().all(|verdict| *verdict == verdicts[0]),
            "{member}: {verdicts:?}"
        );
        verdicts[0]
    }

    #[test]
    fn error_member_is_a_failure_unless_empty() {
        let empty = [
            "null",
            "false",
            "0",
            "[]",
            "[ ]",
            r#""""#,
            r#"" ""#,
            r#""N/A""#,
            r#""False""#,
            r#""0""#,
            r#""null""#,
        ];
        let full = [
            "true",
            "1",
            r#""busy""#,
            r#"["x"]"#,
            "[null]",
            r#"{"code":"Busy"}"#,
            r#"{"code":null}"#,
        ];
        for name in ["error", "Errors", "@odata.error", "odata.ERROR"] {
            for value in empty {
                assert!(!is_failure(&format!(r#""{name}":{value}"#)), "{name} {value}");
            }
            for value in full {
                assert!(is_failure(&format!(r#""{name}":{value}"#)), "{name} {value}");
            }
        }
        assert!(is_failure(r#""error":{}"#));
        assert!(!is_failure(r#""errors":{ }"#));
        assert!(!is_failure(r#""errorCode":"x","context":{"error":"x"}"#));
    }

    #[test]
    fn false_success_member_is_a_failure() {
        for name in ["isSuccess", "issuccess", "Success"] {
            for value in ["false", r#""False""#, "0", "0.0", r#""0""#, r#""no""#] {
                assert!(is_failure(&format!(r#""{name}":{value}"#)), "{name} {value}");
            }
            for value in ["true", r#""True""#, "1", "null", r#""""#, r#""N/A""#, "{}", "[]"] {
                assert!(!is_failure(&format!(r#""{name}":{value}"#)), "{name} {value}");
            }
        }
    }
}
