//! Parser of settings: YAML files whose values keep their line numbers, and typed readers of these values.
//!
//! [`parse`] turns a text into a tree, [`Field`] reads it, and every [`Error`] contains the place, the key, the problem
//! and the expected value. A value carries its place as its `origin`: `elements.yml:12`, or an environment variable.
//! Independent of the keys.

mod document;
mod field;
mod known;

pub(crate) use self::document::{FILE_LIMIT, parse, parse_variable};
pub(crate) use self::field::{Field, LONGEST, SHORTEST};
pub(crate) use self::known::{nearest_key, refuse_unknown};
use crate::text_file;

/// Reason why settings are rejected, in one line. Messages contain no secrets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] text_file::Error),
    /// A file is not one YAML document, or contains an unknown key.
    #[error("{place}: {problem}")]
    Document {
        /// Place, such as `elements.yml:12`.
        place: String,
        /// The problem and the expected value.
        problem: String,
    },
    /// A value is invalid or missing.
    #[error("{place}: {key}: {problem}")]
    Value {
        /// Place, such as `elements.yml:12` or `ELEMENTS_API__TIMEOUT`.
        place: String,
        /// Dotted key, with the index of an item of a list.
        key: String,
        /// The problem and the expected value.
        problem: String,
    },
    /// The layers cannot be merged.
    #[error("the layers of the configuration cannot be merged")]
    Layers(#[from] ::config::ConfigError),
}
