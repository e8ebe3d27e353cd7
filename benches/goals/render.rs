//! Rendering a million series, compared with copying the rendered text and with other libraries.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use cpu_time::ThreadTime;
use elements_exporter::collector::{CollectorId, Target};
use elements_exporter::domain::{CustomerId, Timestamp};
use elements_exporter::exposition::{Format, frame_capacity};
use elements_exporter::scrape::{Part, Scrape, ScrapeFilter};
use stats_alloc::Region;

use crate::report::{median, print_goal, print_line, ratio};
use crate::{ALLOCATOR, dense, peers};

const REPETITIONS: usize = 15;

/// Number of repetitions for libraries that are many times slower. Fewer repetitions are enough for them.
const SLOW_REPETITIONS: usize = 3;

/// Returns the CPU time of work in one thread. Other processes affect CPU time less than they affect elapsed time.
fn cpu_time_of(work: impl FnOnce()) -> Duration {
    let start = ThreadTime::now();
    work();
    start.elapsed()
}

/// Renders the store frame by frame into the same buffer, and returns the total number of bytes.
fn render(scrape: &Scrape, filter: &ScrapeFilter, format: Format, frame: &mut Vec<u8>) -> usize {
    let mut stored = scrape.stored(filter, format, Timestamp::from(SystemTime::now()));
    let mut bytes = 0;
    loop {
        frame.clear();
        stored.fill(frame);
        if frame.is_empty() {
            return bytes;
        }
        bytes += black_box(&*frame).len();
    }
}

pub fn run() {
    let store = dense::store();
    let scrape = dense::scrape(&store);
    let everything = ScrapeFilter::default();
    let mut frame = Vec::with_capacity(frame_capacity());
    let mut text = Vec::new();
    let mut stored = scrape.stored(&everything, Format::Text, Timestamp::from(SystemTime::now()));
    loop {
        frame.clear();
        stored.fill(&mut frame);
        if frame.is_empty() {
            break;
        }
        text.extend_from_slice(&frame);
    }
    let series = text
        .split(|byte| *byte == b'\n')
        .filter(|line| line.starts_with(b"elements_job_"))
        .count();
    assert_eq!(series, dense::SERIES);
    println!(
        "{series} series, {:.1} bytes per line",
        text.len() as f64 / series as f64
    );

    let jobs_filter = ScrapeFilter {
        parts: Some(BTreeSet::from([Part::Collector(CollectorId::JOBS)])),
        ..ScrapeFilter::default()
    };
    let customer_filter = |customer| ScrapeFilter {
        customers: CustomerId::parse(&dense::customer_id(customer)).map(|id| BTreeSet::from([Target::Customer(id)])),
        ..ScrapeFilter::default()
    };
    let mut copy = vec![0_u8; text.len()];
    let mut times: [Vec<Duration>; 6] = Default::default();
    for _ in 0..REPETITIONS {
        times[0].push(cpu_time_of(|| black_box(&mut copy).copy_from_slice(black_box(&text))));
        times[1].push(cpu_time_of(|| {
            render(&scrape, &everything, Format::Text, &mut frame);
        }));
        times[2].push(cpu_time_of(|| {
            render(&scrape, &everything, Format::OpenMetrics, &mut frame);
        }));
        times[3].push(cpu_time_of(|| {
            render(&scrape, &jobs_filter, Format::Text, &mut frame);
        }));
        times[4].push(cpu_time_of(|| {
            for customer in 0..dense::CUSTOMERS {
                render(&scrape, &customer_filter(customer), Format::Text, &mut frame);
            }
        }));
        times[5].push(cpu_time_of(|| dense::publish(&store, 7)));
    }
    drop(copy);
    let [floor, ours, openmetrics, of_collector, one_by_one, publish] = times.each_ref().map(|times| median(times));
    print_line("memcpy of the text (the floor)", floor, "memcpy", 1.0);
    print_line("rendering, text 0.0.4", ours, "memcpy", ratio(ours, floor));
    print_line(
        "rendering, OpenMetrics",
        openmetrics,
        "memcpy",
        ratio(openmetrics, floor),
    );
    print_line(
        "rendering, ?collector=jobs",
        of_collector,
        "memcpy",
        ratio(of_collector, floor),
    );
    print_line(
        "rendering, ?customer_id= for each of 1000 customers",
        one_by_one,
        "memcpy",
        ratio(one_by_one, floor),
    );
    print_line(
        "publishing one customer with 1000 series",
        publish,
        "memcpy",
        ratio(publish, floor),
    );

    let region = Region::new(ALLOCATOR);
    render(&scrape, &everything, Format::Text, &mut frame);
    let allocations = region.change().allocations;
    println!("allocations while rendering a million series: {allocations}");

    let (constant, families) = (peers::const_gauges(), peers::families());
    let mut times: [Vec<Duration>; 3] = Default::default();
    let mut encoded = String::with_capacity(2 * text.len());
    for _ in 0..SLOW_REPETITIONS {
        times[0].push(cpu_time_of(|| {
            render(&scrape, &everything, Format::Text, &mut frame);
        }));
        for (registry, at) in [(&constant, 1), (&families, 2)] {
            encoded.clear();
            times[at].push(cpu_time_of(|| {
                prometheus_client::encoding::text::encode(&mut encoded, registry).unwrap()
            }));
        }
    }
    let [rendered_again, constant, families] = times.each_ref().map(|times| median(times));
    print_line(
        "prometheus-client, custom collector of const gauges",
        constant,
        "ours",
        ratio(constant, rendered_again),
    );
    print_line(
        "prometheus-client, Family",
        families,
        "ours",
        ratio(families, rendered_again),
    );
    if let Some(python) = python() {
        print_line(
            "Python client, a tenth of the series, times ten",
            python,
            "ours",
            ratio(python, rendered_again),
        );
    }
    print_goal("rendering, relative to memcpy", ratio(ours, floor), 2.5);
    print_goal("allocations while rendering", allocations as f64, 100.0);
}

/// Estimates the time that the Python client takes for all series from its time for a tenth of them. Returns `None` if
/// the client is not available.
fn python() -> Option<Duration> {
    let python = std::env::var_os("BENCH_PYTHON")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/python_client.py");
    let output = Command::new(python).arg(script).output().ok()?;
    let seconds: f64 = String::from_utf8(output.stdout).ok()?.trim().parse().ok()?;
    Some(Duration::from_secs_f64(10.0 * seconds))
}
