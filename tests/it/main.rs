//! Tests of the exporter over real sockets: with canned responses, with the simulated partner, with faults, and as a
//! separate program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests panic to fail, and nothing here is public"
)]

mod assets;
mod attributes;
mod backfill;
mod check;
mod collectors;
mod customers;
mod demo;
mod docs;
mod drift;
mod faults;
mod harness;
mod optional;
mod page;
mod program;
mod reload;
mod runs;
mod scaling;
mod scrapers;
mod security;
mod shards;
mod use_lines;
mod web;
mod world;
