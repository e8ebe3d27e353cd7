//! Benchmarks for the performance and size goals: `benches/run NAME`.
//!
//! Absolute times vary on a shared machine, so most results are ratios to a reference that is measured in the same run.
//! The compared programs are measured in turn, and the result is the median.

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
    reason = "a benchmark panics if it cannot continue, and prints its results"
)]

mod bare;
mod client;
mod compressed;
#[path = "../../tests/monitoring/dashboards.rs"]
#[allow(dead_code, reason = "only the tests use the rest of the module")]
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

/// Counts allocations and their bytes, for `render` and `memory`.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    // Cargo adds `--bench` to the arguments of every benchmark.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if matches!(*arguments.as_slice(), [_]) {
        report::print_processor();
    }
    match *arguments.as_slice() {
        ["render"] => render::run(),
        ["scrape"] => scrape::run(),
        ["compressed"] => compressed::run(),
        ["memory"] => memory::run(),
        ["sweep"] => sweep::run(),
        ["start"] => program::run(),
        ["fleet"] => fleet::run(),
        // Processes started by the benchmarks above.
        ["serve", which] => server::serve(which),
        ["stub", customers, latency] => stub::serve(customers.parse().unwrap(), latency.parse().unwrap()),
        ["bare", address, concurrency] => bare::run(address, concurrency.parse().unwrap()),
        ["scraper", address, path, times] => {
            client::scrape_repeatedly(address.parse().unwrap(), path, times.parse().unwrap())
        }
        _ => {
            eprintln!("usage: benches/run render|scrape|compressed|memory|sweep|start|fleet");
            std::process::exit(64);
        }
    }
}
