//! Types and parsers for the fields of the Elements API, and for the filters and objectives in the configuration. This
//! module does not perform I/O, read the clock or update metrics.
//!
//! Each parser of a field takes the text of a JSON string, number or boolean. It returns `None` if the field does not
//! apply, and an error for an invalid value. Instead of an error, parsers of names and statuses return an unknown
//! value, and parsers of ids return `None`.

mod attributes;
mod comment;
mod customer;
mod customer_filter;
mod generation;
mod health;
mod history;
mod labelled;
mod module;
mod objective;
mod pattern;
mod quantity;
mod run;
mod shard;
mod spelling;
mod status;
mod text;
mod time;
mod trail;
mod unmatched;

pub use attributes::{AttributeTable, Attributes, PerAttribute};
pub use comment::{MAX_COMMENT_CHARS, mask_comment, without_invisible};
pub use customer::{CustomerId, InvalidCustomerId, TenantId, looks_like_id, parse_id};
pub use customer_filter::CustomerFilter;
pub use generation::{Generation, GenerationChoice};
pub use health::{HealthSummary, ModuleHealth, ModuleState, RunSummary};
pub use history::{History, HistoryUpdate};
pub(crate) use labelled::labelled;
pub use module::{
    ModuleKey, NO_MODULE, Named, UNKNOWN_NUMBER, baseline_status, is_housekeeping, module, module_number, object_type,
    report_status, report_statuses, scan_of_service, scanned_service, seat_service, seat_services, service,
    service_number, service_of_module, user_module, v1_module_word, v1_service_word,
};
pub use objective::{DEFAULT_ABANDONED_AFTER, DEFAULT_RPO, ModuleName, Objective, Objectives, Override};
use pattern::folded;
pub use pattern::{DEFAULT_BACKUP_SERVICES, InvalidPattern, NumberedPattern, Pattern};
pub use quantity::{Capacity, Gigabyte, Size, capacity, count, signed, size};
pub use run::{Run, RunKey};
pub use shard::{InvalidShard, MAX_SHARDS, Purpose, Shard, shard_count};
pub(crate) use spelling::nearest;
pub use status::{
    CustomerStatus, JobStatus, JobStatusWord, ManagementMode, ScanMode, customer_status, flag, job_status,
    management_mode, scan_mode,
};
pub use text::{MAX_TEXT_CHARS, counted, grouped, is_misleading, log_safe, replace_misleading, truncate};
pub use time::{DailyScan, Timestamp, daily_time, duration, timestamp};
pub use trail::{PastRun, TRAIL_RUNS};
pub use unmatched::{KnownNames, UnmatchedPattern};

/// Error for a field that contains an invalid value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value")]
pub struct InvalidValue;

/// Result of parsing a field: a value, `None` if the field has no value (such as `N/A`), or an error.
pub type Parsed<T> = Result<Option<T>, InvalidValue>;

/// Text that the API returns for a field that does not apply.
const NOT_APPLICABLE: &str = "N/A";

/// Returns the trimmed text; `None` if it means that there is no value.
fn present(text: &str) -> Option<&str> {
    let text = text.trim();
    (!text.is_empty() && !is_not_applicable(text)).then_some(text)
}

/// Returns whether a field's text means that there is no value.
pub(crate) fn is_absent(text: &str) -> bool {
    present(text).is_none()
}

fn is_not_applicable(text: &str) -> bool {
    text.eq_ignore_ascii_case(NOT_APPLICABLE)
}

/// Parses text that is not absent. `parse` returns `None` for an invalid value.
fn parse_present<'a, T>(text: &'a str, parse: impl FnOnce(&'a str) -> Option<T>) -> Parsed<T> {
    present(text).map(|text| parse(text).ok_or(InvalidValue)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_text_and_not_applicable_are_absent() {
        for text in ["", " ", "\t\n", "\u{a0}", "N/A", "n/a", " N/a "] {
            assert_eq!(present(text), None, "{text:?}");
        }
        for text in ["0", "N / A", "NA", "null", "-"] {
            assert_eq!(present(text), Some(text));
        }
    }

    #[test]
    fn absent_values_are_absent_for_every_parser() {
        for text in ["", "  ", "N/A", " n/a\u{a0}"] {
            assert_eq!(count(text), Ok(None));
            assert_eq!(signed(text), Ok(None));
            assert_eq!(size(text), Ok(None));
            assert_eq!(capacity(text), Ok(None));
            assert_eq!(timestamp(text), Ok(None));
            assert_eq!(duration(text), Ok(None));
            assert_eq!(daily_time(text), Ok(None));
            assert_eq!(flag(text), Ok(None));
            assert_eq!(job_status(text), None);
            assert_eq!(scan_mode(text), None);
            assert_eq!(management_mode(text), None);
            assert_eq!(service(text), None);
            assert_eq!(module(text), None);
            assert_eq!(object_type(text), None);
            assert_eq!(CustomerId::parse(text), None);
        }
    }
}
