//! Goal 5: a cycle of all collectors with an API of a fixed latency during scrapes, and its cost.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Encoding, scrape, text};
use crate::program::Exporter;
use crate::report::{goal, processor_time, quantile};
use crate::server::Server;

pub const LATENCY: Duration = Duration::from_millis(100);
const CONCURRENCY: usize = 64;

/// Fewer customers to measure the cost, which is proportional to their number.
const COSTED_CUSTOMERS: usize = 2000;

/// Time after which the cycle counts as hanging.
const PATIENCE: Duration = Duration::from_secs(900);

pub fn run() {
    let customers: usize = std::env::var("BENCH_CUSTOMERS").map_or(10_000, |text| text.parse().unwrap());
    let stub = stub(customers, LATENCY);
    let exporter = Exporter::start(&stub.address.to_string(), CONCURRENCY);
    let empty = Server::start("empty");
    let done = AtomicBool::new(false);
    let one = format!("/metrics?customer_id={}", crate::dense::customer_id(7));
    let (whole, narrow) = thread::scope(|scope| {
        let whole = scope.spawn(|| every_second(&done, || scrape(exporter.address, "/metrics", Encoding::Gzip).0));
        let narrow = scope.spawn(|| {
            let mut times: [Vec<Duration>; 2] = Default::default();
            while !done.load(Ordering::Relaxed) {
                times[0].push(scrape(exporter.address, &one, Encoding::Identity).0);
                times[1].push(scrape(empty.address, "/metrics", Encoding::Identity).0);
                thread::sleep(Duration::from_millis(20));
            }
            times
        });
        wait_for_round(&exporter);
        done.store(true, Ordering::Relaxed);
        (whole.join().unwrap(), narrow.join().unwrap())
    });
    let (requests, took) = took(&stub);
    let floor = requests as f64 * LATENCY.as_secs_f64() / CONCURRENCY as f64;
    println!(
        "{customers} customers, {requests} requests of {LATENCY:?} by {CONCURRENCY} at once: {took:.1} s, {floor:.1} s if nothing took time"
    );
    println!(
        "a request took {:.1} ms as measured by the exporter",
        1e3 * exporter.mean_request()
    );
    let milliseconds = |time: Duration| 1e3 * time.as_secs_f64();
    let [narrow, nothing] = narrow;
    for (what, times) in [
        ("whole compressed scrapes", &whole),
        ("scrapes of one customer", &narrow),
        ("scrapes of an empty server", &nothing),
    ] {
        let (median, slow) = (quantile(times, 0.5), quantile(times, 0.99));
        println!(
            "meanwhile {} {what}: median {:.1} ms, p99 {:.1} ms",
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
    let before = processor_time(exporter.pid());
    wait_for_round(&exporter);
    let ours = processor_time(exporter.pid()) - before;
    drop(exporter);
    let (costed, _) = self::took(&stub);
    let bare = Command::new(std::env::current_exe().unwrap())
        .args(["bare", &stub.address.to_string(), "0", "8"])
        .output()
        .unwrap();
    let bare: f64 = String::from_utf8(bare.stdout).unwrap().trim().parse().unwrap();
    println!(
        "{costed} pages: {:.2} s of processor time, bare hyper and serde_json {bare:.2} s",
        ours.as_secs_f64()
    );
    goal("a cycle, of its requests' latency", took / floor, 1.1);
    goal("p99 of ?customer_id= during the cycle, in ms", milliseconds(p99), 5.0);
    goal(
        "processor time, of bare hyper and serde_json",
        ours.as_secs_f64() / bare,
        1.5,
    );
}

pub fn stub(customers: usize, latency: Duration) -> Server {
    let mut command = Command::new(std::env::current_exe().unwrap());
    Server::of(command.args(["stub", &customers.to_string(), &latency.as_millis().to_string()]))
}

fn stub_without_latency() -> Server {
    stub(COSTED_CUSTOMERS, Duration::ZERO)
}

fn every_second(done: &AtomicBool, mut work: impl FnMut() -> Duration) -> Vec<Duration> {
    let mut times = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let began = Instant::now();
        times.push(work());
        thread::sleep(Duration::from_secs(1).saturating_sub(began.elapsed()));
    }
    times
}

/// Waits until every collector has polled every customer.
pub fn wait_for_round(exporter: &Exporter) {
    let began = Instant::now();
    while !exporter.has_polled_everything() {
        assert!(began.elapsed() < PATIENCE, "the cycle does not end");
        thread::sleep(Duration::from_millis(500));
    }
}

/// Returns the number of requests to the stub, and the seconds from the first to the last.
fn took(stub: &Server) -> (usize, f64) {
    let response = text(stub.address, "/-/took");
    let (requests, seconds) = response.split_once(' ').unwrap();
    (requests.parse().unwrap(), seconds.parse().unwrap())
}
