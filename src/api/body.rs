//! Prepares the bodies of API and token responses for the JSON parser.

use super::Error;
use crate::text_file::BYTE_ORDER_MARK;

/// Maximum depth of nested lists and objects. The deepest response in the vendor's reference has five levels.
const MAX_DEPTH: usize = 64;

/// Length of an escaped UTF-16 code unit, such as `\ud83d`.
const ESCAPE_BYTES: usize = 6;

/// Returns the JSON of a body without its byte order mark or surrounding white space. Replaces lone surrogates with
/// U+FFFD, because the parser would reject a row that contains them.
///
/// # Errors
/// Returns an error if the JSON is nested too deeply. The parser itself does not check the depth of members that it
/// skips.
pub(super) fn json(body: &mut [u8]) -> Result<&[u8], Error> {
    replace_lone_surrogates(body);
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body).trim_ascii();
    if is_too_deep(body) {
        return Err(Error::Decode("JSON with at most 64 levels of nesting"));
    }
    Ok(body)
}

/// Half of a surrogate pair.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Surrogate {
    High,
    Low,
}

/// Overwrites each lone escaped surrogate, and each surrogate encoded in UTF-8, with U+FFFD in the same form. In either
/// form, U+FFFD is as long as the surrogate that it replaces.
fn replace_lone_surrogates(body: &mut [u8]) {
    let mut at = 0;
    let is_suspect = |byte: &u8| matches!(byte, b'\\' | 0xed);
    while let Some(offset) = body.get(at..).and_then(|rest| rest.iter().position(is_suspect)) {
        at += offset;
        if let Some([0xed, 0xa0..=0xbf, 0x80..=0xbf]) = body.get(at..at + 3) {
            overwrite(body, at, "\u{fffd}".as_bytes());
        }
        at += match (escaped_surrogate(body, at), escaped_surrogate(body, at + ESCAPE_BYTES)) {
            (Some(Surrogate::High), Some(Surrogate::Low)) => 2 * ESCAPE_BYTES,
            (Some(_), _) => {
                overwrite(body, at, b"\\ufffd");
                ESCAPE_BYTES
            }
            // The byte after a backslash is part of the escape, even if it is another backslash.
            (None, _) if body.get(at) == Some(&b'\\') => 2,
            (None, _) => 1,
        };
    }
}

/// Returns which half of a surrogate pair is escaped at a position, if any.
fn escaped_surrogate(body: &[u8], at: usize) -> Option<Surrogate> {
    let digits = body.get(at..at + ESCAPE_BYTES)?.strip_prefix(b"\\u")?;
    let [b'd' | b'D', half, rest @ ..] = digits else {
        return None;
    };
    if !rest.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    match half.to_ascii_lowercase() {
        b'8' | b'9' | b'a' | b'b' => Some(Surrogate::High),
        b'c'..=b'f' => Some(Surrogate::Low),
        _ => None,
    }
}

fn overwrite(body: &mut [u8], at: usize, with: &[u8]) {
    if let Some(place) = body.get_mut(at..at + with.len()) {
        place.copy_from_slice(with);
    }
}

/// Returns whether brackets and braces outside strings are nested deeper than [`MAX_DEPTH`]. The parser checks whether
/// each has a matching counterpart.
fn is_too_deep(body: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in body {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_strings() {
        let is_fine = |text: String| json(&mut text.into_bytes()).is_ok();
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(is_fine(nested(MAX_DEPTH)));
        assert!(!is_fine(nested(MAX_DEPTH + 1)));
        assert!(is_fine(format!("[{}1]", "[],".repeat(10 * MAX_DEPTH))));
        assert!(is_fine(format!(r#"["{}\"{}"]"#, "[".repeat(1000), "{".repeat(1000))));
    }

    #[test]
    fn byte_order_mark_and_white_space_are_removed() {
        assert_eq!(json(&mut b"\xef\xbb\xbf {} \n".to_vec()).unwrap(), b"{}");
    }

    #[test]
    fn lone_surrogate_becomes_the_replacement_character() {
        let decoded = |text: &[u8]| -> String {
            let mut text = [b"\"", text, b"\""].concat();
            serde_json::from_slice(json(&mut text).unwrap()).unwrap()
        };
        for (written, expected) in [
            (r"a\ud800b", "a\u{fffd}b"),
            (r"\uDFFF", "\u{fffd}"),
            (r"\ud83d\ude00", "\u{1f600}"),
            (r"\ud83d\ud83d\ude00\ude00", "\u{fffd}\u{1f600}\u{fffd}"),
            (r"\ud83d", "\u{fffd}"),
            (r"\ud83d\n\ude00", "\u{fffd}\n\u{fffd}"),
            (r"\\ud800", r"\ud800"),
            (r"\\\ud800", "\\\u{fffd}"),
            (r"\ud7ff\ue000", "\u{d7ff}\u{e000}"),
        ] {
            assert_eq!(decoded(written.as_bytes()), expected, "{written}");
        }
        assert_eq!(decoded(b"\xed\xa0\x80x\xed\xbf\xbf"), "\u{fffd}x\u{fffd}");
        assert_eq!(decoded("\u{d7ff}\u{e000}".as_bytes()), "\u{d7ff}\u{e000}");
    }

    #[test]
    fn body_that_ends_in_an_escape_is_unchanged() {
        for broken in [&b"\"\\"[..], b"\"\\u", b"\"\\ud8", b"\"\\ud80g\"", b"\xed", b"\xed\xa0"] {
            let mut text = broken.to_vec();
            assert_eq!(json(&mut text).unwrap(), broken);
        }
    }
}
