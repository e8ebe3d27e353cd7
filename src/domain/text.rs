//! Text from the outside, made harmless for whoever reads it.

use std::borrow::Cow;

/// The longest text that is taken over from an answer for people to read, in characters: a name of an organization or a
/// profile, the words of a subscription. Honest ones stay well below it, and one of a megabyte must not be held in
/// memory, written to the state file and sent with every scrape.
pub const MAX_TEXT_CHARS: usize = 256;

/// A text as long as one may be, with an ellipsis in place of what is cut off and without what disguises. Texts that look
/// the same as labels are then the same from the start, and what they name is one thing.
pub fn cut(text: &str) -> Cow<'_, str> {
    let end = text.char_indices().nth(MAX_TEXT_CHARS);
    let cut = match end.and_then(|(end, _)| text.get(..end)) {
        Some(start) => Cow::Owned(format!("{start}…")),
        None => Cow::Borrowed(text),
    };
    if cut.contains(is_lost_in_labels) {
        Cow::Owned(cut.replace(is_lost_in_labels, "\u{fffd}"))
    } else {
        cut
    }
}

/// Control characters (a NUL ends the input of Prometheus' lexer, a carriage return a line of some) and those that
/// reorder what a person reads.
pub fn is_disguising(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// Characters that a label shows as one and the same. A line break is not one of them, because it has an escape.
pub(super) fn is_lost_in_labels(character: char) -> bool {
    is_disguising(character) && character != '\n'
}

/// The longest text from the outside that a log line shows, in characters: an id whole, and enough of anything else.
const MAX_SHOWN_CHARS: usize = 60;

/// A text for a person to read in a log: bounded, without what disguises, and never an address.
pub fn shown(text: &str) -> String {
    if text.contains('@') {
        return "(an address)".to_owned();
    }
    let inert = |character| {
        if is_disguising(character) {
            char::REPLACEMENT_CHARACTER
        } else {
            character
        }
    };
    text.chars().take(MAX_SHOWN_CHARS).map(inert).collect()
}

/// A number with its thousands apart, for a person to read.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of something, for a person to read.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    let word = if number == 1 { one } else { many };
    format!("{} {word}", grouped(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_where_it_is_longer_than_any_honest_one() {
        let most = "é".repeat(MAX_TEXT_CHARS);
        assert_eq!(cut(&most), most);
        assert_eq!(cut(&format!("{most}é")), format!("{most}…"));
        assert_eq!(cut(&"é".repeat(1 << 20)), format!("{most}…"));
        assert_eq!(cut(""), "");
        assert_eq!(cut("a\0b\u{202e}c\nd"), "a\u{fffd}b\u{fffd}c\nd");
    }

    #[test]
    fn what_is_shown_is_short_inert_and_no_address() {
        assert_eq!(shown("Loop Backup"), "Loop Backup");
        assert_eq!(shown("\u{202e}evil\nx\0"), "\u{fffd}evil\u{fffd}x\u{fffd}");
        assert_eq!(shown("bob@corp.example"), "(an address)");
        assert_eq!(shown(&"é".repeat(1000)).chars().count(), MAX_SHOWN_CHARS);
    }

    #[test]
    fn thousands_stand_apart_and_one_is_no_plural() {
        for (number, words) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), words);
        }
        assert_eq!(counted(0, "row", "rows"), "0 rows");
        assert_eq!(counted(1, "row", "rows"), "1 row");
        assert_eq!(counted(1001, "row", "rows"), "1,001 rows");
    }
}
