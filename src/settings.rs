//! Parses settings in two steps: first YAML files into values with line numbers, and then these values into types.
//!
//! [`parse`] converts text to a tree of values, and [`Field`] parses each value. Every [`Error`] about a value contains
//! its location, its key, the problem and the expected value. The location of a value is its `origin`:
//! `elements.yml:12`, or the name of an environment variable. This module does not define the keys.

mod document;
mod field;
mod known;

pub(crate) use self::document::{FILE_LIMIT, parse, parse_variable};
pub(crate) use self::field::{Field, MAX_DURATION, MIN_DURATION};
pub(crate) use self::known::{nearest_key, reject_unknown_keys};
use crate::text_file;

/// Reason for rejecting settings. Messages fit on one line and contain no secrets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] text_file::Error),
    /// A document is invalid, or a key or an environment variable is unknown.
    #[error("{location}: {problem}")]
    Document {
        /// Location, such as `elements.yml:12`.
        location: String,
        /// The problem and the expected value.
        problem: String,
    },
    /// A value is invalid or missing.
    #[error("{location}: {key}: {problem}")]
    Value {
        /// Location, such as `elements.yml:12` or `ELEMENTS_API__TIMEOUT`.
        location: String,
        /// Dotted key, with an index for a list item.
        key: String,
        /// The problem and the expected value.
        problem: String,
    },
    /// The layers cannot be merged.
    #[error("the layers of the configuration cannot be merged")]
    Layers(#[from] ::config::ConfigError),
}
