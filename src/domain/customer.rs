//! Who a value is about.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::present;
use super::text::is_lost_in_labels;

/// Longest id that is taken, in bytes. The API's ids are GUIDs of 36; the rest is room for a format not yet seen,
/// and an end to what a hostile answer can make every label and every path carry.
const MAX_ID_BYTES: usize = 256;

/// Shortest text that counts as an id in configuration: an organization's name of hex letters and hyphens that is
/// this long is not to be expected, and the shortest id in the reference's samples has 34 characters.
const MIN_ID_LENGTH: usize = 20;

/// The length of a GUID in its usual form.
const GUID_LENGTH: usize = 36;

/// The id of a customer, the "tenant owner ID" of the reference. Cheap to clone.
///
/// Its characters are whatever the API sent, so it has to be encoded wherever it becomes part of a path or a label. Two
/// GUIDs that differ in the case of their letters only are the same: answers disagree about it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CustomerId {
    text: Arc<str>,
    /// The same in lower case, for a GUID that is written with capitals.
    folded: Option<Arc<str>>,
}

/// A text that cannot be the id of a customer, as [`id`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a customer")]
pub struct InvalidCustomerId;

impl CustomerId {
    /// Takes an id without the space around it; `None` where [`id`] finds none.
    pub fn parse(text: &str) -> Option<Self> {
        let id = id(text)?;
        let folded = is_guid_with_capitals(id).then(|| Arc::from(id.to_ascii_lowercase()));
        let text = Arc::from(id);
        Some(Self { text, folded })
    }

    /// The id for a person to read in a log.
    pub fn shown(&self) -> String {
        super::shown(&self.text)
    }

    /// The id as the API wrote it.
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

/// An id without the space around it; `None` if it is empty, `N/A`, longer than 256 bytes, or has characters that cannot
/// be shown: two ids that differ in those alone would be one series.
pub fn id(text: &str) -> Option<&str> {
    present(text).filter(|id| id.len() <= MAX_ID_BYTES && !id.contains(is_lost_in_labels))
}

/// Whether a text in the configuration is meant as an id, and not as a pattern for an organization's name:
/// at least 20 hex digits and hyphens, and nothing else.
pub fn looks_like_id(text: &str) -> bool {
    text.len() >= MIN_ID_LENGTH && text.contains('-') && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    const ID: &str = "caf94a75-2cc6-43aa-b04b-794c8baf5ea3";

    #[test]
    fn a_guid_is_the_same_in_either_case_and_stays_as_it_was_written() {
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
    fn an_id_is_trimmed_and_otherwise_left_alone() {
        assert_eq!(CustomerId::parse(&format!(" {ID}\n")).unwrap().as_str(), ID);
        let hostile = "../../x?y#z\"} 0";
        assert_eq!(CustomerId::parse(hostile).unwrap().to_string(), hostile);
    }

    #[test]
    fn an_id_has_a_limit() {
        assert!(CustomerId::parse(&"x".repeat(256)).is_some());
        assert_eq!(CustomerId::parse(&"x".repeat(257)), None);
        assert_eq!(CustomerId::parse(&"é".repeat(129)), None);
    }

    #[test]
    fn serde_refuses_what_parse_refuses() {
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
        fn any_id_is_the_trimmed_text(text in any::<String>()) {
            if let Some(id) = CustomerId::parse(&text) {
                prop_assert_eq!(id.as_str(), text.trim());
                prop_assert_eq!(CustomerId::parse(id.as_str()), Some(id.clone()));
            }
            let _ = looks_like_id(&text);
        }
    }
}
