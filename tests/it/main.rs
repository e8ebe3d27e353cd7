//! The exporter against real sockets: canned answers, the simulated partner, faults, and the program itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says so by panicking"
)]

mod canned;
mod collectors;
mod parser;
mod support;
