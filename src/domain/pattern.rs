//! Patterns for customers and their attributes, services, modules, backup scopes and products.

use globset::{GlobBuilder, GlobMatcher};
use icu_normalizer::ComposingNormalizer;

use super::{module_number, service_number};

/// Pattern for the products whose licences count as backup licences by default.
pub const DEFAULT_BACKUP_SERVICES: &str = "Cloud Backup *";

/// Error for an invalid glob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPattern(globset::ErrorKind);

/// Normalizes a name for comparison: converts it to lower case, composes it (Unicode NFC) and trims it. Whether names
/// are composed or decomposed depends on the system on which they were entered.
pub(super) fn folded(name: &str) -> String {
    let lower = name.trim().to_lowercase();
    ComposingNormalizer::new_nfc().normalize(&lower).into_owned()
}

/// A name, an id or a glob. Case and Unicode composition are ignored.
///
/// `*` matches anything, `?` any ASCII character, `[…]` one of several ASCII characters, and `{a,b}` alternatives. A
/// backslash escapes the next character. A pattern also matches its own text, so that `Contoso [EU]` does not need to
/// be escaped. White space around a name is ignored.
#[derive(Clone, Debug)]
pub struct Pattern {
    written: String,
    /// The text, [`folded`].
    text: String,
    glob: GlobMatcher,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Returns an error if the text is not a valid glob, for example because of an unclosed bracket.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let written = text.trim().to_owned();
        // Case-insensitive globs support only ASCII, so the pattern and the names are folded instead.
        let text = folded(text);
        let glob = GlobBuilder::new(&text)
            .literal_separator(false)
            .backslash_escape(true)
            .build()
            .map_err(|error| InvalidPattern(error.kind().clone()))?
            .compile_matcher();
        Ok(Self { written, text, glob })
    }

    /// Returns whether the pattern is the customer's id, or matches the customer's name. An empty name is an unknown
    /// name, which matches no pattern, not even `*`.
    pub fn matches_customer(&self, id: &str, organization: &str) -> bool {
        let has_name = !organization.trim().is_empty();
        self.text == folded(id) || (has_name && self.matches_name(organization))
    }

    /// Returns whether the pattern matches a name.
    pub fn matches_name(&self, name: &str) -> bool {
        self.matches_folded(&folded(name))
    }

    /// Returns whether the pattern matches the name of a product. The symbols ® and ™, which are hard to type, may be
    /// missing from the pattern.
    pub fn matches_product(&self, name: &str) -> bool {
        self.matches_name(name) || self.matches_name(&name.replace(['®', '™'], ""))
    }

    /// Returns whether the pattern matches a [`folded`] name.
    pub(super) fn matches_folded(&self, name: &str) -> bool {
        self.text == name || self.glob.is_match(name)
    }

    /// Returns whether the pattern consists only of `*`, so that it matches every name.
    pub fn is_any(&self) -> bool {
        !self.text.is_empty() && self.text.bytes().all(|byte| byte == b'*')
    }

    /// Returns the pattern as written.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// Returns the folded pattern, as used in comparisons.
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

/// A [`Pattern`] for services or modules, which also have numbers and older names.
#[derive(Clone, Debug)]
pub struct NumberedPattern {
    pattern: Pattern,
    number: Option<u16>,
    number_of: fn(&str) -> Option<u16>,
}

impl NumberedPattern {
    /// Parses a pattern for services.
    ///
    /// # Errors
    /// See [`Pattern::parse`].
    pub fn service(text: &str) -> Result<Self, InvalidPattern> {
        Self::parse(text, service_number)
    }

    /// Parses a pattern for modules.
    ///
    /// # Errors
    /// See [`Pattern::parse`].
    pub fn module(text: &str) -> Result<Self, InvalidPattern> {
        Self::parse(text, module_number)
    }

    fn parse(text: &str, number_of: fn(&str) -> Option<u16>) -> Result<Self, InvalidPattern> {
        Ok(Self {
            pattern: Pattern::parse(text)?,
            number: number_of(text),
            number_of,
        })
    }

    pub(super) fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// Returns whether the pattern matches the service or module whose current name is `name`.
    pub fn matches(&self, name: &str) -> bool {
        let same_number = || self.number.is_some() && self.number == (self.number_of)(name);
        self.pattern.matches_name(name) || same_number()
    }
}

impl PartialEq for NumberedPattern {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern && self.number == other.number
    }
}

impl Eq for NumberedPattern {}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn globs_match_separators_and_ignore_case() {
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
            ("Caf\u{e9}*", "CAFE\u{301} du Nord"),
            ("cafe\u{301}", "CAF\u{c9}"),
        ] {
            assert!(pattern(glob).matches_name(name), "{glob} {name}");
        }
        assert!(!pattern("Contoso").matches_name("Contoso Ltd"));
        assert!(!pattern("*.com").matches_name("contoso,com"));
    }

    #[test]
    fn customers_match_by_id_or_name() {
        let id = "5F0C3A2E-0000-4000-8000-00000000000a";
        assert!(pattern(id).matches_customer(&id.to_lowercase(), "Contoso"));
        assert!(pattern("Cont*").matches_customer(id, "Contoso"));
        assert!(!pattern("5F0C*").matches_customer(id, "Contoso"));
        assert!(
            !pattern("*").matches_customer(id, " "),
            "an unknown name must match nothing"
        );
        assert!(pattern(id).matches_customer(id, ""));
    }

    #[test]
    fn services_and_modules_also_match_by_number() {
        let module = |text: &str| NumberedPattern::module(text).unwrap();
        assert!(module("303").matches("Exchange Online"));
        assert!(module("exchange online").matches("Exchange Online"));
        assert!(module("Exchange").matches("Exchange Online"));
        assert!(module("Exch*").matches("Exchange Online"));
        assert!(module("399").matches("unknown_399"));
        assert!(!module("399").matches("Exchange Online"));
        assert!(!module("Loop").matches("Something else"));
    }
}
