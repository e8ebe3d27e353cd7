//! What the fields of the Elements API mean, as pure values: no I/O, no clock, no metrics.
//!
//! Every reader takes the text of one field, whether it came as a JSON string or as a JSON number, and gives a
//! value, nothing where the field says that it does not apply, or "there, but not understood". It never guesses:
//! a value is only given if the text says exactly that.

mod customer;
mod module;
mod quantity;
mod run;
mod shard;
mod standing;
mod status;
mod text;
mod time;

pub use customer::{CustomerId, InvalidCustomerId, id, looks_like_id};
pub use module::{
    Named, first_generation_module, first_generation_service, module, module_number, object_type, service,
    service_number, service_of_module,
};
pub use quantity::{Capacity, Gigabyte, capacity, count, signed, size};
pub use run::{History, Run, RunKey};
pub use shard::{InvalidShard, MAX_SHARDS, Purpose, Shard, shard_count};
pub use standing::{Glimpse, ModuleStanding, Standing};
pub use status::{
    CustomerStatus, JobStatus, JobStatusWord, ManagementMode, ScanMode, customer_status, flag, job_status,
    management_mode, scan_mode,
};
pub use text::{MAX_TEXT_CHARS, counted, cut, grouped, is_disguising, shown};
pub use time::{DailyScan, Timestamp, daily_time, duration, timestamp};

/// A field held something that is not a value of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("value not understood")]
pub struct NotUnderstood;

/// What a reader makes of a field: a value, nothing (`N/A`, or no text at all), or something it does not understand.
pub type Parsed<T> = Result<Option<T>, NotUnderstood>;

/// The word with which the API says that a field does not apply.
const NOT_APPLICABLE: &str = "N/A";

/// The text without the space around it, or `None` where it says that there is no value.
fn present(text: &str) -> Option<&str> {
    let text = text.trim();
    (!text.is_empty() && !is_not_applicable(text)).then_some(text)
}

fn is_not_applicable(text: &str) -> bool {
    text.eq_ignore_ascii_case(NOT_APPLICABLE)
}

/// Applies `read` to a text that is present; its `None` means that the text was not understood.
fn understand<'a, T>(text: &'a str, read: impl FnOnce(&'a str) -> Option<T>) -> Parsed<T> {
    present(text).map(|text| read(text).ok_or(NotUnderstood)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_is_no_text_or_not_applicable() {
        for text in ["", " ", "\t\n", "\u{a0}", "N/A", "n/a", " N/a "] {
            assert_eq!(present(text), None, "{text:?}");
        }
        for text in ["0", "N / A", "NA", "null", "-"] {
            assert_eq!(present(text), Some(text));
        }
    }

    #[test]
    fn every_reader_takes_an_absent_value_for_absent() {
        for text in ["", "  ", "N/A", " n/a\u{a0}"] {
            assert_eq!(count(text), Ok(None));
            assert_eq!(signed(text), Ok(None));
            assert_eq!(size(text, Gigabyte::Binary), Ok(None));
            assert_eq!(capacity(text, Gigabyte::Binary), Ok(None));
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
