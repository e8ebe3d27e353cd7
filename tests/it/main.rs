//! The exporter against real sockets: canned answers, the simulated partner, faults, and the program itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test that cannot go on says so by panicking, and nothing here is seen from outside"
)]

mod assets;
mod canned;
mod check;
mod collectors;
mod customers;
mod docs;
mod drift;
mod faults;
mod page;
mod parser;
mod program;
mod proof;
mod reload;
mod scrapers;
mod security;
mod shards;
mod support;
mod use_lines;
mod web;
mod world;
