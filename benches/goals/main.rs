//! The goals of speed and size, each beside what it is measured against, in one run: `benches/run NAME`.
//!
//! Ratios of one run count, because times of a shared machine do not. Rounds of everything compared alternate, and what
//! is told is their median.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark that cannot go on says so by panicking, and speaks to whoever runs it"
)]

mod bare;
mod client;
mod compressed;
#[path = "../../tests/it/proof/dashboards.rs"]
#[allow(dead_code, reason = "the tests look at more of a dashboard")]
mod dashboards;
mod dense;
mod fleet;
mod memory;
mod peers;
mod program;
mod render;
mod report;
mod scrape;
mod server;
mod stub;
mod sweep;

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Counts what is allocated, for the goals that say that nothing is, or how much.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    // Cargo puts `--bench` among the arguments of every benchmark.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments.as_slice() {
        ["render"] => render::run(),
        ["scrape"] => scrape::run(),
        ["compressed"] => compressed::run(),
        ["memory"] => memory::run(),
        ["sweep"] => sweep::run(),
        ["start"] => program::run(),
        ["fleet"] => fleet::run(),
        // Processes that the above start of themselves.
        ["serve", which] => server::serve(which),
        ["stub", customers, latency] => stub::serve(customers.parse().unwrap(), latency.parse().unwrap()),
        ["bare", address, customers, concurrency] => {
            bare::run(address, customers.parse().unwrap(), concurrency.parse().unwrap());
        }
        ["draw", address, path, times] => client::draw(address.parse().unwrap(), path, times.parse().unwrap()),
        _ => {
            eprintln!("usage: benches/run render|scrape|compressed|memory|sweep|start|fleet");
            std::process::exit(64);
        }
    }
}
