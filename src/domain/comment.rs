//! Masks comments in job reports for use as label values. Addresses, ids, links, quoted names and numbers are replaced,
//! so that comments about the same problem become identical.

#[cfg(test)]
mod tests;

use icu_normalizer::ComposingNormalizer;

/// Maximum length of a masked comment, in characters.
pub const MAX_COMMENT_CHARS: usize = 80;

/// Maximum number of characters that are parsed per comment.
const MAX_READ_CHARS: usize = 1_000;

/// Minimum length at which a word with digits is masked as an id. In shorter words, only the digits are masked.
const MIN_ID_CHARS: usize = 16;

/// Maximum length of an HTML entity's name, including the semicolon.
const MAX_ENTITY_CHARS: usize = 10;

const ADDRESS: &str = "<address>";
const ID: &str = "<id>";
const LINK: &str = "<link>";
const NAME: &str = "<name>";
const NUMBER: char = '#';

/// Lower-case particles in personal names.
const PARTICLES: [&str; 14] = [
    "al", "bin", "da", "de", "del", "den", "der", "di", "dos", "du", "la", "le", "van", "von",
];

/// Punctuation around words.
const PUNCTUATION: &str = ",.;:!?()[]{}";

/// Masks addresses, ids, links, quoted names and numbers in a comment, and truncates it to [`MAX_COMMENT_CHARS`].
pub fn mask_comment(comment: &str) -> String {
    let read: String = comment.chars().take(MAX_READ_CHARS).collect();
    let visible = without_invisible(&decode_entities(&read));
    let unquoted = mask_quoted(&ComposingNormalizer::new_nfc().normalize(&visible));
    let words = mask_display_names(unquoted.split_whitespace());
    let clauses = words.chunk_by(|word, next| !ends_clause(word, next) && !starts_link(next));
    let masked: Vec<String> = clauses.flat_map(mask_clause).collect();
    super::truncate(&truncate(&masked.join(" "))).into_owned()
}

/// Removes invisible characters, such as byte order marks and soft hyphens.
pub fn without_invisible(text: &str) -> String {
    let is_invisible = |character| matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}');
    text.replace(is_invisible, "")
}

/// Decodes numeric character references, and HTML entities for quotation marks, angle brackets and spaces.
fn decode_entities(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    // The ampersand of an entity may itself be encoded, as in `&amp;quot;`.
    let text = text.replace("&amp;", "&");
    let mut rest = text.as_str();
    while let Some((before, behind)) = rest.split_once('&') {
        decoded.push_str(before);
        let entity = behind
            .char_indices()
            .take(MAX_ENTITY_CHARS)
            .find(|(_, mark)| *mark == ';');
        let entity = entity.and_then(|(end, _)| behind.get(..end));
        match entity.and_then(|name| Some((name, entity_character(name)?))) {
            Some((name, character)) => {
                decoded.push(character);
                rest = behind.get(name.len() + 1..).unwrap_or_default();
            }
            None => {
                decoded.push('&');
                rest = behind;
            }
        }
    }
    decoded.push_str(rest);
    decoded
}

fn entity_character(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => number.parse(),
        };
        return char::from_u32(code.ok()?);
    }
    match name {
        "quot" => Some('"'),
        "apos" => Some('\''),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "nbsp" => Some(' '),
        "lsquo" | "rsquo" => Some('’'),
        "ldquo" | "rdquo" => Some('”'),
        "laquo" => Some('«'),
        "raquo" => Some('»'),
        _ => None,
    }
}

fn truncate(text: &str) -> String {
    if text.chars().count() <= MAX_COMMENT_CHARS {
        return text.to_owned();
    }
    let start: String = text.chars().take(MAX_COMMENT_CHARS - 1).collect();
    format!("{start}…")
}

/// Returns the quotation marks that can close a quote opened by `mark`; `None` if `mark` cannot open a quote.
/// Most quotation marks open quotes in one language and close them in another.
fn closing_marks(mark: char) -> Option<&'static str> {
    match mark {
        '"' => Some("\""),
        '＂' => Some("＂"),
        '\'' => Some("'"),
        '＇' => Some("＇"),
        '`' | '´' => Some("`´'"),
        '“' | '„' | '”' | '‟' => Some("“„”‟"),
        '‘' | '‚' | '’' | '‛' => Some("‘‚’‛"),
        '«' | '»' => Some("«»"),
        '‹' | '›' => Some("‹›"),
        '「' => Some("「」"),
        '『' => Some("『』"),
        '《' => Some("《》"),
        '〈' => Some("〈〉"),
        '〝' => Some("〝〞〟"),
        _ => None,
    }
}

fn is_apostrophe(mark: char) -> bool {
    matches!(mark, '\'' | '’' | '‘' | '‛' | '＇' | '´')
}

/// Returns whether a quotation mark between these characters begins a quote. Returns false in ambiguous cases, so
/// that more text is masked.
fn begins_quote(mark: char, before: Option<char>, next: Option<char>) -> bool {
    let is_start = before.is_none_or(|before| before.is_whitespace() || "([{<:=,;".contains(before));
    let is_word = next.is_some_and(|next| next.is_alphanumeric() || "/\\([{<_#$@~".contains(next));
    "「『《〈〝„‚".contains(mark) || is_start && is_word
}

/// Returns the end of a quote in the text after its opening mark. This is the last closing mark before another quote
/// begins, because a name such as 'Chris' Files' may itself contain quotation marks. An apostrophe within a word is not
/// a closing mark.
fn end_of_quote(rest: &str, closing: &str) -> Option<usize> {
    let (mut before, mut depth, mut end) = (None, 1_u32, None);
    let mut characters = rest.char_indices().peekable();
    while let Some((at, mark)) = characters.next() {
        let next = characters.peek().map(|(_, next)| *next);
        let is_within_word = is_apostrophe(mark)
            && [before, next]
                .iter()
                .all(|side| side.is_some_and(char::is_alphanumeric));
        if closing.contains(mark) && !is_within_word {
            if !begins_quote(mark, before, next) {
                depth = depth.saturating_sub(1);
                end = Some(at + mark.len_utf8());
            } else if depth == 0 {
                break;
            } else {
                depth += 1;
            }
        }
        before = Some(mark);
    }
    end
}

/// Returns whether the text after an apostrophe is the end of a word, as in `can't` and `user's`.
fn is_contraction(rest: &str) -> bool {
    let letters = rest.chars().take_while(|character| character.is_alphanumeric());
    let letters: Vec<char> = letters.take(3).collect();
    matches!(letters.len(), 1..=2) && letters.iter().all(|letter| letter.is_lowercase())
}

/// Masks quoted text. A quote without a closing mark extends to the end of the text.
fn mask_quoted(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut characters = text.chars();
    let mut before: Option<char> = None;
    // Apostrophes for which the rest of the text contains no closing mark.
    let mut unclosed = String::new();
    while let Some(character) = characters.next() {
        let rest = characters.as_str();
        let is_within_word = is_apostrophe(character) && before.is_some_and(char::is_alphanumeric);
        let is_plain = is_within_word && (is_contraction(rest) || unclosed.contains(character));
        let closing = closing_marks(character).filter(|_| !is_plain);
        let end = closing.map(|closing| end_of_quote(rest, closing));
        match end {
            // An apostrophe within a word begins a quote only if the text contains a closing mark for the quote.
            Some(end) if end.is_some() || !is_within_word => {
                characters = end.and_then(|end| rest.get(end..)).unwrap_or_default().chars();
                masked.push_str(NAME);
                before = Some('>');
            }
            _ => {
                if end.is_some() {
                    unclosed.push(character);
                }
                masked.push(character);
                before = Some(character);
            }
        }
    }
    masked
}

/// Returns whether a clause ends between two words. Commas and full stops do not always end a clause, because a name in
/// a path may contain them, as in `/Vance, Adele`.
fn ends_clause(word: &str, next: &str) -> bool {
    let is_name = next.starts_with(char::is_uppercase);
    match word.chars().next_back() {
        Some(':' | '!' | '?') => true,
        Some(',' | ';') => !is_name,
        Some('.') => !is_name || !word.contains(['/', '\\']),
        _ => false,
    }
}

/// Masks the words of a clause. A clause contains at most one link, which may consist of several words.
fn mask_clause(words: &[&str]) -> Vec<String> {
    let core = |word: &&str| word.trim_matches(|mark| PUNCTUATION.contains(mark)).to_owned();
    // Words such as `read/write` and `I/O` are not links, unless they are part of a path.
    let is_choice = |word: &str| word.len() <= 3 || word.chars().all(|letter| letter == '/' || letter.is_lowercase());
    let begins_link =
        |word: &&str| !word.contains('@') && (is_link(&core(word)) || word.contains('/') && !is_choice(word));
    let first = words.iter().position(begins_link);
    let is_file_name = |word: &&str| has_file_extension(&core(word).to_lowercase());
    let is_first_whole = first.and_then(|first| words.get(first)).is_some_and(is_file_name);
    let continues_link = |word: &&str| {
        word.contains('\\') || word.contains('/') && !(is_first_whole && is_choice(word)) || is_file_name(word)
    };
    let last = words.iter().rposition(continues_link);
    let mut masked: Vec<String> = Vec::with_capacity(words.len());
    for (position, word) in words.iter().enumerate() {
        match (first, last) {
            (Some(first), Some(last)) if first < last && (first..=last).contains(&position) => {
                let is_punctuation = |mark| PUNCTUATION.contains(mark);
                if position == first {
                    let behind = word.trim_start_matches(is_punctuation);
                    masked.push(format!("{}{LINK}", word.strip_suffix(behind).unwrap_or_default()));
                } else if position == last
                    && let Some(link) = masked.last_mut()
                {
                    let before = word.trim_end_matches(is_punctuation);
                    link.push_str(word.strip_prefix(before).unwrap_or_default());
                }
            }
            _ => masked.push(mask_word(word)),
        }
    }
    masked
}

/// Replaces the capitalized words before an address in brackets, because they are probably the owner's name.
fn mask_display_names<'a>(words: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let is_name = |word: &str| {
        let first = word.chars().find(|character| character.is_alphabetic());
        let is_capitalized = first.is_some_and(|first| !first.is_lowercase());
        !word.contains('<') && !word.ends_with([':', ';', '!', '?']) && is_capitalized || PARTICLES.contains(&word)
    };
    let mut masked: Vec<&str> = Vec::new();
    for word in words {
        if word.contains('@') && (word.contains('<') || word.starts_with(['(', '['])) {
            let kept = masked.iter().rposition(|word| !is_name(word));
            let kept = kept.map_or(0, |position| position + 1);
            if kept < masked.len() {
                masked.truncate(kept);
                masked.push(NAME);
            }
        }
        masked.push(word);
    }
    masked
}

/// Masks a word, but not the punctuation around it.
fn mask_word(word: &str) -> String {
    let core = word.trim_matches(|mark| PUNCTUATION.contains(mark));
    if core.is_empty() || core == NAME {
        return word.to_owned();
    }
    let whole = if core.contains('@') {
        Some(ADDRESS)
    } else if is_link(core) {
        Some(LINK)
    } else {
        None
    };
    match whole {
        Some(mask) => word.replacen(core, mask, 1),
        None => mask_ids_and_numbers(word),
    }
}

/// Returns whether a word begins a link, rather than continuing one.
fn starts_link(word: &str) -> bool {
    let word = word.trim_start_matches(|mark| PUNCTUATION.contains(mark));
    let is_root = word.starts_with(['/', '\\']) && word.len() > 1;
    is_root || word.contains("://") || word.contains(":\\") || word.starts_with("www.")
}

/// Returns whether a word is a URL, a domain name, or the path of a site, file, folder or network share.
fn is_link(word: &str) -> bool {
    let lower = word.to_lowercase();
    let steps = word.matches('/').count();
    lower.contains("://")
        || lower.starts_with("www.")
        || word.contains('\\')
        || word.starts_with('/')
        || steps > 1
        || steps == 1 && has_file_extension(&lower)
        || lower.split('/').next().is_some_and(is_domain)
}

/// Returns whether a lower-case path ends in a file extension.
fn has_file_extension(lower: &str) -> bool {
    let extension = lower
        .rsplit_once('.')
        .filter(|(name, _)| !name.is_empty() && !name.ends_with('/'));
    extension.is_some_and(|(_, extension)| {
        (1..=5).contains(&extension.len())
            && extension.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && extension.bytes().any(|byte| byte.is_ascii_lowercase())
    })
}

/// Returns whether a lower-case word is a domain name. Names of exceptions in common namespaces, such as
/// `System.Net.WebException`, do not count as domain names.
fn is_domain(lower: &str) -> bool {
    let mut labels = lower.split('.');
    let last = labels.next_back().unwrap_or_default();
    let is_top_level = (2..=24).contains(&last.len()) && last.bytes().all(|byte| byte.is_ascii_lowercase());
    let has_labels_before = lower.contains('.') && labels.all(|label| !label.is_empty());
    const NAMESPACES: [&str; 4] = ["system.", "microsoft.", "avepoint.", "exception."];
    let is_exception = NAMESPACES.iter().any(|namespace| lower.starts_with(namespace)) && last.ends_with("exception");
    is_top_level && has_labels_before && !is_exception
}

/// Masks the ids and numbers in a word.
fn mask_ids_and_numbers(word: &str) -> String {
    let mut masked = String::with_capacity(word.len());
    let mut piece = String::new();
    for character in word.chars() {
        if character.is_alphanumeric() || matches!(character, '-' | '_') {
            piece.push(character);
        } else {
            push_masked(&mut masked, &piece);
            piece.clear();
            masked.push(character);
        }
    }
    push_masked(&mut masked, &piece);
    masked
}

fn push_masked(masked: &mut String, piece: &str) {
    let has_digit = piece.chars().any(char::is_numeric);
    if has_digit && piece.chars().count() >= MIN_ID_CHARS {
        masked.push_str(ID);
        return;
    }
    let mut was_number = false;
    for character in piece.chars() {
        let is_number = character.is_numeric();
        if !is_number {
            masked.push(character);
        } else if !was_number {
            masked.push(NUMBER);
        }
        was_number = is_number;
    }
}
