//! Memory use with a million series, both idle and with eight scrapers.

use std::hint::black_box;

use elements_exporter::exposition::Table;
use stats_alloc::Region;

use crate::client::scrape_from_processes;
use crate::report::{print_goal, status_bytes};
use crate::server::Server;
use crate::{ALLOCATOR, dense, peers};

const SCRAPERS: usize = 8;
const SCRAPES: usize = 3;

pub fn run() {
    let region = Region::new(ALLOCATOR);
    let tables: Vec<Table> = (0..dense::CUSTOMERS).map(dense::table).collect();
    let dense_bytes = allocated_bytes(&region);
    drop(black_box(tables));
    let region = Region::new(ALLOCATOR);
    let store = dense::store();
    let store_bytes = allocated_bytes(&region);
    drop(store);
    let region = Region::new(ALLOCATOR);
    let families = peers::families();
    let family_bytes = allocated_bytes(&region);
    drop(black_box(families));
    let per_series = |bytes: f64| bytes / dense::SERIES as f64;
    println!("bytes per series: tables {:.1}", per_series(dense_bytes));
    println!(
        "                store with these tables, its customers and freshness {:.1}",
        per_series(store_bytes)
    );
    println!(
        "                prometheus-client, Family {:.1}",
        per_series(family_bytes)
    );

    let peaks = ["empty", "ours", "reference"].map(|which| {
        let server = Server::start(which);
        scrape_from_processes(SCRAPERS, SCRAPES, server.address, "/metrics");
        status_bytes(server.pid(), "VmHWM") as f64
    });
    let [empty, ours, reference] = peaks;
    println!("peak memory with {SCRAPERS} compressed scrapers, in MB:");
    println!("    an empty server       {:>8.1}", empty / 1e6);
    println!("    ours                      {:>8.1}", ours / 1e6);
    println!("    the reference stack       {:>8.1}", reference / 1e6);
    print_goal("bytes per series", per_series(store_bytes), 16.0);
    print_goal(
        "peak memory, relative to the reference stack",
        ours / reference,
        1.0 / 20.0,
    );
}

/// Returns the number of bytes that were allocated but not yet freed, including reallocations.
fn allocated_bytes(region: &Region<'_, std::alloc::System>) -> f64 {
    let change = region.change();
    change.bytes_allocated as f64 - change.bytes_deallocated as f64
}
