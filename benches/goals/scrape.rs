//! Goal 2: a plain scrape of a million series, compared with nginx that serves the same bytes from a file.
//!
//! The finished text from memory, sent by the same HTTP stack, shows what of it is sending: nginx lets the kernel send
//! the pages of its file, and does not copy them.

use std::net::SocketAddr;
use std::time::Duration;

use elements_exporter::exposition::Format;
use elements_exporter::scrape::ScrapeFilter;

use crate::client::{Encoding, crowd, scrape};
use crate::dense;
use crate::report::{goal, line, median, quantile, ratio};
use crate::server::{Nginx, Server};

const ROUNDS: usize = 15;
const SCRAPERS: usize = 32;
const CROWDS: usize = 5;

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
    println!("{} MB a scrape", text.len() / 1_000_000);
    drop(text);
    let servers = [
        ("nginx, the finished text from a file", nginx.address),
        ("the finished text from memory", finished.address),
        ("plain scrapes", ours.address),
    ];
    let one = measured(servers, "", ROUNDS, |address| {
        vec![scrape(address, "/metrics", Encoding::Identity).0]
    });
    let of_32 = measured(servers, " to 32 scrapers", CROWDS, |address| {
        crowd(SCRAPERS, 2, address, "/metrics", Encoding::Identity)
    });
    let slow = of_32.each_ref().map(|times| quantile(times, 0.99));
    let one = one.each_ref().map(|times| median(times));
    goal("a plain scrape, of nginx's", ratio(one[2], one[0]), 1.2);
    goal("p99 of 32 scrapers, of nginx's", ratio(slow[2], slow[0]), 1.5);
}

/// Measures the servers in turn. Prints the median and the p99 of each, and returns all times.
fn measured<const SERVERS: usize>(
    servers: [(&str, SocketAddr); SERVERS],
    how: &str,
    rounds: usize,
    measure: impl Fn(SocketAddr) -> Vec<Duration>,
) -> [Vec<Duration>; SERVERS] {
    let mut times = [const { Vec::new() }; SERVERS];
    for _ in 0..rounds {
        for ((_, address), times) in servers.iter().zip(&mut times) {
            times.extend(measure(*address));
        }
    }
    for part in [0.5, 0.99] {
        let first = quantile(&times[0], part);
        for ((name, _), times) in servers.iter().zip(&times) {
            let own = quantile(times, part);
            let name = format!("{name}{how}, p{}", 100.0 * part);
            line(&name, own, "nginx", ratio(own, first));
        }
    }
    times
}
