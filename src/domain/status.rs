//! Statuses, modes and flags. Statuses and modes have a variant for unknown values.

mod job;

use serde::{Deserialize, Serialize};

pub use self::job::{JobStatus, JobStatusWord, job_status};
use super::{Parsed, count, is_not_applicable, labelled, parse_present, present};

/// The status of a customer, from the field `jobStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(i8)]
pub enum CustomerStatus {
    /// "N/A", which is a valid status here.
    NotApplicable = 0,
    /// No problems.
    Working = 1,
    /// Failed.
    Failed = 2,
    /// Not set up yet.
    WaitingForConfiguration = 3,
    /// Several problems.
    MultipleIssuesFound = 4,
    /// Some objects were not backed up.
    FinishedWithException = 5,
    /// No backup reported a status.
    NoBackupUpdates = 6,
    /// A number or word that is not in the reference.
    Unknown = -1,
}

impl CustomerStatus {
    /// Returns the status number from the reference; −1 for [`CustomerStatus::Unknown`].
    pub const fn code(self) -> i8 {
        self as i8
    }
}

/// Parses the status of a customer: a number, or words in any case and spacing. `None` only for empty text.
pub fn customer_status(text: &str) -> Option<CustomerStatus> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    if is_not_applicable(text) {
        return Some(CustomerStatus::NotApplicable);
    }
    Some(match (number(text), without_separators(text).as_str()) {
        (Some(0), _) => CustomerStatus::NotApplicable,
        (Some(1), _) | (None, "working") => CustomerStatus::Working,
        (Some(2), _) | (None, "failed") => CustomerStatus::Failed,
        (Some(3), _) | (None, "waitingforconfiguration") => CustomerStatus::WaitingForConfiguration,
        (Some(4), _) | (None, "multipleissuesfound") => CustomerStatus::MultipleIssuesFound,
        (Some(5), _) | (None, "finishedwithexception" | "finishedwithexceptions") => {
            CustomerStatus::FinishedWithException
        }
        (Some(6), _) | (None, "nobackupupdates") => CustomerStatus::NoBackupUpdates,
        _ => CustomerStatus::Unknown,
    })
}

labelled! {
    /// Mode in which a scan profile finds objects.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    pub enum ScanMode, label {
        /// Number 0.
        Express => "express",
        /// Number 1.
        Advanced => "advanced",
        /// A number or word that is not in the reference.
        Unknown => "unknown",
    }
}

/// Parses a scan mode: 0 or 1, or words such as `Express` or `Advance mode`. `None` if absent.
pub fn scan_mode(text: &str) -> Option<ScanMode> {
    let text = present(text)?;
    Some(match (number(text), without_separators(text).as_str()) {
        (Some(0), _) | (None, "express" | "expressmode") => ScanMode::Express,
        (Some(1), _) | (None, "advanced" | "advance" | "advancedmode" | "advancemode") => ScanMode::Advanced,
        _ => ScanMode::Unknown,
    })
}

labelled! {
    /// The party that manages a customer.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    pub enum ManagementMode, label {
        /// Number 0.
        Customer => "customer",
        /// Number 1.
        Partner => "partner",
        /// Number 2.
        ToBeConfigured => "to_be_configured",
        /// A number or word that is not in the reference.
        Unknown => "unknown",
    }
}

/// Parses a management mode: 0 to 2, or a word. `None` if absent.
pub fn management_mode(text: &str) -> Option<ManagementMode> {
    let text = present(text)?;
    Some(match (number(text), without_separators(text).as_str()) {
        (Some(0), _) | (None, "customer") => ManagementMode::Customer,
        (Some(1), _) | (None, "partner") => ManagementMode::Partner,
        (Some(2), _) | (None, "tobeconfigured") => ManagementMode::ToBeConfigured,
        _ => ManagementMode::Unknown,
    })
}

/// Parses a flag, ignoring case: true or false, yes or no, 1 or 0, enabled or disabled.
///
/// # Errors
///
/// Returns an error for anything else.
pub fn flag(text: &str) -> Parsed<bool> {
    parse_present(text, |text| match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" | "enabled" => Some(true),
        "false" | "no" | "0" | "disabled" => Some(false),
        _ => None,
    })
}

/// Parses a number; `None` for a word.
fn number(text: &str) -> Option<u64> {
    count(text).ok().flatten()
}

/// Returns the text in lower case without separators.
fn without_separators(text: &str) -> String {
    text.chars()
        .filter(|c| !(c.is_whitespace() || matches!(c, '-' | '_')))
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::InvalidValue;
    use super::*;

    #[test]
    fn customer_statuses_match_the_reference() {
        use CustomerStatus::*;
        for (code, word, status) in [
            (0, "N/A", NotApplicable),
            (1, "Working", Working),
            (2, "Failed", Failed),
            (3, "Waiting for configuration", WaitingForConfiguration),
            (4, "Multiple issues found", MultipleIssuesFound),
            (5, "Finished with exception", FinishedWithException),
            (6, "No backup updates", NoBackupUpdates),
        ] {
            assert_eq!(status.code(), code);
            for text in [
                code.to_string(),
                word.to_owned(),
                word.to_lowercase(),
                word.to_uppercase(),
            ] {
                assert_eq!(customer_status(&text), Some(status), "{text:?}");
            }
        }
    }

    #[test]
    fn customer_status_is_absent_only_if_empty() {
        assert_eq!(customer_status(""), None);
        assert_eq!(customer_status("  "), None);
        for text in ["7", "-1", "1.5", "Broken", "unknown"] {
            assert_eq!(customer_status(text), Some(CustomerStatus::Unknown), "{text:?}");
        }
        assert_eq!(CustomerStatus::Unknown.code(), -1);
    }

    #[test]
    fn scan_modes_are_parsed() {
        for text in ["0", "0.0", "Express", "express mode", "Express mode"] {
            assert_eq!(scan_mode(text), Some(ScanMode::Express), "{text:?}");
        }
        for text in ["1", "Advanced", "Advance mode", "Advanced Mode"] {
            assert_eq!(scan_mode(text), Some(ScanMode::Advanced), "{text:?}");
        }
        for text in ["2", "-1", "Fast"] {
            assert_eq!(scan_mode(text), Some(ScanMode::Unknown), "{text:?}");
        }
        assert_eq!(
            [ScanMode::Express, ScanMode::Advanced, ScanMode::Unknown].map(ScanMode::label),
            ["express", "advanced", "unknown"]
        );
    }

    #[test]
    fn management_modes_are_parsed() {
        use ManagementMode::*;
        for (number, word, mode, label) in [
            ("0", "Customer", Customer, "customer"),
            ("1", "Partner", Partner, "partner"),
            ("2", "To be configured", ToBeConfigured, "to_be_configured"),
            ("3", "Somebody", Unknown, "unknown"),
        ] {
            assert_eq!(management_mode(number), Some(mode));
            assert_eq!(management_mode(word), Some(mode));
            assert_eq!(mode.label(), label);
        }
    }

    #[test]
    fn flags_are_parsed() {
        for text in ["true", "True", " TRUE ", "Yes", "1", "Enabled"] {
            assert_eq!(flag(text), Ok(Some(true)), "{text:?}");
        }
        for text in ["false", "False", "No", "0", "Disabled"] {
            assert_eq!(flag(text), Ok(Some(false)), "{text:?}");
        }
        for text in ["2", "-1", "on", "maybe", "null", "truee", "1.0"] {
            assert_eq!(flag(text), Err(InvalidValue), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn parsers_do_not_panic(text in any::<String>()) {
            let _ = customer_status(&text);
            let _ = scan_mode(&text);
            let _ = management_mode(&text);
            let _ = flag(&text);
        }

    }
}
