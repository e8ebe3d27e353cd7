//! Generations of the API.

use std::fmt;

/// A generation of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The first, whose paths have no version.
    V1,
    /// The second, whose paths contain `v3`.
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

/// Configured choice of the generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GenerationChoice {
    /// This generation.
    Fixed(Generation),
    /// The second if the registration has its customers permission, otherwise the first.
    #[default]
    Auto,
}
