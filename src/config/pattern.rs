//! How the configuration names customers, services and modules.

use globset::{GlobBuilder, GlobMatcher};

use super::Names;
use super::error::Error;
use super::setting::Setting;

/// What the vendor's names of numbers outside its reference are made of, as in `unknown_399`.
const UNKNOWN_NUMBER: &str = "unknown_";

/// A name, an id or a glob; the case of letters does not count.
///
/// `*` stands for anything, `?` for one ASCII character, `[…]` for one of several, `{a,b}` for alternatives. The pattern also
/// fits the very text it is written as, so that `Contoso [EU]` needs no escapes. White space around a name does not count.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    glob: GlobMatcher,
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, globset::Error> {
        // The glob is matched byte by byte and knows the case of ASCII alone, so both sides come to it in lower case.
        let text = text.trim().to_lowercase();
        let glob = GlobBuilder::new(&text)
            .literal_separator(false)
            .backslash_escape(true)
            .build()?
            .compile_matcher();
        Ok(Self { text, glob })
    }

    pub(super) fn read(setting: &Setting) -> Result<Self, Error> {
        let text = setting.text()?;
        Self::parse(text).map_err(|problem| invalid_glob(setting, &problem))
    }

    /// Whether this names the customer with this id and this name.
    pub fn matches_customer(&self, id: &str, organization: &str) -> bool {
        self.text == id.trim().to_lowercase() || self.matches_name(organization)
    }

    /// Whether this names something of this name.
    pub fn matches_name(&self, name: &str) -> bool {
        let name = name.trim().to_lowercase();
        self.text == name || self.glob.is_match(&name)
    }

    /// The pattern in lower case.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

/// A [`Pattern`] for services or modules, which also go by a number and by the vendor's older names.
#[derive(Clone, Debug)]
pub struct NumberedPattern {
    pattern: Pattern,
    number: Option<u16>,
    number_of: fn(&str) -> Option<u16>,
}

impl NumberedPattern {
    pub(super) fn service(setting: &Setting, names: Names) -> Result<Self, Error> {
        Self::read(setting, names.service)
    }

    pub(super) fn module(setting: &Setting, names: Names) -> Result<Self, Error> {
        Self::read(setting, names.module)
    }

    fn read(setting: &Setting, number_of: fn(&str) -> Option<u16>) -> Result<Self, Error> {
        let word = setting.word()?;
        let pattern = Pattern::parse(&word).map_err(|problem| invalid_glob(setting, &problem))?;
        Ok(Self {
            pattern,
            number: number(&word, number_of),
            number_of,
        })
    }

    /// Whether this names something of this current name.
    pub fn matches(&self, name: &str) -> bool {
        let same_number = || {
            let of_name = match name.strip_prefix(UNKNOWN_NUMBER) {
                Some(digits) => digits.parse().ok(),
                None => (self.number_of)(name),
            };
            self.number.is_some() && self.number == of_name
        };
        self.pattern.matches_name(name) || same_number()
    }
}

impl PartialEq for NumberedPattern {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern && self.number == other.number
    }
}

impl Eq for NumberedPattern {}

/// The number that a word names or is.
pub(super) fn number(word: &str, number_of: fn(&str) -> Option<u16>) -> Option<u16> {
    word.parse().ok().or_else(|| number_of(word))
}

fn invalid_glob(setting: &Setting, problem: &globset::Error) -> Error {
    setting.invalid(format!(
        "is not a glob ({}); expected a name, in which * stands for anything",
        problem.kind()
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::tests::names;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn globs_cross_everything_and_ignore_case() {
        for (glob, name) in [
            ("contoso*", "Contoso / Europe\nLtd"),
            ("*GmbH", "Müller & Söhne gmbh"),
            ("MÜLLER*", "Müller & Söhne GmbH"),
            ("*", ""),
            ("?old", "Gold"),
            ("{north,south}wind", "SouthWind"),
            ("Contoso [EU]", "contoso [eu]"),
            ("Contoso", " Contoso "),
            ("日本*", "日本バックアップ"),
        ] {
            assert!(pattern(glob).matches_name(name), "{glob} {name}");
        }
        assert!(!pattern("Contoso").matches_name("Contoso Ltd"));
        assert!(!pattern("*.com").matches_name("contoso,com"));
    }

    #[test]
    fn customers_go_by_id_or_name() {
        let id = "5F0C3A2E-0000-4000-8000-00000000000a";
        assert!(pattern(id).matches_customer(&id.to_lowercase(), "Contoso"));
        assert!(pattern("Cont*").matches_customer(id, "Contoso"));
        assert!(!pattern("5F0C*").matches_customer(id, "Contoso"));
    }

    #[test]
    fn services_and_modules_go_by_number_too() {
        let module = |text: &str| NumberedPattern {
            pattern: pattern(text),
            number: number(text, names().module),
            number_of: names().module,
        };
        assert!(module("303").matches("Exchange Online"));
        assert!(module("exchange online").matches("Exchange Online"));
        assert!(module("Exchange").matches("Exchange Online"));
        assert!(module("Exch*").matches("Exchange Online"));
        assert!(module("399").matches("unknown_399"));
        assert!(!module("399").matches("Exchange Online"));
        assert!(!module("Loop").matches("Something else"));
    }
}
