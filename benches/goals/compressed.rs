//! Compressed scrapes, compared with the reference stack and with a precompressed file served by nginx.

use std::io::Write as _;
use std::time::Duration;

use elements_exporter::exposition::Format;
use elements_exporter::scrape::ScrapeFilter;

use crate::client::{Encoding, scrape, scrape_concurrently};
use crate::dense;
use crate::report::{median, print_goal, print_line, ratio};
use crate::server::{Nginx, Server};

const REPETITIONS: usize = 15;
const SLOW_REPETITIONS: usize = 3;

/// One customer in a hundred changes. If each customer has a dozen modules that run daily, about this fraction of the
/// customers complete a run every minute.
const ONE_IN_HUNDRED: &str = "/publish/100";

/// Every series changes.
const ALL: &str = "/publish/1";

pub fn run() {
    let text: Vec<u8> = {
        let store = dense::store();
        let frames = dense::scrape(&store).frames(&ScrapeFilter::default(), Format::Text);
        frames.flatten().collect()
    };
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
    encoder.write_all(&text).unwrap();
    let compressed = encoder.finish().unwrap();
    drop(text);
    let Some(nginx) = Nginx::start(b"", &compressed) else {
        panic!("BENCH_NGINX is not set; benches/run sets it");
    };
    let ours = Server::start("ours");
    let (_, bytes) = scrape(ours.address, "/metrics", Encoding::Gzip);
    println!(
        "{:.1} MB compressed, {:.1} % more than as a single stream",
        bytes as f64 / 1e6,
        100.0 * (bytes as f64 / compressed.len() as f64 - 1.0)
    );
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..REPETITIONS {
        scrape(ours.address, ONE_IN_HUNDRED, Encoding::Identity);
        times[0].push(scrape(ours.address, "/metrics", Encoding::Gzip).0);
        times[1].push(scrape(nginx.address, "/metrics", Encoding::Gzip).0);
        times[2].push(scrape(ours.address, "/metrics", Encoding::Gzip).0);
        scrape(ours.address, ALL, Encoding::Identity);
        times[3].push(scrape(ours.address, "/metrics", Encoding::Gzip).0);
    }
    let [_, theirs, cached, fresh] = times.each_ref().map(|times| median(times));
    scrape(ours.address, ALL, Encoding::Identity);
    let concurrent = median(&scrape_concurrently(8, 1, ours.address, "/metrics", Encoding::Gzip));
    let reference = Server::start("reference");
    let mut slow: [Vec<Duration>; 3] = Default::default();
    for _ in 0..SLOW_REPETITIONS {
        for (at, change) in [(0, ONE_IN_HUNDRED), (1, ALL)] {
            scrape(ours.address, change, Encoding::Identity);
            slow[at].push(scrape(ours.address, "/metrics", Encoding::Gzip).0);
        }
        slow[2].push(scrape(reference.address, "/metrics", Encoding::Gzip).0);
    }
    let [some, all, reference] = slow.each_ref().map(|times| median(times));
    print_line("Family behind CompressionLayer", reference, "the reference stack", 1.0);
    for (name, time) in [
        ("a fresh compressed scrape, one customer in 100 changed", some),
        ("a fresh compressed scrape, every series changed", all),
    ] {
        print_line(name, time, "the reference stack", ratio(time, reference));
    }
    print_line(
        "8 of these scrapes, sent concurrently",
        concurrent,
        "one such scrape",
        ratio(concurrent, fresh),
    );
    print_line("nginx, precompressed text from a file", theirs, "nginx", 1.0);
    print_line("a cached compressed scrape", cached, "nginx", ratio(cached, theirs));
    print_goal(
        "a fresh compressed scrape, relative to the reference stack",
        ratio(some, reference),
        1.0 / 15.0,
    );
    print_goal(
        "a fresh compressed scrape with every series changed, relative to the reference stack",
        ratio(all, reference),
        1.0 / 15.0,
    );
    print_goal(
        "a cached compressed scrape, relative to nginx",
        ratio(cached, theirs),
        1.1,
    );
}
