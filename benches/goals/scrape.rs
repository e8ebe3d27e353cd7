//! An uncompressed scrape of a million series, compared with nginx serving the same text from a file.
//!
//! Sending rendered text from memory through the same HTTP stack shows the cost of sending alone. For nginx, the kernel
//! sends the file without copying it to user space.

use std::net::SocketAddr;
use std::time::Duration;

use elements_exporter::exposition::Format;
use elements_exporter::scrape::ScrapeFilter;

use crate::client::{Encoding, scrape, scrape_concurrently};
use crate::dense;
use crate::report::{median, print_goal, print_line, quantile, ratio};
use crate::server::{Nginx, Server};

const REPETITIONS: usize = 15;
const SCRAPERS: usize = 32;
const CONCURRENT_REPETITIONS: usize = 5;

pub fn run() {
    let text: Vec<u8> = {
        let store = dense::store();
        let frames = dense::scrape(&store).frames(&ScrapeFilter::default(), Format::Text);
        frames.flatten().collect()
    };
    let Some(nginx) = Nginx::start(&text, b"") else {
        panic!("BENCH_NGINX is not set; benches/run sets it");
    };
    let (finished, ours) = (Server::start("finished"), Server::start("ours"));
    println!("{} MB per scrape", text.len() / 1_000_000);
    drop(text);
    let servers = [
        ("nginx, rendered text from a file", nginx.address),
        ("rendered text from memory", finished.address),
        ("plain scrapes", ours.address),
    ];
    let one = measure_in_turn(servers, "", REPETITIONS, |address| {
        vec![scrape(address, "/metrics", Encoding::Identity).0]
    });
    let concurrent = measure_in_turn(servers, " to 32 scrapers", CONCURRENT_REPETITIONS, |address| {
        scrape_concurrently(SCRAPERS, 2, address, "/metrics", Encoding::Identity)
    });
    let slow = concurrent.each_ref().map(|times| quantile(times, 0.99));
    let one = one.each_ref().map(|times| median(times));
    print_goal("an uncompressed scrape, relative to nginx", ratio(one[2], one[0]), 1.2);
    print_goal(
        "p99 of 32 concurrent scrapes, relative to nginx",
        ratio(slow[2], slow[0]),
        1.5,
    );
}

/// Measures the servers in turn. Prints the median and the 99th percentile of each, and returns all times.
fn measure_in_turn<const SERVERS: usize>(
    servers: [(&str, SocketAddr); SERVERS],
    suffix: &str,
    repetitions: usize,
    measure: impl Fn(SocketAddr) -> Vec<Duration>,
) -> [Vec<Duration>; SERVERS] {
    let mut times = [const { Vec::new() }; SERVERS];
    for _ in 0..repetitions {
        for ((_, address), times) in servers.iter().zip(&mut times) {
            times.extend(measure(*address));
        }
    }
    for part in [0.5, 0.99] {
        let first = quantile(&times[0], part);
        for ((name, _), times) in servers.iter().zip(&times) {
            let value = quantile(times, part);
            let name = format!("{name}{suffix}, p{}", 100.0 * part);
            print_line(&name, value, "nginx", ratio(value, first));
        }
    }
    times
}
