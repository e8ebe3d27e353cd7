//! Fuzz targets: each module is one target, and its `check` panics if a property is violated.
//!
//! The targets compare the exporter's results with independent implementations in this crate.

pub mod config;
pub mod labels;
pub mod parser;
pub mod responses;
mod snapshot;
pub mod state;
pub mod values;
