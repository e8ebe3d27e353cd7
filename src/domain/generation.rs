//! Versions of the partner API.

use std::fmt;

/// A version of the partner API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// API v1. Its paths do not contain `v3`.
    V1,
    /// API v3. Its paths contain `v3`.
    V3,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V3 => "v3",
        })
    }
}

/// The configured API version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GenerationChoice {
    /// Always this version.
    Fixed(Generation),
    /// API v3 if the registration has the v3 permission to read customers; otherwise API v1.
    #[default]
    Auto,
}
