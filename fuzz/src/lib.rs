//! Fuzz targets. The `check` function of each target's module panics if a property is violated.
//!
//! Most targets compare the exporter's results with independent implementations in this crate.

pub mod config;
pub mod labels;
pub mod parser;
pub mod responses;
mod snapshot;
pub mod state;
pub mod values;
