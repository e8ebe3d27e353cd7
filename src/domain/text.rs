//! Makes external text safe to display and to store, and formats numbers.

use std::borrow::Cow;

use ring::digest;

/// Maximum length of text from a response, such as an organization's name, in characters. Legitimate text is much
/// shorter. Without a limit, very long text would be stored in memory and in the state file, and sent with every
/// scrape.
pub const MAX_TEXT_CHARS: usize = 256;

/// Truncates text after [`MAX_TEXT_CHARS`] with an ellipsis, and replaces [misleading](is_misleading) characters except
/// newlines, so that labels are displayed as they are stored.
pub fn truncate(text: &str) -> Cow<'_, str> {
    let end = text.char_indices().nth(MAX_TEXT_CHARS);
    let truncated = match end.and_then(|(end, _)| text.get(..end)) {
        Some(start) => Cow::Owned(format!("{start}…")),
        None => Cow::Borrowed(text),
    };
    if truncated.contains(is_replaced_in_labels) {
        Cow::Owned(truncated.replace(is_replaced_in_labels, "\u{fffd}"))
    } else {
        truncated
    }
}

/// Returns whether a character is a control character, separates lines or changes the order of displayed text. A NUL
/// ends the input of Prometheus' lexer, and a carriage return ends a line in some parsers.
pub fn is_misleading(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// Returns the character, or U+FFFD if it is misleading.
pub fn replace_misleading(character: char) -> char {
    if is_misleading(character) {
        char::REPLACEMENT_CHARACTER
    } else {
        character
    }
}

/// Returns whether a character is replaced in labels. A newline is escaped instead.
pub(super) fn is_replaced_in_labels(character: char) -> bool {
    is_misleading(character) && character != '\n'
}

/// Maximum length of external text in a log line, in characters: enough for a GUID.
const MAX_LOGGED_CHARS: usize = 60;

/// Makes text safe to log: truncates it, and replaces [misleading](is_misleading) characters. Returns a placeholder if
/// the text contains an `@`.
pub fn log_safe(text: &str) -> String {
    if text.contains('@') {
        return "(email address)".to_owned();
    }
    text.chars().take(MAX_LOGGED_CHARS).map(replace_misleading).collect()
}

/// Returns the first 64 bits of a text's SHA-256 hash. They must be the same in every version of the exporter.
pub(super) fn stable_hash(text: &str) -> u64 {
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    let bytes = hash.as_ref().iter().take(8);
    bytes.fold(0, |prefix, byte| prefix << 8 | u64::from(*byte))
}

/// Formats a number with thousands separators.
pub fn grouped(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a number with the singular or plural of a noun.
pub fn counted(number: impl TryInto<u64>, singular: &str, plural: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    let word = if number == 1 { singular } else { plural };
    format!("{} {word}", grouped(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_truncated_beyond_its_maximum_length() {
        let longest = "é".repeat(MAX_TEXT_CHARS);
        assert_eq!(truncate(&longest), longest);
        assert_eq!(truncate(&format!("{longest}é")), format!("{longest}…"));
        assert_eq!(truncate(&"é".repeat(1 << 20)), format!("{longest}…"));
        assert_eq!(truncate(""), "");
        assert_eq!(truncate("a\0b\u{202e}c\nd"), "a\u{fffd}b\u{fffd}c\nd");
    }

    #[test]
    fn logged_text_is_short_safe_and_without_addresses() {
        assert_eq!(log_safe("Loop Backup"), "Loop Backup");
        assert_eq!(log_safe("\u{202e}evil\nx\0"), "\u{fffd}evil\u{fffd}x\u{fffd}");
        assert_eq!(log_safe("bob@corp.example"), "(email address)");
        assert_eq!(log_safe(&"é".repeat(1000)).chars().count(), MAX_LOGGED_CHARS);
    }

    #[test]
    fn thousands_are_separated_and_one_is_singular() {
        for (number, words) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), words);
        }
        assert_eq!(counted(0, "row", "rows"), "0 rows");
        assert_eq!(counted(1, "row", "rows"), "1 row");
        assert_eq!(counted(1001, "row", "rows"), "1,001 rows");
    }
}
