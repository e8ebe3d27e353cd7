//! The id by which the vendor's support team identifies a request.

use std::fmt;

use reqwest::header::HeaderMap;

/// The response header that contains the id.
const HEADER: &str = "request-id";

/// Maximum length of an id, in characters: a UUID has 36, and ids of tracing systems have up to 55.
const MAX_CHARS: usize = 64;

/// The id of a request, taken from its response. It is safe to log, because its length and its characters are limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Box<str>);

impl RequestId {
    /// Returns the id from response headers.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(HEADER)?.as_bytes().trim_ascii();
        let id: String = value.iter().take(MAX_CHARS).copied().map(log_safe).collect();
        (!id.is_empty()).then(|| Self(id.into()))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn log_safe(byte: u8) -> char {
    match byte {
        b'-' | b'_' | b'.' | b':' | b'|' | b'/' | b'+' | b'=' => char::from(byte),
        byte if byte.is_ascii_alphanumeric() => char::from(byte),
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn parsed(value: &[u8]) -> Option<String> {
        let headers = HeaderMap::from_iter([("request-id".parse().unwrap(), HeaderValue::from_bytes(value).unwrap())]);
        RequestId::of(&headers).map(|id| id.to_string())
    }

    #[test]
    fn id_is_limited_and_safe_to_log() {
        let uuid = "caf94a75-2cc6-43aa-b04b-794c8baf5ea3";
        assert_eq!(parsed(uuid.as_bytes()).as_deref(), Some(uuid));
        assert_eq!(parsed(b" |4bf9.1_a: ").as_deref(), Some("|4bf9.1_a:"));
        assert_eq!(parsed(b"a\tb\" c=<x>@\xff").as_deref(), Some("a?b??c=?x???"));
        assert_eq!(parsed(&[b'x'; 5000]).map(|id| id.len()), Some(MAX_CHARS));
        assert_eq!(parsed(b""), None);
        assert_eq!(RequestId::of(&HeaderMap::new()), None);
    }
}
