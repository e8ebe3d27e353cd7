//! How values are written for people.

use std::time::Duration;

use maud::{Markup, html};

use crate::domain::{JobStatus, Timestamp, is_disguising};

pub(super) use crate::domain::{counted, grouped as count};

/// The longest text from the outside that a page shows, in characters. Names of organizations are shorter.
const MAX_SHOWN_CHARS: usize = 200;

const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];

/// A text from the outside: bounded, without what disguises, and without addresses. Escaping is the template's.
pub(super) fn told(text: &str) -> String {
    let inert: String = text
        .chars()
        .take(MAX_SHOWN_CHARS)
        .map(|character| match character {
            character if is_disguising(character) => char::REPLACEMENT_CHARACTER,
            character => character,
        })
        .collect();
    if !inert.contains('@') {
        return inert;
    }
    let word = |word: &'_ str| {
        if has_address(word) {
            "(an address)".to_owned()
        } else {
            word.to_owned()
        }
    };
    inert.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Whether somebody could be written to at what stands in a word: something, an at sign, and a domain.
fn has_address(word: &str) -> bool {
    word.split_once('@').is_some_and(|(local, domain)| {
        let domain = domain.trim_matches(|character: char| !character.is_alphanumeric());
        local.chars().any(char::is_alphanumeric) && domain.contains('.')
    })
}

/// A duration in its two greatest units.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let greatest = UNITS.iter().position(|(unit, _)| seconds >= *unit);
    let Some(greatest) = greatest else {
        return "under 1 s".to_owned();
    };
    let mut rest = seconds;
    let mut words = Vec::new();
    for (unit, name) in UNITS.iter().skip(greatest).take(2) {
        if rest / unit > 0 {
            words.push(format!("{} {name}", rest / unit));
        }
        rest %= unit;
    }
    words.join(" ")
}

/// A duration in its greatest unit, where there is little room.
pub(super) fn about(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let greatest = UNITS.into_iter().find(|(unit, _)| seconds >= *unit);
    greatest.map_or_else(|| span(duration), |(unit, name)| format!("{} {name}", seconds / unit))
}

/// A point in time as people think of it, with the exact one beside.
pub(super) fn time(at: Timestamp, now: Timestamp) -> Markup {
    let exact = jiff::Timestamp::from_second(at.as_whole_unix_seconds())
        .map(|at| at.to_string())
        .unwrap_or_default();
    let words = if at > now {
        format!("in {}", span(at.since(now)))
    } else if now.since(at) < Duration::from_secs(1) {
        "just now".to_owned()
    } else {
        format!("{} ago", span(now.since(at)))
    };
    html! { time datetime=(exact) title=(exact) { (words) } }
}

/// The same, or a word where there is none.
pub(super) fn time_or(at: Option<Timestamp>, now: Timestamp, word: &str) -> Markup {
    match at {
        Some(at) => time(at, now),
        None => html! { span.none { (word) } },
    }
}

/// A length as a count.
pub(super) fn whole(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// The status of a run.
pub(super) fn status(status: JobStatus) -> String {
    status.label().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_in_two_units_at_most() {
        for (seconds, words) in [
            (0, "under 1 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_600, "1 h"),
            (3_725, "1 h 2 min"),
            (86_401, "1 d"),
            (200_000, "2 d 7 h"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), words);
        }
    }

    #[test]
    fn addresses_and_what_disguises_are_not_told() {
        assert_eq!(told("Ann <ann@contoso.example> Ltd"), "Ann (an address) Ltd");
        for name in ["@Home Ltd", "Team @ Work", "a@b", "Meet @ 10.30"] {
            assert_eq!(told(name), name, "nobody's address");
        }
        assert_eq!(told("\u{202e}live"), "\u{fffd}live");
        assert_eq!(told(&"x".repeat(1000)).len(), MAX_SHOWN_CHARS);
    }

    #[test]
    fn moments_are_told_from_now() {
        let at = Timestamp::from_unix_seconds;
        assert!(time(at(60), at(180)).into_string().contains(">2 min ago<"));
        assert!(time(at(180), at(60)).into_string().contains(">in 2 min<"));
        assert!(
            time(at(60), at(60))
                .into_string()
                .contains("datetime=\"1970-01-01T00:01:00Z\"")
        );
    }
}
