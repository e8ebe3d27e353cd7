//! Goal 3: compressed scrapes, compared with the usual stack and with nginx that serves the finished `.gz`.

use std::io::Write as _;
use std::time::Duration;

use elements_exporter::exposition::Format;
use elements_exporter::scrape::ScrapeFilter;

use crate::client::{Encoding, crowd, scrape};
use crate::dense;
use crate::report::{goal, line, median, ratio};
use crate::server::{Nginx, Server};

const ROUNDS: usize = 15;
const SLOW_ROUNDS: usize = 3;

/// One customer in a hundred changes: about as many as have a run that ends within a minute, if each has a dozen
/// modules that run once a day.
const SOME: &str = "/publish/100";

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
    let finished = encoder.finish().unwrap();
    drop(text);
    let Some(nginx) = Nginx::start(b"", &finished) else {
        panic!("BENCH_NGINX is not set; benches/run sets it");
    };
    let ours = Server::start("ours");
    let (_, bytes) = scrape(ours.address, "/metrics", Encoding::Gzip);
    println!(
        "{:.1} MB compressed, {:.1} % more than in one piece",
        bytes as f64 / 1e6,
        100.0 * (bytes as f64 / finished.len() as f64 - 1.0)
    );
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..ROUNDS {
        scrape(ours.address, SOME, Encoding::Identity);
        times[0].push(scrape(ours.address, "/metrics", Encoding::Gzip).0);
        times[1].push(scrape(nginx.address, "/metrics", Encoding::Gzip).0);
        times[2].push(scrape(ours.address, "/metrics", Encoding::Gzip).0);
        scrape(ours.address, ALL, Encoding::Identity);
        times[3].push(scrape(ours.address, "/metrics", Encoding::Gzip).0);
    }
    let [_, theirs, cached, fresh] = times.each_ref().map(|times| median(times));
    scrape(ours.address, ALL, Encoding::Identity);
    let many = median(&crowd(8, 1, ours.address, "/metrics", Encoding::Gzip));
    let usual = Server::start("usual");
    let mut slow: [Vec<Duration>; 3] = Default::default();
    for _ in 0..SLOW_ROUNDS {
        for (at, change) in [(0, SOME), (1, ALL)] {
            scrape(ours.address, change, Encoding::Identity);
            slow[at].push(scrape(ours.address, "/metrics", Encoding::Gzip).0);
        }
        slow[2].push(scrape(usual.address, "/metrics", Encoding::Gzip).0);
    }
    let [some, all, usual] = slow.each_ref().map(|times| median(times));
    line("Family behind CompressionLayer", usual, "the usual stack", 1.0);
    for (what, time) in [
        ("a fresh compressed scrape, one customer in 100 changed", some),
        ("a fresh compressed scrape, every series changed", all),
    ] {
        line(what, time, "the usual stack", ratio(time, usual));
    }
    line("8 of these concurrently", many, "one of these", ratio(many, fresh));
    line("nginx, the finished .gz from a file", theirs, "nginx", 1.0);
    line("a cached compressed scrape", cached, "nginx", ratio(cached, theirs));
    goal(
        "a fresh compressed scrape, of the usual stack's",
        ratio(some, usual),
        1.0 / 15.0,
    );
    goal("the same where every series changed", ratio(all, usual), 1.0 / 15.0);
    goal("a cached compressed scrape, of nginx's", ratio(cached, theirs), 1.1);
}
