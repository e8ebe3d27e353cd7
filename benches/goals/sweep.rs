//! Duration and CPU time of a cycle of all collectors. The duration is measured with a fixed API latency, while the
//! exporter is scraped. The CPU time is measured without latency.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Encoding, fetch_text, scrape};
use crate::program::Exporter;
use crate::report::{cpu_time, print_goal, quantile};
use crate::server::Server;

pub const LATENCY: Duration = Duration::from_millis(100);
const CONCURRENCY: usize = 64;

/// Number of customers for measuring the CPU time, which is proportional to it. A small number is therefore enough.
const COST_CUSTOMERS: usize = 2000;

/// Timeout of a cycle.
const TIMEOUT: Duration = Duration::from_secs(900);

pub fn run() {
    let customers: usize = std::env::var("BENCH_CUSTOMERS").map_or(10_000, |text| text.parse().unwrap());
    let stub = stub(customers, LATENCY);
    let exporter = Exporter::start(&stub.address.to_string(), CONCURRENCY);
    let empty = Server::start("empty");
    let done = AtomicBool::new(false);
    let one = format!("/metrics?customer_id={}", crate::dense::customer_id(7));
    let (complete, narrow) = thread::scope(|scope| {
        let complete = scope.spawn(|| every_second(&done, || scrape(exporter.address, "/metrics", Encoding::Gzip).0));
        let narrow = scope.spawn(|| {
            let mut times: [Vec<Duration>; 2] = Default::default();
            while !done.load(Ordering::Relaxed) {
                times[0].push(scrape(exporter.address, &one, Encoding::Identity).0);
                times[1].push(scrape(empty.address, "/metrics", Encoding::Identity).0);
                thread::sleep(Duration::from_millis(20));
            }
            times
        });
        wait_for_cycle(&exporter);
        done.store(true, Ordering::Relaxed);
        (complete.join().unwrap(), narrow.join().unwrap())
    });
    let (requests, elapsed) = requests_and_duration(&stub);
    let floor = requests as f64 * LATENCY.as_secs_f64() / CONCURRENCY as f64;
    println!(
        "{customers} customers, {requests} requests with a latency of {LATENCY:?}, {CONCURRENCY} in parallel: {elapsed:.1} s; latency alone: {floor:.1} s"
    );
    println!(
        "mean request duration, measured by the exporter: {:.1} ms",
        1e3 * exporter.mean_request()
    );
    let milliseconds = |time: Duration| 1e3 * time.as_secs_f64();
    let [narrow, empty] = narrow;
    for (name, times) in [
        ("complete compressed scrapes", &complete),
        ("scrapes of one customer", &narrow),
        ("scrapes of an empty server", &empty),
    ] {
        let (median, slow) = (quantile(times, 0.5), quantile(times, 0.99));
        println!(
            "during the cycle, {} {name}: median {:.1} ms, p99 {:.1} ms",
            times.len(),
            milliseconds(median),
            milliseconds(slow)
        );
    }
    let p99 = quantile(&narrow, 0.99);
    drop(exporter);
    drop(stub);

    let stub = stub_without_latency();
    let exporter = Exporter::start(&stub.address.to_string(), 8);
    let before = cpu_time(exporter.pid());
    wait_for_cycle(&exporter);
    let ours = cpu_time(exporter.pid()) - before;
    drop(exporter);
    let (pages, _) = requests_and_duration(&stub);
    let bare = Command::new(std::env::current_exe().unwrap())
        .args(["bare", &stub.address.to_string(), "8"])
        .output()
        .unwrap();
    let bare: f64 = String::from_utf8(bare.stdout).unwrap().trim().parse().unwrap();
    println!(
        "{pages} pages: {:.2} s of CPU time, bare hyper and serde_json {bare:.2} s",
        ours.as_secs_f64()
    );
    print_goal("a cycle, relative to the latency of its requests", elapsed / floor, 1.1);
    print_goal("p99 of ?customer_id= during the cycle, in ms", milliseconds(p99), 5.0);
    print_goal(
        "CPU time, relative to bare hyper and serde_json",
        ours.as_secs_f64() / bare,
        1.5,
    );
}

pub fn stub(customers: usize, latency: Duration) -> Server {
    let mut command = Command::new(std::env::current_exe().unwrap());
    Server::spawn(command.args(["stub", &customers.to_string(), &latency.as_millis().to_string()]))
}

fn stub_without_latency() -> Server {
    stub(COST_CUSTOMERS, Duration::ZERO)
}

fn every_second(done: &AtomicBool, mut work: impl FnMut() -> Duration) -> Vec<Duration> {
    let mut times = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let start = Instant::now();
        times.push(work());
        thread::sleep(Duration::from_secs(1).saturating_sub(start.elapsed()));
    }
    times
}

/// Waits until every collector has polled every customer.
pub fn wait_for_cycle(exporter: &Exporter) {
    let start = Instant::now();
    while !exporter.has_polled_everything() {
        assert!(start.elapsed() < TIMEOUT, "the cycle did not complete");
        thread::sleep(Duration::from_millis(500));
    }
}

/// Returns the number of API requests to the stub, and the seconds from the first request to the last response.
fn requests_and_duration(stub: &Server) -> (usize, f64) {
    let response = fetch_text(stub.address, "/-/elapsed");
    let (requests, seconds) = response.split_once(' ').unwrap();
    (requests.parse().unwrap(), seconds.parse().unwrap())
}
