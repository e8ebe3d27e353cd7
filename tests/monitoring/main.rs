//! Tests of dashboards, rules and the Alertmanager examples with Prometheus and Alertmanager. The servers listen on
//! loopback, store data in a temporary directory, and stop when the test ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests panic to fail, and nothing here is public"
)]

#[path = "../it/harness/mod.rs"]
mod harness;

mod backfill;
mod colours;
mod dashboards;
mod gates;
mod history;
mod labels;
mod mutations;
mod notifications;
mod pages;
mod promtool;
mod queries;
mod report;
mod rules;
