//! Ids of customers and tenants.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::present;
use super::text::is_replaced_in_labels;

/// Maximum length of an id in bytes. Ids from the API are GUIDs with 36 characters. The limit allows other formats, but
/// restricts what a malicious response can add to labels and paths.
const MAX_ID_BYTES: usize = 256;

/// Minimum length of text in the configuration that is interpreted as an id. An organization's name is unlikely to
/// consist of this many hex digits and hyphens. The shortest id in the reference's samples has 34 characters.
const MIN_ID_LENGTH: usize = 20;

/// Length of a GUID with hyphens.
const GUID_LENGTH: usize = 36;

/// A customer's id, called "tenant owner ID" in the reference. Cheap to clone.
///
/// An id may contain characters such as `/` and `"`, so it must be encoded in paths and labels. GUIDs that differ only
/// in case are equal, because their case varies between responses.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CustomerId {
    text: Arc<str>,
    /// The id in lower case, if it is a GUID with upper-case letters.
    folded: Option<Arc<str>>,
}

/// Error for a string that is not a valid customer id. See [`parse_id`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid customer id")]
pub struct InvalidCustomerId;

impl CustomerId {
    /// Parses an id, ignoring surrounding white space; returns `None` if [`parse_id`] rejects it.
    pub fn parse(text: &str) -> Option<Self> {
        let id = parse_id(text)?;
        let folded = is_guid_with_capitals(id).then(|| Arc::from(id.to_ascii_lowercase()));
        let text = Arc::from(id);
        Some(Self { text, folded })
    }

    /// Returns the id in a form that is safe to log.
    pub fn log_safe(&self) -> String {
        super::log_safe(&self.text)
    }

    /// Returns the id as received, without surrounding white space.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn key(&self) -> &str {
        self.folded.as_deref().unwrap_or(&self.text)
    }
}

fn is_guid_with_capitals(id: &str) -> bool {
    id.len() == GUID_LENGTH && looks_like_id(id) && id.bytes().any(|byte| byte.is_ascii_uppercase())
}

impl PartialEq for CustomerId {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for CustomerId {}

impl PartialOrd for CustomerId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for CustomerId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl Hash for CustomerId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl fmt::Display for CustomerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<CustomerId> for String {
    fn from(id: CustomerId) -> Self {
        id.as_str().to_owned()
    }
}

impl TryFrom<String> for CustomerId {
    type Error = InvalidCustomerId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or(InvalidCustomerId)
    }
}

/// A tenant's id.
///
/// GUIDs are converted to lower case: their case varies between responses, but queries join series on the id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct TenantId(String);

impl TenantId {
    /// Parses an id; `None` if [`parse_id`] rejects it.
    pub fn parse(text: &str) -> Option<Self> {
        parse_id(text).map(|id| Self::from(id.to_owned()))
    }

    /// Returns the id as a label value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for TenantId {
    fn from(mut id: String) -> Self {
        if is_guid_with_capitals(&id) {
            id.make_ascii_lowercase();
        }
        Self(id)
    }
}

impl From<TenantId> for String {
    fn from(id: TenantId) -> Self {
        id.0
    }
}

/// Trims an id. Returns `None` if it is empty, `N/A` or longer than 256 bytes, or if it contains characters that are
/// replaced in labels. Labels would not distinguish ids that differ only in such characters.
pub fn parse_id(text: &str) -> Option<&str> {
    present(text).filter(|id| id.len() <= MAX_ID_BYTES && !id.contains(is_replaced_in_labels))
}

/// Returns whether a configured string is an id rather than a pattern for an organization's name. An id has at least 20
/// characters, only hex digits and hyphens, and at least one hyphen.
pub fn looks_like_id(text: &str) -> bool {
    text.len() >= MIN_ID_LENGTH && text.contains('-') && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "caf94a75-2cc6-43aa-b04b-794c8baf5ea3";

    #[test]
    fn guids_are_equal_in_any_case_and_keep_their_spelling() {
        let (lower, upper) = (
            CustomerId::parse(ID).unwrap(),
            CustomerId::parse(&ID.to_uppercase()).unwrap(),
        );
        assert_eq!(lower, upper);
        assert_eq!(upper.as_str(), ID.to_uppercase());
        let ids = std::collections::BTreeSet::from([lower.clone()]);
        assert!(ids.contains(&upper));
        let ids = std::collections::HashSet::from([lower]);
        assert!(ids.contains(&upper));
        assert_ne!(CustomerId::parse("c-a").unwrap(), CustomerId::parse("C-A").unwrap());
    }

    #[test]
    fn tenant_ids_are_normalized() {
        let tenant = TenantId::parse(&format!(" {} ", ID.to_uppercase())).unwrap();
        assert_eq!(tenant.as_str(), ID);
        let saved: TenantId = serde_json::from_str(&format!("\"{}\"", ID.to_uppercase())).unwrap();
        assert_eq!(saved, tenant);
        assert_ne!(TenantId::parse("T1"), TenantId::parse("t1"));
        assert_eq!(TenantId::parse("N/A"), None);
    }

    #[test]
    fn id_is_trimmed_and_otherwise_unchanged() {
        assert_eq!(CustomerId::parse(&format!(" {ID}\n")).unwrap().as_str(), ID);
        let hostile = "../../x?y#z\"} 0";
        assert_eq!(CustomerId::parse(hostile).unwrap().to_string(), hostile);
    }

    #[test]
    fn id_has_a_maximum_length() {
        assert!(CustomerId::parse(&"x".repeat(256)).is_some());
        assert_eq!(CustomerId::parse(&"x".repeat(257)), None);
        assert_eq!(CustomerId::parse(&"é".repeat(129)), None);
    }

    #[test]
    fn serde_rejects_what_parse_rejects() {
        let id = CustomerId::parse(ID).unwrap();
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{ID}\""));
        assert_eq!(serde_json::from_str::<CustomerId>(&json).unwrap(), id);
        assert!(serde_json::from_str::<CustomerId>("\"N/A\"").is_err());
        assert!(serde_json::from_str::<CustomerId>("\"\"").is_err());
    }

    #[test]
    fn only_hex_and_hyphens_look_like_an_id() {
        for id in [
            ID,
            "00427fbc-8832-46cf-a1d2-582f46e638",
            "CAF94A75-2CC6-43AA-B04B-794C8BAF5EA3",
        ] {
            assert!(looks_like_id(id), "{id}");
        }
        for other in [
            "",
            "caf94a75-2cc6",
            "caf94a752cc643aab04b794c8baf5ea3",
            "contoso-*-and-its-subsidiaries",
            "caf94a75-2cc6-43aa-b04b-794c8baf5ea*",
            "caf94a75-2cc6-43aa-b04b-794c8baf5ea3 ",
        ] {
            assert!(!looks_like_id(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn id_is_the_trimmed_text(text in any::<String>()) {
            if let Some(id) = CustomerId::parse(&text) {
                prop_assert_eq!(id.as_str(), text.trim());
                prop_assert_eq!(CustomerId::parse(id.as_str()), Some(id.clone()));
            }
            let _ = looks_like_id(&text);
        }
    }
}
