//! Goal 2: a plain scrape of a million series, compared with nginx that serves the same bytes from a file.

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
    let ours = Server::start("ours");
    println!("{} MB a scrape", text.len() / 1_000_000);
    drop(text);
    let mut times: [Vec<Duration>; 2] = Default::default();
    for _ in 0..ROUNDS {
        times[0].push(scrape(nginx.address, "/metrics", Encoding::Identity).0);
        times[1].push(scrape(ours.address, "/metrics", Encoding::Identity).0);
    }
    let [theirs, own] = times.each_ref().map(|times| median(times));
    line("nginx, the finished text from a file", theirs, "nginx", 1.0);
    line("a plain scrape", own, "nginx", ratio(own, theirs));
    let mut crowds: [Vec<Duration>; 2] = Default::default();
    for _ in 0..CROWDS {
        crowds[0].extend(crowd(SCRAPERS, 2, nginx.address, "/metrics", Encoding::Identity));
        crowds[1].extend(crowd(SCRAPERS, 2, ours.address, "/metrics", Encoding::Identity));
    }
    for part in [0.5, 0.99] {
        let [theirs, own] = crowds.each_ref().map(|times| quantile(times, part));
        let percent = 100.0 * part;
        line(
            &format!("nginx, p{percent} of {SCRAPERS} scrapers"),
            theirs,
            "nginx",
            1.0,
        );
        line(
            &format!("plain scrapes, p{percent} of {SCRAPERS} scrapers"),
            own,
            "nginx",
            ratio(own, theirs),
        );
    }
    let [their_slow, own_slow] = crowds.each_ref().map(|times| quantile(times, 0.99));
    goal("a plain scrape, of nginx's", ratio(own, theirs), 1.2);
    goal("p99 of 32 scrapers, of nginx's", ratio(own_slow, their_slow), 1.5);
}
