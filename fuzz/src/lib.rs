//! What is tried on whatever input: each module is one target, and its `check` panics where something does not hold.
//!
//! The targets compare what the exporter says with a second reading that is written down here anew, by other means.

pub mod answers;
pub mod config;
pub mod labels;
pub mod parser;
mod snapshot;
pub mod state;
pub mod values;
