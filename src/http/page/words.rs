//! Formats values for display.

use std::time::Duration;

use maud::{Markup, html};

use crate::collector::RansomwareSigns;
use crate::domain::{Attributes, JobStatus, Timestamp, replace_misleading};

pub(super) use crate::domain::{counted, grouped as count};

/// Severity of a state. Its CSS class sets the colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Good,
    Warn,
    Bad,
    Idle,
}

impl Severity {
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Idle => "idle",
        }
    }
}

/// Maximum length of external text on a page, in characters. Legitimate names of organizations are shorter.
const MAX_SHOWN_CHARS: usize = 200;

const DAY: Duration = Duration::from_secs(86_400);

const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];

/// Truncates external text, and replaces misleading characters and email addresses. The template escapes the result.
pub(super) fn sanitize(text: &str) -> String {
    let safe_text: String = text.chars().take(MAX_SHOWN_CHARS).map(replace_misleading).collect();
    if !safe_text.contains('@') {
        return safe_text;
    }
    let word = |word: &'_ str| {
        if has_address(word) {
            "(email address)".to_owned()
        } else {
            word.to_owned()
        }
    };
    safe_text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Returns whether a word contains an email address: a name, an at sign, and a domain.
fn has_address(word: &str) -> bool {
    word.split_once('@').is_some_and(|(local, domain)| {
        let domain = domain.trim_matches(|character: char| !character.is_alphanumeric());
        local.chars().any(char::is_alphanumeric) && domain.contains('.')
    })
}

/// Formats a duration in its largest unit and the next smaller unit. Omits the smaller unit if its value is 0.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let largest = UNITS.iter().position(|(unit, _)| seconds >= *unit);
    let Some(largest) = largest else {
        return "under 1 s".to_owned();
    };
    let mut rest = seconds;
    let mut words = Vec::new();
    for (unit, name) in UNITS.iter().skip(largest).take(2) {
        if rest / unit > 0 {
            words.push(format!("{} {name}", rest / unit));
        }
        rest %= unit;
    }
    words.join(" ")
}

/// Formats an objective. An objective shorter than three days is shown in hours if it is a whole number of hours,
/// because such objectives are usually configured in hours.
pub(super) fn objective(rpo: Duration) -> String {
    let (seconds, hour) = (rpo.as_secs(), 3600);
    match seconds.is_multiple_of(hour) && rpo < 3 * DAY {
        true => format!("{} h", seconds / hour),
        false => span(rpo),
    }
}

/// Formats a duration in its largest unit, for places where space is limited.
pub(super) fn rounded(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let largest = UNITS.into_iter().find(|(unit, _)| seconds >= *unit);
    largest.map_or_else(|| span(duration), |(unit, name)| format!("{} {name}", seconds / unit))
}

/// Formats a time relative to now, with the exact time as a tooltip.
pub(super) fn time(at: Timestamp, now: Timestamp) -> Markup {
    let exact = in_utc(at, "%Y-%m-%dT%H:%M:%SZ");
    let words = if at > now {
        format!("in {}", span(at.since(now)))
    } else if now.since(at) < Duration::from_secs(1) {
        "just now".to_owned()
    } else {
        format!("{} ago", span(now.since(at)))
    };
    html! { time datetime=(exact) title=(exact) { (words) } }
}

/// Formats a time. Omits the date if the time is less than a day ago.
pub(super) fn clock(at: Timestamp, now: Timestamp) -> String {
    let format = if now.since(at) < DAY {
        "%H:%M UTC"
    } else {
        "%-d %b %H:%M UTC"
    };
    in_utc(at, format)
}

/// Formats a time in UTC with a `strftime` format.
pub(super) fn in_utc(at: Timestamp, format: &str) -> String {
    let at = at.to_calendar();
    at.map(|at| at.strftime(format).to_string()).unwrap_or_default()
}

/// Formats a time relative to now, or returns `word` if there is no time.
pub(super) fn time_or(at: Option<Timestamp>, now: Timestamp, word: &str) -> Markup {
    match at {
        Some(at) => time(at, now),
        None => html! { span.none { (word) } },
    }
}

/// Returns a word with its first letter in upper case.
pub(super) fn capitalize(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(char::to_uppercase).into_iter().flatten();
    first.chain(letters).collect()
}

/// Formats a customer's attributes, for example as `tier gold · team North`.
pub(super) fn attributes_of(attributes: &Attributes) -> String {
    let named = Attributes::NAMES.into_iter().zip(attributes.values());
    let named = named.filter_map(|(name, value)| Some(format!("{name} {}", sanitize(value?))));
    named.collect::<Vec<_>>().join(" · ")
}

/// Formats a time with its date, to the minute.
pub(super) fn date_time(at: Timestamp) -> String {
    in_utc(at, "%-d %b %Y, %H:%M UTC")
}

/// Renders the name of an organization, and isolates its writing direction from the surrounding text.
pub(super) fn organization_name(organization: &str) -> Markup {
    let name = sanitize(organization);
    html! { bdi { @if name.trim().is_empty() { "(no name)" } @else { (name) } } }
}

/// Returns a chip about signs of ransomware.
pub(super) fn signs_chip(signs: RansomwareSigns) -> Markup {
    match signs.potential_attack {
        0 => html! { span.chip.warn { "signs of ransomware" } " " },
        number => {
            html! { span.chip.bad { (counted(number, "workspace", "workspaces")) " possibly under attack" } " " }
        }
    }
}

/// Returns chips with the numbers of overdue and failing modules, if any. A module can be both.
pub(super) fn count_chips(overdue: usize, failing: usize) -> Markup {
    let modules = |number: usize| counted(number, "module", "modules");
    html! {
        @if overdue > 0 { span.chip.bad { (modules(overdue)) " overdue" } " " }
        @if failing > 0 { span.chip.warn { (modules(failing)) " failing" } " " }
    }
}

/// Formats the status of a run.
pub(super) fn status(status: JobStatus) -> String {
    status.label().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_at_most_two_units() {
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
    fn objectives_are_in_hours_if_short() {
        for (hours, words) in [(26, "26 h"), (48, "48 h"), (168, "7 d")] {
            assert_eq!(objective(Duration::from_secs(hours * 3600)), words);
        }
        assert_eq!(objective(Duration::from_secs(90 * 60)), "1 h 30 min");
    }

    #[test]
    fn addresses_and_misleading_characters_are_replaced() {
        assert_eq!(sanitize("Ann <ann@contoso.example> Ltd"), "Ann (email address) Ltd");
        for name in ["@Home Ltd", "Team @ Work", "a@b", "Meet @ 10.30"] {
            assert_eq!(sanitize(name), name, "text that is not an address must be kept");
        }
        assert_eq!(sanitize("\u{202e}live"), "\u{fffd}live");
        assert_eq!(sanitize(&"x".repeat(1000)).len(), MAX_SHOWN_CHARS);
    }

    #[test]
    fn times_are_relative_to_now() {
        let at = Timestamp::from_unix_seconds;
        assert!(time(at(60), at(180)).into_string().contains(">2 min ago<"));
        assert_eq!(clock(at(45_000), at(45_600)), "12:30 UTC");
        assert_eq!(clock(at(45_000), at(200_000)), "1 Jan 12:30 UTC");
        assert!(time(at(180), at(60)).into_string().contains(">in 2 min<"));
        assert!(
            time(at(60), at(60))
                .into_string()
                .contains("datetime=\"1970-01-01T00:01:00Z\"")
        );
    }
}
