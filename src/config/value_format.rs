//! Formats of values, as text for the reference and error messages.

use std::fmt;
use std::time::Duration;

use crate::settings::MIN_DURATION;

/// Format of a key's values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueFormat {
    /// A string, with a description of its format.
    Text(&'static str),
    /// A date or a timestamp, with a description of its format.
    Date(&'static str),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A boolean.
    Boolean,
    /// A duration, with a description.
    Duration(&'static str),
    /// A duration from `MIN_DURATION` to this maximum.
    DurationUpTo(Duration),
    /// A duration or a word, with a regular expression for the word and a description of both.
    DurationOr(&'static str, &'static str),
    /// A number above 0, up to this maximum.
    Number(f64),
    /// An integer from a minimum to an optional maximum.
    Integer(usize, Option<usize>),
    /// A list of strings, with a description of the list.
    List(&'static str),
    /// A list of RPO overrides, with a description of the list; see [`OVERRIDE_KEYS`](super::OVERRIDE_KEYS).
    Overrides(&'static str),
}

impl ValueFormat {
    /// Returns whether the values are lists.
    pub fn is_list(self) -> bool {
        matches!(self, Self::List(_) | Self::Overrides(_))
    }
}

impl fmt::Display for ValueFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(phrase)
            | Self::Date(phrase)
            | Self::Duration(phrase)
            | Self::List(phrase)
            | Self::Overrides(phrase) => formatter.write_str(phrase),
            Self::DurationOr(_, phrase) => formatter.write_str(phrase),
            Self::DurationUpTo(longest) => {
                let [shortest, longest] = [MIN_DURATION, *longest].map(humantime::format_duration);
                write!(formatter, "a duration from {shortest} to {longest}")
            }
            Self::Boolean => formatter.write_str("`true` or `false`"),
            Self::Choice([others @ .., last]) => {
                for (index, word) in others.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    write!(formatter, "{comma}`{word}`")?;
                }
                write!(formatter, " or `{last}`")
            }
            Self::Choice([]) => Ok(()),
            Self::Number(most) => write!(formatter, "a number above 0 and at most {most}"),
            Self::Integer(least, Some(most)) => write!(formatter, "a whole number from {least} to {most}"),
            Self::Integer(least, None) => write!(formatter, "a whole number of at least {least}"),
        }
    }
}
